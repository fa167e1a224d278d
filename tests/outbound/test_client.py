"""Requests of the gateway's: to whom they go, what comes back, and when they end."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from ds_trio_server.outbound import Answer, Client, Rules, Unreachable

Handler = Callable[[trio.abc.Stream], Awaitable[None]]
LOCAL = Rules(["127.0.0.1", "peer.test"])


class Peer:
    """Somebody who answers as a test wants it; `heads` is what was asked."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        self.port = 0
        self.closed = 0
        self.after: Handler | None = None

    async def handle(self, stream: trio.abc.Stream) -> None:
        try:
            data = b""
            while b"\r\n\r\n" not in data:
                more = await stream.receive_some()
                if not more:
                    return
                data += more
            self.heads.append(data)
            if self.after is not None:
                await self.after(stream)
            else:
                await stream.send_all(self.answer)
            while await stream.receive_some():
                pass
        except (trio.BrokenResourceError, ssl.SSLError):
            pass
        finally:
            self.closed += 1
            await trio.aclose_forcefully(stream)


@asynccontextmanager
async def peer(context: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    found = Peer()
    async with trio.open_nursery() as nursery:
        if context is None:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            found.port = listeners[0].socket.getsockname()[1]
            nursery.start_soon(trio.serve_listeners, found.handle, listeners)
        else:
            secure: Any = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
            found.port = secure[0].transport_listener.socket.getsockname()[1]
            nursery.start_soon(trio.serve_listeners, found.handle, secure)
        with trio.fail_after(30):
            yield found
        nursery.cancel_scope.cancel()


class Names(trio.abc.HostnameResolver):
    """Name servers that say what a test wants, one answer after the other."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): found for name, found in answers.items()}
        self.asked: list[str] = []

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # type: ignore[no-untyped-def]
        host = host.decode() if isinstance(host, bytes) else host
        self.asked.append(host)
        answers = self.answers.get(host, [[host]])
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if not found:
            raise OSError(-2, "Name or service not known")
        return [(2 if "." in each else 10, 1, 6, "", (each, port)) for each in found]

    async def getnameinfo(self, sockaddr, flags):  # type: ignore[no-untyped-def]
        raise NotImplementedError


def named(**answers: list[list[str]]) -> Names:
    names = Names(**answers)
    trio.socket.set_custom_hostname_resolver(names)
    return names


async def ask(url: str, rules: Rules = LOCAL, seconds: float = 10.0, most: int = 1000, ca: str | None = None) -> Answer:
    async with Client(rules, ca=ca) as client:
        return await client.send("POST", url, {"X-Test": "1"}, b"body", seconds=seconds, most=most)


async def test_a_request_and_its_answer() -> None:
    async with peer() as other:
        answer = await ask(f"http://127.0.0.1:{other.port}/wake?a=%20b")
        assert (answer.status, answer.body, answer.cut) == (200, b"ok", False)
        head = other.heads[0].lower()
        assert head.startswith(b"post /wake?a=%20b http/1.1\r\n") and b"x-test: 1\r\n" in head
        assert f"host: 127.0.0.1:{other.port}\r\n".encode() in head and head.count(b"host:") == 1
        assert b"content-length: 4" in head and b"authorization" not in head


async def test_a_name_is_judged_by_all_that_it_resolves_to_at_every_request() -> None:
    names = named(ops_example=[["8.8.8.8", "10.0.0.1"], ["169.254.169.254"], ["::ffff:127.0.0.1"], []])
    for why in ("Internet", "Internet", "Internet", "Name or service not known"):
        with pytest.raises(Unreachable, match=why):
            await ask("https://ops.example/x", Rules())
    assert names.asked == ["ops.example"] * 4


async def test_the_connection_goes_to_the_address_that_was_judged() -> None:
    """A name server that says something else a moment later (rebinding) is not asked again."""
    async with peer() as other:
        names = named(peer_test=[["127.0.0.1"], ["10.9.9.9"]])
        assert (await ask(f"http://peer.test:{other.port}/")).status == 200
        assert names.asked == ["peer.test"]
        assert f"host: peer.test:{other.port}".encode() in other.heads[0].lower()


async def test_no_redirect_is_followed() -> None:
    async with peer() as other:
        for status in (301, 302, 303, 307, 308):
            other.answer = (
                f"HTTP/1.1 {status} Elsewhere\r\nLocation: http://127.0.0.1:{other.port}/stolen\r\n"
                "Content-Length: 0\r\n\r\n"
            ).encode()
            answer = await ask(f"http://127.0.0.1:{other.port}/")
            assert answer.status == status and answer.redirects
        assert len(other.heads) == 5 and not any(b"stolen" in head for head in other.heads)


@pytest.mark.parametrize("url", ["http://ops.example/", "http://user@127.0.0.1/", "file:///etc/passwd", "https://10.0.0.1/",
                                 "https://[::1]/", "http://127.0.0.1\\@8.8.8.8/", "gopher://127.0.0.1/"])  # fmt: skip
async def test_what_is_wrong_with_a_url_is_found_before_anybody_is_asked(url: str) -> None:
    names = named()
    with pytest.raises(Unreachable):
        await ask(url, Rules())
    assert names.asked == []


async def test_one_deadline_for_all_of_it(autojump_clock: trio.testing.MockClock) -> None:
    async def silent(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    async def slow(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            await trio.sleep(1)
            await stream.send_all(b"x")

    async with peer() as other:
        for other.after in (silent, slow):
            began = trio.current_time()
            with pytest.raises(Unreachable, match="within 10 s"):
                await ask(f"http://127.0.0.1:{other.port}/", seconds=10)
            assert trio.current_time() - began < 11


async def test_an_answer_has_a_size_that_it_may_have() -> None:
    async def endless(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await stream.send_all(b"1000\r\n" + b"x" * 4096 + b"\r\n")

    async def endless_head(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\n")
        while True:
            await stream.send_all(b"X: " + b"y" * 4096)

    async with peer() as other:
        other.after = endless
        answer = await ask(f"http://127.0.0.1:{other.port}/", most=10_000)
        assert (len(answer.body), answer.cut) == (10_000, True)
        other.after = endless_head
        with pytest.raises(Unreachable):
            await ask(f"http://127.0.0.1:{other.port}/")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 2", b"nonsense\r\n\r\n",
                                    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
                                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"])  # fmt: skip
async def test_half_an_answer_is_none(answer: bytes) -> None:
    async def half(stream: trio.abc.Stream) -> None:
        await stream.send_all(answer)
        await trio.aclose_forcefully(stream)

    async with peer() as other:
        other.after = half
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1"):
            await ask(f"http://127.0.0.1:{other.port}/")
    with pytest.raises(Unreachable, match="no connection"):
        await ask(f"http://127.0.0.1:{other.port}/")


async def test_cancelling_closes_at_once() -> None:
    async def silent(stream: trio.abc.Stream) -> None:
        asked.set()
        await stream.receive_some()

    asked = trio.Event()
    async with peer() as other:
        other.after = silent
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, f"http://127.0.0.1:{other.port}/")
            await asked.wait()
            nursery.cancel_scope.cancel()
        while not other.closed:
            await trio.sleep(0.001)


async def test_many_wait_in_order_for_one_that_is_under_way() -> None:
    async with peer() as other, Client(LOCAL, at_once=2) as client, trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(client.send, "GET", f"http://127.0.0.1:{other.port}/{number}", {})
    assert len(other.heads) == 20


async def test_tls_is_verified_against_the_name_and_each_request_is_judged_anew(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("peer.test").configure_cert(context)
    ca = str(tmp_path / "ca.pem")
    async with peer(context) as other:
        names = named(peer_test=[["127.0.0.1"]], other_test=[["127.0.0.1"]], moved_test=[["127.0.0.1"], ["10.0.0.1"]])
        rules = Rules(["127.0.0.0/8"])
        for _ in range(2):
            assert (await ask(f"https://peer.test:{other.port}/", rules, ca=ca)).status == 200
        for url, trusted in ((f"https://other.test:{other.port}/", ca), (f"https://peer.test:{other.port}/", None)):
            with pytest.raises(Unreachable, match="certificate"):
                await ask(url, rules, ca=trusted)
        assert len(other.heads) == 2 and len(names.asked) == 4
        # No connection is kept for the next request, whose name may mean something else by then.
        async with Client(rules, ca=ca) as client:
            for why in ("certificate", "Internet"):
                with pytest.raises(Unreachable, match=why):
                    await client.send("GET", f"https://moved.test:{other.port}/", {})
