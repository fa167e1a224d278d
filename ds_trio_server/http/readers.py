"""Requests from a connection's bytes.

Heads that are written the one strict, unambiguous way (`ds_core.server.heads`) are read in a single pass. For any
other h11 is the authority: repeated fields, absolute targets, HTTP/1.0, and all that is wrong. What h11 accepts and
others read differently is refused before it gets there (`check_lines`). Chunked bodies are read by the core's decoder
(`ds_core.wire.chunked`), which knows one way to write them.
"""

import io
from collections.abc import Callable
from typing import NamedTuple

import h11
import trio

from ds_core.server import heads
from ds_core.server.errors import ProtocolError
from ds_core.wire.chunked import ChunkedDecoder
from ds_core.wire.http1 import BadMessage

from ..config import Config
from .budgets import Backlog
from .transport import Disconnected, Transport

_JOIN_IN_THREAD = 1024 * 1024
# One packet may hold thousands of chunks, each of which takes its time.
_CHUNKS_A_TURN = 100
# Sizes, extensions and trailers of a chunked body: so many bytes, and so many for each byte of data (a chunk of one
# byte has five).
_FRAMING = 65536
_FRAMING_SHARE = 8


Reserve = Callable[[int], None]
"""Called with how many bytes of a body have come, or will; raises ProtocolError when that is too much."""


class Request(NamedTuple):
    """A request head. `headers` has lower-case names, repeated fields joined by commas; `length` is the
    body's in bytes, None when it shows only at its end."""

    method: str
    target: str
    headers: dict[str, str]
    length: int | None
    http10: bool = False


class Reader:
    """Reads the requests of one transport, one after the other."""

    def __init__(self, transport: Transport, config: Config, backlog: Backlog) -> None:
        self._transport = transport
        self._config = config
        self._backlog = backlog
        self._buffer = b""
        self._go_on = False

    @property
    def ahead(self) -> bytes:
        """Bytes received beyond the current request, to be read next."""
        return self._buffer

    @ahead.setter
    def ahead(self, data: bytes) -> None:
        if data or self._buffer:
            self._buffer = data  # or it is let go of at once
            self._backlog.hold(self, len(data))

    def let_go(self) -> None:
        """Cut off the connection, and forget what came of it."""
        self._buffer = b""
        self._transport.cut()

    async def next_request(self) -> Request | None:
        """The next head, None when the peer is done. Raises ProtocolError for a bad one."""
        transport = self._transport
        self.ahead = buffer = begin(self.ahead)
        transport.deadline = self._deadline(buffer)
        end = buffer.find(heads.END)
        while end < 0:
            check_lines(buffer)
            if len(buffer) > heads.MAX_HEAD:
                raise head_too_large()
            received = await transport.receive()
            if not received:
                if transport.overdue and buffer:
                    raise slow("head")
                self.ahead = b""
                return by_h11(buffer) if buffer else None  # a truncated head: h11 says what is wrong with it
            idle = not buffer
            self.ahead = buffer = begin(buffer + received)
            del received  # it may be long, all of it empty lines, and the next long in coming
            if idle and buffer:  # empty lines are no beginning, and gain no time
                transport.deadline = self._deadline(buffer)
            end = buffer.find(heads.END)
        end += len(heads.END)
        if end > heads.MAX_HEAD:
            raise head_too_large()
        if buffer.count(b"\n", 0, end) > heads.MAX_FIELDS + 2:
            raise ProtocolError(431, "HEAD_TOO_LARGE", f"a request head has at most {heads.MAX_FIELDS} fields")
        self.ahead = buffer[end:]
        head = heads.parse(buffer[:end], True)
        if head is None:
            check_lines(buffer[:end])
            request = by_h11(buffer[:end])
        else:
            length = None if head.length == heads.CHUNKED else head.length
            request = Request(head.method, head.target, head.headers, length)
        expect = request.headers.get("expect")
        self._go_on = expect is not None and not request.http10 and _asks_to_go_on(expect)
        return request

    def _deadline(self, head: bytes) -> float:
        return trio.current_time() + (self._config.head_timeout if head else self._config.idle_timeout)

    async def body(self, length: int | None, reserve: Reserve) -> bytes:
        """The whole body, to be called once if there is one."""
        if length is not None:
            check_size(length, self._config)
        if self._go_on:
            await self._transport.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await (self._chunks(reserve) if length is None else self._exactly(length, reserve))

    async def _exactly(self, length: int, reserve: Reserve) -> bytes:
        buffer = self.ahead
        if len(buffer) >= length:
            self.ahead = buffer[length:]
            return buffer[:length]
        reserve(length)  # or it stays to be passed over
        self.ahead = b""
        started = trio.current_time()
        pieces = [buffer]
        have = len(buffer)
        del buffer
        while have < length:
            received = await self._more(started, have, min(length - have, 262144))
            pieces.append(received)
            have += len(received)
        if have > _JOIN_IN_THREAD:
            # bytes.join lets go of the interpreter's lock for as much as this: nobody waits meanwhile.
            return await trio.to_thread.run_sync(_join, pieces)
        return b"".join(pieces)

    async def pass_over(self, length: int) -> None:
        """Read a body that means nothing, and hold none of it."""
        have = min(len(self.ahead), length)
        self.ahead = self.ahead[length:]
        started = trio.current_time()
        while have < length:
            have += len(await self._more(started, have, length - have))

    async def _chunks(self, reserve: Reserve) -> bytes:
        decoder = ChunkedDecoder()
        body = io.BytesIO()
        started = trio.current_time()
        have = steps = framing = at = 0
        # What is not decoded yet stays where it is counted, and may be let go of in between.
        while not decoder.done:
            if at >= len(self.ahead):
                self.ahead = b""
                at = 0
                self.ahead = await self._more(started, have, 65536)
            try:
                used, piece = decoder.feed(memoryview(self.ahead)[at:])
            except BadMessage as error:
                raise ProtocolError(400, "BAD_HTTP", f"the chunked body is not one: {error}") from None
            at += used
            if piece is not None:
                have += body.write(piece)
                check_size(have, self._config)
                reserve(have)
            else:
                framing += used
                if framing > _FRAMING + have * _FRAMING_SHARE:
                    raise ProtocolError(400, "BAD_HTTP", "this body's chunks are all but empty: send larger ones")
            del piece
            steps += 1
            if steps % _CHUNKS_A_TURN == 0:
                await trio.lowlevel.checkpoint()
        self.ahead = self.ahead[at:]
        return body.getvalue()

    async def _more(self, started: float, have: int, most: int) -> bytes:
        """More of a body that began at a time and of which so many bytes are there."""
        self._transport.deadline = body_deadline(started, have, self._config)
        received = await self._transport.receive(most)
        if not received:
            raise slow("body") if self._transport.overdue else Disconnected
        return received


def _asks_to_go_on(expect: str) -> bool:
    """Whether a client waits for a 100 before it sends its body: it may say so among others, and more than once
    (RFC 9110 section 10.1.1). What else it expects is left alone."""
    return "100-continue" in [each.strip(" \t").lower() for each in expect.split(",")]


def by_h11(head: bytes) -> Request:
    """What h11 makes of a head that is not written the strict way, whole or truncated. Raises ProtocolError."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=heads.MAX_HEAD)
    try:
        connection.receive_data(head)
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(b"")
            event = connection.next_event()
    except h11.RemoteProtocolError as error:
        if error.error_status_hint == 431:
            raise head_too_large() from error
        raise ProtocolError(error.error_status_hint, "BAD_HTTP", str(error)) from error
    if not isinstance(event, h11.Request):
        raise ProtocolError(400, "BAD_HTTP", "this is no request")
    if not event.http_version.startswith(b"1."):
        raise ProtocolError(505, "BAD_HTTP", "this server speaks HTTP/1.1")
    headers: dict[str, str] = {}
    for raw_name, raw_value in event.headers:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    target = event.target.decode("ascii")
    length: int | None = int(headers.get("content-length", "0"))
    if "transfer-encoding" in headers:
        if "content-length" in headers:
            raise ProtocolError(400, "BAD_HTTP", "give Content-Length or Transfer-Encoding, not both")
        length = None
    return Request(event.method.decode("ascii"), target, headers, length, event.http_version < b"1.1")


def _join(pieces: list[bytes]) -> bytes:
    data = b"".join(pieces)
    pieces.clear()
    return data


def begin(data: bytes) -> bytes:
    """Without the empty lines that may come before a request (RFC 9112 section 2.2), the last of which may be half
    there."""
    count = (len(data) - len(data.lstrip(b"\r\n"))) & ~1
    return data[count:] if data[:count] == b"\r\n" * (count // 2) else data


def check_lines(head: bytes) -> None:
    """400 for lines that h11 accepts and the next proxy may see otherwise (RFC 9112 sections 2.2, 5.2)."""
    ends = head.count(b"\r\n")
    if head.count(b"\n") != ends or head.count(b"\r", 0, -1) > ends or b"\n " in head or b"\n\t" in head:
        raise ProtocolError(
            400, "BAD_HTTP", "the lines of a head end with CR LF, hold neither alone, and are not folded"
        )


def head_too_large() -> ProtocolError:
    """431."""
    return ProtocolError(431, "HEAD_TOO_LARGE", f"a request head has at most {heads.MAX_HEAD} bytes")


def slow(what: str) -> ProtocolError:
    """408."""
    return ProtocolError(408, "TOO_SLOW", f"the request's {what} did not arrive in time")


def check_size(size: int, config: Config) -> None:
    """413 when a body is over the limit."""
    if size > config.max_body:
        raise ProtocolError(413, "BODY_TOO_LARGE", f"a body has at most {config.max_body} bytes; send it in parts")


def body_deadline(started: float, have: int, config: Config) -> float:
    """By when more of a body must have come: slow links may be slow, but not stand still."""
    return started + config.body_timeout + have / config.slowest_body
