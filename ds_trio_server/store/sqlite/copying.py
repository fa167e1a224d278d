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
    """Copy the file of a connection, which may be written to by others, to a path where there is nothing.

    Raises sqlite3.Error, and OSError.
    """
    _make(db, part)
    schema.one(db, "PRAGMA query_only = 0")  # only the copy is written to
    db.execute("ATTACH ? AS copy", (str(part),))
    try:
        for setting in ("journal_mode = OFF", "synchronous = OFF"):
            schema.one(db, f"PRAGMA copy.{setting}")
        _Copy(db, part).run()
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
        db.execute("DETACH copy")
    sync(part)


def sync(path: Path) -> None:
    """Bring a file or directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _make(db: sqlite3.Connection, part: Path) -> None:
    """An empty file with everything that the other one has but rows."""
    new = sqlite3.connect(part, isolation_level=None)
    try:
        for name in ("auto_vacuum", "application_id", "user_version"):
            new.execute(f"PRAGMA {name} = {int(schema.one(db, f'PRAGMA {name}')[0])}")
        for (statement,) in db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid"):
            new.execute(statement)
    finally:
        new.close()


class _Copy:
    def __init__(self, db: sqlite3.Connection, part: Path) -> None:
        self._db = db
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
        self._db.executemany("INSERT INTO copy.appends VALUES (?, ?, ?, ?, ?, ?)", rows)
        self._db.executemany("INSERT INTO copy.blobs VALUES (?, ?)", blobs)
        self._bytes += size
        return (rows[-1][0], rows[-1][1]) if rows and (size >= _STEP_BYTES or len(rows) == _STEP_ROWS) else None

    def _streams(self) -> Iterator[int]:
        """All streams that have rows here or there, one look-up each."""
        after = -1
        query = "SELECT min(stream) FROM {}.appends WHERE stream > ?"
        while True:
            found = [schema.one(self._db, query.format(name), after)[0] for name in ("main", "copy")]
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
        self._db.execute("DELETE FROM copy.appends WHERE stream = ? AND position < ?", (stream, below))
        if first is None:
            return False
        (last,) = schema.one(self._db, "SELECT max(position) FROM copy.appends WHERE stream = ?", stream)
        return self._take(_OF_ONE, (stream, -1 if last is None else last)) is not None

    def _take_the_rest(self) -> None:
        tables = self._db.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in tables:
            if name not in _COPIED_IN_STEPS and not name.startswith("sqlite_"):
                self._db.execute(f"INSERT INTO copy.{name} SELECT * FROM main.{name}")

    def _sync(self) -> None:
        if self._bytes - self._synced >= _SYNC_EVERY:
            self._synced = self._bytes
            sync(self._part)
