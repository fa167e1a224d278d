"""Sweeper, every second or so: what is over is removed, what is too much trimmed, what is left freed.

All of it goes the way of every other change, through decisions and batches. What does not succeed
now is tried again by a later sweep. A stream that can't be looked after (a damaged row, a fault of ours) is
counted, told once in a while, and passed over: it keeps nobody else waiting. Only a file that can't
be read or written at all ends the store.
"""

import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

import trio

from ds_core.server.errors import ProtocolError
from ds_core.server.stream import Stream, expire, trim

from ...stats import Upkeep
from ..base import Damaged, Decide, StorageFailed, Store, Vanished
from . import rows, schema
from .batches import Batch
from .committer import Committer
from .damages import Undone
from .passed_over import PassedOver
from .queries import Queries
from .ranges import Ranges
from .trimmer import INSERT_TIME, Cut, Trimmer, time_row

T = TypeVar("T")
Statements = Iterable[tuple[str, tuple[object, ...]]]

_SAVE_CLOCK_EVERY = 60.0
_COLLECT_FOR = 1.0
_PAGE = 256
_AT_ONCE = 0.002
_ROUNDS = 16
_MORTAL = tuple(f"SELECT 1 FROM streams WHERE {column} IS NOT NULL LIMIT 1" for column in ("deadline", "expires"))
# In the order of their indexes, so that a page reads no more than it gives, and nothing of streams that are damaged.
_ENDED = tuple(
    f"SELECT id, {column} FROM streams WHERE {column} >= ?1 AND {column} <= ?3"
    f" AND ({column} > ?1 OR id > ?2) ORDER BY {column}, id LIMIT {_PAGE}"
    for column in ("deadline", "expires")
)


class Streams(Protocol):
    """What a sweep asks of the engine. Raises Damaged where a stream's row is not what was written, before
    anything is changed, and what `Store.transact` raises."""

    def known(self, path: str) -> Stream | None:
        """The stream at a path, if there is one."""

    def change(self, path: str, decide: Decide[None]) -> Batch | None:
        """Decide, and return the batch that must be durable before what was decided is, if there is one."""

    def add(self, statements: Statements = (), *, collects_garbage: bool = False) -> Batch:
        """Add statements, or a step of cleaning, to the open batch, and return that."""


class Sweeper:
    """Looks after `store`: a sweep's parts, and what they remember from one sweep to the next.

    `failed(what, error)` takes in what can't be looked after. `garbage` says that removed or trimmed streams may have
    left rows to free.
    """

    def __init__(
        self,
        store: Store,
        streams: Streams,
        queries: Queries,
        ranges: Ranges,
        committer: Committer,
        trimmer: Trimmer | None,
        counts: Upkeep,
    ) -> None:
        self._store = store
        self._streams = streams
        self._queries = queries
        self._ranges = ranges
        self._committer = committer
        self._trimmer = trimmer
        self.failed = PassedOver(counts).note
        self._saved_at = store.now().steady
        self.garbage = True  # the first sweep sees whether there is anything to free

    def lost(self) -> None:
        """Take in that what was decided has not become durable: it is to be done again."""
        self.garbage = True
        if self._trimmer is not None:
            self._trimmer.scan()

    def note(self, batch: Batch) -> None:
        """Take in what a durable batch leaves to do."""
        if batch.collects_garbage:
            self.garbage = batch.garbage_remains
        elif batch.leaves_garbage:
            self.garbage = True
        if self._trimmer is not None:
            self._trimmer.note([id for *_, id in batch.rows])

    async def sweep(self) -> int:
        """Do what is due; returns how many streams were over."""
        now = self._store.now()
        ended = 0
        for query, until in zip(_ENDED, (now.steady, now.wall), strict=True):
            ended += await self._expire(query, until)
        if self._trimmer is not None:
            await self._retain(self._trimmer)
        await self._collect_garbage()
        if now.steady - self._saved_at > _SAVE_CLOCK_EVERY:
            self.save_clock()
        return ended

    async def _expire(self, query: str, until: float) -> int:
        """Remove what was over at a time, page by page; a page is one commit. Returns how many."""
        ended = 0
        after: tuple[float, int] = (float("-inf"), 0)
        while True:
            try:
                page = self._queries.run_nowait(lambda db, after=after: _page(db, query, after, until))
            except Damaged as error:
                self.failed("what ends by time", error)
                return ended
            batch = None
            started = time.perf_counter()
            if page and (page[-1][1], page[-1][0]) <= after:  # it would begin again and again
                self.failed("what ends by time", Damaged("what ends by time", "its index is out of order"))
                return ended
            for id, due in page:
                after = (due, id)
                found = self._apart(f"stream {id}", self._expire_one, id)
                if found is not None:
                    batch = found
                    ended += 1
                worked = time.perf_counter() - started
                if worked > _AT_ONCE:
                    await trio.sleep(worked)  # half of the time is for everybody else
                    started = time.perf_counter()
            if batch is not None:
                await batch.done.wait()
                if batch.error is not None:
                    return ended  # a full disk, say
            if len(page) < _PAGE:
                return ended

    def _expire_one(self, id: int) -> Batch | None:
        path = self._queries.run_nowait(rows.path, id)
        return None if path is None else self._streams.change(path, expire)

    def _apart(self, name: str, step: Callable[[T], Batch | None], argument: T) -> Batch | None:
        """Do one step of a sweep for one stream; what is wrong with that stream stays with it."""
        try:
            return step(argument)
        except Damaged as error:
            self.failed(name, error)
            return None
        except (ProtocolError, Vanished):
            return None  # has to wait, for room say, or is done already
        except StorageFailed:
            raise
        except Exception as error:
            self.failed(name, error)
            return None

    async def _collect_garbage(self) -> None:
        # It follows the backlog. Alone it goes on; beside others it has a quarter of the time, in steps so small that
        # they hardly wait.
        ends = trio.current_time() + _COLLECT_FOR
        while self.garbage or self._committer.shrinking:
            batch = self._streams.add(collects_garbage=True)
            await batch.done.wait()
            if batch.error is not None or trio.current_time() >= ends:
                break
            if batch.entries:
                await trio.sleep(3 * batch.seconds)

    async def _retain(self, trimmer: Trimmer) -> None:
        ends = trio.current_time() + _COLLECT_FOR
        behind = True
        while behind:
            now = self._store.now().steady
            if trimmer.due(now) or trimmer.is_behind:
                try:
                    plan = await self._queries.run(trimmer.planner(now))
                except Damaged as error:
                    self.failed("what is too old or too large", error)
                    return
                trimmer.planned(now, plan)
                if plan.times:
                    # Labelled with the time after they were looked up: an append may seem younger, never older.
                    at = self._store.now().steady
                    await self.store([(INSERT_TIME, time_row(id, at, tail)) for id, tail in plan.times])
                await self._trim(plan.cuts)
            behind = trimmer.is_behind and trio.current_time() < ends
        while cuts := trimmer.take_large():
            if not await self._trim(cuts):
                break

    async def store(self, statements: Sequence[tuple[str, tuple[object, ...]]]) -> None:
        """Have a batch run statements of upkeep; where some meet damage, all others."""
        batch = self._streams.add(statements)
        await batch.done.wait()
        if isinstance(batch.error, Undone):
            if len(statements) == 1:
                self.failed("a row of upkeep", batch.error)
                return
            half = len(statements) // 2
            for part in (statements[:half], statements[half:]):
                await self.store(part)

    async def _trim(self, cuts: list[Cut]) -> bool:
        for _ in range(_ROUNDS):
            batch = None
            started = time.perf_counter()
            for cut in cuts:
                batch = self._apart(f"stream {cut.stream}", self._cut, cut) or batch
                worked = time.perf_counter() - started
                if worked > _AT_ONCE:
                    await trio.sleep(worked)
                    started = time.perf_counter()
            if batch is not None:
                await batch.done.wait()
            if batch is None or not isinstance(batch.error, Undone):
                break  # else again, without those that are refused now
        return batch is None or batch.error is None

    def trim(self, cuts: list[Cut]) -> None:
        """Trim streams that a commit has made too large, with the next one."""
        for cut in cuts:
            self._apart(f"stream {cut.stream}", self._cut, cut)

    def _cut(self, cut: Cut) -> Batch | None:
        position = cut.before
        if cut.keep is not None:
            found = self._streams.known(cut.path)
            if found is None or found.id != cut.stream or found.visible_tail - found.start <= cut.keep:
                return None
            first, _ = self._ranges.span(found, found.visible_tail - cut.keep)
            position = max(position, first)
        return self._streams.change(cut.path, lambda view: trim(view, cut.stream, position))

    def save_clock(self) -> None:
        """Keep the time, for the next start."""
        now = self._store.now()
        self._saved_at = now.steady
        # Only what ends by itself needs it, and a flash disk at rest should stay at rest.
        try:
            needed = self._trimmer is not None or self._queries.run_nowait(_mortal)
        except Damaged:
            needed = True
        if not needed:
            return
        self._streams.add(schema.clock(now))


def _mortal(db: sqlite3.Connection) -> bool:
    return any(schema.one(db, query) is not None for query in _MORTAL)


def _page(
    db: sqlite3.Connection, query: str, after: tuple[float, int], until: float
) -> list[tuple[int, float]]:
    return db.execute(query, (*after, until)).fetchall()
