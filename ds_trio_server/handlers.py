"""From a request to its answer: the core decides, the store makes it durable, this sends it.

One coroutine per kind of answer. Everything about HTTP framing is in ``exchange`` and
``connection``; everything about streams is in ``ds_core``.
"""

import random
import time
import zlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from email.utils import formatdate
from typing import TYPE_CHECKING

import trio

from ds_core.server import create, cursors, messages, reads, requests, responses, stream
from ds_core.server.errors import ProtocolError
from ds_core.server.requests import Append, Create, Delete, Head, Read
from ds_core.wire import media, names

from .codecs import FastCodecs, Known
from .config import Config
from .exchange import Request
from .live import Hub, Waiter
from .store.base import Piece, Store, Vanished

if TYPE_CHECKING:
    from .connection import Connection

_PARSE_IN_THREAD = 128 * 1024
_COMPRESS_IN_THREAD = 64 * 1024
_WORTH_COMPRESSING = 1024
_AT_ONCE = 64 * 1024


class Handlers:
    """The answers of one server over one store."""

    def __init__(self, store: Store, config: Config) -> None:
        self._store = store
        self._config = config
        self._codecs = FastCodecs()
        self._cache_control = responses.PRIVATE if config.private else responses.PUBLIC
        self._date = (0, "")
        self.hub = Hub(store)

    def date(self) -> str:
        """The Date header line of this second."""
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, f"date: {formatdate(now, usegmt=True)}\r\n")
        return self._date[1]

    async def handle(self, connection: "Connection", request: Request) -> None:
        """Answer one request. Raises ProtocolError for what is to be refused."""
        if request.method == "OPTIONS":
            await connection.body(request)
            await connection.respond(request, responses.preflight())
            return
        host = request.headers.get("host")
        command = requests.parse(
            request.method, request.target, request.headers, f"http://{host}" if host else ""
        )
        if isinstance(command, Append):
            await self._append(connection, request, command)
        elif isinstance(command, Read):
            await self._read(connection, request, command)
        elif isinstance(command, Create):
            await self._create(connection, request, command)
        else:
            await self._simple(connection, request, command)

    # Writing

    async def _append(self, connection: "Connection", request: Request, command: Append) -> None:
        command.body = await connection.body(request)
        codecs = await self._parsed(command)
        response = await self._store.transact(
            command.path, lambda view: stream.append(view, command, codecs)
        )
        await connection.respond(request, response)

    async def _create(self, connection: "Connection", request: Request, command: Create) -> None:
        command.body = await connection.body(request)
        codecs = await self._parsed(command)
        piece = await self._fork_piece(command) if command.source is not None else None
        response = await self._store.transact(
            command.path, lambda view: create.create(view, command, codecs), command.source, piece
        )
        await connection.respond(request, response)

    async def _parsed(self, command: Append | Create) -> messages.Codecs:
        """The parsers for a command's body; a large body is parsed here and now, in a thread."""
        if len(command.body) < _PARSE_IN_THREAD or not command.content_type:
            return self._codecs
        try:
            kind = media.kind_of(command.content_type)
        except ValueError:
            return self._codecs
        if kind == media.BYTES:
            return self._codecs
        known = Known(self._codecs)
        await trio.to_thread.run_sync(known.parse, kind, command.body)
        return known

    async def _fork_piece(self, command: Create) -> Piece | None:
        """The append that a fork's offset falls into, for the core to look inside."""
        assert command.source is not None

        def locate(view: stream.View) -> tuple[tuple[stream.Stream, int] | None, None]:
            source = view.stream
            if stream.condition(source, view.now) not in (stream.OPEN, stream.CLOSED) or source is None:
                return None, None
            return (source, create.fork_position(source, command, view.fresh)), None

        try:
            found = await self._store.look(command.source, locate)
        except ProtocolError:
            return None  # the creation itself will say so, in its own order of checks
        if found is None or found[1] >= found[0].visible_tail:
            return None
        try:
            return await self._store.append_at(*found)
        except Vanished:
            return None

    async def _simple(self, connection: "Connection", request: Request, command: Head | Delete) -> None:
        await connection.body(request)
        if isinstance(command, Head):
            head = command
            response = await self._store.look(head.path, lambda view: stream.head(view, head))
        else:
            deletion = command
            response = await self._store.transact(
                deletion.path, lambda view: stream.delete(view, deletion)
            )
        await connection.respond(request, response)

    # Reading

    async def _read(self, connection: "Connection", request: Request, command: Read) -> None:
        await connection.body(request)
        if command.live == names.SSE:
            await self._sse(connection, request, command)
            return
        plan = await self._plan(command)
        if plan.waits:
            deadline = trio.current_time() + self._config.long_poll_timeout
            if await self._long_poll(connection, request, command, plan, deadline):
                return
            command.offset = (plan.stream.incarnation, plan.start)
            plan = await self._plan(command)
        await self._answer(connection, request, command, plan)

    async def _plan(self, command: Read) -> reads.Plan:
        plan = await self._store.look(command.path, lambda view: reads.plan(view, command))
        if plan.stream.kind != media.BYTES and plan.stream.start < plan.start < plan.tail:
            await self._check_start(plan)
        return plan

    async def _check_start(self, plan: reads.Plan) -> None:
        try:
            first, _ = await self._store.span(plan.stream, plan.start)
            if first != plan.start:
                piece = await self._store.append_at(plan.stream, plan.start)
                reads.check_start(plan.stream.kind, piece, plan.start)
        except Vanished:
            raise _vanished() from None

    async def _chunk(self, plan: reads.Plan, limit: int) -> int:
        """Where a response or a batch of at most ``limit`` bytes ends."""
        if plan.tail - plan.start <= limit:
            return plan.tail
        kind = plan.stream.kind
        last = await self._store.span(plan.stream, plan.start + limit)
        end = reads.chunk_end(kind, plan.start, limit, last, None)
        if end is None:
            _, data = await self._store.append_at(plan.stream, plan.start)
            end = reads.chunk_end(kind, plan.start, limit, last, data)
            assert end is not None
        return end

    def _limit(self, command: Read) -> int:
        limit = self._config.chunk
        return limit if command.max_bytes is None else max(1, min(limit, command.max_bytes))

    async def _answer(
        self, connection: "Connection", request: Request, command: Read, plan: reads.Plan
    ) -> None:
        try:
            end = await self._chunk(plan, self._limit(command))
        except Vanished:
            raise _vanished() from None
        position = plan.position(end)
        cursor = cursors.next_cursor(self._store.now().wall, command.cursor, random.random())
        response = reads.answer(command, position, b"", cursor, self._cache_control)
        if response.status != 200 or plan.start == end:
            await connection.respond(request, response)
            return
        if _compressible(request, response, position):
            _mark_compressed(response)
            await connection.respond_in_parts(request, response, _gzip(self._body(plan, end)), None)
        elif position.size() <= _AT_ONCE:
            response.body = messages.shown(position.kind, await self._bytes(plan.stream, plan.start, end))
            await connection.respond(request, response)
        else:
            await connection.respond_in_parts(request, response, self._body(plan, end), position.size())

    async def _bytes(self, source: stream.Stream, at: int, end: int) -> bytes:
        """The stored bytes of a range that is small enough to hold."""
        pieces: list[bytes] = []
        while at < end:
            found = await self._store.read(source, at, end)
            pieces += found
            at += sum(map(len, found))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _body(self, plan: reads.Plan, end: int) -> AsyncGenerator[bytes, None]:
        """The response body for a range, in windows."""
        at = plan.start
        json = plan.stream.kind == media.JSON
        if json:
            opening = b"["
        while at < end:
            pieces = await self._store.read(plan.stream, at, end)
            at += sum(map(len, pieces))
            if json:
                pieces.insert(0, opening)
                opening = b""
                if at == end:
                    pieces[-1] = pieces[-1][:-1]
                    pieces.append(b"]")
            yield b"".join(pieces) if len(pieces) > 1 else pieces[0]

    async def _long_poll(
        self,
        connection: "Connection",
        request: Request,
        command: Read,
        plan: reads.Plan,
        deadline: float,
    ) -> bool:
        """Wait for data; True when the answer has been sent from the feed."""
        cursor = cursors.next_cursor(self._store.now().wall, command.cursor, random.random())
        limit = self._limit(command)

        def encode(fresh: reads.Plan, data: bytes) -> bytes | None:
            if len(data) > limit:
                return None
            position = fresh.position(fresh.tail)
            response = reads.answer(command, position, data, cursor, self._cache_control)
            head = connection.head(request, response, "", len(response.body))
            return head + response.body

        # Answers with a cursor of the present interval are the same for all who keep their connection.
        plain = cursor == cursors.next_cursor(self._store.now().wall, None, 0.0)
        shared = plain and request.keep_alive and not request.http10 and limit >= self._config.chunk
        key = ("long-poll", cursor) if shared else None
        waiter = Waiter(connection.transport, plan.start, key, encode, one_shot=True)
        while received := await self.hub.wait(plan.stream, waiter, deadline):
            if waiter.served or not connection.push(received):
                break
        if waiter.unsent:
            await connection.transport.send_all(waiter.unsent)
        return waiter.served

    async def _sse(self, connection: "Connection", request: Request, command: Read) -> None:
        plan = await self._plan(command)
        # The stream of events ends with its connection; a client comes back with the last offset.
        request.keep_alive = False
        await connection.start(request, responses.sse(not media.is_text(plan.stream.content_type)))
        try:
            await self._stream_events(connection, request, command, plan)
        except (ProtocolError, Vanished):
            pass  # deleted, expired or trimmed meanwhile: the next request is told
        await connection.finish(request)

    async def _stream_events(
        self, connection: "Connection", request: Request, command: Read, plan: reads.Plan
    ) -> None:
        ends = trio.current_time() + self._config.sse_max
        await self._send_events(connection, request, command, plan)
        at, closed = plan.tail, plan.closed
        while not (closed or self.hub.closing or trio.current_time() >= ends):
            command.offset = (plan.stream.incarnation, at)
            plan = await self._store.look(command.path, lambda view: (reads.plan(view, command)[0], None))
            if plan.waits:
                waiter = await self._sleep(connection, request, command, plan, ends)
                at, closed = waiter.position, waiter.ended
            else:
                await self._send_events(connection, request, command, plan)
                at, closed = plan.tail, plan.closed

    async def _send_events(
        self, connection: "Connection", request: Request, command: Read, plan: reads.Plan
    ) -> None:
        """Catch-up: everything up to the plan's tail, a control event behind every batch."""
        while True:
            limit = min(self._limit(command), 256 * 1024)
            end = await self._chunk(plan, limit)
            data = await self._bytes(plan.stream, plan.start, end)
            if end < plan.tail and media.is_text(plan.stream.content_type):
                data = _whole_characters(data)
                end = plan.start + len(data)
            await connection.send_part(request, self._events(command, plan, end, data))
            if end == plan.tail:
                return
            plan.start = end

    def _events(self, command: Read, plan: reads.Plan, end: int, data: bytes) -> bytes:
        cursor = cursors.next_cursor(self._store.now().wall, command.cursor, random.random())
        return reads.events(plan.position(end), data, cursor)

    async def _sleep(
        self, connection: "Connection", request: Request, command: Read, plan: reads.Plan, ends: float
    ) -> Waiter:
        """Sleep at the tail while the feed serves this reader; the waiter tells how far it came."""
        wall = self._store.now().wall
        usual = command.cursor is None or cursors.next_cursor(wall, command.cursor, 0.0) == (
            cursors.next_cursor(wall, None, 0.0)
        )

        limit = self._limit(command)

        def encode(fresh: reads.Plan, data: bytes) -> bytes | None:
            if len(data) > limit:
                return None
            return connection.part(request, self._events(command, fresh, fresh.tail, data))

        key = ("sse", request.http10) if usual and command.max_bytes is None else None
        waiter = Waiter(connection.transport, plan.start, key, encode, one_shot=False)
        while await self.hub.wait(plan.stream, waiter, ends):
            pass  # nothing that a client sends during its event stream means anything
        if waiter.unsent:
            await connection.transport.send_all(waiter.unsent)
        return waiter


def _vanished() -> ProtocolError:
    return ProtocolError(404, "STREAM_NOT_FOUND", "the stream was deleted while it was being read")


def _whole_characters(data: bytes) -> bytes:
    """Without a UTF-8 character that is cut at the end, unless there is nothing else."""
    for back in range(1, min(4, len(data))):
        if data[-back] >= 0xC0:
            width = 2 if data[-back] < 0xE0 else 3 if data[-back] < 0xF0 else 4
            return data[:-back] if back < width else data
        if data[-back] < 0x80:
            break
    return data


# Content coding

_COMPRESSED = ("image/", "video/", "audio/", "application/zip", "application/gzip", "application/zstd")


def _compressible(request: Request, response: responses.Response, position: responses.Position) -> bool:
    accepted = request.headers.get("accept-encoding")
    if accepted is None or position.size() < _WORTH_COMPRESSING or request.http10:
        return False
    if position.content_type.lower().startswith(_COMPRESSED):
        return False
    welcome = False
    for coding in accepted.lower().split(","):
        name, _, quality = coding.partition(";")
        name = name.strip()
        if name == "gzip" or name == "*":
            welcome = quality.replace(" ", "") not in ("q=0", "q=0.", "q=0.0", "q=0.00", "q=0.000")
            if name == "gzip":
                break  # what is said of it by name counts more than a star
    return welcome


def _mark_compressed(response: responses.Response) -> None:
    # Another representation may not share a strong validator (RFC 9110 section 8.8.3).
    for index, (name, value) in enumerate(response.headers):
        if name == "ETag":
            response.headers[index] = (name, "W/" + value)
    response.headers += (("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding"))


async def _gzip(parts: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
    async with aclosing(parts):
        async for part in parts:
            if len(part) > _COMPRESS_IN_THREAD:
                packed = await trio.to_thread.run_sync(compressor.compress, part)
            else:
                packed = compressor.compress(part)
            if packed:
                yield packed
    yield compressor.flush()
