"""Group commit: everything decided since the last commit becomes durable in one transaction.

Decisions collect in the open batch. One thread writes batches one after the other; while it waits
for the disk, the next batch fills. With one client a batch holds one append and costs one fsync;
with hundreds of clients it holds hundreds of appends and still costs one.

The bytes of a bulk batch come first, in transactions of their own: ``staged`` lists these blobs
until the commit that publishes them. What a crash or a failure leaves in it was never acknowledged.
"""

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import trio

from ..base import StorageBusy, StorageFailed
from . import errors, rows, schema
from .batches import Batch, Part, parts
from .queues import STEP_BYTES

_GARBAGE_ROWS = 512
_GARBAGE_BYTES = 1024 * 1024
_VACUUM_PAGES = 256
_SPARE_PAGES = 1024
_CHECKPOINT_PAGES = 1000
_BULK_CHECKPOINT_PAGES = 250
_STEP_SECONDS = 0.02

_Blob = tuple[int, memoryview]
"""The parameters of INSERT_BLOB."""
_Published = tuple[int, int, int, int, int]
"""The parameters of INSERT_ROW: stream, position, part, sum and blob."""


class Committer:
    """The writer thread. In the trio thread, ``finished(batch)`` is called after every transaction
    and ``failed(error)`` when the file can't be kept up behind one."""

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
        self._staging: Batch | None = None  # whose blobs may be staged
        self._step = STEP_BYTES
        self._pages = _CHECKPOINT_PAGES  # what a crash left in the log is moved soon
        # Whether there may be more free pages than the file should hold (set by the thread).
        self.shrinking = True
        self._trio = trio.lowlevel.current_trio_token()
        self._broken = False
        self._patient = True
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="committer", daemon=True).start()

    def commit(self, batch: Batch) -> None:
        """Hand over a sealed batch, one at a time; a bulk one until it is durable."""
        self._queue.put(batch)

    def use(self, db: sqlite3.Connection) -> None:
        """Write with another connection from now on; to be called when nothing is with the thread."""
        self._db = db

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
                if batch.parts:
                    self._stage(batch)
                else:
                    self._write(batch)
                    batch.durable = True
                    self._be_patient(True)
            except Exception as error:
                batch.error = self._failure(error)
            batch.seconds += time.monotonic() - started
            if not self._tell(self._finished, batch) or isinstance(batch.error, StorageFailed):
                self._let_go(batch.error)
            try:
                self._keep_up(batch)
            except Exception as error:
                failure = errors.failed(self._folder, error)
                self._tell(self._failed, failure)
                self._let_go(failure)
        if self._broken:
            self._let_go(None)
        try:
            schema.one(self._db, "PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            if errors.refusal(self._folder, error) is None:
                failure = errors.failed(self._folder, error)
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
            db.executemany(rows.UPDATE_STREAM, batch.rows)
        if batch.appends:
            self._insert(batch)
        if batch.staged:
            db.executemany(schema.INSERT_ROW, batch.staged)
            db.execute("DELETE FROM staged")
        if batch.producers:
            used = int(batch.steady or 0)
            db.executemany(
                schema.SAVE_PRODUCER, [(*key, *value, used) for key, value in batch.producers.items()]
            )
        if batch.collects_garbage:
            batch.garbage_remains = collect_garbage(db)
            if self._staging is not None and self._staging.error is not None:
                schema.unstage(db)
                self._staging = None
        began = time.monotonic()
        db.execute("COMMIT")
        batch.synced = time.monotonic() - began
        # About what it wrote: a leaf and its path for each stream, and the bytes.
        self._pages += 3 + 2 * len(batch.entries) + (0 if batch.bulk else batch.size // 2048)

    def _insert(self, batch: Batch) -> None:
        inline: list[tuple[int, int, int, bytes]] = []
        published: list[_Published] = []
        blobs: list[_Blob] = []
        checksum = rows.checksum
        for stream, at, data in batch.appends:
            if len(data) <= schema.INLINE_LIMIT:
                inline.append((stream, at, checksum(stream, at, data), data))
            elif not batch.bulk:
                for part in parts(stream, at, data):
                    self._add_blob(part, published, blobs)
        self._db.executemany(schema.INSERT_INLINE, inline)
        if published:
            self._db.executemany(schema.INSERT_ROW, published)
            self._db.executemany(schema.INSERT_BLOB, blobs)

    def _add_blob(self, part: Part, published: list[_Published], blobs: list[_Blob]) -> None:
        self._last_blob += 1
        blobs.append((self._last_blob, part.data))
        sum = rows.checksum(part.stream, part.position, part.data)
        published.append((part.stream, part.position, part.offset, sum, self._last_blob))

    def _stage(self, batch: Batch) -> None:
        """Write some of a bulk batch's bytes where no reader sees them."""
        db = self._db
        blobs: list[_Blob] = []
        size = 0
        started = time.monotonic()
        while batch.parts and size < self._step:
            part = batch.parts.pop()
            size += len(part.data)
            self._add_blob(part, batch.staged, blobs)
        db.execute("BEGIN IMMEDIATE")
        if self._staging is not batch:
            schema.unstage(db)  # what is left of one that failed
            self._staging = batch
        db.executemany(schema.INSERT_BLOB, blobs)
        db.executemany("INSERT INTO staged VALUES (?)", [(id,) for id, _ in blobs])
        db.execute("COMMIT")
        self._pages += 8 + size // 4096
        # A slow disk takes smaller steps, so that small appends don't wait longer for one than they must.
        if time.monotonic() - started > _STEP_SECONDS:
            self._step = max(self._step // 2, schema.ROW_LIMIT)
        else:
            self._step = min(self._step * 2, STEP_BYTES)

    def _keep_up(self, batch: Batch) -> None:
        """What the file needs behind a commit that has been answered already.

        SQLite's own checkpoints would hide their errors, and one of those is a failed fsync.
        """
        db = self._db
        try:
            if batch.collects_garbage and batch.error is None:
                self._shrink()
            # Between the steps of a large append others wait for this: less at once, more often.
            most = _BULK_CHECKPOINT_PAGES if batch.bulk else _CHECKPOINT_PAGES
            if self._pages >= most:
                self._pages = most // 2  # if it fails: not again at once
                schema.one(db, "PRAGMA wal_checkpoint(PASSIVE)")
                self._pages = 0
        except sqlite3.Error as error:
            if errors.refusal(self._folder, error) is None:
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
            # Each step of this statement frees one page; execute() would take one, a script takes all.
            db.executescript(f"PRAGMA incremental_vacuum({min(_VACUUM_PAGES, free - spare)})")
            self._pages += _VACUUM_PAGES

    def _be_patient(self, patient: bool) -> None:
        if patient != self._patient:
            schema.be_patient(self._db, patient)
            self._patient = patient

    def _failure(self, error: Exception) -> Exception:
        refusal = errors.refusal(self._folder, error)
        if refusal is not None:
            try:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                # Who has waited for a lock once is not kept waiting for it again and again.
                self._be_patient(not isinstance(refusal, StorageBusy))
                return refusal
            except sqlite3.Error as worse:
                error = worse
        # Above all a failed fsync: what the disk holds is unknown now, and trying again would only
        # seem to work (the kernel may have dropped the pages). Fail-stop.
        return errors.failed(self._folder, error)


def collect_garbage(db: sqlite3.Connection) -> bool:
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
                f" (SELECT {key} FROM {table} WHERE stream = ? LIMIT {_GARBAGE_ROWS})",
                (stream, stream),
            )
            if schema.one(db, "SELECT changes()")[0]:
                return True
    last = None
    size = 0
    cursor = db.execute(
        "SELECT position, size FROM stored WHERE stream = ? AND position < ?"
        f" ORDER BY position LIMIT {_GARBAGE_ROWS}",
        (stream, schema.MAX_INTEGER if below is None else below),
    )
    for position, length in cursor:
        last = position
        size += length
        if size >= _GARBAGE_BYTES:
            break
    cursor.close()
    if last is None:
        db.execute("DELETE FROM removed WHERE stream = ?", (stream,))
    else:
        db.execute("DELETE FROM appends WHERE stream = ? AND position <= ?", (stream, last))
    return True
