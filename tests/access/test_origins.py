"""Without access control: which names in Host and which web pages a server answers to, and which it doesn't."""

from __future__ import annotations

import http.client
import itertools
import subprocess
import timeit
from collections.abc import AsyncIterator

import pytest

from ds_core.server.errors import ProtocolError
from ds_trio_server.access import origins
from ds_trio_server.access.origins import ANYWHERE, CERTIFIED, LOOPBACK, NETWORK, Origins
from tests.server.site import ROOT, Site, running
from tests.tools import serve

OURS = ["localhost", "LOCALHOST:4437", "localhost.", "app.localhost:80", "127.0.0.1:4437", "127.8.8.8", "[::1]:4437",
        "[::ffff:127.0.0.1]"]  # fmt: skip
NEIGHBOURS = ["192.168.1.10:4437", "203.0.113.9", "[2001:db8::1]:4437", "0.0.0.0:4437", "gateway", "gw.local:4437",
              "gw.home.arpa", "gw.lan", "streams.default.svc.cluster.local"]  # fmt: skip
STRANGERS = ["evil.test.example", "evil.com:4437", "localhost.evil.com", "127.0.0.1.evil.com", "local.evil.com",
             "notlocalhost.com", "127.0.0.1.nip.io"]  # fmt: skip
ODD = ["a b", "user@localhost", "localhost/x", 'a"b', "localhost:x", "[::1", "é"]


def status(policy: Origins, **headers: str) -> int:
    """What a request is refused with, 0 when it may go on; the same when it comes again."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    found = set()
    for _ in range(2):
        try:
            policy.check(fields)
            found.add(0)
        except ProtocolError as error:
            found.add(error.status)
    assert len(found) == 1, "an answer must not depend on what was asked before"
    return found.pop()


@pytest.mark.parametrize(
    ("reach", "served", "refused"),
    [(LOOPBACK, OURS, NEIGHBOURS + STRANGERS), (NETWORK, OURS + NEIGHBOURS, STRANGERS),
     (CERTIFIED, OURS + NEIGHBOURS + STRANGERS, []), (ANYWHERE, OURS + NEIGHBOURS + STRANGERS, [])],
)  # fmt: skip
def test_names_in_host(reach: str, served: list[str], refused: list[str]) -> None:
    policy = Origins(reach)
    for host in served:
        assert status(policy, host=host) == 0, host
    for host in refused:
        assert status(policy, host=host) == 421, host
    for host in ODD:
        assert status(policy, host=host) == 400, host
    assert status(policy) == status(policy, host="") == 0, "no browser sends a request without a host"


def test_a_name_that_the_operator_gives_is_served() -> None:
    policy = Origins(LOOPBACK, hosts=["gateway.example"])
    assert status(policy, host="Gateway.Example:443") == status(policy, host="gateway.example.") == 0
    assert status(policy, host="other.example") == status(policy, host="x.gateway.example") == 421
    assert status(Origins(LOOPBACK, hosts=["*"]), host="evil.com") == 0


PAGES = ["http://localhost:3000", "https://localhost", "http://127.0.0.1:8080", "http://[::1]:5173", "http://app.localhost"]
FOREIGN = [
    *("https://evil.com", "http://localhost.evil.com", "http://evil.com:4437", "null", "file://", "http://192.168.1.10"),
    *("chrome-extension://abc", "https://127.0.0.1.nip.io", "localhost", "", "http://localhost@evil.com"),
]


@pytest.mark.parametrize("reach", [LOOPBACK, NETWORK, CERTIFIED])
def test_pages_of_this_machine_may_and_others_may_not(reach: str) -> None:
    policy = Origins(reach)
    for page in PAGES:
        assert status(policy, host="localhost:4437", origin=page) == 0, page
    for page in FOREIGN:
        assert status(policy, host="localhost:4437", origin=page) == 403, page


def test_a_page_that_comes_from_the_server_s_own_name_may() -> None:
    policy = Origins(NETWORK, hosts=["gateway.example"])
    for host in ("192.168.1.10:4437", "gateway.local", "gateway.example"):
        assert status(policy, host=host, origin=f"http://{host}") == 0
        assert status(policy, host="localhost", origin=f"http://{host}") == 403
    assert status(policy, host="evil.com", origin="http://evil.com") == 421, "that is what rebinding looks like"


def test_pages_that_the_operator_names_may() -> None:
    policy = Origins(LOOPBACK, cors=["https://dashboard.example", "null"])
    assert status(policy, host="localhost", origin="https://dashboard.example") == 0
    assert status(policy, host="localhost", origin="null") == 0
    for text, page in (
        ("https://a.example:443", "https://a.example"), ("http://a.example:80", "http://a.example"),
        ("https://[2001:db8::1]:443", "https://[2001:db8::1]"), ("http://a.example:443",) * 2,
    ):  # fmt: skip
        assert origins.origin(text) == page  # as browsers write it
    for page in ("http://dashboard.example", "https://dashboard.example:8443", "https://x.dashboard.example"):
        assert status(policy, host="localhost", origin=page) == 403
    everybody = Origins(LOOPBACK, cors=["*"])
    assert status(everybody, host="localhost", origin="https://evil.com") == 0
    assert status(everybody, host="evil.com", origin="https://evil.com") == 421


def test_what_a_foreign_page_embeds_is_refused_and_a_link_is_followed() -> None:
    policy = Origins(LOOPBACK)
    embedded = {"host": "localhost", "sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"}
    assert status(policy, **embedded) == 403
    assert status(policy, **embedded, referer="https://evil.com/page?x=http://localhost/") == 403
    assert status(policy, **embedded, referer="http://127.0.0.1:3000/") == 0
    assert status(policy, **{**embedded, "sec_fetch_mode": "navigate"}) == 0
    assert status(policy, **{**embedded, "sec_fetch_site": "same-site"}) == 0


def test_with_access_control_a_page_has_to_bring_a_token_and_may_come_from_anywhere() -> None:
    for page in PAGES + FOREIGN:
        assert status(Origins(), host="gateway.example", origin=page) == 0


def test_what_is_remembered_is_bounded_and_cheap() -> None:
    policy = Origins(LOOPBACK)
    for number in range(2000):
        policy.check({"host": f"localhost:{number}", "origin": f"http://localhost:{number}"})
        policy.check({"host": f"x{number}.localhost"})
        with pytest.raises(ProtocolError):
            policy.check({"host": f"evil{number}.com"})
    assert len(policy._known_hosts) <= 256 and len(policy._known_origins) <= 256
    headers = {"host": "localhost:4437"}
    each = min(timeit.repeat(lambda: policy.check(headers), number=10_000, repeat=5)) / 10_000
    assert each < 20e-6


@pytest.mark.parametrize("text", ["gateway.example", "GATEWAY.example.", "10.0.0.1", "[::1]", "*"])
def test_names_as_operators_give_them(text: str) -> None:
    assert origins.host_name(text) in ("gateway.example", "10.0.0.1", "::1", "*")


@pytest.mark.parametrize("text", ["", "gateway:80", "http://gateway", "a b", "*.example"])
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="without a port, as in"):
        origins.host_name(text)


@pytest.mark.parametrize("text", ["", "dashboard.example", "https://", "https://a/b", "https://a/", "https://u@a", "://a"])
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="give scheme and host"):
        origins.origin(text)


# Over real sockets


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with running(origins=Origins(LOOPBACK, hosts=["test"], cors=["https://dashboard.example"])) as site:
        yield site


METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")
# A field that is repeated is read by h11, and by a task of its own.
WAYS: list[dict[str, str]] = [{}, {"x": "1\r\nx: 2"}]


@pytest.mark.parametrize("how", WAYS, ids=["plain", "h11"])
@pytest.mark.parametrize("method", METHODS)
async def test_every_kind_of_request_is_refused_to_a_foreign_page(site: Site, method: str, how: dict[str, str]) -> None:
    await site.create("s", body=b"secret")
    client = await site.connect()
    body = b"x" if method == "POST" else None
    for _ in range(2):
        for page in ("https://evil.com", "http://localhost:3000", "https://dashboard.example"):
            answer = await client.ask(method, ROOT + "s", body, content_type="text/plain", origin=page, **how)
            if page != "https://evil.com" or method == "OPTIONS":
                assert answer.status < 300 or (method, answer.status) in (("DELETE", 404), ("PUT", 409)), answer
            else:
                assert answer.status == 403 and b"secret" not in answer.body
                assert method == "HEAD" or answer.code == "UNKNOWN_ORIGIN"
    if method in ("POST", "GET"):
        assert (await site.ask("GET", ROOT + "s")).body == (b"secretxxxx" if method == "POST" else b"secret")


@pytest.mark.parametrize("how", WAYS, ids=["plain", "h11"])
async def test_host_is_looked_at_however_a_request_is_read(site: Site, how: dict[str, str]) -> None:
    client = await site.connect()
    more = "".join(f"{name}: {value}\r\n" for name, value in how.items())
    for host, expected in (("localhost", 404), ("evil.com", 421), ("test", 404), ("te st", 400)):
        await client.send(f"GET {ROOT}s HTTP/1.1\r\nHost: {host}\r\n{more}\r\n")
        assert (await client.answer()).status == expected, host


async def test_an_absolute_target_goes_before_host_in_a_location(site: Site) -> None:
    """RFC 9112 section 3.2.2. Who may ask is decided by Host: no page makes a browser send such a target."""
    client = await site.connect()
    await client.send(f"PUT http://gateway.example:1{ROOT}a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
    answer = await client.answer()
    assert (answer.status, answer.headers["location"]) == (201, f"http://gateway.example:1{ROOT}a")
    await client.send(f"GET http://localhost{ROOT}a HTTP/1.1\r\nHost: evil.com\r\n\r\n")
    assert (await client.answer()).status == 421
    for method in ("GET", "PUT", "POST", "DELETE"):
        for wrong in ("me@localhost", "", "a:x", "[::1"):
            start = f"{method} http://{wrong}{ROOT}a HTTP/1.1"
            await client.send(f"{start}\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
            assert (await client.answer()).status == 400, (method, wrong)


async def test_endpoints_answer_to_the_same_names(site: Site) -> None:
    for path, host in itertools.product(("/healthz", "/readyz"), ("localhost", "evil.com")):
        client = await site.connect()
        await client.send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
        assert (await client.answer()).status == (200 if host == "localhost" else 421)


def asked(server: serve.Server, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", "/v1/stream/none", headers=headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def test_a_server_on_loopback_is_for_this_machine_and_says_so() -> None:
    options = ("--allow-host", "gateway.example", "--cors", "https://dashboard.example")
    with serve.start("--memory", *options) as server:
        assert asked(server) == asked(server, Host="gateway.example") == 404
        assert asked(server, Origin="http://localhost:3000") == asked(server, Origin="https://dashboard.example") == 404
        assert asked(server, Host="evil.com") == asked(server, Host="192.168.1.10") == 421
        assert asked(server, Origin="https://evil.com") == 403
        assert "web pages of this machine and of https://dashboard.example" in server.output


def test_what_pages_may_never_puts_access_control_aside() -> None:
    environment = serve.environment({"DS_ACCESS": "access.json"})
    for option in ("--cors=https://dashboard.example", "--allow-host=gateway.example"):
        argv = [*serve.command(), "serve", "--memory", "--port", "0", option]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, env=environment)
        assert done.returncode == 2 and "for a server without --access" in done.stderr


def test_an_open_server_serves_addresses_and_private_names() -> None:
    with serve.start("--memory", "--insecure-open", host="0.0.0.0") as server:
        for host in ("192.168.1.10:4437", "gateway.local", "gateway"):
            assert asked(server, Host=host) == 404
        assert asked(server, Host="evil.com") == 421
        assert asked(server, Origin="https://evil.com") == 403


@pytest.mark.parametrize(("policy", "expected"), [
    (Origins(LOOPBACK, hosts=["test"]), ("Origin", "Accept-Encoding, Origin")),
    (Origins(LOOPBACK, hosts=["test"], cors=["*"]), (None, "Accept-Encoding")),
    (Origins(ANYWHERE), (None, "Accept-Encoding")),
])  # fmt: skip
async def test_no_cache_may_show_a_page_what_the_server_would_refuse_it(
    policy: Origins, expected: tuple[str | None, str]
) -> None:
    async with running(origins=policy) as site:
        for size, vary in zip((1, 2000), expected, strict=True):
            await site.ask("PUT", f"/v1/stream/{size}", b"x" * size, content_type="text/plain")
            for query in ("", "?offset=-1&live=long-poll"):
                answer = await site.ask("GET", f"/v1/stream/{size}{query}")
                assert (answer.status, answer.header("vary")) == (200, vary)
