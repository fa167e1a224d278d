"""Group commit: everything decided since the last commit becomes durable in one transaction.

Decisions collect in the open batch. One thread writes batches one after the other; while it waits
for the disk, the next batch fills. With one client a batch holds one append and costs one fsync;
with hundreds of clients it holds hundreds of appends and still costs one.
"""

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import trio

from ds_core.server.stream import Stream

from . import schema
from .base import StorageFailed, StorageFull
from .cache import Entry

_CLEAN_ROWS = 512
_CLEAN_BYTES = 1024 * 1024
_VACUUM_PAGES = 256
_SPARE_PAGES = 1024
_CHECKPOINT_PAGES = 1000


class Batch:
    """What one transaction will hold.

    ``structure`` are statements whose order matters (streams made and removed); ``appends`` are
    whole appends as (stream id, position, bytes) in commit order; ``entries`` are the states it
    changes, ``ended`` the streams it removes; ``producers`` maps (stream id, producer id) to
    (epoch, seq). It ``cleans`` when it also frees some rows, and tells whether there may be ``more``;
    it ``litters`` when it leaves some to be freed. ``rows`` are filled by ``seal``; ``seconds`` is
    what the disk took. ``done`` is set, and each of the ``callbacks`` called with its response and
    ``error``, when the batch is durable or has failed.
    """

    __slots__ = (
        "structure", "appends", "entries", "ended", "producers", "rows",
        "size", "seconds", "cleans", "more", "litters", "callbacks", "done", "error",
    )  # fmt: skip

    def __init__(self) -> None:
        self.structure: list[tuple[str, tuple[object, ...]]] = []
        self.appends: list[tuple[int, int, bytes]] = []
        self.entries: dict[Entry, None] = {}
        self.ended: list[Stream] = []
        self.producers: dict[tuple[int, str], tuple[int, int]] = {}
        self.rows: list[tuple[Any, ...]] = []
        self.size = 0
        self.seconds = 0.0
        self.cleans = False
        self.more = False
        self.litters = False
        self.callbacks: list[tuple[Callable[[Any, Exception | None], object], object]] = []
        self.done = trio.Event()
        self.error: Exception | None = None

    def collect(self, stream: int, at: int, data: bytes) -> None:
        """Take in an append."""
        if data:
            self.appends.append((stream, at, data))
        self.size += len(data) + 256

    def seal(self) -> None:
        """Fix what the changed streams' rows become; decisions after this go to another batch."""
        self.rows = [
            schema.state_row(entry.stream, entry.deadline_to_store())
            for entry in self.entries
            if entry.stream is not None
        ]

    def __bool__(self) -> bool:
        return bool(self.entries or self.structure or self.cleans)

    def finish(self) -> None:
        """Tell everyone who waits that it is durable, or has failed."""
        self.done.set()
        callbacks, self.callbacks = self.callbacks, []
        for done, response in callbacks:
            done(response, self.error)

    async def wait(self) -> None:
        """Wait until it is durable; raises what made it fail."""
        await self.done.wait()
        if isinstance(self.error, StorageFull):
            raise StorageFull
        if self.error is not None:
            raise StorageFailed(*self.error.args)


class Committer:
    """The writer thread. In the trio thread, ``finished(batch)`` is called after every commit and
    ``failed(error)`` when the file can't be kept up behind one."""

    def __init__(
        self,
        folder: Path,
        db: sqlite3.Connection,
        last_blob: int,
        finished: Callable[[Batch], None],
        failed: Callable[[StorageFailed], object],
    ) -> None:
        self._folder = folder
        self._db = db
        self._finished = finished
        self._failed = failed
        self._queue: SimpleQueue[Batch | None] = SimpleQueue()
        self._last_blob = last_blob
        self._pages = _CHECKPOINT_PAGES  # what a crash left in the log is moved soon
        # Whether there may be more free pages than the file should hold (set by the thread).
        self.shrinking = True
        self._trio = trio.lowlevel.current_trio_token()
        self._broken = False
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="committer", daemon=True).start()

    def commit(self, batch: Batch) -> None:
        """Hand over a sealed batch; one at a time."""
        self._queue.put(batch)

    async def close(self, broken: bool = False) -> None:
        """End the thread after what it was given, move the log into the file, close it; leave the
        file as it is when it is ``broken``."""
        self._broken = broken
        self._queue.put(None)
        await trio.to_thread.run_sync(self._ended.wait)

    def _run(self) -> None:
        while (batch := self._queue.get()) is not None:
            started = time.monotonic()
            try:
                self._write(batch)
            except Exception as error:
                batch.error = self._failure(error)
            batch.seconds = time.monotonic() - started
            if not self._tell(self._finished, batch) or isinstance(batch.error, StorageFailed):
                self._let_go(batch.error)
            try:
                self._keep_up(batch)
            except Exception as error:
                failure = schema.damaged(self._folder, error)
                self._tell(self._failed, failure)
                self._let_go(failure)
        if self._broken:
            self._let_go(None)
        try:
            schema.one(self._db, "PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            if not _is_full(error):
                failure = schema.damaged(self._folder, error)
                self._tell(self._failed, failure)
                self._let_go(failure)
            # The log stays and is replayed at the next start.
        self._db.close()
        self._ended.set()

    def _tell(self, function: Callable[[Any], object], argument: object) -> bool:
        try:
            self._trio.run_sync_soon(function, argument)
        except trio.RunFinishedError:
            return False  # nobody is there to be told, and nobody will close the store
        return True

    def _let_go(self, failure: Exception | None) -> None:
        # To close the connection would write and sync once more, and no fsync may be tried again
        # after one has failed. A thread that never ends keeps it open until the process does.
        self._ended.set()
        while True:
            batch = self._queue.get()
            if batch is not None:
                # Handed over before the trio thread had heard of the failure.
                batch.error = failure
                self._tell(self._finished, batch)

    def _write(self, batch: Batch) -> None:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        for statement, values in batch.structure:
            db.execute(statement, values)
        if batch.rows:
            db.executemany(schema.UPDATE_STREAM, batch.rows)
        if batch.appends:
            rows, blobs = self._append_rows(batch.appends)
            db.executemany(schema.INSERT_APPEND, rows)
            if blobs:
                db.executemany(schema.INSERT_BLOB, blobs)
        if batch.producers:
            db.executemany(
                "INSERT INTO producers VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq",
                [(*key, *value) for key, value in batch.producers.items()],
            )
        if batch.cleans:
            batch.more = clean(db)
        db.execute("COMMIT")

    def _append_rows(
        self, appends: list[tuple[int, int, bytes]]
    ) -> tuple[list[tuple[object, ...]], list[tuple[int, bytes]]]:
        rows: list[tuple[object, ...]] = []
        blobs: list[tuple[int, bytes]] = []
        checksum = schema.checksum
        for stream, at, data in appends:
            if len(data) <= schema.INLINE_LIMIT:
                rows.append((stream, at, 0, checksum(stream, at, data), data, None))
                continue
            for part in range(0, len(data), schema.ROW_LIMIT):
                piece = data[part : part + schema.ROW_LIMIT]
                self._last_blob += 1
                blobs.append((self._last_blob, piece))
                rows.append((stream, at + part, part, checksum(stream, at + part, piece), None, self._last_blob))
        return rows, blobs

    def _keep_up(self, batch: Batch) -> None:
        """What the file needs behind a commit that has been answered already.

        SQLite's own checkpoints would hide their errors, and one of those is a failed fsync.
        """
        db = self._db
        # About what a commit writes: a leaf and its path for each stream, and the bytes.
        self._pages += 3 + 2 * len(batch.entries) + batch.size // 2048
        try:
            if batch.cleans and batch.error is None:
                self._shrink()
            if self._pages >= _CHECKPOINT_PAGES:
                self._pages = _CHECKPOINT_PAGES // 2  # if it fails: not again at once
                schema.one(db, "PRAGMA wal_checkpoint(PASSIVE)")
                self._pages = 0
        except sqlite3.Error as error:
            if not _is_full(error):
                raise
            if db.in_transaction:
                db.execute("ROLLBACK")

    def _shrink(self) -> None:
        """Give a bounded number of free pages back to the file system, if there are many."""
        db = self._db
        free = schema.one(db, "PRAGMA freelist_count")[0]
        pages = schema.one(db, "PRAGMA page_count")[0]
        spare = max(_SPARE_PAGES, pages // 8)
        self.shrinking = free > spare + _VACUUM_PAGES
        if free > spare:
            db.execute(f"PRAGMA incremental_vacuum({min(_VACUUM_PAGES, free - spare)})").fetchall()
            self._pages += _VACUUM_PAGES

    def _failure(self, error: Exception) -> Exception:
        if _is_full(error):
            try:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                return StorageFull()
            except sqlite3.Error as worse:
                error = worse
        # Above all a failed fsync: what the disk holds is unknown now, and trying again would only
        # seem to work (the kernel may have dropped the pages). Fail-stop.
        return schema.damaged(self._folder, error)


def _is_full(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE


def clean(db: sqlite3.Connection) -> bool:
    """Free a bounded part of what removed and trimmed streams left; True while there may be more."""
    row = schema.one(db, "SELECT stream, below FROM removed LIMIT 1")
    if row is None:
        return False
    stream, below = row
    if below is not None:
        # A trimmed stream's forks may begin before it does now (section 8).
        needed = schema.one(db, schema.NEEDED, stream)[0]
        if needed is not None:
            below = min(below, needed)
    else:
        for table, key in (("producers", "id"), ("times", "at")):
            db.execute(
                f"DELETE FROM {table} WHERE stream = ? AND {key} IN"
                f" (SELECT {key} FROM {table} WHERE stream = ? LIMIT {_CLEAN_ROWS})",
                (stream, stream),
            )
            if schema.one(db, "SELECT changes()")[0]:
                return True
    last = None
    size = 0
    rows = db.execute(
        "SELECT position, size FROM stored WHERE stream = ? AND position < ?"
        f" ORDER BY position LIMIT {_CLEAN_ROWS}",
        (stream, schema.MAX_INTEGER if below is None else below),
    )
    for position, length in rows:
        last = position
        size += length
        if size >= _CLEAN_BYTES:
            break
    rows.close()
    if last is None:
        db.execute("DELETE FROM removed WHERE stream = ?", (stream,))
    else:
        db.execute("DELETE FROM appends WHERE stream = ? AND position <= ?", (stream, last))
    return True
