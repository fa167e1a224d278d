"""One request and its answer: all that whoever answers sees of HTTP.

An application is given an `Exchange` and answers it in one of two ways. Without waiting (`finish`,
`respond_nowait`): the request has come whole, and the connection has no task. Or in its own task: `body`, then
`respond`, `respond_in_parts`, or `start` and `send`. It knows nothing of sockets, framing and keep-alive;
a connection knows nothing of streams, only the `Application` below.
"""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from email.utils import formatdate
from typing import Any, Protocol

from ds_core.server import responses, targets

from .transport import Disconnected, Transport

SKIPPED = 65536
"""A longer body that means nothing is not read: a new connection costs less."""
_ONE_PACKET = 65536
_CLOSE = "connection: close\r\n"


class Suspended(Protocol):
    """An answer that goes on later. While it sleeps it costs its task and itself: everything else has been let go."""

    async def sleep(self) -> None:
        """Until there is something to do. Raises Disconnected when the client goes away."""

    async def resume(self) -> "Suspended | None":
        """Go on: what sleeps next, None when the answer is complete."""


class Application(Protocol):
    """What connections are served with."""

    def answer_nowait(self, exchange: "Exchange") -> None:
        """Answer a request that has come whole, now or by a call of `exchange.finish` later on. Raises
        trio.WouldBlock when only `answer` can; nothing has happened then. Raises what `answer` raises."""

    async def answer(self, exchange: "Exchange") -> Suspended | None:
        """Answer, or begin to. May raise anything: `refused` says what that means."""

    def refused(self, exchange: "Exchange | None", error: Exception) -> responses.Response:
        """The answer that an exception from the application, or one of ours about the request, comes to."""


class Channel(Protocol):
    """What an exchange needs of its connection."""

    transport: Transport
    closing: bool

    async def body(self, exchange: "Exchange") -> bytes:
        """The whole body of the request."""

    async def pass_over(self, exchange: "Exchange") -> None:
        """Read the body of the request, whose length is known, and keep nothing of it."""

    def keep(self, data: bytes) -> bool:
        """Keep bytes of the next request that came early; False when those are enough."""


class Exchange:
    """A request and the ways to answer it.

    `headers` has lower-case names; repeated fields are joined by commas. `length` is the body's in bytes, None
    when it shows only at its end; `unread` is true until it has been read. `keep_alive` may be set to False
    until the answer begins. `started` tells that something of the answer has been sent. `identity` is for the
    application: who asks. `held` is what the request has of the room for bodies.
    """

    __slots__ = (
        "method", "target", "headers", "length", "http10", "keep_alive", "unread", "held", "started", "identity",
        "connection", "_body", "_finish",
    )  # fmt: skip

    def __init__(
        self,
        connection: Channel,
        method: str,
        target: str,
        headers: dict[str, str],
        length: int | None,
        http10: bool = False,
        body: bytes | None = None,
        finish: "Callable[[Exchange, responses.Response, Exception | None], None] | None" = None,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.length = length
        self.http10 = http10
        wish = headers.get("connection")
        self.keep_alive = not http10 and (wish is None or not _says_close(wish))
        self.unread = length != 0 and body is None
        self.held = 0
        self.started = False
        self.identity: Any = None
        self.connection = connection
        self._body = body
        self._finish = finish

    # Who asks

    @property
    def authority(self) -> str:
        """Whom it is for, a host and perhaps a port: an absolute target goes before Host (RFC 9112 section 3.2.2)."""
        return targets.target_authority(self.target) or self.headers.get("host", "")

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        return self.connection.transport.scheme

    @property
    def peer(self) -> str:
        """The client's address, `local` for a Unix socket."""
        return self.connection.transport.peer

    @property
    def certified(self) -> tuple[str, ...]:
        """The names that the client has proved to be its own, by a certificate."""
        return self.connection.transport.identities

    # The body

    async def body(self) -> bytes:
        """The whole body, which counts as held until the request is answered."""
        if self.unread:
            return await self.connection.body(self)
        return self._body or b""

    def body_nowait(self) -> bytes:
        """The whole body, where it is there already: of a request that is to be answered without waiting."""
        assert self._body is not None
        return self._body

    async def pass_over(self) -> None:
        """Read a body that means nothing, so that the next request can follow; one that is not worth it stays unread,
        and the connection ends behind the answer. Raises ProtocolError where it is no body."""
        if not self.unread:
            return
        if self.length is None or self.length > SKIPPED or "expect" in self.headers:
            self.keep_alive = False
            return
        await self.connection.pass_over(self)

    # An answer without waiting

    def finish(self, response: responses.Response, error: Exception | None = None) -> None:
        """Send the whole answer; or, with an `error`, what that comes to. Never raises."""
        assert self._finish is not None
        self._finish(self, response, error)

    def respond_nowait(self, response: responses.Response) -> None:
        """Send the whole answer."""
        self.finish(response)

    # An answer in a task

    def encode(self, response: responses.Response) -> bytes:
        """The bytes of a whole answer."""
        body = response.body
        if self.method == "HEAD":
            return self._head(response, "", None)
        return self._head(response, "", len(body)) + body

    async def respond(self, response: responses.Response) -> None:
        """Send a whole answer."""
        await self.send(self.encode(response))

    async def respond_in_parts(
        self, response: responses.Response, parts: AsyncGenerator[bytes, None], length: int | None
    ) -> None:
        """Send an answer whose body comes in parts; `length` is None when it isn't known."""
        head = self._open_head(response) if length is None else self._head(response, "", length)
        async with aclosing(parts):
            async for part in parts:
                data = part if length is not None else self.part(part)
                del part
                if head and len(data) <= _ONE_PACKET:
                    data = head + data  # small answers leave at once
                elif head:
                    await self.send(head)
                head = b""
                await self.send(data)
                del data  # the next part may be long in coming, and its reader isn't alone
        if length is None:
            await self.end()

    async def start(self, response: responses.Response) -> None:
        """Send the head of an answer whose end isn't known yet; `send` its `part`s, then `end` it."""
        await self.send(self._open_head(response))

    def part(self, data: bytes) -> bytes:
        """Data framed as a part of an answer without a length."""
        return data if self.http10 else b"%x\r\n%b\r\n" % (len(data), data)

    async def end(self) -> None:
        """End an answer without a length."""
        if not self.http10:
            await self.send(b"0\r\n\r\n")

    async def send(self, data: bytes | memoryview) -> None:
        """Send bytes of an answer that has begun."""
        self.started = True
        await self.connection.transport.send_all(data)

    def _head(self, response: responses.Response, framing: str, length: int | None) -> bytes:
        extra = _line if _second <= time.time() < _second + 1 else _date()
        if framing:
            extra += framing
        if self.connection.closing or not self.keep_alive:
            extra += _CLOSE
        cors = self.method != "POST" or "origin" in self.headers
        return responses.encode_head(response.status, response.headers, extra, cors, length)

    def _open_head(self, response: responses.Response) -> bytes:
        if self.http10:
            self.keep_alive = False
            return self._head(response, "", None)
        return self._head(response, "transfer-encoding: chunked\r\n", None)

    # An answer that sleeps

    def send_nowait(self, data: bytes) -> int:
        """How many bytes of an answer the client's socket took at once; may be none."""
        return self.connection.transport.send_nowait(data)

    async def wait_readable(self) -> None:
        """Return when the client sent something or hung up."""
        await self.connection.transport.wait_readable()

    def receive_nowait(self) -> bytes | None:
        """What the client sent: None when nothing, empty when it hung up."""
        return self.connection.transport.receive_nowait()

    def keep(self, data: bytes) -> bool:
        """Keep what came early, for the next exchange; False when those are enough."""
        return self.connection.keep(data)


def encode_last(response: responses.Response) -> bytes:
    """The bytes of the last answer on a connection, to a request that could not be read."""
    length = len(response.body)
    return responses.encode_head(response.status, response.headers, _date() + _CLOSE, True, length) + response.body


# The Date header line of this second.
_line, _second = "", -1


def _date() -> str:
    global _line, _second
    _second = int(time.time())
    _line = f"date: {formatdate(_second, usegmt=True)}\r\n"
    return _line


def _says_close(connection: str) -> bool:
    return any(token.strip().lower() == "close" for token in connection.split(","))


__all__ = ["Application", "Channel", "Disconnected", "Exchange", "Suspended", "encode_last"]
