"""TLS over real sockets: the same answers, deadlines for handshakes, clean ends, certificates that mean names."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from trio.testing import MockClock, wait_all_tasks_blocked

from ds_trio_server.access.file import Access
from ds_trio_server.http import tls
from ds_trio_server.http.tls import TLS, TLSFileError
from tests.access.conftest import Keys
from tests.server.site import ROOT, Client, Site, request, running


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.fixture(scope="module")
def clients() -> trustme.CA:
    """Signs clients' certificates, and not the server's."""
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


class Files:
    def __init__(self, folder: Path) -> None:
        self.certificate = folder / "cert.pem"
        self.key = folder / "key.pem"
        self.clients = folder / "clients.pem"

    def write(self, authority: trustme.CA, name: str = "127.0.0.1") -> None:
        issued = authority.issue_cert(name, key_type=trustme.KeyType.ECDSA)
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(self.key))


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA, clients: trustme.CA) -> Files:
    files = Files(tmp_path)
    files.write(authority)
    clients.cert_pem.write_to_path(str(files.clients))
    return files


class Secure(Client):
    """A client's end of a TLS connection."""

    def close(self) -> None:
        sock = self.stream.transport_stream.socket  # type: ignore[attr-defined]
        if sock.fileno() >= 0:
            trio.lowlevel.notify_closing(sock)
            sock.close()


def trusting(authority: trustme.CA, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if certificate is not None:
        certificate.configure_cert(context)
    return context


async def connect(site: Site, context: ssl.SSLContext) -> Secure:
    stream = await trio.open_tcp_stream("127.0.0.1", site.port)
    secure = trio.SSLStream(stream, context, server_hostname="127.0.0.1", https_compatible=False)
    client = Secure(secure)  # type: ignore[arg-type]
    site._clients.append(client)
    await secure.do_handshake()
    return client


@asynccontextmanager
async def serving(files: Files, **settings: Any) -> AsyncIterator[Site]:
    async with running(tls=TLS(files.certificate, files.key), **settings) as site:
        yield site


async def test_requests_of_every_kind(files: Files, authority: trustme.CA) -> None:
    async with serving(files) as site:
        client = await connect(site, trusting(authority))
        created = await client.ask("PUT", ROOT + "a", b"one", content_type="text/plain")
        assert created.status == 201 and created.headers["location"] == f"https://test{ROOT}a"
        large = bytes(range(256)) * 8192
        assert (await client.ask("POST", ROOT + "a", large, content_type="text/plain")).status == 204
        assert (await client.ask("GET", ROOT + "a")).body[:3] == b"one"
        whole = b"one" + large
        for offset in await _offsets(client):
            part = (await client.ask("GET", f"{ROOT}a?offset={offset}")).body
            assert whole.startswith(part)
            whole = whole[len(part) :]
        assert whole == b""
        await client.send(request("GET", ROOT + "a?offset=now") * 3)
        assert [(await client.answer()).status for _ in range(3)] == [200] * 3
        assert (await client.ask("GET", "/healthz")).body == b"ok\n"


async def _offsets(client: Client) -> list[str]:
    offsets = ["-1"]
    while True:
        answer = await client.ask("GET", f"{ROOT}a?offset={offsets[-1]}")
        if answer.header("stream-up-to-date"):
            return offsets
        offsets.append(answer.offset)


async def test_live_readers_get_what_is_appended(files: Files, authority: trustme.CA) -> None:
    context = trusting(authority)
    async with serving(files) as site:
        writer = await connect(site, context)
        await writer.ask("PUT", ROOT + "a", content_type="text/plain")
        reader, poller = await connect(site, context), await connect(site, context)
        await reader.send(request("GET", ROOT + "a?offset=-1&live=sse"))
        events = await reader.events()
        assert (await events.control())["upToDate"]
        await poller.send(request("GET", ROOT + "a?offset=now&live=long-poll"))
        for number in range(3):
            await trio.testing.wait_all_tasks_blocked(0.01)
            data = b"%d" % number * 40_000
            await writer.ask("POST", ROOT + "a", data, content_type="text/plain")
            assert await events.data() == data
            await events.control()
            assert (await poller.answer()).body == data
            await poller.send(request("GET", ROOT + "a?offset=now&live=long-poll"))
        await writer.ask("POST", ROOT + "a", stream_closed="true")
        assert (await events.control())["streamClosed"]
        await events.finished()
        await reader.ended()
        assert (await poller.answer()).status == 204


async def test_a_reader_behind_gets_everything(files: Files, authority: trustme.CA) -> None:
    context = trusting(authority)
    async with serving(files) as site:
        writer, reader = await connect(site, context), await connect(site, context)
        await writer.ask("PUT", ROOT + "a", content_type="text/plain")
        await reader.send(request("GET", ROOT + "a?offset=-1&live=sse"))
        sent = b""
        for number in range(200):
            data = b"%04d" % number * 5000
            await writer.ask("POST", ROOT + "a", data, content_type="text/plain")
            sent += data
        await writer.ask("POST", ROOT + "a", stream_closed="true")
        events = await reader.events()
        got = b""
        while (found := await events.next()) is not None:
            got += found[1] if found[0] == "data" else b""
        assert got == sent


async def test_the_end_is_told_from_a_cut(files: Files, authority: trustme.CA) -> None:
    """A close_notify ends what has no length: an HTTP/1.0 answer is whole or visibly not."""
    async with serving(files) as site:
        client = await connect(site, trusting(authority))
        assert (await client.ask("PUT", ROOT + "a", b"x" * 1000, content_type="text/plain")).status == 201
        await client.send(f"GET {ROOT}a?offset=-1&live=sse HTTP/1.0\r\n\r\n")
        while await client.more():  # raises when the connection ends without one
            if b"upToDate" in client.buffer:
                site.server.stop()
        assert b"upToDate" in client.buffer


async def test_a_slow_body_over_tls_is_408(files: Files, authority: trustme.CA, autojump_clock: MockClock) -> None:
    async with serving(files) as site:
        client = await connect(site, trusting(authority))
        await client.send(f"POST {ROOT}a HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf")
        assert (await client.answer()).status == 408
        await client.ended()


async def test_an_idle_connection_is_closed(files: Files, authority: trustme.CA, autojump_clock: MockClock) -> None:
    async with serving(files) as site:
        client = await connect(site, trusting(authority))
        await client.ended()


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01"])
async def test_a_handshake_has_a_deadline(files: Files, said: bytes, autojump_clock: MockClock) -> None:
    async with serving(files) as site:
        client = await site.connect()
        await client.send(said)
        started = trio.current_time()
        await client.ended()
        assert 9 < trio.current_time() - started < 12
        assert site.server.app.stats.handshakes_failed == 1


def hello(authority: trustme.CA) -> bytes:
    """What a client says first."""
    wanted = ssl.MemoryBIO()
    client = trusting(authority).wrap_bio(ssl.MemoryBIO(), wanted, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return wanted.read()


@pytest.mark.parametrize("same_address", [True, False])
async def test_stalled_handshakes_keep_nobody_out(
    files: Files, authority: trustme.CA, mock_clock: MockClock, same_address: bool
) -> None:
    async with running(tls=TLS(files.certificate, files.key, handshakes=4)) as site:
        half = [await site.connect() for _ in range(20)]
        for number, client in enumerate(half):
            await client.send(hello(authority)[:-1] if number % 2 else b"\x16\x03")
        address = "127.0.0.1" if same_address else "127.0.0.9"
        stalled = [await site.connect(address) for _ in range(8)]
        for client in stalled:
            await client.send(hello(authority))
            await wait_all_tasks_blocked(0.001)
        served: list[int] = []

        async def ask() -> None:
            client = await connect(site, trusting(authority))
            served.append((await client.ask("GET", "/healthz")).status)

        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
            await wait_all_tasks_blocked(0.05)
            assert served == [] and site.server.app.stats.handshakes_failed == 0, "those who came first have their time"
            while len(served) < 3:
                mock_clock.jump(0.5)
                await wait_all_tasks_blocked(0.05)
                assert trio.current_time() - started < 10, "the line is longer than their time"
        # From elsewhere there is no line; from the same address those before them have their turn.
        assert trio.current_time() - started < (8 if same_address else 5)
        assert site.server.app.stats.handshakes_failed <= 8, "and not those who have said half of it"


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", bytes(300), b"\x16\x03\x01\x00\x05hello"])
async def test_what_is_no_tls_is_closed(files: Files, said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving(files) as site:
        client = await site.connect()
        await client.send(said)
        try:
            while await client.more():
                pass
        except trio.BrokenResourceError:
            pass
        assert b"HTTP" not in client.buffer and not caplog.records


@pytest.mark.skipif(not ssl.HAS_TLSv1_1, reason="this OpenSSL knows no old version to try")
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
async def test_old_versions_are_refused(files: Files, authority: trustme.CA) -> None:
    context = trusting(authority)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with serving(files) as site:
        with pytest.raises(trio.BrokenResourceError):
            await connect(site, context)
        context = trusting(authority)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        client = await connect(site, context)
        assert (await client.ask("GET", "/healthz")).status == 200


async def test_who_is_turned_away_is_not_worth_a_handshake(files: Files, authority: trustme.CA) -> None:
    async with serving(files, max_connections=1) as site:
        first = await connect(site, trusting(authority))
        with pytest.raises(trio.BrokenResourceError):
            await connect(site, trusting(authority))
        assert (await first.ask("GET", "/healthz")).status == 200


async def test_a_new_certificate_is_taken_on(files: Files, authority: trustme.CA) -> None:
    settings = TLS(files.certificate, files.key)
    other = trustme.CA(key_type=trustme.KeyType.ECDSA)
    async with running(tls=settings) as site:
        before = await connect(site, trusting(authority))
        files.certificate.write_text("no certificate")
        with pytest.raises(TLSFileError):
            settings.reload()
        await connect(site, trusting(authority))
        files.write(other)
        settings.reload()
        after = await connect(site, trusting(other))
        for client in (before, after):
            assert (await client.ask("GET", "/healthz")).status == 200
        with pytest.raises(trio.BrokenResourceError):
            await connect(site, trusting(authority))


async def test_certificates_have_the_rights_of_their_names(
    files: Files, authority: trustme.CA, clients: trustme.CA, keys: Keys
) -> None:
    admin = {"authorization": "Bearer " + keys.token("admin", read=["**"], create=["**"])}
    keys.token("press 7", with_token=False, write=["press/7"])
    keys.token("valve.example", with_token=False, read=["press/7"])
    settings = TLS(files.certificate, files.key, files.clients, required=False)
    kind = trustme.KeyType.ECDSA
    press = clients.issue_cert("ignored.example", common_name="press 7", key_type=kind)
    valve = clients.issue_cert("other.example", "valve.example", key_type=kind)
    stranger = clients.issue_cert("stranger.example", key_type=kind)
    forged = trustme.CA(key_type=kind).issue_cert("x.example", common_name="press 7", key_type=kind)
    async with running(access=Access(keys.file), tls=settings) as site:
        nobody = await connect(site, trusting(authority))
        assert (await nobody.ask("PUT", ROOT + "press/7", content_type="text/plain", **admin)).status == 201
        assert (await nobody.ask("GET", ROOT + "press/7")).status == 401
        client = await connect(site, trusting(authority, press))
        assert (await client.ask("POST", ROOT + "press/7", b"x", content_type="text/plain")).status == 204
        assert (await client.ask("GET", ROOT + "press/7")).status == 403
        assert (await client.ask("GET", ROOT + "press/7", **admin)).status == 200
        client = await connect(site, trusting(authority, valve))
        assert (await client.ask("GET", ROOT + "press/7")).body == b"x"
        assert (await (await connect(site, trusting(authority, stranger))).ask("GET", ROOT + "press/7")).status == 401
        await _turned_away(site, trusting(authority, forged))


async def _turned_away(site: Site, context: ssl.SSLContext) -> None:
    # With TLS 1.3 a client hears of it only when it reads.
    with pytest.raises(trio.BrokenResourceError):
        client = await connect(site, context)
        await client.ask("GET", "/healthz")


async def test_without_access_control_everybody_needs_a_certificate(
    files: Files, authority: trustme.CA, clients: trustme.CA
) -> None:
    async with running(tls=TLS(files.certificate, files.key, files.clients)) as site:
        await _turned_away(site, trusting(authority))
        known = clients.issue_cert("a.example", key_type=trustme.KeyType.ECDSA)
        client = await connect(site, trusting(authority, known))
        assert (await client.ask("PUT", ROOT + "a", content_type="text/plain")).status == 201


def test_names_of_certificates() -> None:
    certificate = {
        "subject": ((("organizationName", "o"),), (("commonName", "cn"), ("commonName", "cn2"))),
        "subjectAltName": (("DNS", "dns"), ("IP Address", "10.0.0.1"), ("URI", "urn:x"), ("email", "a@b")),
    }
    assert tls._names(certificate) == ("cn", "cn2", "dns", "urn:x", "a@b")
    assert tls._names(None) == tls._names({}) == ()


def test_bad_files_are_named_in_one_line(files: Files, authority: trustme.CA) -> None:
    def refused(certificate: Path, key: Path, client_ca: Path | None = None) -> str:
        with pytest.raises(TLSFileError) as found:
            TLS(certificate, key, client_ca)
        assert "\n" not in str(found.value)
        return str(found.value)

    missing = files.key.with_name("missing")
    assert refused(missing, files.key) == f"{missing}: No such file or directory"
    assert refused(files.certificate, missing) == f"{missing}: No such file or directory"
    assert refused(files.certificate, files.key, missing) == f"{missing}: No such file or directory"
    garbage = files.key.with_name("garbage")
    garbage.write_text("garbage")
    assert str(garbage) in refused(garbage, files.key)
    assert str(garbage) in refused(files.certificate, garbage)
    assert str(garbage) in refused(files.certificate, files.key, garbage)
    other = Files(files.key.parent)
    other.key = files.key.with_name("other.pem")
    other.certificate = files.key.with_name("other-cert.pem")
    other.write(authority)
    assert refused(files.certificate, other.key).endswith(": the key is not this certificate's")


def test_an_encrypted_key_is_refused_and_nobody_is_asked(files: Files) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(TLSFileError, match="the key is encrypted"):
        TLS(files.certificate, files.key)
