"""Streams in one SQLite file: what an edge gateway keeps them in.

Decisions are made at once on states in memory and collected in a batch; a response leaves when the
transaction that holds its batch is on disk (`committer`). Readers see a stream only as far as it
is durable.

A batch that finds no room, or the file locked or read-only (`errors` has the table), fails as a whole,
with everything that was decided on top of it, and the states it touched are dropped from the cache: the file is
the truth again. Any other fault of the disk ends the store: nothing it could say afterwards would be a promise.

Where nothing can be written when it opens, it serves reads, and looks at each sweep whether that is over.
"""

import logging
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeGuard, TypeVar

import trio

from ds_core.server.decide import Needs
from ds_core.server.errors import ProtocolError
from ds_core.server.stream import Appended, Created, Now, Removed, Renewed, Stream, Trimmed, View, expire

from ...clock import Clock
from ...stats import NEVER, Commits, Upkeep
from ..base import (
    Change,
    Decide,
    LogHeld,
    Overloaded,
    StorageBusy,
    StorageFailed,
    StorageFull,
    StorageReadOnly,
    Store,
    Unwritable,
    Usage,
    Watcher,
)
from ..retention import Retention
from ..watchers import Watchers
from . import errors, files, lifecycle, rows, schema
from .batches import Batch, Entry
from .cache import StreamCache
from .committer import Committer
from .database import Database
from .producers import Producers
from .queries import Queries
from .queues import Queues
from .ranges import Ranges
from .space import MinFree, Space
from .sweeper import Statements, Sweeper
from .tail import TailCache
from .trimmer import Cut, Trimmer

T = TypeVar("T")
log = logging.getLogger("ds")

_CACHED_STREAMS = 4096
_TAIL_BYTES = 8 * 1024 * 1024
_LOG_ROOM = 8 * 1024 * 1024
_KEEP_CLOCK_EVERY = 60.0
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
        self._newest = 0
        self._failure: StorageFailed | None = None
        self._failed = trio.Event()
        # Why the last batch could not be written, where that says more than no room.
        self._refused: StorageBusy | StorageReadOnly | None = None
        self._clock_kept = NEVER

    # Opening and closing

    async def open(self) -> None:
        await trio.to_thread.run_sync(self._open)
        self._committer = Committer(
            self._folder, self._db, self._last_blob, self.upkeep, self._written, self._fail
        )
        self._sweeper = Sweeper(self, self, self._queries, self._committer, self._trimmer, self.upkeep)

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
        self._queries = Queries(self._folder, db.connect, db.reader, self._check_health, self._fail)
        self._ranges = Ranges(self._folder, self._queries, self._tails)
        self._cache = StreamCache(self._queries, _CACHED_STREAMS, self._watchers.watched)
        self._producers = Producers(self._queries)
        meta = dict(db.writer.execute("SELECT name, value FROM meta"))
        self._newest = meta.get("newest", 0)
        self._last_blob = schema.last_blob(db.writer)
        if self._clock is None:
            self._clock = Clock(meta.get("steady", 0.0), meta.get("wall", 0.0))
        if self._trimmer is not None:
            self._trimmer.begin(db.reader)

    def _try_to_write(self) -> None:
        """Take changes again, if what stood in the way is over."""
        if not self._queues.idle or self._queries.busy or errors.hindrance(self._folder) is not None:
            return
        self._queries.close()
        try:
            self._db.reopen()
        except StorageFailed as error:
            raise self._fail(error) from error
        self._queries.use(self._db.reader)
        self._committer.use(self._db.writer)
        if self._db.only_reads is None:
            self._space.measure()
            log.warning("%s can be written again: appends go on", self._folder)

    async def close(self) -> None:
        known = self._failure
        with trio.CancelScope(shield=True):
            if known is None:
                with suppress(StorageFailed):  # told at the end
                    self._check_place()
                    if self._clock_kept > NEVER or self._producers.any():
                        self.add(schema.clock(self.now()))
                    else:
                        self._sweeper.save_clock()
            while (pending := self._queues.pending()) is not None:
                await pending.done.wait()
            await self._committer.close(broken=self._failure is not None)
            self._queries.close()
            self._db.close(broken=self._failure is not None)
        if self._failure is not known:
            self._check_health()

    def now(self) -> Now:
        assert self._clock is not None, "the store is not open"
        return self._clock.now()

    # Decisions

    async def transact(self, needs: Needs, decide: Decide[T]) -> T:
        try:
            response, pending = self._decide(needs, decide)
        except rows.DamagedRow as error:
            raise self._damaged(error) from error
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
        try:
            response, pending = self._decide(needs, decide)
        except rows.DamagedRow as error:
            raise self._damaged(error) from error
        except Overloaded:
            raise
        except ProtocolError:
            if self._cache.pending(needs.path) is not None:
                raise trio.WouldBlock from None
            raise
        if pending is not None:
            pending.callbacks.append((done, response))
        else:
            done(response, None)

    def _decide(self, needs: Needs, decide: Decide[T]) -> tuple[T, Batch | None]:
        """The response to a command, and the batch that must be durable before it may leave. Raises DamagedRow
        before anything is changed."""
        if self._failure is not None:
            self._check_health()
        entry = self._entry(needs.path)
        source = None if needs.source is None else self._entry(needs.source).stream
        producer = None
        if needs.producer is not None and entry.stream is not None:
            id = entry.stream.id
            producer = self._queues.producer(id, needs.producer) or self._producers.get(id, needs.producer)
        view = View(entry.stream, self.now(), self._newest + 1, source, needs.piece, producer)
        response, change = decide(view)
        if change is not None:
            if self._db.only_reads is not None:
                raise type(self._db.only_reads)()
            newcomer = producer is None and isinstance(change, Appended) and change.producer is not None
            if newcomer:
                assert entry.stream is not None
                self._producers.admit(entry.stream.id)
            if _grows(change):
                self._check_room(len(change.data))
            self._apply(entry, change)
            if newcomer:
                assert entry.stream is not None
                self._producers.admitted(entry.stream.id)
        return response, entry.batch

    async def look(self, path: str, decide: Decide[T]) -> T:
        self._check_health()
        entry = self._readable(path)
        renewed = False
        while True:
            while (structural := entry.structural) is not None:
                await structural.done.wait()
                self._check_health()
                # On a full disk an expired stream can't be removed, but it can be told.
                entry = self._readable(path, expired=structural.error is not None)
            response, change = decide(View(entry.stream, self.now(), self._newest + 1))
            if change is None:
                return response
            assert isinstance(change, Renewed) and entry.stream is not None
            durable = entry.durable_deadline
            if renewed or (durable is not None and change.deadline <= durable):
                change.apply(entry.stream)
                return response
            self._apply(entry, change)
            assert entry.batch is not None
            try:
                await entry.batch.wait()
            except Unwritable:
                pass  # reads go on, and the renewal counts as long as this process lives
            renewed = True
            # Whoever looks goes on from the very present; so look again.
            entry = self._readable(path)

    def look_nowait(self, path: str, decide: Decide[T]) -> T:
        self._check_health()
        entry = self._readable(path)
        if entry.structural is not None:
            raise trio.WouldBlock
        response, change = decide(View(entry.stream, self.now(), self._newest + 1))
        if change is not None:
            assert isinstance(change, Renewed) and entry.stream is not None
            if entry.durable_deadline is None or change.deadline > entry.durable_deadline:
                raise trio.WouldBlock
            change.apply(entry.stream)
        return response

    def check_writable(self) -> None:
        self._check_health()
        refusal = self._db.only_reads or self._refused or (StorageFull() if self._space.low else None)
        if refusal is not None:
            raise type(refusal)()
        if self._committer.holder is not None:
            raise LogHeld(self._committer.holder)

    def _check_place(self) -> None:
        """End the store when its files are not where they were."""
        try:
            self._db.hold.check()
        except StorageFailed as error:
            raise self._fail(error) from None

    def _check_room(self, size: int) -> None:
        """Raise what keeps an append of so many bytes from being stored, if anything does."""
        if self._committer.holder is not None:
            raise LogHeld(self._committer.holder)
        if not self._space.admit(size):
            self._committer.press(self._space.low, self._space.wanted)
            raise StorageFull

    def _owed(self) -> int:
        return 2 * self._queues.waiting + max(0, self._db.log.owed()) + files.reserve_missing(self._folder)

    def _log_room(self) -> int:
        return max(0, _LOG_ROOM - self._db.log.size())

    def _unused(self) -> int:
        return self._queries.run_nowait(schema.unused) - 2 * self._queues.waiting

    def _check_health(self) -> None:
        if self._failure is not None:
            raise StorageFailed(*self._failure.args)

    def _damaged(self, error: rows.DamagedRow) -> StorageFailed:
        # A client asked for what was acknowledged to it, and it isn't there any more.
        return self._fail(errors.failed(self._folder, error))

    def _readable(self, path: str, expired: bool = False) -> Entry:
        """As `_entry`, for reads; with one whose time is over left as it is when it may be `expired`."""
        try:
            return self._cache.entry(path) if expired else self._entry(path)
        except rows.DamagedRow as error:
            raise self._damaged(error) from error

    def _entry(self, path: str) -> Entry:
        entry = self._cache.entry(path)
        stream = entry.stream
        if stream is not None and (stream.ttl is not None or stream.expires is not None):
            # Whoever is told that a stream has expired must never see it again: not after a
            # crash either, which takes the steady clock back a little.
            _, change = expire(View(stream, self.now(), 0))
            if change is not None:
                self._apply(entry, change)
        return entry

    def _apply(self, entry: Entry, change: Change) -> None:
        if isinstance(change, Appended):
            self._append(entry, change)
        elif isinstance(change, Renewed):
            assert entry.stream is not None
            batch = self._queues.of((entry,), 0, False)
            change.apply(entry.stream)
            self._cache.touch(entry, batch)
        else:
            self._restructure(entry, change)
        self._write_next()

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
        batch = self._queues.of((entry, *ties.entries()), size, isinstance(change, Created))
        try:
            if isinstance(change, Created):
                self._newest = change.stream.id
            lifecycle.change(self._cache, batch, entry, change, ties)
            if batch.steady is None and lifecycle.is_mortal(change):
                self._keep_clock(batch)
        except Exception as error:
            # Half of a change is in memory: what would be written now is no state that anybody decided.
            log.critical("a change of a stream failed halfway", exc_info=error)
            failure = StorageFailed(f"a fault of ours in a change of stream {entry.path!r}: {error!r}")
            raise self._fail(failure) from error

    # Upkeep

    def known(self, path: str) -> Stream | None:
        """As `sweeper.Streams.known`."""
        self._check_health()
        return self._cache.entry(path).stream

    def change(self, path: str, decide: Decide[None]) -> Batch | None:
        """As `sweeper.Streams.change`."""
        return self._decide(Needs(path), decide)[1]

    def _keep_clock(self, batch: Batch) -> None:
        """Have a batch keep the time that something in it lives by, if that was last kept a while ago: whatever the
        clock shows after a crash, it is held against the time when this was made."""
        now = self.now()
        batch.steady = now.steady
        if now.steady - self._clock_kept > _KEEP_CLOCK_EVERY:
            batch.structure += schema.clock(now)
            batch.saves_clock = True

    # Commits

    def add(self, statements: Statements = (), *, collects_garbage: bool = False) -> Batch:
        """As `sweeper.Streams.add`."""
        self._check_health()
        batch = self._queues.small
        batch.structure += statements
        batch.collects_garbage |= collects_garbage
        self._write_next()
        return batch

    def _write_next(self) -> None:
        batch = self._queues.next()
        if batch is not None:
            self._committer.commit(batch)

    def _written(self, batch: Batch) -> None:
        self._queues.written(batch)
        if batch.durable:
            try:
                self._db.hold.check_files()
            except StorageFailed as error:
                batch.error = error
        if batch.error is not None:
            self._undo(batch)
        elif batch.durable:
            if self._refused is not None:
                self._refused = None
                log.warning("%s can be written again: appends go on", self._folder)
            cuts = self._publish(batch)
            size = sum([len(data) for _, _, data in batch.appends])
            self.commits.count(len(batch.appends), size, batch.seconds, batch.synced)
            batch.finish()
            if cuts:
                # What is too much goes with the next commit, and frees what it left with that and those behind it:
                # so retention follows appends however quickly they come.
                self._trim(cuts)
        if self._failure is not None:
            self._give_up()
        else:
            self._write_next()

    def _trim(self, cuts: list[Cut]) -> None:
        with suppress(StorageFailed):
            self._sweeper.trim(cuts)

    def _publish(self, batch: Batch) -> list[Cut]:
        """Let readers see what is durable; returns what it has made too large."""
        cuts: list[Cut] = []
        trimmer = self._trimmer
        for entry in batch.entries:
            if entry.batch is batch:
                entry.batch = None
                if entry.stream is None:
                    self._cache.drop(entry)
                else:
                    self._cache.release(entry)
            if entry.structural is batch:
                entry.structural = None
        if batch.saves_clock and batch.steady is not None:
            self._clock_kept = batch.steady
        if batch.producers:
            self._producers.learn(batch.producers)
        fresh: dict[int, list[bytes]] = {}
        for id, at, data in batch.appends:
            self._tails.add(id, at, data)
            fresh.setdefault(id, []).append(data)
        for tail, closed, _, _, deadline, _, id in batch.rows:
            found = self._cache.get(id)
            if found is None or found.stream is None:
                continue
            stream = found.stream
            before = stream.visible_tail
            stream.visible_tail = tail
            stream.visible_closed = bool(closed)
            found.durable_deadline = deadline
            if self._watchers.watched(stream):
                self._watchers.notify(stream, before, b"".join(fresh.get(id, ())))
            if trimmer is not None and tail - stream.start > found.most and not stream.deleted:
                if found.most < 0:
                    found.most = trimmer.most(found.path)
                size = tail - stream.start
                cut = trimmer.grown(id, found.path, size) if size > found.most else None
                if cut is not None:
                    cuts.append(cut)
        for stream in batch.ended:
            self._tails.forget(stream.id)
            self._watchers.notify(stream, stream.visible_tail, b"")
        self._sweeper.note(batch)
        return cuts

    def _undo(self, batch: Batch) -> None:
        """Everything in the failed batch never happened, nor did what was decided on top of it."""
        assert batch.error is not None
        if isinstance(batch.error, StorageFailed):
            self._failure = self._failure or batch.error
            self._failed.set()
        if isinstance(batch.error, (StorageBusy, StorageReadOnly)):
            if self._refused is None:
                log.error("%s: %s: appends are answered with 503", self._folder / files.FILE, batch.error.message)
            self._refused = batch.error
        self._producers.recount()
        for lost in self._queues.fail(batch.error, batch):
            for entry in lost.entries:
                self._cache.drop(entry)
                entry.batch = entry.structural = None
            lost.finish()
        self._sweeper.lost()

    async def wait_failed(self) -> StorageFailed:
        await self._failed.wait()
        assert self._failure is not None
        return self._failure

    def _fail(self, failure: StorageFailed) -> StorageFailed:
        if self._failure is None:
            self._failure = failure
            self._failed.set()
        if self._queues.idle:
            self._give_up()
        return StorageFailed(*self._failure.args)

    def _give_up(self) -> None:
        # What is decided but not written will never be: its clients are told at once.
        assert self._failure is not None
        for batch in self._queues.fail(self._failure):
            batch.finish()

    # Reading and watching

    async def read(self, stream: Stream, start: int, end: int) -> list[bytes]:
        return await self._ranges.read(stream, start, end)

    def read_nowait(self, stream: Stream, start: int, end: int) -> list[bytes]:
        return self._ranges.read_nowait(stream, start, end)

    async def span(self, stream: Stream, position: int) -> tuple[int, int]:
        await trio.lowlevel.checkpoint()
        return self._ranges.span(stream, position)

    def span_nowait(self, stream: Stream, position: int) -> tuple[int, int]:
        return self._ranges.span(stream, position)

    def watch(self, stream: Stream, watcher: Watcher) -> None:
        self._watchers.add(stream, watcher)

    def unwatch(self, stream: Stream, watcher: Watcher) -> None:
        self._watchers.remove(stream, watcher)
        entry = self._cache.get(stream.id)
        if entry is not None and not self._watchers.watched(stream):
            self._cache.release(entry)

    async def verify(self) -> None:
        try:
            await self._queries.run(schema.verify)
        except ProtocolError as error:
            log.warning("%s was not verified: %s", self._folder, error.message)

    async def sweep(self) -> int:
        self._check_health()
        self._check_place()
        self._space.look()
        if self._db.only_reads is not None:
            self._try_to_write()
            return 0
        self._committer.tend(self._space.low, self._space.wanted)
        if self._refused is not None and self._queues.idle:
            self.add(_NOTHING)  # tells when that is over, though nobody appends
        forget = list(self._producers.walk(self.now().steady))
        if forget:
            await self.add(forget).done.wait()
        ended = await self._sweeper.sweep()
        self._check_health()
        return ended

    async def paths(self) -> list[str]:
        return await self._queries.run(rows.paths)

    async def usage(self) -> Usage:
        count = await self._queries.run(rows.count)
        return Usage(count, sum(file.stat().st_size for file in self._folder.glob(schema.FILE + "*")))


def _grows(change: Change) -> TypeGuard[Created | Appended]:
    return isinstance(change, Created) or (isinstance(change, Appended) and bool(change.data))
