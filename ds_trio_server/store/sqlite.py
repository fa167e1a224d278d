"""Streams in one SQLite file: what an edge gateway keeps them in.

Decisions are made at once on states in memory and collected in a batch; a response leaves when the
transaction that holds its batch is on disk (``committer``). Readers see a stream only as far as it
is durable.

A batch that finds the disk full fails as a whole, with everything that was decided on top of it,
and the states it touched are dropped from the cache: the file is the truth again. Any other fault
of the disk ends the store: nothing it could say afterwards would be a promise.
"""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import trio

from ds_core.server.create import owners
from ds_core.server.errors import ProtocolError
from ds_core.server.stream import Appended, Created, Now, Removed, Renewed, Stream, Trimmed, View, expire, trim

from ..clock import Clock
from ..stats import Commits
from . import schema
from .base import (
    WINDOW,
    Change,
    Decide,
    Later,
    Overloaded,
    Piece,
    StorageFailed,
    StorageFull,
    Store,
    Usage,
    Vanished,
    Watcher,
)
from .cache import Entry, StreamCache
from .committer import Batch, Committer
from .lock import lock
from .retention import Cut, Retention, Trimmer
from .space import MinFree, Space
from .tail import TailCache
from .watchers import Watchers

T = TypeVar("T")

_CACHED_STREAMS = 4096
_TAIL_BYTES = 8 * 1024 * 1024
_WAITING_BYTES = 64 * 1024 * 1024
_INLINE_READ = 32 * 1024
_SLOW_READ = 0.005
_THREADS_FOR = 0.5
_SAVE_CLOCK_EVERY = 60.0
_SWEEP_AT_ONCE = 500
_CLEAN_FOR = 0.1
_READERS = 8
_MORTAL = "SELECT 1 FROM streams WHERE deadline IS NOT NULL OR expires IS NOT NULL LIMIT 1"

# One statement sees one state of the file: rows can't be freed in the middle of a range.
_RANGE = (
    "SELECT position, sum, data FROM stored WHERE stream = ?1 AND position >="
    " (SELECT max(position) FROM appends WHERE stream = ?1 AND position <= ?2)"
    " AND position < ?3 ORDER BY position"
)
_FLOOR = "SELECT position, part FROM appends WHERE stream = ? AND position <= ? ORDER BY position DESC LIMIT 1"
_NEXT_FIRST = "SELECT min(position) FROM appends WHERE stream = ? AND position > ? AND part = 0"


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
        self._space = Space(self._folder, min_free)
        self._trimmer = Trimmer(retain) if retain else None
        self._clock = clock
        self.commits = Commits()
        self._watchers = Watchers()
        self._tails = TailCache(_TAIL_BYTES)
        self._batch = Batch()
        self._writing: Batch | None = None
        self._newest = 0
        self._cleaning = False
        self._saved_at = 0.0
        self._threads_until = 0.0
        self._idle_readers: list[sqlite3.Connection] = []
        self._reading = trio.CapacityLimiter(_READERS)
        self._failure: StorageFailed | None = None
        self._failed = trio.Event()

    # Opening and closing

    async def open(self) -> None:
        await trio.to_thread.run_sync(self._open)
        self._committer = Committer(self._folder, self._writer, self._last_blob, self._committed, self._fail)

    def _open(self) -> None:
        schema.make_folder(self._folder)
        self._lock = lock(self._folder)
        try:
            self._writer = schema.prepare(self._folder)
            try:
                self._load()
            except sqlite3.Error as error:
                raise schema.damaged(self._folder, error) from error
        except BaseException:
            self._lock.close()
            raise
        self._space.look()

    def _load(self) -> None:
        self._reader = schema.connect(self._folder, cache_kib=4096)
        self._cache = StreamCache(self._reader, _CACHED_STREAMS, self._watchers.watched)
        meta = dict(self._writer.execute("SELECT name, value FROM meta"))
        self._newest = meta.get("newest", 0)
        self._last_blob = self._writer.execute("SELECT ifnull(max(id), 0) FROM blobs").fetchone()[0]
        self._cleaning = True  # the first sweep sees whether there is anything to free
        if self._clock is None:
            self._clock = Clock(meta.get("steady", 0.0), meta.get("wall", 0.0))
        self._saved_at = self.now().steady
        if self._trimmer is not None:
            self._trimmer.begin(self._reader)

    async def close(self) -> None:
        known = self._failure
        with trio.CancelScope(shield=True):
            if known is None:
                self._save_clock()
            while self._writing is not None:
                await self._writing.done.wait()
            await self._committer.close(broken=self._failure is not None)
            for db in (self._reader, *self._idle_readers):
                db.close()
            self._lock.close()
        if self._failure is not known:
            self._check_health()

    def now(self) -> Now:
        assert self._clock is not None, "the store is not open"
        return self._clock.now()

    # Decisions

    async def transact(
        self, path: str, decide: Decide[T], source: str | None = None, piece: Piece | None = None
    ) -> T:
        try:
            response, pending = self._decide(path, decide, source, piece)
        except Overloaded:
            raise  # rests on nothing that can be lost, and who waits holds a body
        except ProtocolError:
            # The refusal may rest on a change that can still be lost.
            for based_on in (path, source):
                pending = None if based_on is None else self._cache.pending(based_on)
                if pending is not None:
                    await pending.wait()
            raise
        if pending is not None:
            await pending.wait()
        else:
            await trio.lowlevel.checkpoint()
        return response

    def transact_soon(
        self, path: str, decide: Decide[T], done: Callable[[T, Exception | None], object]
    ) -> None:
        try:
            response, pending = self._decide(path, decide)
        except Overloaded:
            raise
        except ProtocolError:
            if self._cache.pending(path) is not None:
                raise Later from None
            raise
        if pending is not None:
            pending.callbacks.append((done, response))
        else:
            done(response, None)

    def _decide(
        self, path: str, decide: Decide[T], source: str | None = None, piece: Piece | None = None
    ) -> tuple[T, Batch | None]:
        """The response to a command, and the batch that must be durable before it may leave."""
        self._check_health()
        if self._batch.size > _WAITING_BYTES:
            raise Overloaded
        entry = self._entry(path)
        origin = None if source is None else self._entry(source)
        view = View(
            entry.stream, self.now(), self._newest + 1, None if origin is None else origin.stream, piece
        )
        try:
            response, change = decide(view)
            if change is not None:
                if self._space.low and _grows(change):
                    raise StorageFull
                self._apply(entry, change)
        except sqlite3.Error as error:
            raise self._broken(error) from error
        return response, entry.batch

    async def look(self, path: str, decide: Decide[T]) -> T:
        self._check_health()
        entry = self._entry(path)
        renewed = False
        while True:
            while (structural := entry.structural) is not None:
                await structural.done.wait()
                self._check_health()
                # On a full disk an expired stream can't be removed, but it can be told.
                entry = self._entry(path) if structural.error is None else self._cache.entry(path)
            try:
                response, change = decide(View(entry.stream, self.now(), self._newest + 1))
            except sqlite3.Error as error:
                raise self._broken(error) from error
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
            except StorageFull:
                pass  # reads go on, and the renewal counts as long as this process lives
            renewed = True
            # Whoever looks goes on from the very present; so look again.
            entry = self._entry(path)

    def look_now(self, path: str, decide: Decide[T]) -> T:
        self._check_health()
        entry = self._entry(path)
        if entry.structural is not None:
            raise Later
        try:
            response, change = decide(View(entry.stream, self.now(), self._newest + 1))
        except sqlite3.Error as error:
            raise self._broken(error) from error
        if change is not None:
            assert isinstance(change, Renewed) and entry.stream is not None
            if entry.durable_deadline is None or change.deadline > entry.durable_deadline:
                raise Later
            change.apply(entry.stream)
        return response

    def check_writable(self) -> None:
        self._check_health()
        if self._space.low:
            raise StorageFull

    def _check_health(self) -> None:
        if self._failure is not None:
            raise StorageFailed(*self._failure.args)

    def _entry(self, path: str) -> Entry:
        try:
            entry = self._cache.entry(path)
            stream = entry.stream
            if stream is not None and (stream.ttl is not None or stream.expires is not None):
                # Whoever is told that a stream has expired must never see it again: not after a
                # crash either, which takes the steady clock back a little.
                _, change = expire(View(stream, self.now(), 0))
                if change is not None:
                    self._apply(entry, change)
            return entry
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def _apply(self, entry: Entry, change: Change) -> None:
        batch = self._batch
        if isinstance(change, Created):
            if entry.stream is not None:
                self._remove(entry)
            self._create(entry, change)
        elif isinstance(change, Removed):
            if change.soft:
                self._soften(entry)
            else:
                self._remove(entry)
        elif isinstance(change, Trimmed):
            self._trim(entry, change)
        else:
            stream = entry.stream
            assert stream is not None
            change.apply(stream)
            if isinstance(change, Appended):
                self._collect(stream.id, change.at, change.data)
                if change.producer is not None:
                    batch.producers[(stream.id, change.producer[0])] = change.producer[1:]
            self._touch(entry)
        if self._writing is None:
            self._start_commit()

    def _touch(self, entry: Entry, structural: bool = False) -> None:
        entry.batch = self._batch
        if structural:
            entry.structural = self._batch
        self._batch.entries[entry] = None
        self._cache.hold(entry)

    def _collect(self, id: int, at: int, data: bytes) -> None:
        if data:
            self._batch.appends.append((id, at, data))
        self._batch.size += len(data) + 256

    def _create(self, entry: Entry, change: Created) -> None:
        stream = change.stream
        entry.renew(stream)
        self._newest = stream.id
        stream.producers = self._cache.producers(stream, complete=True)
        self._cache.keep(entry)
        structure = self._batch.structure
        structure.append((schema.INSERT_STREAM, schema.new_row(stream, entry.deadline_to_store())))
        structure.append(("INSERT OR REPLACE INTO meta VALUES ('newest', ?)", (stream.id,)))
        self._collect(stream.id, stream.tail - len(change.data), change.data)
        if change.source is not None:
            self._count_fork(self._cache.entry_by_id(change.source), 1)
        self._touch(entry, structural=True)

    def _count_fork(self, source: Entry, by: int) -> None:
        assert source.stream is not None
        source.stream.forks += by
        self._batch.structure.append(
            ("UPDATE streams SET forks = forks + ? WHERE id = ?", (by, source.stream.id))
        )
        self._touch(source)

    def _soften(self, entry: Entry) -> None:
        stream = entry.stream
        assert stream is not None
        stream.deleted = True
        # Its time is over already; what ends it now is its last fork.
        stream.ttl = stream.deadline = stream.expires_at = stream.expires = None
        self._batch.structure.append(
            ("UPDATE streams SET deleted = 1, ttl = NULL, expires = NULL WHERE id = ?", (stream.id,))
        )
        self._batch.ended.append(stream)
        self._touch(entry, structural=True)

    def _trim(self, entry: Entry, change: Trimmed) -> None:
        stream = entry.stream
        assert stream is not None
        change.apply(stream)
        self._batch.structure += (
            ("UPDATE streams SET start = ? WHERE id = ?", (stream.start, stream.id)),
            ("DELETE FROM times WHERE stream = ? AND position <= ?", (stream.id, stream.start)),
            ("INSERT OR REPLACE INTO removed VALUES (?, ?)", (stream.id, stream.start)),
            *map(schema.release, stream.lineage),
        )
        self._cleaning = True
        self._touch(entry)

    def _remove(self, entry: Entry) -> None:
        # Releasing a fork may free its deleted source, and so on up the chain (section 8).
        while True:
            stream = entry.stream
            assert stream is not None
            stream.deleted = True
            self._batch.structure += (
                ("DELETE FROM streams WHERE id = ?", (stream.id,)),
                ("INSERT OR REPLACE INTO removed VALUES (?, NULL)", (stream.id,)),
                *map(schema.release, stream.lineage),
            )
            self._batch.ended.append(stream)
            self._cleaning = True
            # The entry stays, empty, until this is durable: the file still shows the stream.
            self._cache.forget_id(entry)
            entry.stream = None
            self._touch(entry, structural=True)
            if not stream.lineage:
                return
            entry = self._cache.entry_by_id(stream.lineage[-1][0])
            self._count_fork(entry, -1)
            assert entry.stream is not None
            if entry.stream.forks or not entry.stream.deleted:
                return

    # Commits

    def _start_commit(self) -> None:
        batch = self._writing = self._batch
        self._batch = Batch()
        batch.seal()
        self._committer.commit(batch)

    def _committed(self, batch: Batch) -> None:
        self._writing = None
        if batch.error is not None:
            self._undo(batch)
        else:
            self._publish(batch)
            self.commits.count(len(batch.appends), sum(len(append[2]) for append in batch.appends), batch.seconds)
        batch.finish()
        if self._failure is not None:
            self._give_up()
        elif self._batch:
            self._start_commit()

    def _publish(self, batch: Batch) -> None:
        for entry in batch.entries:
            if entry.batch is batch:
                entry.batch = None
                if entry.stream is None:
                    self._cache.drop(entry)
            if entry.stream is not None:
                entry.stream.producers.trim(self._batch.producers)  # type: ignore[attr-defined]
            if entry.structural is batch:
                entry.structural = None
        fresh: dict[int, list[bytes]] = {}
        for id, at, data in batch.appends:
            self._tails.add(id, at, data)
            fresh.setdefault(id, []).append(data)
        if self._trimmer is not None:
            self._trimmer.active.update([row[5] for row in batch.rows])
        for row in batch.rows:
            tail, closed, id = row[0], row[1], row[5]
            found = self._cache.get(id)
            if found is None or found.stream is None:
                continue
            stream = found.stream
            before = stream.visible_tail
            stream.visible_tail = tail
            stream.visible_closed = bool(closed)
            found.durable_deadline = row[4]
            if self._watchers.watched(stream):
                self._watchers.notify(stream, before, b"".join(fresh.get(id, ())))
        for stream in batch.ended:
            self._tails.forget(stream.id)
            self._watchers.notify(stream, stream.visible_tail, b"")
        if batch.cleans:
            self._cleaning = batch.more

    def _undo(self, batch: Batch) -> None:
        """Everything in the failed batch never happened, nor did what was decided on top of it."""
        assert batch.error is not None
        if isinstance(batch.error, StorageFailed):
            self._failure = self._failure or batch.error
            self._failed.set()
        failed = [batch]
        if self._batch:
            failed.append(self._batch)
            self._batch = Batch()
        for lost in failed:
            lost.error = batch.error
            for entry in lost.entries:
                self._cache.drop(entry)
                entry.batch = entry.structural = None
            lost.finish()
        self._cleaning = True

    async def wait_failed(self) -> StorageFailed:
        await self._failed.wait()
        assert self._failure is not None
        return self._failure

    def _fail(self, failure: StorageFailed) -> StorageFailed:
        if self._failure is None:
            self._failure = failure
            self._failed.set()
        if self._writing is None:
            self._give_up()
        return StorageFailed(*self._failure.args)

    def _broken(self, error: sqlite3.Error) -> StorageFailed:
        return self._fail(schema.damaged(self._folder, error))

    def _give_up(self) -> None:
        # What is decided but not handed over will never be: its clients are told at once.
        batch, self._batch = self._batch, Batch()
        batch.error = self._failure
        batch.finish()

    # Reading

    async def read(self, stream: Stream, start: int, end: int) -> list[bytes]:
        owner, start, stop = owners(stream, start, end)[0]
        pieces = self._tails.get(owner, start, min(stop, start + WINDOW))
        if pieces is not None:
            return pieces
        if stop - start <= _INLINE_READ:
            await trio.lowlevel.checkpoint()
            return self._query_now(self._fetch, owner, start, stop)
        return await self._query(self._fetch, owner, start, stop, window=True)

    def read_now(self, stream: Stream, start: int, end: int) -> list[bytes]:
        owner, _, stop = owners(stream, start, end)[0]
        if stop != end:
            raise Later
        pieces = self._tails.get(owner, start, end)
        if pieces is not None:
            return pieces
        if end - start > _INLINE_READ:
            raise Later
        return self._query_now(self._fetch, owner, start, end)

    def span_now(self, stream: Stream, position: int) -> tuple[int, int]:
        owner, _, stop = owners(stream, position, stream.visible_tail)[0]
        found = self._tails.span(owner, position)
        if found is None:
            found = self._query_now(self._find, owner, position, stop)
        return found[0], min(found[1], stop)

    async def span(self, stream: Stream, position: int) -> tuple[int, int]:
        await trio.lowlevel.checkpoint()
        return self.span_now(stream, position)

    def _query_now(self, query: Callable[..., T], *args: object) -> T:
        """Run a short query, here."""
        self._check_health()
        try:
            return query(self._reader, *args)
        except sqlite3.Error as error:
            raise self._broken(error) from error
        except StorageFailed as error:
            raise self._fail(error) from None

    async def _query(self, query: Callable[..., T], *args: object, window: bool = False) -> T:
        """Run a longer query with a connection of its own, in a thread.

        To hand over and hear back costs about what a quick disk takes for a ``window``, so those are
        read right here, until one is slow; then for a while in threads again.
        """
        self._check_health()
        try:
            async with self._reading:
                db = self._idle_readers.pop() if self._idle_readers else self._connect_reader()
                try:
                    if not window or time.monotonic() < self._threads_until:
                        return await trio.to_thread.run_sync(query, db, *args)
                    started = time.monotonic()
                    try:
                        return query(db, *args)
                    finally:
                        ended = time.monotonic()
                        if ended - started > _SLOW_READ:
                            self._threads_until = ended + _THREADS_FOR
                finally:
                    self._idle_readers.append(db)
        except sqlite3.Error as error:
            raise self._broken(error) from error
        except StorageFailed as error:
            raise self._fail(error) from None

    def _connect_reader(self) -> sqlite3.Connection:
        try:
            return schema.connect(self._folder, cache_kib=1024)
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CANTOPEN:
                raise Overloaded from error  # most likely out of file descriptors
            raise

    def _fetch(self, db: sqlite3.Connection, owner: int, start: int, stop: int) -> list[bytes]:
        pieces: list[bytes] = []
        size = 0
        rows = db.execute(_RANGE, (owner, start, stop))
        try:
            for position, found, data in rows:
                if data is None or schema.checksum(owner, position, data) != found:
                    raise schema.damaged(self._folder, schema.Rotten(owner, position))
                begin = start + size - position
                if not 0 <= begin < len(data) or (pieces and begin):
                    if not pieces:
                        raise Vanished
                    raise schema.damaged(self._folder, schema.Rotten(owner, start + size))
                if begin or position + len(data) > stop:
                    data = data[begin : stop - position]
                pieces.append(data)
                size += len(data)
                if size >= WINDOW:
                    break
        finally:
            rows.close()  # a statement left open would hold up every checkpoint
        if not pieces:
            raise Vanished
        return pieces

    @staticmethod
    def _find(db: sqlite3.Connection, owner: int, position: int, stop: int) -> tuple[int, int]:
        row = db.execute(_FLOOR, (owner, position)).fetchone()
        if row is None:
            raise Vanished
        following = db.execute(_NEXT_FIRST, (owner, row[0])).fetchone()[0]
        return row[0] - row[1], stop if following is None else following

    # Watching and upkeep

    def watch(self, stream: Stream, watcher: Watcher) -> None:
        self._watchers.add(stream, watcher)

    def unwatch(self, stream: Stream, watcher: Watcher) -> None:
        self._watchers.remove(stream, watcher)

    async def sweep(self) -> int:
        self._check_health()
        now = self.now()
        self._space.look()
        ended = self._query_now(_ended, now)
        async with trio.open_nursery() as nursery:
            for path in ended:
                nursery.start_soon(self._try, path, expire)
        if self._trimmer is not None:
            await self._retain(self._trimmer)
        await self._clean()
        self._check_health()
        if now.steady - self._saved_at > _SAVE_CLOCK_EVERY:
            self._save_clock()
        return len(ended)

    async def _try(self, path: str, decide: Decide[None]) -> None:
        """Upkeep's changes: what does not succeed now is tried again by a later sweep."""
        try:
            await self.transact(path, decide)
        except (ProtocolError, StorageFailed):
            pass

    async def _clean(self) -> None:
        # A tenth of the time is for this, in steps so small that appends hardly wait.
        ends = trio.current_time() + _CLEAN_FOR
        while self._cleaning or self._committer.shrinking:
            self._check_health()
            batch = self._batch
            batch.cleans = True
            if self._writing is None:
                self._start_commit()
            await batch.done.wait()
            if batch.error is not None or trio.current_time() >= ends:
                break

    async def _retain(self, trimmer: Trimmer) -> None:
        now = self.now().steady
        if not trimmer.due(now):
            return
        marks, cuts = await self._query(trimmer.plan, now, trimmer.take(now))
        self._check_health()
        if marks:
            # Labelled with the time after they were looked up: an append may seem younger, never older.
            at = self.now().steady
            batch = self._batch
            batch.structure += [
                ("INSERT OR REPLACE INTO times SELECT id, ?, ? FROM streams WHERE id = ?", (at, tail, id))
                for id, tail in marks
            ]
            if self._writing is None:
                self._start_commit()
            await batch.done.wait()
        async with trio.open_nursery() as nursery:
            for cut in cuts:
                nursery.start_soon(self._cut, cut)

    async def _cut(self, cut: Cut) -> None:
        try:
            position = cut.before
            if cut.keep is not None:
                found = await self.look(cut.path, lambda view: (view.stream, None))
                if found is None or found.id != cut.stream or found.visible_tail - found.start <= cut.keep:
                    return
                first, _ = await self.span(found, found.visible_tail - cut.keep)
                position = max(position, first)
            await self.transact(cut.path, lambda view: trim(view, cut.stream, position))
        except (ProtocolError, StorageFailed, Vanished):
            pass

    def _save_clock(self) -> None:
        # Only what ends by itself needs it, and a flash disk at rest should stay at rest.
        self._saved_at = self.now().steady
        try:
            needed = self._reader.execute(_MORTAL).fetchone() is not None
        except sqlite3.Error as error:
            self._broken(error)
            return
        if not needed and self._trimmer is None:
            return
        for name, value in (("steady", self._saved_at), ("wall", self.now().wall)):
            self._batch.structure.append(("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value)))
        if self._writing is None:
            self._start_commit()

    async def paths(self) -> list[str]:
        rows = await self._query(
            lambda db: db.execute("SELECT path FROM streams WHERE deleted = 0 ORDER BY path").fetchall(),
        )
        return [row[0] for row in rows]

    async def usage(self) -> Usage:
        count = await self._query(lambda db: db.execute("SELECT count(*) FROM streams").fetchone()[0])
        return Usage(count, sum(file.stat().st_size for file in self._folder.glob(schema.FILE + "*")))


def _grows(change: Change) -> bool:
    return isinstance(change, Created) or (isinstance(change, Appended) and bool(change.data))


def _ended(db: sqlite3.Connection, now: Now) -> list[str]:
    rows = db.execute(
        "SELECT path FROM streams WHERE deadline <= ? UNION SELECT path FROM streams WHERE expires <= ?"
        f" LIMIT {_SWEEP_AT_ONCE}",
        (now.steady, now.wall),
    )
    return [path for (path,) in rows]
