"""Group commit: everything decided since the last commit becomes durable in one transaction.

Decisions collect in the open batch. One thread writes batches one after the other; while it waits
for the disk, the next batch fills. With one client a batch holds one append and costs one fsync;
with hundreds of clients it holds hundreds of appends and still costs one.
"""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import trio

from ds_core.server.stream import Stream

from . import schema
from .base import StorageFull
from .cache import Entry

_CLEAN_ROWS = 512
_VACUUM_PAGES = 256


class Batch:
    """What one transaction will hold.

    ``structure`` are statements whose order matters (streams made and removed); ``appends`` are
    whole appends as (stream id, position, bytes) in commit order; ``entries`` are the states it
    changes, ``ended`` the streams it removes; ``producers`` maps (stream id, producer id) to
    (epoch, seq). ``rows`` are filled by ``seal``. ``done`` is set when the batch is durable, or has
    failed with ``error``.
    """

    __slots__ = (
        "structure", "appends", "entries", "ended", "producers", "rows",
        "size", "cleans", "more", "done", "error",
    )  # fmt: skip

    def __init__(self) -> None:
        self.structure: list[tuple[str, tuple[object, ...]]] = []
        self.appends: list[tuple[int, int, bytes]] = []
        self.entries: dict[Entry, None] = {}
        self.ended: list[Stream] = []
        self.producers: dict[tuple[int, str], tuple[int, int]] = {}
        self.rows: list[tuple[object, ...]] = []
        self.size = 0
        self.cleans = False
        self.more = False
        self.done = trio.Event()
        self.error: Exception | None = None

    def seal(self) -> None:
        """Fix what the changed streams' rows become; decisions after this go to another batch."""
        self.rows = [
            schema.state_row(entry.stream, entry.deadline_to_store())
            for entry in self.entries
            if entry.stream is not None
        ]

    def __bool__(self) -> bool:
        return bool(self.entries or self.structure or self.cleans)

    async def wait(self) -> None:
        """Wait until it is durable; raises what made it fail."""
        await self.done.wait()
        if self.error is not None:
            raise self.error


class Committer:
    """The writer thread. ``finished(batch)`` is called in the trio thread after every commit."""

    def __init__(self, folder: Path, db: sqlite3.Connection, finished: Callable[[Batch], None]) -> None:
        self._folder = folder
        self._db = db
        self._finished = finished
        self._queue: SimpleQueue[Batch | None] = SimpleQueue()
        self._trio = trio.lowlevel.current_trio_token()
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self._thread.start()

    def commit(self, batch: Batch) -> None:
        """Hand over a sealed batch; one at a time."""
        self._queue.put(batch)

    async def close(self) -> None:
        """End the thread after what it was given, move the log into the file, close it."""
        self._queue.put(None)
        await trio.to_thread.run_sync(self._thread.join)

    def _run(self) -> None:
        while (batch := self._queue.get()) is not None:
            try:
                self._write(batch)
            except sqlite3.Error as error:
                batch.error = self._failure(error)
            self._trio.run_sync_soon(self._finished, batch)
        try:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error:
            pass  # the log stays and is replayed at the next start
        self._db.close()

    def _write(self, batch: Batch) -> None:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        for statement, values in batch.structure:
            db.execute(statement, values)
        if batch.rows:
            db.executemany(schema.UPDATE_STREAM, batch.rows)
        if batch.appends:
            db.executemany("INSERT INTO appends VALUES (?, ?, ?, ?)", _append_rows(batch.appends))
        if batch.producers:
            db.executemany(
                "INSERT INTO producers VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq",
                [(*key, *value) for key, value in batch.producers.items()],
            )
        if batch.cleans:
            batch.more = self._clean()
        db.execute("COMMIT")
        if batch.cleans:
            db.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()

    def _clean(self) -> bool:
        """Free a bounded number of rows of removed streams; True while there are more."""
        db = self._db
        row = db.execute("SELECT stream FROM removed LIMIT 1").fetchone()
        if row is None:
            return False
        gone = 0
        for table, key in (("appends", "position"), ("producers", "id")):
            gone += db.execute(
                f"DELETE FROM {table} WHERE stream = ? AND {key} IN"
                f" (SELECT {key} FROM {table} WHERE stream = ? LIMIT {_CLEAN_ROWS})",
                (row[0], row[0]),
            ).rowcount
        if gone == 0:
            db.execute("DELETE FROM removed WHERE stream = ?", row)
        return True

    def _failure(self, error: sqlite3.Error) -> Exception:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            try:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                return StorageFull()
            except sqlite3.Error as worse:
                error = worse
        # Above all a failed fsync: what the disk holds is unknown now, and trying again would only
        # seem to work (the kernel may have dropped the pages). Fail-stop.
        return schema.damaged(self._folder, error)


def _append_rows(appends: list[tuple[int, int, bytes]]) -> list[tuple[int, int, int, bytes]]:
    rows = []
    limit = schema.ROW_LIMIT
    for stream, at, data in appends:
        if len(data) <= limit:
            rows.append((stream, at, 0, data))
        else:
            for part in range(0, len(data), limit):
                rows.append((stream, at + part, part, data[part : part + limit]))
    return rows

