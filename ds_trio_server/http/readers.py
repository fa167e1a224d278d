"""Requests from a connection's bytes: the two ways there are to read them.

`PlainReader` takes heads that are written the one strict, unambiguous way (`ds_core.server.heads`)
in a single pass. For any other request h11 is the authority, from the same bytes on: chunked bodies,
expectations, repeated fields, HTTP/1.0, and all that is wrong. What h11 accepts and others read
differently is refused before it gets there (`check_lines`).
"""

import io
from collections.abc import Callable
from typing import NamedTuple, Protocol

import h11
import trio

from ds_core.server import heads
from ds_core.server.errors import ProtocolError

from ..config import Config
from .transport import Disconnected, Transport

_JOIN_IN_THREAD = 1024 * 1024
# One packet may hold thousands of chunks, each of which takes its time.
_CHUNKS_A_TURN = 100


class BodyBudget:
    """How many bytes of request bodies all connections together may hold, until they are done with."""

    # Small bodies are bounded by the number of connections and not worth counting.
    FREE = 65536

    def __init__(self, limit: int) -> None:
        self._left = limit

    def take(self, holder: "Holder", size: int) -> None:
        """Reserve room for so many bytes of one body in all, or refuse with 503."""
        if size <= self.FREE:
            return
        more = size - holder.held
        if more > self._left:
            raise ProtocolError(
                503, "OVERLOADED", "too many large bodies at once; try again shortly", (("Retry-After", "1"),)
            )
        self._left -= more
        holder.held = size

    def give_back(self, holder: "Holder") -> None:
        """Return all that was taken for a body."""
        self._left += holder.held
        holder.held = 0


class Holder(Protocol):
    """Whose body it is; `held` is what it has of the budget."""

    held: int


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


class Reader(Protocol):
    """Reads requests from a transport, one after the other."""

    async def next_request(self) -> Request | None:
        """The next head, None when the peer is done. Raises ProtocolError for a bad one."""

    async def body(self, length: int | None, reserve: Reserve) -> bytes:
        """The whole body, to be called once if there is one."""

    def ahead(self) -> bytes:
        """Bytes received beyond the current request."""

    def feed(self, data: bytes) -> None:
        """Bytes that were received by someone else, to be read next."""

    def following(self) -> "Reader | None":
        """What reads the next request on this connection; None when none may follow."""


class PlainReader:
    """Reads requests with strict heads and Content-Length bodies."""

    def __init__(self, transport: Transport, config: Config) -> None:
        self._transport = transport
        self._config = config
        self._buffer = b""

    def ahead(self) -> bytes:
        return self._buffer

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def following(self) -> Reader:
        return self

    def _deadline(self, head: bytes) -> float:
        return trio.current_time() + (self._config.head_timeout if head else self._config.idle_timeout)

    async def next_request(self) -> Request | None:
        """The next request; None when the peer is done, or when the head in `ahead` is h11's."""
        transport = self._transport
        buffer = begin(self._buffer)
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
                self._buffer = buffer  # a truncated head: h11 says what is wrong with it
                return None
            idle = not buffer
            buffer = begin(buffer + received)
            if idle:
                transport.deadline = self._deadline(buffer)
            end = buffer.find(heads.END)
        self._buffer = buffer
        end += len(heads.END)
        if end > heads.MAX_HEAD:
            raise head_too_large()
        head = heads.parse(buffer[:end], True)
        if head is None or head.length == heads.CHUNKED or "expect" in head.headers:
            check_lines(buffer[:end])
            return None
        self._buffer = buffer[end:]
        return Request(head.method, head.target, head.headers, head.length)

    async def body(self, length: int | None, reserve: Reserve) -> bytes:
        assert length is not None
        check_size(length, self._config)
        buffer = self._buffer
        if len(buffer) >= length:
            self._buffer = buffer[length:]
            return buffer[:length]
        reserve(length)
        started = trio.current_time()
        pieces = [buffer]
        have = len(buffer)
        self._buffer = b""
        while have < length:
            self._transport.deadline = body_deadline(started, have, self._config)
            received = await self._transport.receive(min(length - have, 262144))
            if not received:
                raise slow("body") if self._transport.overdue else Disconnected
            pieces.append(received)
            have += len(received)
        if have > _JOIN_IN_THREAD:
            # bytes.join lets go of the interpreter's lock for as much as this: nobody waits meanwhile.
            return await trio.to_thread.run_sync(_join, pieces)
        return b"".join(pieces)


class H11Reader:
    """Reads one request, any that h11 accepts; `received` begins with its head."""

    def __init__(
        self, transport: Transport, config: Config, received: bytes
    ) -> None:
        self._transport = transport
        self._config = config
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=heads.MAX_HEAD)
        self._connection.receive_data(received)

    def ahead(self) -> bytes:
        return self._connection.trailing_data[0]

    def feed(self, data: bytes) -> None:
        self._connection.receive_data(data)

    def following(self) -> Reader | None:
        # Offers to switch protocols are not taken, so what follows them is HTTP as before.
        offered = h11.MIGHT_SWITCH_PROTOCOL  # type: ignore[attr-defined] # documented, but not in __all__
        if self._connection.their_state not in (h11.DONE, offered):
            return None
        plain = PlainReader(self._transport, self._config)
        plain.feed(self.ahead())
        return plain

    async def next_request(self) -> Request | None:
        self._transport.deadline = trio.current_time() + self._config.head_timeout
        event = await self._next_event()
        if not isinstance(event, h11.Request):
            return None
        headers: dict[str, str] = {}
        for raw_name, raw_value in event.headers:
            name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        if not event.http_version.startswith(b"1."):
            raise ProtocolError(505, "BAD_HTTP", "this server speaks HTTP/1.1")
        length: int | None = int(headers.get("content-length", "0"))
        if "transfer-encoding" in headers:
            if "content-length" in headers:
                raise ProtocolError(400, "BAD_HTTP", "give Content-Length or Transfer-Encoding, not both")
            length = None
        elif length == 0:
            await self._next_event()  # the end of the message, which nobody would ask for
        http10 = event.http_version < b"1.1"
        return Request(event.method.decode("ascii"), event.target.decode("ascii"), headers, length, http10)

    async def body(self, length: int | None, reserve: Reserve) -> bytes:
        if length is not None:
            check_size(length, self._config)
        if self._connection.they_are_waiting_for_100_continue:
            go_on = self._connection.send(h11.InformationalResponse(status_code=100, headers=[]))
            assert go_on is not None
            await self._transport.send_all(go_on)
        started = trio.current_time()
        body = io.BytesIO()
        have = chunks = 0
        while True:
            self._transport.deadline = body_deadline(started, have, self._config)
            event = await self._next_event("body")
            if isinstance(event, h11.EndOfMessage):
                return body.getvalue()
            if not isinstance(event, h11.Data):
                raise Disconnected
            have += body.write(event.data)
            check_size(have, self._config)
            reserve(have)
            chunks += 1
            if chunks % _CHUNKS_A_TURN == 0:
                await trio.lowlevel.checkpoint()

    async def _next_event(self, waiting_for: str = "head") -> object:
        try:
            while (event := self._connection.next_event()) is h11.NEED_DATA:
                received = await self._transport.receive()
                if not received and self._transport.overdue:
                    raise slow(waiting_for)
                if not received and waiting_for == "body":
                    raise Disconnected
                self._connection.receive_data(received)
            return event
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == 431:
                raise head_too_large() from error
            raise ProtocolError(error.error_status_hint, "BAD_HTTP", str(error)) from error


def _join(pieces: list[bytes]) -> bytes:
    data = b"".join(pieces)
    pieces.clear()
    return data


def begin(data: bytes) -> bytes:
    """Without the empty lines that may come before a request (RFC 9112 section 2.2)."""
    count = len(data) - len(data.lstrip(b"\r\n"))
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
