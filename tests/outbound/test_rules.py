"""Where a request of the gateway's may go."""

from __future__ import annotations

import pytest

from ds_core.server.errors import ProtocolError
from ds_trio_server.outbound import Rules

PUBLIC = ["8.8.8.8", "203.0.114.1", "1.1.1.1", "2606:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8"]
OTHERS = [
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.255", "169.254.169.254",
    "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1",
    "0.1.2.3", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::2", "::10.0.0.1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a00:1",
    "64:ff9b::808:808", "2002:808:808::1",
    "64:ff9b:1::a00:1", "100::1", "2001::1", "2001:db8::1", "2002:a00:1::1", "2002:7f00:1::", "3fff::1", "5f00::1",
    "fc00::1",
    "fd12::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "no address",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_the_internet_may_be_asked(address: str) -> None:
    assert Rules().objection("ops.example", address) is None


@pytest.mark.parametrize("address", OTHERS)
def test_nothing_else_may(address: str) -> None:
    assert Rules().objection("ops.example", address)


def test_this_machine_may_be_asked_by_its_own_names_and_no_others() -> None:
    rules = Rules()
    for host in ("localhost", "127.0.0.1", "127.9.9.9"):
        assert rules.objection(host, "127.0.0.1") is None
        assert rules.objection(host, "10.0.0.1") and rules.objection(host, "8.8.8.8")
    assert rules.objection("localhost", "::1") is None
    for host in ("ops.example", "localhost.ops.example", "128.0.0.1"):
        assert rules.objection(host, "127.0.0.1")


def test_what_the_operator_allows() -> None:
    rules = Rules(["10.1.0.0/16", "fd00::/8", "192.168.5.7", "Ops.Local", "*.plant.example"])
    for address in ("10.1.2.3", "fd12::1", "192.168.5.7", "::ffff:10.1.2.3"):
        assert rules.objection("any.example", address) is None
    for address in ("10.2.0.1", "192.168.5.8", "127.0.0.1"):
        assert rules.objection("any.example", address)
        assert rules.objection("ops.local", address) is None and rules.objection("a.b.plant.example", address) is None
    assert rules.objection("plant.example", "10.2.0.1") and rules.objection("xplant.example", "10.2.0.1")
    for url in ("http://10.1.2.3/x", "http://ops.local:8080/", "https://[fd00::1]/", "http://a.plant.example/",
                "https://[2606:4700::1111]/", "https://ops.example/", "http://127.0.0.1:5/"):  # fmt: skip
        assert rules.check(url) == url
    for url in ("http://10.2.2.3/x", "http://ops.example/", "https://[fe80::1]/", "http://[2606:4700::1111]/",
                "https://[::1]/"):  # fmt: skip
        with pytest.raises(ProtocolError):
            rules.check(url)
    for wrong in ("10.1.0.0/33", "10.1.0.1/16", "a b", "", "*.", "fd00::/x", "http://x", "a/b"):
        with pytest.raises(ValueError, match=r"."):
            Rules([wrong])
