"""From a request to its answer: the core decides, the store makes it durable, this sends it.

One coroutine per kind of answer. Everything about HTTP framing is in ``exchange`` and
``connection``; everything about streams is in ``ds_core``.
"""

import time
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING

import trio

from ds_core.server import create, messages, reads, requests, responses, stream, targets
from ds_core.server.errors import ProtocolError
from ds_core.server.requests import Append, Create, Delete, Head, Read
from ds_core.wire import media, names

from .access import Identity, Origins, without_access
from .config import Config
from .http.readers import Request
from .http.transport import Transport
from .live.fanout import Hub, Waiter
from .live.subscribers import LongPoll, start_events
from .ops.endpoints import Endpoints
from .parsers import FastCodecs, Known
from .reads import compression
from .reads.reading import Reading, vanished
from .stats import Stats
from .store.base import Piece, Store, Vanished

if TYPE_CHECKING:
    from .access import Access
    from .http.connection import Connection

# The same few targets come again and again.
resolve = lru_cache(256)(targets.resolve)

Command = Create | Append | Read | Head | Delete

_PARSE_IN_THREAD = 128 * 1024
_AT_ONCE = 64 * 1024


class Handlers:
    """The answers of one server over one store."""

    def __init__(
        self,
        store: Store,
        config: Config,
        access: "Access | None" = None,
        connections: Callable[[], int] = lambda: 0,
        origins: Origins | None = None,
    ) -> None:
        self._store = store
        self._access = access
        self.origins = Origins() if origins is None else origins
        self.stats = Stats()
        self._endpoints = Endpoints(store, self.stats, access, lambda: (connections(), self.hub.count()))
        self._config = config
        self.codecs = FastCodecs()
        self._date = (0, "")
        self.reading = Reading(store, config)
        self.hub = Hub(store)

    def date(self) -> str:
        """The Date header line of this second."""
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, f"date: {formatdate(now, usegmt=True)}\r\n")
        return self._date[1]

    async def handle(self, connection: "Connection", request: Request) -> Waiter | None:
        """Answer one request, or begin to: the waiter that goes on with a live read.

        Raises ProtocolError for what is to be refused.
        """
        self.stats.requests += 1
        self.origins.check(request.headers, request.method == "OPTIONS")
        transport = connection.transport
        if request.method == "OPTIONS":
            await connection.pass_over(request)
            await connection.respond(request, responses.preflight())
            return None
        if not request.target.startswith(names.ROOT):
            response = await self._endpoints.answer(transport, request)
            if response is not None:
                await connection.pass_over(request)
                await connection.respond(request, response)
                return None
        host = request.headers.get("host")
        command = requests.parse(
            request.method,
            request.target,
            request.headers,
            f"{transport.scheme}://{host}" if host else "",
            resolve=resolve,
        )
        self.admit(transport, request, command)
        if isinstance(command, Append):
            await self._append(connection, request, command)
        elif isinstance(command, Read):
            return await self._read(connection, request, command)
        elif isinstance(command, Create):
            await self._create(connection, request, command)
        else:
            await self._simple(connection, request, command)
        return None

    def admit(self, transport: Transport, request: Request, command: Command) -> Identity:
        """Who the client is; ProtocolError 401 or 403 unless it may do this."""
        if self._access is None:
            return without_access(transport.identities)
        wall = self._store.now().wall
        return self._access.check(command, request.headers, request.target, transport.identities, wall)

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
            return self.codecs
        try:
            kind = media.kind_of(command.content_type)
        except ValueError:
            return self.codecs
        if kind == media.BYTES:
            return self.codecs
        known = Known(self.codecs)
        await trio.to_thread.run_sync(known.parse, kind, command.body)
        return known

    async def _fork_piece(self, command: Create) -> Piece | None:
        """What the core must see of the source to know where a fork may leave it."""
        assert command.source is not None
        if command.fork_offset == names.NOW:
            return None  # whatever the tail is by then

        def locate(view: stream.View) -> tuple[tuple[stream.Stream, int] | None, None]:
            source = view.stream
            if stream.condition(source, view.now) not in (stream.OPEN, stream.CLOSED) or source is None:
                return None, None
            return (source, create.fork_position(source, command, view.fresh)), None

        try:
            found = await self._store.look(command.source, locate)
            if found is None:
                return None
            source, position = found
            # The path may have another stream by the time it is decided; "the start" would be that one's.
            command.fork_offset = (source.incarnation, position)
            return await self.reading.messages_at(source, position, command.fork_skip > 0)
        except (ProtocolError, Vanished):
            return None  # the creation itself will say so, in its own order of checks

    async def _simple(self, connection: "Connection", request: Request, command: Head | Delete) -> None:
        await connection.pass_over(request)
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

    async def _read(self, connection: "Connection", request: Request, command: Read) -> Waiter | None:
        await connection.pass_over(request)
        now = trio.current_time()
        if command.live == names.SSE:
            return await start_events(connection, self, request, command, now + self._config.sse_max)
        plan = await self.reading.plan(command)
        if plan.waits:
            deadline = now + self._config.long_poll_timeout
            return LongPoll(connection, self, request, command, plan, deadline)
        await self.answer(connection, request, command, plan)
        return None

    async def answer(
        self, connection: "Connection", request: Request, command: Read, plan: reads.Plan
    ) -> None:
        """Answer a catch-up read, or a long-poll whose time has come."""
        try:
            await self._show(connection, request, command, plan)
        except Vanished:
            if connection.started:
                raise
            # Deleted or trimmed since the look: a second one tells which, or where it begins now.
            plan = await self.reading.plan(command, renew=False)
            try:
                await self._show(connection, request, command, plan)
            except Vanished:
                raise vanished() from None

    async def _show(
        self, connection: "Connection", request: Request, command: Read, plan: reads.Plan
    ) -> None:
        reading = self.reading
        end = await reading.end(plan, reading.limit(command))
        position = plan.position(end)
        cursor = reading.cursor(command.cursor)
        response = reads.answer(command, position, b"", cursor, reading.cache_control)
        size = position.size()
        worthwhile = compression.is_worthwhile(position.content_type, size)
        response.headers += reading.vary[worthwhile]
        if response.status != 200 or plan.start == end:
            await connection.respond(request, response)
        elif worthwhile and not request.http10 and compression.wants_gzip(request.headers.get("accept-encoding")):
            compression.mark(response)
            await connection.respond_in_parts(request, response, compression.gzip(reading.body(plan, end)), None)
        elif size <= _AT_ONCE:
            response.body = messages.shown(position.kind, await reading.data(plan.stream, plan.start, end))
            await connection.respond(request, response)
        else:
            await connection.respond_in_parts(request, response, reading.body(plan, end), size)
