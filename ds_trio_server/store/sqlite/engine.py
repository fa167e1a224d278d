"""Streams in one SQLite file: what an edge gateway keeps them in.

Here the store is put together, opened and closed, and here its users wait: for the batch that holds what they changed,
or what a refusal rests on. A response leaves when the transaction that holds its batch is on disk. Readers see a
stream only as far as it is durable. How it is decided is the `decider`'s, what becomes of a batch the `pipeline`'s.

Where nothing can be written when it opens, it serves reads, and looks at each sweep whether that is over.
"""

import logging
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import trio

from ds_core.server.decide import Needs
from ds_core.server.errors import ProtocolError
from ds_core.server.stream import Now, Renewed, Stream

from ...clock import Clock
from ...stats import NEVER, Commits, Upkeep
from ..base import Damaged, Decide, LogHeld, Overloaded, StorageFailed, StorageFull, Store, Unwritable, Usage, Watcher
from ..retention import Retention
from ..watchers import Watchers
from . import errors, files, meta, rows, schema, verifying
from .batches import Waiter
from .cache import StreamCache
from .committer import Committer
from .damages import Damages, Undone, Unverified
from .database import Database
from .decider import Decider
from .health import Health
from .passed_over import PassedOver
from .pipeline import Pipeline
from .producers import Producers
from .publisher import Publisher
from .queries import Queries
from .queues import Queues
from .ranges import Ranges
from .space import MinFree, Space
from .sweeper import Statements, Sweeper
from .tail import TailCache
from .trimmer import Trimmer

T = TypeVar("T")
log = logging.getLogger("ds")

_CACHED_STREAMS = 4096
_TAIL_BYTES = 8 * 1024 * 1024
_LOG_ROOM = 8 * 1024 * 1024
_NOTHING: Statements = (("DELETE FROM staged WHERE blob < 0", ()),)
"""What changes nothing, and is refused like what does."""


class SQLiteStore(Store):
    """One directory, one file, one process."""

    def __init__(
        self,
        folder: str | Path,
        clock: Clock | None = None,
        retain: Retention | None = None,
        min_free: MinFree | None = None,
    ) -> None:
        self._folder = Path(folder)
        self._db = Database(self._folder)
        self._space = Space(self._folder, min_free, self._owed, self._log_room, self._unused)
        self._trimmer = Trimmer(retain) if retain else None
        self._clock = clock
        self.commits = Commits()
        self.upkeep = Upkeep()
        self._watchers = Watchers()
        self._tails = TailCache(_TAIL_BYTES)
        self._queues = Queues()
        self._health = Health(self._queues)
        self._damages = Damages(self._folder, self.upkeep)
        self._verifying = trio.Lock()

    # Opening and closing

    async def open(self) -> None:
        await trio.to_thread.run_sync(self._open)
        assert self._clock is not None
        publisher = Publisher(self._cache, self._producers, self._tails, self._watchers, self._trimmer)
        pipeline = Pipeline(
            self._folder, self._db.hold, self._queues, publisher, self._health, self._damages, self.commits
        )
        self._committer = Committer(
            self._folder, self._db, self._last_blob, self.upkeep, pipeline.written, self._health.fail
        )
        self._decider = Decider(
            self._db, self._cache, self._producers, self._queries, self._queues, self._space, self._committer,
            pipeline, publisher, self._health, self._damages, self._clock.now, self._newest,
        )  # fmt: skip
        self._sweeper = Sweeper(
            self, self._decider, self._queries, self._ranges, self._committer, self._trimmer, self.upkeep
        )
        pipeline.committer = self._committer
        pipeline.sweeper = self._sweeper
        pipeline.again = self._decide_again
        self._publisher, self._pipeline = publisher, pipeline
        self.is_open = True

    def _open(self) -> None:
        self._db.open()
        try:
            self._load()
        except BaseException as error:
            self._db.hold.close()
            if isinstance(error, sqlite3.Error):
                raise errors.failed(self._folder, error) from error
            raise
        self._space.measure()
        if self._db.only_reads is None and not self._space.low:
            files.keep_reserve(self._folder)

    def _load(self) -> None:
        db = self._db
        self._queries = Queries(
            self._folder, db.connect, db.reader, self._health.check, self._health.fail, self._damages
        )
        self._cache = StreamCache(self._queries, _CACHED_STREAMS, self._watchers.watched)
        self._ranges = Ranges(self._queries, self._tails, self._cache)
        self._producers = Producers(self._queries)
        found = meta.load(self._folder, db.writer)
        self._newest = found.newest
        self._damages.verified = not found.newest  # nothing can be lost where nothing was ever made
        self._last_blob = schema.last_blob(db.writer)
        if self._clock is None:
            self._clock = Clock(found.steady, found.wall)
        if self._trimmer is not None:
            try:
                self._queries.run_nowait(self._trimmer.begin)
            except Damaged as error:  # what is left out is told by the next append, or by a check
                PassedOver(self.upkeep).note("what is too old", error)

    def _try_to_write(self) -> None:
        """Take changes again, if what stood in the way is over."""
        if not self._queues.idle or self._queries.busy or errors.hindrance(self._folder) is not None:
            return
        self._queries.close()
        try:
            self._db.reopen()
        except StorageFailed as error:
            raise self._health.fail(error) from error
        self._queries.use(self._db.reader)
        self._committer.use(self._db.writer)
        if self._db.only_reads is None:
            self._space.measure()
            log.warning("%s can be written again: appends go on", self._folder)

    async def close(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        known = self._health.failure
        with trio.CancelScope(shield=True):
            if known is None:
                with suppress(StorageFailed):  # told at the end
                    self._check_place()
                    if self._publisher.clock_kept > NEVER or self._has_producers():
                        self._decider.add(schema.clock(self.now()))
                    else:
                        self._sweeper.save_clock()
            while (pending := self._queues.pending()) is not None:
                await pending.done.wait()
            await self._committer.close(broken=self._health.failure is not None)
            self._queries.close()
            self._db.close(broken=self._health.failure is not None)
        if self._health.failure is not known:
            self._health.check()

    def _has_producers(self) -> bool:
        try:
            return self._producers.any()
        except Damaged:
            return True

    def now(self) -> Now:
        assert self._clock is not None, "the store is not open"
        return self._clock.now()

    # Decisions

    async def transact(self, needs: Needs, decide: Decide[T]) -> T:
        self.check_open()
        while True:
            try:
                return await self._transact(needs, decide)
            except Undone:
                pass  # decided again, each time without one more that is damaged
            except Unverified:
                async with self._verifying:
                    if not self._damages.verified:
                        await self._verify()

    async def _transact(self, needs: Needs, decide: Decide[T]) -> T:
        try:
            response, pending = self._decider.decide(needs, decide)
        except Overloaded:
            raise  # rests on nothing that can be lost, and who waits holds a body
        except ProtocolError:
            # The refusal may rest on a change that can still be lost.
            for based_on in (needs.path, needs.source):
                pending = None if based_on is None else self._cache.pending(based_on)
                if pending is not None:
                    await pending.wait()
            raise
        if pending is not None:
            await pending.wait()
        else:
            await trio.lowlevel.checkpoint()
        return response

    def transact_nowait(
        self, needs: Needs, decide: Decide[T], done: Callable[[T, Exception | None], object]
    ) -> None:
        self.check_open()
        try:
            response, pending = self._decider.decide(needs, decide)
        except Overloaded:
            raise
        except ProtocolError:
            if self._cache.pending(needs.path) is not None:
                raise trio.WouldBlock from None
            raise
        except Unverified:
            raise trio.WouldBlock from None
        if pending is not None:
            pending.callbacks.append((done, response, needs, decide))
        else:
            done(response, None)

    def _decide_again(self, waiter: Waiter) -> None:
        """As `transact_nowait`, for who has waited in a batch that was undone."""
        done, _, needs, decide = waiter
        try:
            self.transact_nowait(needs, decide, done)
        except trio.WouldBlock:  # a refusal now, which may be lost in its turn
            done(None, Overloaded())
        except Exception as error:
            done(None, error)

    async def discard(self, path: str) -> None:
        self.check_open()
        self._health.check()
        while True:
            with suppress(Undone):
                batch = self._decider.discard(path)
                if batch is not None:
                    await batch.wait()
                return

    async def look(self, path: str, decide: Decide[T]) -> T:
        self.check_open()
        self._health.check()
        entry = self._decider.readable(path)
        renewed = False
        while True:
            while (structural := entry.structural) is not None:
                await structural.done.wait()
                self._health.check()
                # On a full disk an expired stream can't be removed, but it can be told.
                entry = self._decider.readable(path, expired=structural.error is not None)
            response, change = self._decider.look(entry, decide)
            if change is None:
                return response
            assert isinstance(change, Renewed) and entry.stream is not None
            durable = entry.durable_deadline
            if renewed or (durable is not None and change.deadline <= durable):
                change.apply(entry.stream)
                return response
            # Where it can't be stored, reads go on, and the renewal counts as long as this process lives.
            with suppress(Unwritable, Damaged, Undone):
                self._decider.apply(entry, change)
                assert entry.batch is not None
                await entry.batch.wait()
            renewed = True
            # Whoever looks goes on from the very present; so look again.
            entry = self._decider.readable(path)

    def look_nowait(self, path: str, decide: Decide[T]) -> T:
        self.check_open()
        self._health.check()
        entry = self._decider.readable(path)
        if entry.structural is not None:
            raise trio.WouldBlock
        response, change = self._decider.look(entry, decide)
        if change is not None:
            assert isinstance(change, Renewed) and entry.stream is not None
            if entry.durable_deadline is None or change.deadline > entry.durable_deadline:
                raise trio.WouldBlock
            change.apply(entry.stream)
        return response

    def check_writable(self) -> None:
        self.check_open()
        self._health.check()
        refusal = self._db.only_reads or self._pipeline.refused or (StorageFull() if self._space.low else None)
        if refusal is not None:
            raise type(refusal)()
        if self._committer.holder is not None:
            raise LogHeld(self._committer.holder)

    def _check_place(self) -> None:
        """End the store when its files are not where they were."""
        try:
            self._db.hold.check()
        except StorageFailed as error:
            raise self._health.fail(error) from None

    def _owed(self) -> int:
        return 2 * self._queues.waiting + max(0, self._db.log.owed()) + files.reserve_missing(self._folder)

    def _log_room(self) -> int:
        return max(0, _LOG_ROOM - self._db.log.size())

    def _unused(self) -> int:
        return self._queries.run_nowait(schema.unused) - 2 * self._queues.waiting

    async def wait_failed(self) -> StorageFailed:
        self.check_open()
        await self._health.failed.wait()
        assert self._health.failure is not None
        return self._health.failure

    # Reading and watching

    async def read(self, stream: Stream, start: int, end: int) -> list[bytes]:
        self.check_open()
        return await self._ranges.read(stream, start, end)

    def read_nowait(self, stream: Stream, start: int, end: int) -> list[bytes]:
        self.check_open()
        return self._ranges.read_nowait(stream, start, end)

    async def span(self, stream: Stream, position: int) -> tuple[int, int]:
        self.check_open()
        await trio.lowlevel.checkpoint()
        return self._ranges.span(stream, position)

    def span_nowait(self, stream: Stream, position: int) -> tuple[int, int]:
        self.check_open()
        return self._ranges.span(stream, position)

    def watch(self, stream: Stream, watcher: Watcher) -> None:
        self.check_open()
        self._watchers.add(stream, watcher)

    def unwatch(self, stream: Stream, watcher: Watcher) -> None:
        self._watchers.remove(stream, watcher)
        entry = self._cache.get(stream.id)
        if entry is not None and not self._watchers.watched(stream):
            self._cache.release(entry)

    async def verify(self) -> None:
        self.check_open()
        async with self._verifying:
            await self._verify()

    async def _verify(self) -> None:
        found = await self._queries.run(verifying.verify)
        self._damages.verified = True
        if found is not None:
            self._damages.hidden = found.hidden
            self._damages.closed = found.text if found.closed else ""
            self._damages.met(Damaged("what streams are found by", found.text))

    async def sweep(self) -> int:
        self.check_open()
        self._health.check()
        self._check_place()
        self._space.look()
        if self._db.only_reads is not None:
            self._try_to_write()
            return 0
        self._committer.tend(self._space.low, self._space.wanted)
        if self._pipeline.refused is not None and self._queues.idle:
            self._decider.add(_NOTHING)  # tells when that is over, though nobody appends
        try:
            forget = list(self._producers.walk(self.now().steady))
        except Damaged as error:
            self._sweeper.failed("a producer", error)
            forget = []
        if forget:
            await self._sweeper.store(forget)
        ended = await self._sweeper.sweep()
        self._health.check()
        return ended

    async def paths(self) -> list[str]:
        self.check_open()
        return await self._queries.run(rows.paths)

    async def usage(self) -> Usage:
        self.check_open()
        count = await self._queries.run(rows.count)
        # By their names: to list the folder takes a file descriptor, and there may be none.
        files = [self._folder / (schema.FILE + end) for end in ("", "-wal", "-shm")]
        return Usage(count, sum(file.stat().st_size for file in files if file.exists()))
