"""Servers, proxies and networks that get something wrong: told in words, nothing lost, nothing taken for another's."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest
import trustme

from ds_client import (
    BadResponse,
    Busy,
    Client,
    Disconnected,
    NotFound,
    ServerError,
    StreamError,
    Timeout,
    Unauthorized,
    Untrusted,
)
from tests.client.scripted import Proxy, Scripted, Secured, answer
from tests.client.test_session import JSON, Silent, fresh
from tests.client.ways import Way
from tests.micro.listening import Listening

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
NEXT = {"Stream_Next_Offset": "5", "Content_Type": JSON, "Stream_Up_To_Date": "true"}
APPENDED = answer(204, Stream_Next_Offset="5")


@pytest.mark.parametrize(
    ("said", "kind", "text"),
    [
        (answer(200), BadResponse, "login page"),
        (answer(301, Location="https://elsewhere.example/s"), StreamError, "moved to https://elsewhere.example/s"),
        (answer(401), Unauthorized, "token="),
        (answer(404, b'{"error": {"code": "NONE", "message": "no such stream"}}'), NotFound, "NONE no such stream"),
        (answer(503, Retry_After="1"), Busy, "503"),
        (answer(500, b"<html>" + b"x" * 100000), ServerError, "HTML"),
        (b"SSH-2.0-OpenSSH\r\n", BadResponse, "HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", Disconnected, "closed within"),
        (answer(200, Content_Type="a/b")[:30], Disconnected, "closed within"),
        (b"", Disconnected, ""),
    ],
)
def test_a_wrong_answer_is_told(way: Way, said: bytes, kind: type[StreamError], text: str) -> None:
    broken = kind in (Disconnected, BadResponse) and said != answer(200)
    server = Scripted(lambda n: (said, broken) if n % 2 == 0 else (APPENDED, False))

    async def main() -> None:
        for name in ("create", "append", "seal"):
            async with way.session(server.url) as session:
                stream = session.stream("s", JSON)
                with pytest.raises(StreamError) as caught:
                    await getattr(stream, name)(*[1] * (name == "append"))
                assert type(caught.value) is kind and text in str(caught.value), caught.value
                assert caught.value.url == server.url + "/s"
                assert caught.value.retry == (kind in (Busy, ServerError, Disconnected))
                assert (await stream.append(2)).offset == "5"

    way.run(main)
    server.listener.close()
    assert len(server.heads) == 6, "no redirect was followed, and nothing sent twice"


def test_a_kept_connection_is_closed_at_every_moment(way: Way) -> None:
    """After each byte of an answer: a read goes on after what it had, and no append is told another's answer."""
    first = answer(200, b"[1,2,3]", **{**NEXT, "Stream_Up_To_Date": "false"})
    second = answer(200, b"[4,5]", **{**NEXT, "Stream_Next_Offset": "6"})
    for at in range(0, len(second), 7):
        asked: list[int] = []

        def script(n: int, at: int = at, asked: list[int] = asked) -> tuple[bytes, bool]:
            asked.append(n)
            return [(first, False), (second[:at], True), (second, False)][min(n, 2)]

        server = Scripted(script)
        told: list[tuple[str, int]] = []

        async def main(server: Scripted = server, told: list[tuple[str, int]] = told) -> None:
            hook = lambda error, attempt: told.append((type(error).__name__, attempt))  # noqa: E731
            async with way.session(server.url, on_error=hook) as session:
                assert [each async for each in session.stream("s").read()] == [1, 2, 3, 4, 5]

        way.run(main)
        server.listener.close()
        assert len(asked) == 3 and (not told or told == [("Disconnected", 1)])


class Talkative(Listening):
    """Answers the first request of a connection and, when it is told to, says one more thing that nobody asked for."""

    def __init__(self) -> None:
        self.speak, self.spoken = threading.Event(), threading.Event()
        self.count = 0
        super().__init__()

    def serve(self, conn: socket.socket) -> None:
        with conn, contextlib.suppress(OSError):
            self.count += 1
            heard = b""
            while not heard.endswith(b"[1]"):
                heard += conn.recv(65536)
            conn.sendall(answer(204, Stream_Next_Offset=str(self.count)))
            if self.count == 1:
                self.speak.wait(20)
                conn.sendall(answer(204, Stream_Next_Offset="nobody's"))
                self.spoken.set()
            conn.recv(65536)


@pytest.mark.parametrize("looked", [False, True])
def test_what_nobody_asked_for_is_no_answer(way: Way, looked: bool) -> None:
    server = Talkative()

    async def main() -> None:
        async with way.session(server.url) as session:
            stream = session.stream("s", JSON)
            assert (await stream.append(1)).offset == "1"
            server.speak.set()
            assert server.spoken.wait(20)
            if looked:  # or the event loop has not seen yet what came
                for _ in range(100 if way.name != "threads" else 0):
                    await way.turn()
            assert (await stream.append(1)).offset == "2"

    way.run(main)
    server.listener.close()
    assert server.count == 2


def test_a_session_is_of_the_process_that_opened_it(gateway: str) -> None:
    with Client(gateway, trust_env=False) as session:
        stream = session.stream("s", JSON)
        stream.create()
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            said = b"an answer"
            try:
                stream.head()
            except RuntimeError as exc:
                said = str(exc).encode()
            finally:
                os.write(writing, said)
                os._exit(0)
        os.waitpid(child, 0)
        os.close(writing)
        assert b"opened by another process" in os.read(reading, 1000)
        os.close(reading)
        assert stream.head().status == 200


def test_an_append_on_a_dead_connection_is_not_repeated(way: Way) -> None:
    server = Scripted(lambda n: (APPENDED if n % 2 == 0 else b"", n % 2 == 1))

    async def main() -> None:
        async with way.session(server.url) as session:
            stream = session.stream("s", JSON)
            await stream.append(0)
            with pytest.raises(Disconnected) as caught:
                await stream.append(1)
            assert caught.value.retry
            await stream.append(2)

    way.run(main)
    server.listener.close()
    assert len(server.heads) == 3


def test_an_answer_before_the_request_is_whole_is_heard(way: Way, gateway: str) -> None:
    async def main() -> None:
        async with way.session(gateway) as session:
            stream = session.stream(fresh(), "text/plain")
            await stream.create()
            with pytest.raises(StreamError) as caught:
                await stream.append("x" * (64 << 20))
            assert caught.value.status in (413, 0), caught.value
            assert (await stream.append("x")).offset

    way.run(main)


def test_one_who_says_nothing_is_waited_for_in_time(way: Way) -> None:
    silent = Silent()

    async def main() -> None:
        async with way.session(silent.url, timeout=0.1, live_timeout=0.1) as session:
            stream = session.stream("s", JSON)
            for call in (stream.create, stream.head, lambda: stream.append(1)):
                with pytest.raises(Timeout):
                    await call()
            with pytest.raises(Timeout):
                await stream.read(patience=0.1).__anext__()
            producer = stream.producer("p")
            with pytest.raises(Timeout, match="kept"):
                await producer.append(1, timeout=0.1)
            assert producer.pending == 1

    way.run(main)
    silent.listener.close()


def test_what_is_busy_is_asked_again(way: Way) -> None:
    """As its Retry-After says, and the hook is told; what that raises ends it."""
    script = [answer(503, Retry_After="0"), answer(429), answer(200, b"[7]", **NEXT)]
    told: list[tuple[int, int]] = []

    def hook(error: StreamError, attempt: int) -> None:
        told.append((error.status, attempt))
        if len(told) == 3:
            raise KeyError("enough")

    server = Scripted(lambda n: (script[n] if n < 3 else answer(500), False))

    async def main() -> None:
        async with way.session(server.url, on_error=hook) as session:
            assert [each async for each in session.stream("s").read()] == [7]
            with pytest.raises(KeyError, match="enough"):
                await session.stream("s").read().__anext__()

    way.run(main)
    server.listener.close()
    assert told == [(503, 1), (429, 2), (500, 1)]


def test_a_producer_repeats_until_it_is_acknowledged(way: Way) -> None:
    """Answers are lost, refused for now, and those of others; the record has one number all the while."""
    epoch = {"Producer_Epoch": "5", "Producer_Seq": "0", "Stream_Next_Offset": "5"}
    script = [(b"", True), (answer(503), False), (APPENDED, True), (answer(200, **epoch), False)]
    server = Scripted(lambda n: script[n])
    told: list[str] = []

    async def main() -> None:
        async with way.session(server.url, on_error=lambda error, _: told.append(type(error).__name__)) as session:
            stream = session.stream("s", JSON)
            with pytest.raises(BadResponse):
                await stream.producer("p", epoch=5).append(1)  # 204 without a number is nobody's
            assert len(server.heads) == 3
            producer = stream.producer("p", epoch=5)
            assert (await producer.append(1)).offset == "5"

    way.run(main)
    server.listener.close()
    assert told == ["Disconnected", "Busy"]
    numbers = {line for head in server.heads for line in head.split(b"\r\n") if line.startswith(b"Producer-")}
    assert numbers == {b"Producer-Id: p", b"Producer-Epoch: 5", b"Producer-Seq: 0"}


def test_idle_connections_are_not_kept_for_ever(way: Way) -> None:
    server = Scripted(lambda n: (APPENDED, False))

    async def main() -> None:
        async with way.session(server.url, idle=0) as session:
            for i in range(3):
                await session.stream("s", JSON).append(i)
            assert "0 idle" in repr(session.it if way.name == "threads" else session).partition(";")[0]

    way.run(main)
    server.listener.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secured(authority: trustme.CA) -> Iterator[Secured]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server = Secured(context, lambda n: (APPENDED, False))
    yield server
    server.listener.close()


def test_https_is_checked(way: Way, secured: Secured, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = authority.cert_pem.bytes()

    async def main() -> None:
        async with way.session(secured.url, ca=pem) as session:
            assert (await session.stream("s", JSON).append(1)).offset == "5"
            assert (await session.stream("s", JSON).append(1)).offset == "5"
        async with way.session(secured.url) as session:
            with pytest.raises(Untrusted):
                await session.stream("s", JSON).append(1)
        with authority.cert_pem.tempfile() as name:
            monkeypatch.setenv("SSL_CERT_FILE", name)
            async with way.session(secured.url) as session:
                assert (await session.stream("s", JSON).append(1)).offset == "5"

    way.run(main)


@pytest.mark.parametrize("secure", [False, True])
def test_a_proxy_of_the_environment(
    way: Way, secure: bool, secured: Secured, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Scripted(lambda n: (APPENDED, False))
    server = secured if secure else plain
    proxy = Proxy()
    where = proxy.url.replace("http://", "http://me:my%20secret@")
    monkeypatch.setenv("https_proxy" if secure else "http_proxy", where)
    options = {"ca": authority.cert_pem.bytes()} if secure else {}

    async def main() -> None:
        async with way.session(server.url, trust_env=True, **options) as session:
            stream = session.stream("s", JSON)
            for _ in range(3):
                assert (await stream.append(1)).offset == "5"
        proxied = len(proxy.heads)
        assert proxied == 1
        monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
        async with way.session(server.url, trust_env=True, **options) as session:
            await session.stream("s", JSON).append(1)
        monkeypatch.delenv("no_proxy")
        async with way.session(server.url, **options) as session:  # trust_env=False
            await session.stream("s", JSON).append(1)
        assert len(proxy.heads) == proxied
        proxy.refuse = 407
        async with way.session(server.url, trust_env=True, **options) as session:
            with pytest.raises(StreamError) as caught:
                await session.stream("s", JSON).append(1)
            assert caught.value.status == 407 and "secret" not in str(caught.value)

    way.run(main)
    assert b"Proxy-Authorization: Basic bWU6bXkgc2VjcmV0" in proxy.heads[0]
    if secure:
        assert proxy.heads[0].startswith(b"CONNECT localhost:")
        assert all(b"Proxy-" not in head for head in server.heads)
    else:
        assert proxy.heads[0].startswith(b"POST http://127.0.0.1:")
        assert server.heads[1].startswith(b"POST http://"), "each request has its whole URL"
    plain.listener.close()
    proxy.listener.close()


def test_a_proxy_that_is_none_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "socks5://me:secret@localhost:1")
    with pytest.raises(ValueError, match="http_proxy") as caught:
        Client("http://127.0.0.1:1/v1/stream")
    assert "secret" not in str(caught.value)


def test_the_log_has_no_secrets(gateway: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "ds_client")
    script = [answer(500, b"body of an error"), answer(200, b'["secret body"]', **NEXT)]
    server = Scripted(lambda n: (script[n], False))
    options = {"token": "secret token", "headers": {"X-Key": "secret header"}, "params": {"key": "secret"}}
    with Client(server.url, trust_env=False, **options) as session:  # type: ignore[arg-type]
        assert list(session.stream("s").read()) == ["secret body"]
    server.listener.close()
    assert b"secret header" in server.heads[0] and b"key=secret" in server.heads[0]
    text = caplog.text
    assert "GET " + server.url + "/s" in text and "ServerError 500" in text
    assert "secret" not in text and "body" not in text


def test_nothing_is_left_in_a_thread_that_ends(gateway: str) -> None:
    """Any number of threads come and go; connections are the session's."""
    with Client(gateway, connections=2) as session:
        stream = session.stream(fresh(), JSON)
        stream.create()
        for _ in range(5):
            threads = [threading.Thread(target=stream.append, args=(1,)) for _ in range(10)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
        assert len(list(stream.read())) == 50
