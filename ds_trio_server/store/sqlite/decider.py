"""Decisions, made at once on states in memory, and their changes, collected in the open batch.

All that a decision needs is loaded before it runs, all that its change touches before the first of it is changed:
so what fails has changed nothing.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from ds_core.server.decide import Needs
from ds_core.server.stream import Appended, Created, Now, Removed, Renewed, Stream, Trimmed, View, expire

from ..base import Change, Damaged, Decide, LogHeld, StorageFailed, StorageFull
from . import lifecycle, schema
from .batches import Batch, Entry
from .cache import StreamCache
from .committer import Committer
from .damages import Damages, kind_of
from .database import Database
from .health import Health
from .pipeline import Pipeline
from .producers import Producers
from .publisher import Publisher
from .queries import Queries
from .queues import Queues
from .space import Space
from .sweeper import Statements

T = TypeVar("T")
log = logging.getLogger("ds")

_KEEP_CLOCK_EVERY = 60.0


class Decider:
    """Decides for one store, in the trio thread. `now` is its clock, `newest` the last id that it gave a stream."""

    def __init__(
        self,
        database: Database,
        cache: StreamCache,
        producers: Producers,
        queries: Queries,
        queues: Queues,
        space: Space,
        committer: Committer,
        pipeline: Pipeline,
        publisher: Publisher,
        health: Health,
        damages: Damages,
        now: Callable[[], Now],
        newest: int,
    ) -> None:
        self._db = database
        self._cache = cache
        self._producers = producers
        self._queries = queries
        self._queues = queues
        self._space = space
        self._committer = committer
        self._pipeline = pipeline
        self._publisher = publisher
        self._health = health
        self._damages = damages
        self._now = now
        self._newest = newest

    def decide(self, needs: Needs, decide: Decide[T]) -> tuple[T, Batch | None]:
        """The response to a command, and the batch that must be durable before it may leave. Raises Damaged
        before anything is changed, and Unverified for a stream that is to be verified first."""
        if self._health.failure is not None:
            self._health.check()
        entry = self.entry(needs.path)
        source = None if needs.source is None else self.entry(needs.source).stream
        producer = None
        if needs.producer is not None and entry.stream is not None:
            id = entry.stream.id
            producer = self._queues.producer(id, needs.producer) or self._producers.get(id, needs.producer)
        view = View(entry.stream, self._now(), self._newest + 1, source, needs.piece, producer)
        response, change = decide(view)
        if change is not None:
            if isinstance(change, Created) and entry.stream is None:
                self._damages.check_made(entry.path)
            if self._db.only_reads is not None:
                raise type(self._db.only_reads)()
            newcomer = producer is None and isinstance(change, Appended) and change.producer is not None
            if newcomer:
                assert entry.stream is not None
                self._producers.admit(entry.stream.id)
            if isinstance(change, Created) or (isinstance(change, Appended) and change.data):
                self._check_room(len(change.data))
            self.apply(entry, change)
            if newcomer:
                assert entry.stream is not None
                self._producers.admitted(entry.stream.id)
        return response, entry.batch

    def look(self, entry: Entry, decide: Decide[T]) -> tuple[T, Change | None]:
        """What a read decides, on what is durable of an entry; its change is not applied."""
        return decide(View(entry.stream, self._now(), self._newest + 1))

    def _check_room(self, size: int) -> None:
        """Raise what keeps an append of so many bytes from being stored, if anything does."""
        if self._committer.holder is not None:
            raise LogHeld(self._committer.holder)
        if not self._space.take(size):
            self._committer.press(self._space.low, self._space.wanted)
            raise StorageFull

    # States

    def entry(self, path: str) -> Entry:
        """What is at a path, a stream whose time is over removed. Raises StorageFailed, and Damaged."""
        entry = self._cache.entry(path)
        stream = entry.stream
        if stream is not None and (stream.ttl is not None or stream.expires is not None):
            # Whoever is told that a stream has expired must never see it again: not after a
            # crash either, which takes the steady clock back a little.
            _, change = expire(View(stream, self._now(), 0))
            if change is not None:
                self.apply(entry, change)
        return entry

    def readable(self, path: str, expired: bool = False) -> Entry:
        """As `entry`, for reads. One whose time is over may be left when it may be `expired`."""
        return self._cache.entry(path) if expired else self.entry(path)

    # Changes

    def apply(self, entry: Entry, change: Change) -> None:
        """Have a batch hold a change. Raises Overloaded and Damaged before anything is changed, else StorageFailed."""
        if self._damages.refused:
            self._damages.check((entry.path,), change)
        if isinstance(change, Appended):
            self._append(entry, change)
        elif isinstance(change, Renewed):
            assert entry.stream is not None
            batch = self._queues.of((entry,), 0, False)
            change.apply(entry.stream)
            self._cache.touch(entry, batch)
        else:
            self._restructure(entry, change)
        self._pipeline.write_next()

    def _append(self, entry: Entry, change: Appended) -> None:
        stream = entry.stream
        assert stream is not None
        size = len(change.data)
        batch = self._queues.of((entry,), size, size > 0)
        change.apply(stream)
        batch.collect(stream.id, change.at, change.data)
        if change.producer is not None:
            batch.producers[(stream.id, change.producer[0])] = change.producer[1:]
            if batch.steady is None:
                self._keep_clock(batch)
        self._cache.touch(entry, batch)

    def _restructure(self, entry: Entry, change: Created | Removed | Trimmed) -> None:
        size = len(change.data) if isinstance(change, Created) else 0
        ties = lifecycle.Ties.of(self._cache, entry, change)
        if self._damages.refused:
            self._damages.check([each.path for each in ties.entries()], change)
        batch = self._queues.of((entry, *ties.entries()), size, isinstance(change, Created))
        try:
            if isinstance(change, Created):
                self._newest = change.stream.id
            start = len(batch.structure)
            lifecycle.change(self._cache, batch, entry, change, ties)
            batch.blocks.append((start, len(batch.structure), entry.path, kind_of(change)))
            if batch.steady is None and lifecycle.is_mortal(change):
                self._keep_clock(batch)
        except Exception as error:
            # Half of a change is in memory: what would be written now is no state that anybody decided.
            log.critical("a change of a stream failed halfway", exc_info=error)
            failure = StorageFailed(f"a fault of ours in a change of stream {entry.path!r}: {error!r}")
            raise self._health.fail(failure) from error

    def _keep_clock(self, batch: Batch) -> None:
        """Have a batch keep the time that something in it lives by, if that was last kept a while ago: whatever the
        clock shows after a crash, it is held against the time when this was made."""
        now = self._now()
        batch.steady = now.steady
        if now.steady - self._publisher.clock_kept > _KEEP_CLOCK_EVERY:
            batch.structure += schema.clock(now)
            batch.saves_clock = True

    def discard(self, path: str) -> Batch | None:
        """Have a batch remove the stream at a path whose state can't be read. Raises Damaged where that can't be done
        either, or where forks need what it has."""
        if self._db.only_reads is not None:
            raise type(self._db.only_reads)()
        with suppress(Damaged):
            entry = self.entry(path)
            if entry.stream is None:
                return entry.batch  # somebody else was quicker
            self._damages.check((path,), Removed(soft=False))
        self._damages.check((path,), None)
        found = self._queries.run_nowait(lifecycle.look_for_rest, path)
        counted = None if found.counted is None else self._cache.get(found.counted.id)
        batch = self._queues.of(() if counted is None else (counted,), 0, False)
        start = len(batch.structure)
        lifecycle.discard(self._cache, batch, path, found, counted)
        batch.blocks.append((start, len(batch.structure), path, kind_of(None)))
        self._pipeline.write_next()
        return batch

    # For the sweeper

    def known(self, path: str) -> Stream | None:
        """As `sweeper.Streams.known`."""
        self._health.check()
        return self._cache.entry(path).stream

    def change(self, path: str, decide: Decide[None]) -> Batch | None:
        """As `sweeper.Streams.change`."""
        return self.decide(Needs(path), decide)[1]

    def add(self, statements: Statements = (), *, collects_garbage: bool = False) -> Batch:
        """As `sweeper.Streams.add`."""
        self._health.check()
        batch = self._queues.small
        batch.structure += statements
        batch.collects_garbage |= collects_garbage
        self._pipeline.write_next()
        return batch
