"""Group commit: everything decided since the last commit becomes durable in one transaction.

Decisions collect in the open batch. One thread writes batches one after the other; while it waits
for the disk, the next batch fills. With one client a batch holds one append and costs one fsync;
with hundreds of clients it holds hundreds of appends and still costs one.

The bytes of a bulk batch come first, in transactions of their own: `staged` lists these blobs
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

from ...stats import Upkeep
from ..base import StorageBusy, StorageFailed, StorageFull
from . import blame, errors, files, schema
from .batches import Batch
from .checkpoints import Checkpoints
from .damages import Undone
from .database import Database
from .garbage import Collector, Stuck
from .passed_over import PassedOver
from .queues import STEP_BYTES
from .writes import Blob, ForGood, Published, Writes, published

_VACUUM_PAGES = 256
_SPARE_PAGES = 1024
_STEP_SECONDS = 0.02
_DAMAGED_AT_ONCE = 4


class _Tend:
    """Stands in the queue for a look at the log."""


class Committer:
    """The writer thread. In the trio thread, `finished(batch)` is called after every transaction
    and `failed(error)` when the file can't be kept up behind one."""

    def __init__(
        self,
        folder: Path,
        database: Database,
        last_blob: int,
        counts: Upkeep,
        finished: Callable[[Batch], None],
        failed: Callable[[StorageFailed], object],
    ) -> None:
        self._folder = folder
        self._db = database.writer
        self._refusals = errors.Refusals(folder)
        self._checkpoints = Checkpoints(
            folder, database, files.reserve_bytes(folder), counts, self._refusals, self._checkpoint_failed
        )
        self._finished = finished
        self._failed = failed
        self._queue: SimpleQueue[Batch | _Tend | None] = SimpleQueue()
        self._tending = False
        self._wanted = False
        self._last_blob = last_blob
        self._staging: Batch | None = None  # whose blobs may be staged
        self._lists_staged = True  # until the list of them is found damaged: then a crash leaves some behind
        self._writes: Writes | None = None  # what is being written
        self._step = STEP_BYTES
        self._collector = Collector(self._is_damage)
        self._passed_over = PassedOver(counts).note
        self._counts = counts
        # Whether there may be more free pages than the file should hold (set by the thread).
        self.shrinking = True
        self._put_off = False
        self._trio = trio.lowlevel.current_trio_token()
        self._broken = False
        self._patient = True
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="committer", daemon=True).start()

    def commit(self, batch: Batch) -> None:
        """Hand over a sealed batch, one at a time; a bulk one until it is durable."""
        self._queue.put(batch)

    @property
    def holder(self) -> str | None:
        """Who keeps the log from taking appends, if anybody does."""
        return self._checkpoints.holder

    def tend(self, low: bool, wanted: bool) -> None:
        """See to the log between commits; with `press`."""
        self.press(low, wanted)
        if self._put_off:
            self._put_off, self.shrinking = False, True
        if not self._tending:
            self._tending = True
            self._queue.put(_Tend())

    def press(self, low: bool, wanted: bool) -> None:
        """Say whether there is little room, and whether something was refused for want of it: then no page that is
        free is kept for later."""
        if (low or wanted) and not self._wanted:
            self.shrinking = True
        self._wanted = low or wanted
        self._checkpoints.pressed = low

    def use(self, db: sqlite3.Connection) -> None:
        """Write with another connection from now on; to be called when nothing is with the thread."""
        self._db = db
        self._checkpoints.use(db)

    async def close(self, broken: bool = False) -> None:
        """End the thread after what it was given, move the log into the file, close it; leave the
        file as it is when it is `broken`."""
        self._broken = broken
        self._queue.put(None)
        await trio.to_thread.run_sync(self._ended.wait)

    def _run(self) -> None:
        while (batch := self._queue.get()) is not None:
            if isinstance(batch, _Tend):
                self._tending = False
                self._see_to(self._between_commits)
                continue
            started = time.monotonic()
            try:
                if self._checkpoints.failure is not None:
                    raise self._checkpoints.failure
                if batch.parts:
                    self._stage(batch)
                else:
                    self._commit(batch)
                    batch.durable = True
                    self._be_patient(True)
            except Exception as error:
                batch.error = self._failure(error)
            self._writes = None
            batch.seconds += time.monotonic() - started
            if not self._tell(self._finished, batch) or isinstance(batch.error, StorageFailed):
                self._let_go(batch.error)
            self._see_to(lambda batch=batch: self._keep_up(batch))  # type: ignore[misc]
        if self._broken:
            self._let_go(None)
        self._see_to(self._checkpoints.end)  # without room for it the log stays, and is replayed at the next start
        self._db.close()
        self._ended.set()

    def _see_to(self, step: Callable[[], None]) -> None:
        """Do what the file needs beside what has been answered; what is refused (for want of room, say) is tried again
        later."""
        try:
            step()
        except Exception as error:
            damaged = errors.is_damage(error)
            if damaged:
                self.shrinking = False  # pages that are moved are looked at; nobody has asked for that
                self._passed_over("the file's free space", error)
            if damaged or self._refusals.of(error) is not None:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                return
            failure = errors.failed(self._folder, error)
            self._tell(self._failed, failure)
            self._let_go(failure)

    def _checkpoint_failed(self, failure: StorageFailed) -> None:
        self._tell(self._failed, failure)

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
            if isinstance(batch, Batch):
                # Handed over before the trio thread had heard of the failure.
                batch.error = failure
                self._tell(self._finished, batch)

    def _commit(self, batch: Batch) -> None:
        self._writes = Writes(batch, self._next_blob)
        try:
            self._whatever_upkeep_meets(lambda: self._commit_once(batch))
        except Exception as error:
            if not self._is_damage(error):
                raise
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            undone = blame.find(self._db, self._writes, error, self._is_damage)
            if undone is None:
                raise
            if undone:
                raise undone from error
            if not errors.is_damage(error):
                raise
            # Damage stays: SQLite takes some pages that it could not read for damaged ones. Once that may be.
            self._whatever_upkeep_meets(lambda: self._commit_once(batch))

    def _whatever_upkeep_meets(self, write: Callable[[], None]) -> None:
        """Write one transaction, without what upkeep adds to it where that meets damage."""
        met = 0
        try:
            while True:
                try:
                    write()
                    return
                except Stuck as stuck:
                    self._db.execute("ROLLBACK")
                    self._passed_over(stuck.what, stuck.error)
                    met += 1
                    # There may be a lot of it. The next commits go on with that; nobody waits for all of it.
                    self._collector.rests = met >= _DAMAGED_AT_ONCE
        finally:
            self._collector.rests = False

    def _commit_once(self, batch: Batch) -> None:
        try:
            self._write(batch)
        except (sqlite3.Error, StorageFull) as error:
            # What takes no room, and may give some, has the last there is.
            full = not batch.grows and isinstance(self._refusals.of(error), StorageFull)
            if not full or not files.give_reserve(self._folder):
                raise
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._checkpoints.make_room()
            self._write(batch)

    def _between_commits(self) -> None:
        self._checkpoints.between_commits()
        if not self._checkpoints.pressed:
            files.keep_reserve(self._folder)

    def _write(self, batch: Batch) -> None:
        self._checkpoints.before_commit(batch.size)
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        assert self._writes is not None
        self._writes.to(ForGood(db))
        if batch.staged:
            self._list_staged("DELETE FROM staged")
        self._clean(batch)
        began = time.monotonic()
        db.execute("COMMIT")
        batch.synced = time.monotonic() - began
        self._counts.freed = self._collector.streams

    def _clean(self, batch: Batch) -> None:
        collector = self._collector
        collector.remains |= batch.leaves_garbage
        if batch.collects_garbage:
            collector.step(self._db)
            batch.garbage_remains = collector.remains
            if self._staging is not None and self._staging.error is not None:
                self._unstage()
                self._staging = None
        else:
            # The bytes of a bulk batch have been counted as they were staged.
            size = 0 if batch.bulk else batch.size
            collector.along(self._db, len(batch.appends) + 2 * len(batch.structure), size)

    def _next_blob(self) -> int:
        self._last_blob += 1
        return self._last_blob

    def _stage(self, batch: Batch) -> None:
        """Write some of a bulk batch's bytes where no reader sees them."""
        blobs: list[Blob] = []
        rows: list[Published] = []
        size = 0
        started = time.monotonic()
        self._checkpoints.before_commit(self._step)
        while batch.parts and size < self._step:
            part = batch.parts.pop()
            size += len(part.data)
            blob = self._next_blob()
            blobs.append((blob, part.data))
            rows.append(published(part, blob))
        batch.staged += rows
        self._whatever_upkeep_meets(lambda: self._write_staged(batch, rows, blobs, size))
        # A slow disk takes smaller steps, so that small appends don't wait longer for one than they must.
        if time.monotonic() - started > _STEP_SECONDS:
            self._step = max(self._step // 2, schema.ROW_LIMIT)
        else:
            self._step = min(self._step * 2, STEP_BYTES)

    def _write_staged(self, batch: Batch, rows: list[Published], blobs: list[Blob], size: int) -> None:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        if self._staging is not batch:
            self._unstage()  # what is left of one that failed
        db.executemany(schema.INSERT_BLOB, blobs)
        for stream, position, _, _, blob in rows:
            self._list_staged(schema.INSERT_STAGED, schema.staged(blob, stream, position))
        self._collector.along(db, len(blobs), size)
        db.execute("COMMIT")
        self._staging = batch

    def _list_staged(self, statement: str, values: tuple[object, ...] = ()) -> None:
        self._while_listed(lambda: self._db.execute(statement, values))

    def _unstage(self) -> None:
        self._while_listed(lambda: schema.unstage(self._db))

    def _while_listed(self, step: Callable[[], object]) -> None:
        """Do something with the list of what is staged, unless that is damaged."""
        if not self._lists_staged:
            return
        try:
            step()
        except sqlite3.Error as error:
            if not self._is_damage(error):
                raise
            self._lists_staged = False
            raise Stuck("the list of what is staged", error) from error

    def _keep_up(self, batch: Batch) -> None:
        """What the file needs behind a commit that has been answered already."""
        if batch.collects_garbage:
            if isinstance(batch.error, StorageFull):
                self._collector.found_no_room()
            elif batch.error is None:
                self._shrink()
        self._checkpoints.behind_commit(batch.bulk, full=isinstance(batch.error, StorageFull))

    def _shrink(self) -> None:
        """Give a bounded number of free pages back to the file system, if there are many."""
        db = self._db
        free = schema.one(db, "PRAGMA freelist_count")[0]
        pages = schema.one(db, "PRAGMA page_count")[0]
        spare = 0 if self._wanted else max(_SPARE_PAGES, pages // 8)
        self.shrinking = free > spare + (0 if self._wanted else _VACUUM_PAGES)
        if free > spare and self._checkpoints.held:
            # Each page that is moved would take room in the log, and none is given back before the log is free.
            self.shrinking, self._put_off = False, True
        elif free > spare:
            # Each step of this statement frees one page; execute() would take one, a script takes all.
            most = max(4, int(_VACUUM_PAGES * self._collector.vacuum_share))
            try:
                db.executescript(f"PRAGMA incremental_vacuum({min(most, free - spare)})")
            except sqlite3.Error:
                self._collector.found_no_room()
                raise

    def _be_patient(self, patient: bool) -> None:
        if patient != self._patient:
            schema.be_patient(self._db, patient)
            self._patient = patient

    def _is_damage(self, error: Exception) -> bool:
        """As `errors.is_damage`, of what a change has met: SQLite says that the disk is full, too, for a page number
        beyond all that there may be, which a damaged page has."""
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return errors.hindrance(self._folder) is None and schema.has_pages_left(self._db)
        return errors.is_damage(error)

    def _failure(self, error: Exception) -> Exception:
        if isinstance(error, (StorageFailed, Undone)):
            return error
        refusal = self._refusals.of(error)
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

