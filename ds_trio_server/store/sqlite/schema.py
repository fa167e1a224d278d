"""The SQLite file: its tables, its settings, and how it is made, upgraded and opened.

Appends are clustered by (stream, position), so that a stream's bytes lie together and a range is
one walk. An append longer than ``ROW_LIMIT`` takes several rows; ``part`` is how far into its
append a row begins, 0 for the first, and ``sum`` its checksum: SQLite has none, and flash wears out.
A stream's row has one too.
``staged`` lists blobs that no row has yet. ``removed`` lists streams whose rows are still to be
freed, all of them or those ``below`` a position. A row of ``times`` says that a stream's tail was at
``position`` at a (steady) time.
"""

import os
import sqlite3
from pathlib import Path
from typing import Any

from ..base import StorageFailed

FILE = "streams.db"
VERSION = 4
ROW_LIMIT = 256 * 1024
INLINE_LIMIT = 900
MAX_INTEGER = 2**63 - 1
TIMEOUT = 30.0
"""How long (seconds) a connection waits for one that locks the file."""

_APPLICATION_ID = 0x44535452  # "DSTR", shown by file(1)

_STAGED = "CREATE TABLE staged (blob INTEGER PRIMARY KEY);"
_TABLES = f"""
CREATE TABLE streams (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,
    incarnation INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    start INTEGER NOT NULL,
    tail INTEGER NOT NULL,
    closed INTEGER NOT NULL,
    closed_by TEXT,
    stream_seq TEXT,
    ttl INTEGER,
    deadline REAL,
    expires_at TEXT,
    expires REAL,
    source INTEGER,
    fork_at INTEGER,
    recipe TEXT,
    forks INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0,
    sum INTEGER
);
CREATE INDEX streams_by_deadline ON streams (deadline) WHERE deadline IS NOT NULL;
CREATE INDEX streams_by_expiry ON streams (expires) WHERE expires IS NOT NULL;
CREATE INDEX streams_by_source ON streams (source) WHERE source IS NOT NULL;
CREATE TABLE appends (
    stream INTEGER NOT NULL,
    position INTEGER NOT NULL,
    part INTEGER NOT NULL,
    sum INTEGER NOT NULL,
    data BLOB,
    blob INTEGER,
    PRIMARY KEY (stream, position)
) WITHOUT ROWID;
CREATE TABLE blobs (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
{_STAGED}
CREATE TRIGGER appends_leave_no_blobs AFTER DELETE ON appends WHEN old.blob IS NOT NULL
    BEGIN DELETE FROM blobs WHERE id = old.blob; END;
CREATE VIEW stored AS
    SELECT stream, position, part, sum, ifnull(blobs.data, appends.data) AS data,
        ifnull(length(blobs.data), length(appends.data)) AS size
    FROM appends LEFT JOIN blobs ON blobs.id = appends.blob;
CREATE TABLE producers (
    stream INTEGER NOT NULL,
    id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (stream, id)
) WITHOUT ROWID;
CREATE TABLE times (
    stream INTEGER NOT NULL,
    at REAL NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (stream, at)
) WITHOUT ROWID;
CREATE INDEX times_by_time ON times (at);
CREATE TABLE removed (stream INTEGER PRIMARY KEY, below INTEGER);
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""

_UPGRADES = {3: _STAGED + "ALTER TABLE streams ADD COLUMN sum INTEGER;"}
"""What makes a file of an older version one of this. Its rows of streams have no checksum until they change."""

INSERT_INLINE = "INSERT INTO appends (stream, position, part, sum, data) VALUES (?, ?, 0, ?, ?)"
INSERT_ROW = "INSERT INTO appends (stream, position, part, sum, blob) VALUES (?, ?, ?, ?, ?)"
INSERT_BLOB = "INSERT INTO blobs (id, data) VALUES (?, ?)"
NEWEST = (
    "INSERT INTO meta VALUES ('newest', ?) ON CONFLICT DO UPDATE SET value = max(value, excluded.value)"
)
NEEDED = (
    "WITH RECURSIVE forks (id, start, upto) AS ("
    " SELECT id, start, fork_at FROM streams WHERE source = ?"
    " UNION ALL"
    " SELECT s.id, s.start, min(s.fork_at, forks.upto) FROM streams s JOIN forks ON s.source = forks.id"
    " WHERE s.id > forks.id"
    ") SELECT min(start) FROM forks WHERE start < upto"
)
"""From which position on the forks of a stream need its bytes; NULL when they need none."""


def release(ancestor: tuple[int, int]) -> tuple[str, tuple[object, ...]]:
    """What to run when a fork needs less of an ancestor: see what is to be freed there now."""
    return (
        "INSERT OR IGNORE INTO removed SELECT id, start FROM streams WHERE id = ? AND start > 0",
        (ancestor[0],),
    )


def one(db: sqlite3.Connection, statement: str, *values: object) -> Any:
    """The first row of what a statement gives, or None.

    Its cursor is closed: one that waits for the garbage collector holds up commits and checkpoints
    for as long.
    """
    cursor = db.execute(statement, values)
    try:
        return cursor.fetchone()
    finally:
        cursor.close()


def connect(folder: Path, *, cache_kib: int) -> sqlite3.Connection:
    """A connection with the settings that every connection needs, in autocommit mode."""
    db = sqlite3.connect(folder / FILE, timeout=TIMEOUT, isolation_level=None, check_same_thread=False)
    db.execute(f"PRAGMA cache_size = -{cache_kib}")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA temp_store = MEMORY")
    # Some builds write zeros over all that is freed: as much again as was written for it, on flash that wears out.
    one(db, "PRAGMA secure_delete = OFF")
    one(db, "PRAGMA wal_autocheckpoint = 0")
    return db


def is_full(error: Exception) -> bool:
    """Whether SQLite failed for want of room alone."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE


def last_blob(db: sqlite3.Connection) -> int:
    """The highest number that a blob has."""
    return int(one(db, "SELECT ifnull(max(id), 0) FROM blobs")[0])


def unstage(db: sqlite3.Connection) -> None:
    """Drop the blobs that were staged and never published."""
    db.execute("DELETE FROM blobs WHERE id IN (SELECT blob FROM staged)")
    db.execute("DELETE FROM staged")


def make_folder(folder: Path) -> None:
    """Create the data directory, and be sure that a power cut doesn't take it away again."""
    made = []
    at = folder.absolute()
    while not at.exists():
        made.append(at)
        at = at.parent
    folder.mkdir(parents=True, exist_ok=True)
    for each in made:
        handle = os.open(each.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def is_ours(db: sqlite3.Connection) -> bool:
    """Whether the file is a stream store that this code understands."""
    version = one(db, "PRAGMA user_version")[0]
    owner = one(db, "PRAGMA application_id")[0]
    return bool(version == VERSION and owner == _APPLICATION_ID)


def prepare(folder: Path) -> sqlite3.Connection:
    """The writer's connection to the file, created if it is not there.

    Raises StorageFailed with a line for the operator when the file is not ours or is damaged.
    """
    file = folder / FILE
    try:
        db = connect(folder, cache_kib=8192)
    except sqlite3.Error as error:
        raise damaged(folder, error) from error
    try:
        version = one(db, "PRAGMA user_version")[0]
        owner = one(db, "PRAGMA application_id")[0]
        if version == 0 and owner == 0 and not one(db, "SELECT 1 FROM sqlite_master"):
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            one(db, "PRAGMA journal_mode = WAL")
            db.executescript(
                f"BEGIN; {_TABLES} PRAGMA user_version = {VERSION};"
                f" PRAGMA application_id = {_APPLICATION_ID}; COMMIT;"
            )
        elif version in _UPGRADES and owner == _APPLICATION_ID:
            db.executescript(f"BEGIN; {_UPGRADES[version]} PRAGMA user_version = {VERSION}; COMMIT;")
        elif not is_ours(db):
            raise StorageFailed(
                f"{file} is not a stream store of version {VERSION}; give another --data directory"
            )
        mode = one(db, "PRAGMA journal_mode = WAL")[0]
        if mode != "wal":
            raise StorageFailed(f"the file system of {folder} can't do write-ahead logging; use a local disk")
        _recover(db)
    except sqlite3.DatabaseError as error:
        db.close()
        raise damaged(folder, error) from error
    except StorageFailed:
        db.close()
        raise
    return db


def _recover(db: sqlite3.Connection) -> None:
    """Drop what a crash left staged."""
    if one(db, "SELECT 1 FROM staged LIMIT 1") is None:
        return
    try:
        db.execute("BEGIN IMMEDIATE")
        unstage(db)
        db.execute("COMMIT")
    except sqlite3.Error as error:
        if not is_full(error):
            raise
        if db.in_transaction:  # the next to stage something does it
            db.execute("ROLLBACK")


def damaged(folder: Path, error: Exception) -> StorageFailed:
    """What to tell the operator when SQLite can't read or write its file."""
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return StorageFailed(
        f"{folder / FILE}: {error} ({name}); check the disk (dmesg, smartctl), then the data with "
        f"'ds check {folder}'; if that finds damage, restore the directory from a backup"
    )


def verify(db: sqlite3.Connection) -> None:
    """Look for streams that an index has lost, or that were lost themselves: they would seem to be
    missing. Raises sqlite3.DatabaseError."""
    found = one(db, "PRAGMA integrity_check(streams)")[0]
    if found != "ok":
        raise sqlite3.DatabaseError(found)
