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
_SYNC_EVERY = 16 * 1024 * 1024
_LITTLE = 4 * 1024 * 1024
_PASSES = 8
_COPIED_IN_STEPS = ("appends", "blobs", "staged")

_FROM = (
    "SELECT stream, position, part, sum, appends.data, blob, blobs.data FROM main.appends"
    " LEFT JOIN main.blobs ON blobs.id = appends.blob WHERE"
)
_ANY = f"{_FROM} (stream, position) > (?, ?) ORDER BY stream, position LIMIT {_STEP_ROWS}"
_OF_ONE = f"{_FROM} stream = ? AND position > ? ORDER BY position LIMIT {_STEP_ROWS}"


def copy(db: sqlite3.Connection, part: Path) -> None:
    """Copy the file of a connection, which may be written to by others, to a path where there is nothing, or an empty
    file. Raises sqlite3.Error, and OSError.
    """
    new = sqlite3.connect(part, isolation_level=None)
    try:
        _make(db, new)
        for setting in ("journal_mode = OFF", "synchronous = OFF"):
            schema.one(new, f"PRAGMA {setting}")
        _Copy(db, new, part).run()
    finally:
        new.close()
    sync(part)


def sync(path: Path) -> None:
    """Bring a file or directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _make(db: sqlite3.Connection, new: sqlite3.Connection) -> None:
    """Everything that the other file has but rows and triggers: what those do has been done."""
    for name in ("auto_vacuum", "application_id", "user_version"):
        new.execute(f"PRAGMA {name} = {int(schema.one(db, f'PRAGMA main.{name}')[0])}")
    _run(db, new, "type != 'trigger'")


def _run(db: sqlite3.Connection, new: sqlite3.Connection, which: str) -> None:
    query = f"SELECT sql FROM main.sqlite_master WHERE sql IS NOT NULL AND {which} ORDER BY rowid"
    for (statement,) in db.execute(query).fetchall():
        new.execute(statement)


class _Copy:
    def __init__(self, db: sqlite3.Connection, new: sqlite3.Connection, part: Path) -> None:
        self._db = db
        self._new = new
        self._part = part
        self._blob = 0
        self._bytes = 0
        self._synced = 0

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
            for stream in self._streams():
                while self._catch_up(stream):
                    pass
            self._take_the_rest()
            _run(self._db, self._new, "type = 'trigger'")

    @contextmanager
    def _one_read(self) -> Iterator[None]:
        began = time.monotonic()
        self._db.execute("BEGIN")
        self._new.execute("BEGIN")
        yield
        self._db.execute("COMMIT")
        self._new.execute("COMMIT")
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
        self._new.executemany("INSERT INTO appends VALUES (?, ?, ?, ?, ?, ?)", rows)
        self._new.executemany("INSERT INTO blobs VALUES (?, ?)", blobs)
        self._bytes += size
        return (rows[-1][0], rows[-1][1]) if rows and (size >= _STEP_BYTES or len(rows) == _STEP_ROWS) else None

    def _streams(self) -> Iterator[int]:
        """All streams that have rows here or there, one look-up each."""
        after = -1
        query = "SELECT min(stream) FROM main.appends WHERE stream > ?"
        while True:
            found = [schema.one(db, query, after)[0] for db in (self._db, self._new)]
            there = [stream for stream in found if stream is not None]
            if not there:
                return
            after = min(there)
            yield after

    def _catch_up(self, stream: int) -> bool:
        """Do for one stream what was done to it since it was copied; whether there may be more."""
        (first,) = schema.one(self._db, "SELECT min(position) FROM main.appends WHERE stream = ?", stream)
        # Nothing is ever freed in the middle.
        below = schema.MAX_INTEGER if first is None else first
        gone = "FROM appends WHERE stream = ? AND position < ?"
        self._new.execute(f"DELETE FROM blobs WHERE id IN (SELECT blob {gone} AND blob IS NOT NULL)", (stream, below))
        self._new.execute(f"DELETE {gone}", (stream, below))
        if first is None:
            return False
        (last,) = schema.one(self._new, "SELECT max(position) FROM appends WHERE stream = ?", stream)
        return self._take(_OF_ONE, (stream, -1 if last is None else last)) is not None

    def _take_the_rest(self) -> None:
        tables = self._db.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in tables:
            if name not in _COPIED_IN_STEPS and not name.startswith("sqlite_"):
                rows = self._db.execute(f"SELECT * FROM main.{name}")
                values = ",".join("?" * len(rows.description))
                self._new.executemany(f"INSERT INTO {name} VALUES ({values})", rows)

    def _sync(self) -> None:
        if self._bytes - self._synced >= _SYNC_EVERY:
            self._synced = self._bytes
            sync(self._part)
