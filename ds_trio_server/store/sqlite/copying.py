"""A copy of a file that others write to, without holding up its log.

One long read would keep the log from beginning again for as long as it takes. So the bulk of it, the appends,
is copied in small steps, each of them a read of its own: appends are only added at a stream's end and freed at its
beginning, and a stream's number never comes back, so that what has been copied stays right. What came and went
meanwhile is made up for, stream by stream, until there is little of it. Then one last read takes the rest and
everything else: the copy is the state that this one saw. It takes as long as there are streams, not bytes.

Half of the time nothing is read, so that the log finds its moment, and the copy is synced as it grows, so that the
disk has no burst of it in the end.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import schema

_STEP_BYTES = 1024 * 1024
_STEP_ROWS = 2000
_SYNC_BYTES = 4 * 1024 * 1024
_LOOK_EVERY = 100  # instructions of SQLite's machine
_LITTLE = 4 * 1024 * 1024
_PASSES = 8
_COPIED_IN_STEPS = ("appends", "blobs", "staged")

_FROM = (
    "SELECT stream, position, part, sum, appends.data, blob, blobs.data FROM source.appends"
    " LEFT JOIN source.blobs ON blobs.id = appends.blob WHERE"
)
_ANY = f"{_FROM} (stream, position) > (?, ?) ORDER BY stream, position LIMIT {_STEP_ROWS}"
_OF_ONE = f"{_FROM} stream = ? AND position > ? ORDER BY position LIMIT {_STEP_ROWS}"


def copy(source: str, part: Path) -> None:
    """Copy the file at a URI, which may be written to by others, into an empty one.

    Raises sqlite3.Error, and OSError.
    """
    db = sqlite3.connect(part, isolation_level=None, uri=True)
    try:
        # The copy is the connection's own file: one that is attached could be written to no more than the first.
        db.execute("ATTACH ? AS source", (source,))
        to_disk = _ToDisk(part)
        try:
            _make(db)
            _Copy(db, to_disk).run()
        except sqlite3.Error as error:
            if to_disk.error is not None:
                raise to_disk.error from error
            raise
        finally:
            to_disk.close()
    finally:
        db.close()
    sync(part)


def sync(path: Path) -> None:
    """Bring a file or directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _ToDisk:
    """Brings a file to the disk while it is written, whenever it has grown by some: one sync of gigabytes at the end
    would keep a server's own syncs on the same disk waiting for seconds. To be called often; returns whether one
    has failed, and keeps the `error`, because no later one would tell."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._synced = 0
        self.error: OSError | None = None

    def __call__(self) -> bool:
        try:
            size = os.fstat(self._handle).st_size
            if size >= self._synced + _SYNC_BYTES:
                os.fsync(self._handle)
                self._synced = size
        except OSError as error:
            self.error = error
        return self.error is not None

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._handle)


def _make(db: sqlite3.Connection) -> None:
    """Give the empty file the other one's settings, tables, indexes and views."""
    for setting in ("auto_vacuum", "page_size", "application_id", "user_version"):
        db.execute(f"PRAGMA main.{setting} = {int(schema.one(db, f'PRAGMA source.{setting}')[0])}")
    for setting in ("main.journal_mode = OFF", "main.synchronous = OFF", "temp_store = MEMORY"):
        schema.one(db, f"PRAGMA {setting}")
    for statement in _statements(db, "type <> 'trigger'"):
        db.execute(statement)


def _statements(db: sqlite3.Connection, which: str) -> list[str]:
    ours = "sql IS NOT NULL AND name NOT LIKE 'sqlite%'"
    found = db.execute(f"SELECT sql FROM source.sqlite_master WHERE {ours} AND {which} ORDER BY rowid")
    return [sql for (sql,) in found]


class _Copy:
    def __init__(self, db: sqlite3.Connection, to_disk: _ToDisk) -> None:
        self._db = db
        self._to_disk = to_disk
        self._blob = 0
        self._bytes = 0

    def run(self) -> None:
        at: tuple[int, int] | None = (-1, -1)
        while at is not None:
            with self._one_read():
                at = self._take(_ANY, at)
            self._sync()
        for _ in range(_PASSES):
            before = self._bytes
            for stream in self._streams():
                more = True
                while more:
                    with self._one_read():
                        more = self._catch_up(stream)
                    self._sync()
            if self._bytes - before < _LITTLE:
                break
        with self._one_read():
            self._db.set_progress_handler(self._to_disk, _LOOK_EVERY)
            for stream in self._streams():
                while self._catch_up(stream):
                    pass
            self._take_the_rest()

    @contextmanager
    def _one_read(self) -> Iterator[None]:
        began = time.monotonic()
        self._db.execute("BEGIN")
        yield
        self._db.execute("COMMIT")
        time.sleep(time.monotonic() - began)

    def _take(self, query: str, after: tuple[int, int]) -> tuple[int, int] | None:
        """Copy some rows behind a place; returns where to go on, None when that was all."""
        rows = []
        blobs = []
        size = 0
        cursor = self._db.execute(query, after)
        for stream, position, part, sum, data, blob, content in cursor:
            if blob is not None:
                # Numbers of their own: the other file's may be used anew meanwhile.
                self._blob += 1
                if content is not None:
                    blobs.append((self._blob, content))
            rows.append((stream, position, part, sum, data, None if blob is None else self._blob))
            size += 64 + len(content or data or b"")
            if size >= _STEP_BYTES:
                break
        cursor.close()
        if rows and rows[-1][:2] <= (after if query == _ANY else (stream, after[1])):
            raise sqlite3.DatabaseError("appends are out of order")  # it would begin again and again
        self._db.executemany("INSERT INTO main.appends VALUES (?, ?, ?, ?, ?, ?)", rows)
        self._db.executemany("INSERT INTO main.blobs VALUES (?, ?)", blobs)
        self._bytes += size
        return (rows[-1][0], rows[-1][1]) if rows and (size >= _STEP_BYTES or len(rows) == _STEP_ROWS) else None

    def _streams(self) -> Iterator[int]:
        """All streams that have rows here or there, one look-up each."""
        after = -1
        query = "SELECT min(stream) FROM {}.appends WHERE stream > ?"
        while True:
            found = [schema.one(self._db, query.format(name), after)[0] for name in ("source", "main")]
            there = [stream for stream in found if stream is not None]
            if not there:
                return
            after = min(there)
            yield after

    def _catch_up(self, stream: int) -> bool:
        """Do for one stream what was done to it since it was copied; whether there may be more."""
        (first,) = schema.one(self._db, "SELECT min(position) FROM source.appends WHERE stream = ?", stream)
        # Nothing is ever freed in the middle.
        below = schema.MAX_INTEGER if first is None else first
        gone = "FROM main.appends WHERE stream = ? AND position < ?"
        self._db.execute(f"DELETE FROM main.blobs WHERE id IN (SELECT blob {gone})", (stream, below))
        self._db.execute(f"DELETE {gone}", (stream, below))
        if first is None:
            return False
        (last,) = schema.one(self._db, "SELECT max(position) FROM main.appends WHERE stream = ?", stream)
        return self._take(_OF_ONE, (stream, -1 if last is None else last)) is not None

    def _take_the_rest(self) -> None:
        tables = self._db.execute("SELECT name FROM source.sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in tables:
            if name not in _COPIED_IN_STEPS and not name.startswith("sqlite_"):
                self._db.execute(f"INSERT INTO main.{name} SELECT * FROM source.{name}")
        # Last, because what they would do to these rows was done to the others.
        for statement in _statements(self._db, "type = 'trigger'"):
            self._db.execute(statement)

    def _sync(self) -> None:
        if self._to_disk():
            assert self._to_disk.error is not None
            raise self._to_disk.error
