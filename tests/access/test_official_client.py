"""The official Python client comes in as its documentation says: with a token, over TLS, and by a link."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme
from durable_streams import DurableStream, DurableStreamError, stream as read

from ds_trio_server.access import file as access_file
from tests.access.conftest import Keys
from tests.tools import serve

SECONDS = 15


@pytest.fixture
def secure(keys: Keys, tmp_path: Path) -> Iterator[tuple[serve.Server, httpx.Client, dict[str, str]]]:
    """A server with both, a client that trusts it, and the headers of one who may do everything below `a`."""
    headers = {"Authorization": "Bearer " + keys.token("a", read=["a/*"], write=["a/*"], create=["a/*"])}
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    issued = authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA)
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    doors = ("--access", keys.file, "--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem")
    with serve.start("--memory", *doors) as server, httpx.Client(verify=context) as client:
        yield server, client, headers


def test_a_token_over_tls(secure: tuple[serve.Server, httpx.Client, dict[str, str]]) -> None:
    server, client, headers = secure
    url = server.url + "/a/b"
    with DurableStream.create(
        url, content_type="application/json", headers=headers, client=client, batching=False
    ) as handle:
        handle.append({"n": 1})
        with read(url, live=False, headers=headers, client=client) as res:
            assert res.read_json() == [{"n": 1}]
        with read(url, live="sse", offset="-1", headers=headers, client=client, timeout=SECONDS) as res:
            found = res.iter_json()
            assert next(found) == {"n": 1}
            handle.append({"n": 2})
            assert next(found) == {"n": 2}
    for wrong in ({}, {"Authorization": "Bearer ds_nobody"}):
        with pytest.raises(DurableStreamError) as refused:
            read(url, live=False, headers=wrong, client=client)
        assert refused.value.status == 401
    with pytest.raises(DurableStreamError) as refused:
        read(server.url + "/b/b", live=False, headers=headers, client=client)
    assert refused.value.status == 403


def test_a_link(secure: tuple[serve.Server, httpx.Client, dict[str, str]], keys: Keys) -> None:
    server, client, headers = secure
    url = server.url + "/a/b"
    with DurableStream.create(
        url, content_type="text/plain", body="one", headers=headers, client=client, batching=False
    ) as handle:
        link = f"{url}?{access_file.link(keys.file, 'a/b', 4000000000)}"
        with read(link, live=False, client=client) as res:
            assert res.read_text() == "one"
        with read(link, live="long-poll", offset="-1", client=client, timeout=SECONDS) as res:
            found = res.iter_text()
            assert next(found) == "one"
            handle.append(" two")
            assert next(found) == " two"
    with DurableStream.connect(link, client=client, batching=False) as handle, pytest.raises(DurableStreamError):
        handle.append("three")
