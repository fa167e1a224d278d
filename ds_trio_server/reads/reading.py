"""Reading from a store: where an answer begins and ends, and its bytes.

What catch-up reads, long-polls and event streams have in common; the rules themselves are in
`ds_core.server.reads`.
"""

import random
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

import trio

from ds_core.server import cursors, messages, reads, responses
from ds_core.server.errors import ProtocolError
from ds_core.server.requests import Read
from ds_core.server.stream import Renewed, Stream, View
from ds_core.wire import media

from ..config import Config
from ..stats import Stats
from ..store.base import WINDOW, Decide, Piece, Store, Vanished
from .message_index import STEP, MessageIndex

_AMPLE = 64 * 1024 * 1024
_NARROW = 16 * 1024
_BIG_AT_ONCE = 2
_COMPRESSORS = 64  # each takes a quarter of a megabyte; who comes beyond gets the body as it is


class Reading:
    """Reads of one store under one configuration: `config` and `stats` are those of the server, for whoever reads.

    `vary[worthwhile]` is the headers that say what an answer depends on: on Accept-Encoding whenever
    it is worthwhile to compress, whether this client asked for it or not; on who asks with access control,
    and `by_origin` where some web pages are refused: no cache may show them what it keeps for others.
    """

    def __init__(self, store: Store, config: Config, stats: Stats, *, by_origin: bool = False) -> None:
        self.config = config
        self.stats = stats
        self._store = store
        self._chunk = config.chunk
        self._held = 0
        self._compressing = 0
        self._big = trio.CapacityLimiter(_BIG_AT_ONCE)
        self._index = MessageIndex(store)
        self.cache_control = responses.PRIVATE if config.private else responses.PUBLIC
        who = ["Authorization"] * config.private + ["Origin"] * by_origin
        self.vary = [[("Vary", ", ".join(each))] if each else [] for each in (who, ["Accept-Encoding", *who])]

    async def plan(
        self, path: str, offset: tuple[int, int] | str, live: bool, renew: bool = True
    ) -> reads.Plan:
        """What a read may show now. Raises ProtocolError; `renew` is false after the first look.

        Nothing is awaited after the look when the read starts at the tail.
        """
        plan = await self._store.look(path, _decide(offset, live, renew))
        if plan.may_be_inside():
            await self._check_start(plan)
        return plan

    def plan_nowait(self, path: str, offset: tuple[int, int] | str) -> reads.Plan:
        """As `plan` for a catch-up read, where that needs no waiting. Raises trio.WouldBlock where it does."""
        plan = self._store.look_nowait(path, lambda view: reads.plan(view, offset, False))
        if plan.stream.kind != media.BYTES and plan.may_be_inside():
            try:
                if self._store.span_nowait(plan.stream, plan.start)[0] != plan.start:
                    raise trio.WouldBlock
            except Vanished:
                raise trio.WouldBlock from None
        return plan

    async def _check_start(self, plan: reads.Plan) -> None:
        try:
            piece = await self.messages_at(plan.stream, plan.start, False)
        except Vanished:
            raise vanished() from None
        if piece is None:
            raise reads.misplaced()
        reads.check_start(plan.stream.kind, piece, plan.start)

    async def messages_at(self, stream: Stream, position: int, rest: bool) -> Piece | None:
        """Whole messages around a position, none where one is known to begin, or with `rest` all from there
        to the end of the append. None when no message can begin there. Raises Vanished."""
        if position >= stream.visible_tail:
            return (position, b"") if position == stream.visible_tail else None
        append = await self._store.span(stream, position)
        if stream.kind == media.BYTES or append[0] == position:
            low = high = position
        else:
            low, high = await self._index.around(stream, append, position)
            if low < position and high - low > STEP:
                return None
        return low, await self.data(stream, low, append[1] if rest else high)

    def limit(self, command: Read) -> int:
        """Most bytes of the stream in one answer."""
        most = command.max_bytes
        return self._chunk if most is None or most > self._chunk else max(1, most)

    async def end(self, plan: reads.Plan, limit: int) -> int:
        """Where an answer of at most `limit` bytes ends. Raises Vanished."""
        if plan.tail - plan.start <= limit:
            return plan.tail
        last = await self._store.span(plan.stream, plan.start + limit)
        end = reads.chunk_end(plan.stream.kind, plan.start, limit, last, None)
        return await self._cut(plan.stream, plan.start, plan.start + limit, last) if end is None else end

    async def _cut(self, stream: Stream, start: int, most: int, append: tuple[int, int]) -> int:
        """Where an answer ends within the append that it begins in: at the last message that ends up to
        `most`, or else at the first."""
        low, high = await self._index.around(stream, append, most)
        low = max(low, start)
        if high - low > STEP:
            return low if low > start else high
        data = await self.data(stream, low, high)
        end = low + messages.cut(stream.kind, data, 0, most - low)
        return low if end > most and low > start else end

    async def data(self, stream: Stream, at: int, end: int) -> bytes:
        """The stored bytes of a range that is small enough to hold. Raises Vanished."""
        pieces: list[bytes] = []
        while at < end:
            found = await self._store.read(stream, at, end)
            pieces += found
            at += sum(map(len, found))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def body(self, plan: reads.Plan, end: int) -> AsyncGenerator[bytes, None]:
        """The body that shows a range, in windows. Raises Vanished."""
        at = plan.start
        opening = b"[" if plan.stream.kind == media.JSON else b""
        while at < end:
            async with self.turn():
                pieces = await self._store.read(plan.stream, at, min(end, at + self.window()))
                size = sum(map(len, pieces))
                at += size
                if opening:
                    pieces.insert(0, opening)
                if plan.stream.kind == media.JSON:
                    opening = b""
                    if at == end:
                        pieces[-1] = pieces[-1][:-1]
                        pieces.append(b"]")
                data = b"".join(pieces) if len(pieces) > 1 else pieces[0]
                del pieces
            with self.holding(size):
                yield data
            del data

    def may_compress(self) -> bool:
        """Whether one more answer may be compressed: what that takes is held until its reader has all of it."""
        return self._compressing < _COMPRESSORS

    async def compressing(self, parts: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """The same parts, of a body that is compressed meanwhile."""
        self._compressing += 1
        try:
            async with aclosing(parts):
                async for part in parts:
                    yield part
                    del part
        finally:
            self._compressing -= 1

    def turn(self) -> trio.CapacityLimiter:
        """To be held while the next window of a long answer is read and encoded, not while it is sent: however many
        readers catch up, few of these come between two looks at what waits for an answer."""
        return self._big

    def window(self) -> int:
        """How much of a long answer to hold at once: less when many readers are slow to take theirs."""
        return WINDOW if self._held < _AMPLE else _NARROW

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Count bytes that are being sent to someone."""
        self._held += size
        try:
            yield
        finally:
            self._held -= size

    def cursor(self, given: str | None) -> str:
        """The cursor for a live answer to a request that came with `given`."""
        return cursors.next_cursor(self._store.now().wall, given, random.random())

    def shared_cursor(self, given: str | None) -> str | None:
        """The cursor that all readers get in this interval, None for one who is ahead of it."""
        return cursors.shared_cursor(self._store.now().wall, given)


def _decide(offset: tuple[int, int] | str, live: bool, renew: bool) -> Decide[reads.Plan]:
    def decide(view: View) -> tuple[reads.Plan, Renewed | None]:
        plan, renewal = reads.plan(view, offset, live)
        return plan, renewal if renew else None

    return decide


def vanished() -> ProtocolError:
    """404 for a stream that went while it was being read."""
    return ProtocolError(404, "STREAM_NOT_FOUND", "the stream was deleted while it was being read")
