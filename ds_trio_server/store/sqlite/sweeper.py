"""Sweeper, every second or so: what is over is removed, what is too much trimmed, what is left freed.

All of it goes the way of every other change, through decisions and batches. What does not succeed
now is tried again by a later sweep.
"""

import sqlite3
from collections.abc import Iterable
from typing import Protocol

import trio

from ds_core.server.decide import Needs
from ds_core.server.errors import ProtocolError
from ds_core.server.stream import Now, expire, trim

from ..base import Decide, StorageFailed, Store, Vanished
from . import schema
from .batches import Batch
from .committer import Committer
from .queries import Queries
from .trimmer import Cut, Trimmer

Statements = Iterable[tuple[str, tuple[object, ...]]]

_SAVE_CLOCK_EVERY = 60.0
_SWEEP_AT_ONCE = 500
_COLLECT_FOR = 0.1
_MORTAL = "SELECT 1 FROM streams WHERE deadline IS NOT NULL OR expires IS NOT NULL LIMIT 1"
_ENDED = (
    "SELECT path FROM streams WHERE deadline <= ? UNION SELECT path FROM streams WHERE expires <= ?"
    f" LIMIT {_SWEEP_AT_ONCE}"
)


class AddToBatch(Protocol):
    """Adds statements, or a step of cleaning, to the open batch, and returns that."""

    def __call__(self, statements: Statements = (), *, collects_garbage: bool = False) -> Batch: ...


class Sweeper:
    """Looks after ``store``: a sweep's parts, and what they remember from one sweep to the next.

    ``garbage`` says that removed or trimmed streams may have left rows to free.
    """

    def __init__(
        self, store: Store, queries: Queries, committer: Committer, trimmer: Trimmer | None, add: AddToBatch
    ) -> None:
        self._store = store
        self._queries = queries
        self._committer = committer
        self._trimmer = trimmer
        self._add = add
        self._saved_at = store.now().steady
        self.garbage = True  # the first sweep sees whether there is anything to free

    def note(self, batch: Batch) -> None:
        """Take in what a durable batch leaves to do."""
        if batch.collects_garbage:
            self.garbage = batch.garbage_remains
        elif batch.leaves_garbage:
            self.garbage = True
        if self._trimmer is not None:
            self._trimmer.active.update([id for *_, id in batch.rows])

    async def sweep(self) -> int:
        """Do what is due; returns how many streams were over."""
        now = self._store.now()
        ended = self._queries.run_nowait(_ended, now)
        async with trio.open_nursery() as nursery:
            for path in ended:
                nursery.start_soon(self._try, path, expire)
        if self._trimmer is not None:
            await self._retain(self._trimmer)
        await self._collect_garbage()
        if now.steady - self._saved_at > _SAVE_CLOCK_EVERY:
            self.save_clock()
        return len(ended)

    async def _try(self, path: str, decide: Decide[None]) -> None:
        try:
            await self._store.transact(Needs(path), decide)
        except (ProtocolError, StorageFailed):
            pass

    async def _collect_garbage(self) -> None:
        # A tenth of the time is for this, in steps so small that appends hardly wait.
        ends = trio.current_time() + _COLLECT_FOR
        while self.garbage or self._committer.shrinking:
            batch = self._add(collects_garbage=True)
            await batch.done.wait()
            if batch.error is not None or trio.current_time() >= ends:
                break

    async def _retain(self, trimmer: Trimmer) -> None:
        now = self._store.now().steady
        if not trimmer.due(now):
            return
        marks, cuts = await self._queries.run(trimmer.plan, now, trimmer.take(now))
        if marks:
            # Labelled with the time after they were looked up: an append may seem younger, never older.
            at = self._store.now().steady
            statement = "INSERT OR REPLACE INTO times SELECT id, ?, ? FROM streams WHERE id = ?"
            await self._add([(statement, (at, tail, id)) for id, tail in marks]).done.wait()
        async with trio.open_nursery() as nursery:
            for cut in cuts:
                nursery.start_soon(self._cut, cut)

    async def _cut(self, cut: Cut) -> None:
        try:
            position = cut.before
            if cut.keep is not None:
                found = await self._store.look(cut.path, lambda view: (view.stream, None))
                if found is None or found.id != cut.stream or found.visible_tail - found.start <= cut.keep:
                    return
                first, _ = await self._store.span(found, found.visible_tail - cut.keep)
                position = max(position, first)
            await self._store.transact(Needs(cut.path), lambda view: trim(view, cut.stream, position))
        except (ProtocolError, StorageFailed, Vanished):
            pass

    def save_clock(self) -> None:
        """Keep the time, for the next start."""
        now = self._store.now()
        self._saved_at = now.steady
        # Only what ends by itself needs it, and a flash disk at rest should stay at rest.
        if self._trimmer is None and not self._queries.run_nowait(_mortal):
            return
        self._add(schema.clock(now))


def _mortal(db: sqlite3.Connection) -> bool:
    return schema.one(db, _MORTAL) is not None


def _ended(db: sqlite3.Connection, now: Now) -> list[str]:
    return [path for (path,) in db.execute(_ENDED, (now.steady, now.wall))]
