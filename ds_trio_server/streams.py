"""Streams: from a request to its answer. The core decides, the store makes it durable.

`Streams` is every operation on streams without HTTP: commands in, responses out. `StreamsRoute` is how exchanges
come to it: it reads the command, asks who may do that, and hands a read to `reads` or `live`.
"""

from collections.abc import AsyncGenerator, Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import trio

from ds_core.server import create, decide, messages, requests, responses, stream, targets
from ds_core.server.requests import Append, Create, Delete, Head, Read
from ds_core.server.stream import Now
from ds_core.wire import media, names

from .access import ANYBODY, without_access
from .http.exchange import Exchange, Suspended
from .live.subscribers import LiveReads
from .parsers import FastParsers, Parsed
from .reads.catchup import Answer, accepted, send
from .store.base import Damaged, Done, Piece, Store, Vanished

if TYPE_CHECKING:
    from .access import Access

# The same few targets come again and again. (Long ones don't, and what thousands of parameters take isn't kept.)
_resolve = lru_cache(256)(targets.resolve)
_REMEMBERED = 512

Command = Create | Append | Read | Head | Delete

_PARSE_IN_THREAD = 128 * 1024


class Streams:
    """The operations on the streams of one store. All raise ProtocolError, and StorageFailed."""

    def __init__(self, store: Store, live: LiveReads) -> None:
        self._store = store
        self._live = live
        self._reading = live.reading
        self._parsers = FastParsers()

    def append_nowait(self, command: Append, done: Done[responses.Response]) -> None:
        """Append, or close; `done(response, error)` is called when it is durable. Raises trio.WouldBlock where it
        can't be decided without waiting; nothing has happened then."""
        parsers = self._parsers
        self._store.transact_nowait(
            decide.needs(command), lambda view: stream.append(view, command, parsers), done
        )

    async def append(self, command: Append) -> responses.Response:
        """Append, or close; returns when it is durable."""
        parsers = await self._parsed(command)
        return await self._store.transact(decide.needs(command), lambda view: stream.append(view, command, parsers))

    async def create(self, command: Create) -> responses.Response:
        """Create a stream or a fork; returns when it is durable."""
        parsers = await self._parsed(command)
        piece = await self._fork_piece(command) if command.source is not None else None
        return await self._store.transact(
            decide.needs(command, piece), lambda view: create.create(view, command, parsers)
        )

    async def head(self, command: Head) -> responses.Response:
        """What a stream is, and where it ends."""
        return await self._store.look(command.path, lambda view: stream.head(view, command))

    async def delete(self, command: Delete) -> responses.Response:
        """Delete a stream; returns when that is durable. One whose state is damaged as well: nothing else is left to be
        done with it."""
        try:
            return await self._store.transact(decide.needs(command), lambda view: stream.delete(view, command))
        except Damaged:
            await self._store.discard(command.path)
            return responses.Response(204, [])

    async def read(self, command: Read, accept: str | None = None) -> Answer:
        """What there is from an offset on, whole or in parts; where a `live` one finds nothing, what comes before a
        long-poll's time is up. `accept` is an Accept-Encoding."""
        if command.live is not None:
            return await self._live.answer(command, accept)
        plan = await self._reading.plan(command.path, command.offset, False)
        return await self._live.catchup.answer(command, accept, plan)

    def follow(self, command: Read) -> AsyncGenerator[responses.Response, None]:
        """What there is from an offset on, and all that comes, until the stream is closed or the server stops."""
        return self._live.follow(command)

    async def _parsed(self, command: Append | Create) -> messages.Parsers:
        """The parsers for a command's body; a large body is parsed here and now, in a thread."""
        if len(command.body) < _PARSE_IN_THREAD or not command.content_type:
            return self._parsers
        try:
            kind = media.kind_of(command.content_type)
        except ValueError:
            return self._parsers
        if kind == media.BYTES:
            return self._parsers
        parsed = Parsed(self._parsers)
        await trio.to_thread.run_sync(parsed.parse, kind, command.body)
        return parsed

    async def _fork_piece(self, command: Create) -> Piece | None:
        """What the core must see of the source to know where a fork may leave it."""
        assert command.source is not None
        if command.fork_offset == names.NOW:
            return None  # whatever the tail is by then

        def locate(view: stream.View) -> tuple[tuple[stream.Stream, int] | None, None]:
            source = view.stream
            position = create.piece_position(source, command, view.now, view.fresh)
            return (None if source is None or position is None else (source, position)), None

        found = await self._store.look(command.source, locate)
        if found is None:
            return None
        source, position = found
        # The path may have another stream by the time it is decided; "the start" would be that one's.
        command.fork_offset = (source.incarnation, position)
        try:
            return await self._reading.messages_at(source, position, command.fork_skip > 0)
        except Vanished:
            return None  # the creation itself will say so, in its own order of checks


class StreamsRoute:
    """`/v1/stream/...`."""

    def __init__(self, streams: Streams, live: LiveReads, access: "Access | None", now: Callable[[], Now]) -> None:
        self._streams = streams
        self._live = live
        self._access = access
        self._now = now

    def answer_nowait(self, exchange: Exchange) -> None:
        """Appends and small catch-up reads need no waiting, mostly."""
        if exchange.method not in ("POST", "GET"):
            raise trio.WouldBlock
        command = self._command(exchange)
        if isinstance(command, Append):
            command.body = exchange.body_nowait()
            self._streams.append_nowait(command, exchange.finish)
        else:
            assert isinstance(command, Read)
            exchange.finish(self._live.catchup.answer_nowait(command, accepted(exchange)))

    async def answer(self, exchange: Exchange) -> Suspended | None:
        """Answer a request, or begin to."""
        command = self._command(exchange)
        if isinstance(command, (Append, Create)):
            command.body = await exchange.body()
        else:
            await exchange.pass_over()
        if isinstance(command, Read):
            return await self._read(exchange, command)
        if isinstance(command, Append):
            response = await self._streams.append(command)
        elif isinstance(command, Create):
            response = await self._streams.create(command)
        elif isinstance(command, Head):
            response = await self._streams.head(command)
        else:
            response = await self._streams.delete(command)
        await exchange.respond(response)
        return None

    def _command(self, exchange: Exchange) -> Command:
        """What a request asks, of somebody who may. Raises ProtocolError."""
        origin = ""
        if exchange.method == "PUT" and (authority := exchange.authority):
            origin = f"{exchange.scheme}://{authority}"
        target = exchange.target
        resolve = _resolve if len(target) <= _REMEMBERED else targets.resolve
        command = requests.parse(exchange.method, target, exchange.headers, origin, resolve=resolve)
        if self._access is None:
            certified = exchange.certified
            exchange.identity = without_access(certified) if certified else ANYBODY
        else:
            wall = self._now().wall
            exchange.identity = self._access.check(
                command, exchange.headers, exchange.target, exchange.certified, wall
            )
        return command

    async def _read(self, exchange: Exchange, command: Read) -> Suspended | None:
        if command.live == names.SSE:
            return await self._live.events(exchange, command)
        if command.live is not None:
            return await self._live.long_poll(exchange, command)
        await send(exchange, await self._streams.read(command, accepted(exchange)))
        return None
