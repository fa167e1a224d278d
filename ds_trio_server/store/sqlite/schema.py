"""The SQLite file: its tables, its settings, and how it is made, upgraded and opened.

Appends are clustered by (stream, position), so that a stream's bytes lie together and a range is
one walk. An append longer than `ROW_LIMIT` takes several rows; `part` is how far into its
append a row begins, 0 for the first, and `sum` its checksum: SQLite has none, and flash wears out.
A stream's row has one too.
`staged` lists blobs that no row has yet, with the row that each is for. `removed` lists streams whose rows are still
to be freed, all of them or those `below` a position. A row of `times` says that a stream's tail was at `position` at a
(steady) time. What these would have freed is held against checksums (`sum_of`) or the stream's row. `producing` counts
the producers of each stream that has any, and `used` is the (steady) second in which one last appended.
"""

import logging
import sqlite3
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ds_core.server.stream import Now

from ..base import Damaged, StorageBusy, StorageFailed, StorageFull
from . import errors
from .files import FILE as FILE

log = logging.getLogger("ds")

VERSION = 6
ROW_LIMIT = 256 * 1024
INLINE_LIMIT = 900
MAX_INTEGER = 2**63 - 1

_APPLICATION_ID = 0x44535452  # "DSTR", shown by file(1)

_STAGED = "CREATE TABLE staged (blob INTEGER PRIMARY KEY, stream INTEGER, position INTEGER, sum INTEGER);"
# By where they begin, too: most forks of a source need nothing of what may be freed there, and are not looked at.
_BY_SOURCE = "CREATE INDEX streams_by_source ON streams (source, fork_at) WHERE source IS NOT NULL;"
_PRODUCING = """
CREATE TABLE producing (stream INTEGER PRIMARY KEY, count INTEGER NOT NULL);
CREATE TRIGGER producers_are_counted AFTER INSERT ON producers
    BEGIN INSERT INTO producing VALUES (new.stream, 1) ON CONFLICT DO UPDATE SET count = count + 1; END;
CREATE TRIGGER producers_are_discounted AFTER DELETE ON producers BEGIN
    UPDATE producing SET count = count - 1 WHERE stream = old.stream;
    DELETE FROM producing WHERE stream = old.stream AND count < 1;
END;
"""
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
{_BY_SOURCE}
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
    used INTEGER,
    PRIMARY KEY (stream, id)
) WITHOUT ROWID;
{_PRODUCING}CREATE TABLE times (
    stream INTEGER NOT NULL,
    at REAL NOT NULL,
    position INTEGER NOT NULL,
    sum INTEGER,
    PRIMARY KEY (stream, at)
) WITHOUT ROWID;
CREATE INDEX times_by_time ON times (at);
CREATE TABLE removed (stream INTEGER PRIMARY KEY, below INTEGER);
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""

_UPGRADES = {
    3: "CREATE TABLE staged (blob INTEGER PRIMARY KEY); ALTER TABLE streams ADD COLUMN sum INTEGER;",
    4: f"""
        ALTER TABLE producers ADD COLUMN used INTEGER;
        {_PRODUCING}
        INSERT INTO producing SELECT stream, count(*) FROM producers GROUP BY stream;
    """,
    5: f"""
        DROP INDEX streams_by_source;
        {_BY_SOURCE}
        ALTER TABLE staged ADD COLUMN stream INTEGER;
        ALTER TABLE staged ADD COLUMN position INTEGER;
        ALTER TABLE staged ADD COLUMN sum INTEGER;
        ALTER TABLE times ADD COLUMN sum INTEGER;
    """,
}
"""What makes a file of a version one of the next. Rows of streams from before version 4 have no checksum until they
change, and producers from before version 5 no time until they are looked at. What was staged before version 6 is held
against all appends."""

INSERT_INLINE = "INSERT INTO appends (stream, position, part, sum, data) VALUES (?, ?, 0, ?, ?)"
INSERT_ROW = "INSERT INTO appends (stream, position, part, sum, blob) VALUES (?, ?, ?, ?, ?)"
INSERT_BLOB = "INSERT INTO blobs (id, data) VALUES (?, ?)"
INSERT_STAGED = "INSERT INTO staged VALUES (?, ?, ?, ?)"
SAVE_PRODUCER = (
    "INSERT INTO producers VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq, used = excluded.used"
)
NEWEST = (
    "INSERT INTO meta VALUES ('newest', ?) ON CONFLICT DO UPDATE SET"
    " value = CASE typeof(value) WHEN 'integer' THEN max(value, excluded.value) ELSE excluded.value END"
)
SHOWN_FROM = "CASE WHEN deleted THEN tail ELSE start END"
"""From where on a stream itself shows what it has."""
_FORKS = (
    "WITH RECURSIVE forks (id, first, upto) AS ("
    f" SELECT id, {SHOWN_FROM}, fork_at FROM streams WHERE source = ?1 AND fork_at > ?2"
    " UNION ALL"
    f" SELECT s.id, {SHOWN_FROM}, min(s.fork_at, forks.upto) FROM streams s JOIN forks ON s.source = forks.id"
    " WHERE s.id > forks.id AND s.fork_at > ?2"
    ")"
)
SHOWN_BY_FORK = f"SELECT 1 FROM streams WHERE source = ?1 AND fork_at > ?2 AND {SHOWN_FROM} <= ?2 LIMIT 1"
"""Whether a fork of a stream shows a position of it: the first that does ends the search, however many there are."""
COUNTED_FORKS = "SELECT (SELECT count(*) FROM streams WHERE source = ?1), forks FROM streams WHERE id = ?1"
"""How many forks of a stream are found, and how many its row says it has."""
FORKED_FORKS = "SELECT id FROM streams WHERE source = ?1 AND fork_at > ?2 AND forks > 0 AND id > ?1"
"""The forks of a stream from behind a position that have forks themselves, which may show it as well."""
NEEDED = f"{_FORKS} SELECT min(first) FROM forks WHERE first < upto"
"""From which position on the forks of a stream need its bytes from a position on; NULL when they need none."""


def sum_of(*values: object) -> int:
    """The checksum of a row whose values decide what is freed."""
    return zlib.crc32(repr(values).encode())


def staged(blob: int, stream: int, position: int) -> tuple[int, int, int, int]:
    """The parameters of INSERT_STAGED: what a blob is for."""
    return blob, stream, position, sum_of(blob, stream, position)


def release(ancestor: tuple[int, int]) -> tuple[str, tuple[object, ...]]:
    """What to run when a fork needs less of an ancestor: see what is to be freed there now."""
    return (
        f"INSERT INTO removed SELECT id, {SHOWN_FROM} FROM streams WHERE id = ? AND (start > 0 OR deleted)"
        " ON CONFLICT DO UPDATE SET below = max(below, excluded.below)",  # all of it (NULL) stays all of it
        (ancestor[0],),
    )


def clock(now: Now) -> tuple[tuple[str, tuple[object, ...]], ...]:
    """What to run to keep the time for the next start."""
    statement = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
    return (statement, ("steady", now.steady)), (statement, ("wall", now.wall))


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


def uri(folder: Path, access: str) -> str:
    """What SQLite takes for the name of the file, with how it is to be opened."""
    return f"{(folder / FILE).absolute().as_uri()}?{access}"


def connect(folder: Path, *, cache_kib: int, access: str = "mode=rwc", patience: float = 5.0) -> sqlite3.Connection:
    """A connection with the settings that every connection needs, in autocommit mode. It waits `patience` seconds
    for somebody else's lock; `access` is the query of its URI."""
    db = sqlite3.connect(
        uri(folder, access), timeout=patience, isolation_level=None, check_same_thread=False, uri=True
    )
    try:
        db.execute(f"PRAGMA cache_size = -{cache_kib}")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA temp_store = MEMORY")
        # Some builds write zeros over all that is freed: as much again as was written for it, on flash that wears out.
        one(db, "PRAGMA secure_delete = OFF")
        one(db, "PRAGMA wal_autocheckpoint = 0")
    except BaseException:
        db.close()
        raise
    return db


def be_patient(db: sqlite3.Connection, patient: bool) -> None:
    """Let a connection wait for somebody else's lock, or hardly."""
    one(db, f"PRAGMA busy_timeout = {5000 if patient else 250}")


def access_to_read(folder: Path) -> str:
    """How a file can be opened where nothing can be written. Raises StorageFailed where it can't."""
    log, shared = folder / (FILE + "-wal"), folder / (FILE + "-shm")
    if not log.exists() or not log.stat().st_size:
        return "immutable=1"
    if shared.exists():
        return "mode=ro&readonly_shm=1"
    raise StorageFailed(
        f"{log} holds appends that can't be read without writing; make room on the disk, or make {folder} writable"
    )


def last_blob(db: sqlite3.Connection) -> int:
    """The highest number that a blob has."""
    return int(one(db, "SELECT ifnull(max(id), 0) FROM blobs")[0])


def change_all(db: sqlite3.Connection, statement: str, rows: Sequence[Sequence[object]]) -> None:
    """Run a statement that changes one row for each of some rows of parameters. Raises Damaged where one isn't there:
    what was acknowledged would be lost with it."""
    if db.executemany(statement, rows).rowcount != len(rows):
        raise Damaged("what several streams share", "a row that is to be changed is missing")


def takes_commits(db: sqlite3.Connection) -> bool:
    """Whether what any commit may need is sound: the tables, free pages, what is there for all streams. Raises
    sqlite3.Error for what is no damage."""
    try:
        db.execute("BEGIN IMMEDIATE")
        one(db, "SELECT count(*) FROM sqlite_master")
        db.execute("INSERT INTO blobs (data) VALUES (zeroblob(16384))")
        db.execute("INSERT OR REPLACE INTO meta VALUES ('probe', 0)")
    except sqlite3.Error as error:
        if not errors.is_damage(error):
            raise
        return False
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
    return True


def unused(db: sqlite3.Connection) -> int:
    """How many bytes of the file are in no use."""
    return int(one(db, "PRAGMA freelist_count")[0]) * int(one(db, "PRAGMA page_size")[0])


def has_pages_left(db: sqlite3.Connection) -> bool:
    """Whether the file is far from having as many pages as one may have."""
    return int(one(db, "PRAGMA max_page_count")[0]) // 2 > int(one(db, "PRAGMA page_count")[0])


def unstage(db: sqlite3.Connection) -> None:
    """Drop the blobs that were staged and never published; what a row of the list can't be is left alone."""
    found = db.execute("SELECT blob, stream, position, sum FROM staged").fetchall()
    db.executemany(
        "DELETE FROM blobs WHERE id = ?1 AND NOT EXISTS"
        " (SELECT 1 FROM appends WHERE stream = ?2 AND position = ?3 AND blob = ?1)",
        [row[:3] for row in found if row == staged(*row[:3])],
    )
    if any(row[-1] is None for row in found):  # of an earlier version
        db.execute(
            "DELETE FROM blobs WHERE id IN (SELECT blob FROM staged WHERE sum IS NULL)"
            " AND id NOT IN (SELECT blob FROM appends WHERE blob IS NOT NULL)"
        )
    db.execute("DELETE FROM staged")


def is_ours(db: sqlite3.Connection) -> bool:
    """Whether the file is a stream store that this code understands."""
    version = one(db, "PRAGMA user_version")[0]
    owner = one(db, "PRAGMA application_id")[0]
    return bool(version == VERSION and owner == _APPLICATION_ID)


def is_known(db: sqlite3.Connection) -> bool:
    """Whether the file is a stream store of this version, or of one that can be upgraded."""
    return is_ours(db) or (
        one(db, "PRAGMA user_version")[0] in _UPGRADES and one(db, "PRAGMA application_id")[0] == _APPLICATION_ID
    )


def as_current(db: sqlite3.Connection) -> list[str]:
    """What lets this version's queries read an older file that stays as it is: temporary tables and views in place of
    what is not there yet, empty and with the columns' defaults."""
    model = sqlite3.connect(":memory:")
    try:
        model.executescript(_TABLES)
        found = []
        for (table,) in model.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            columns = {name: default for _, name, _, _, default, _ in model.execute(f"PRAGMA table_info({table})")}
            there = {row[1] for row in db.execute(f"PRAGMA main.table_info({table})").fetchall()}
            if not there:
                found.append(f"CREATE TEMP TABLE {table} ({', '.join(columns)})")
            elif columns.keys() - there:
                read = (name if name in there else f"{value or 'NULL'} AS {name}" for name, value in columns.items())
                found.append(f"CREATE TEMP VIEW {table} AS SELECT {', '.join(read)} FROM main.{table}")
        return found
    finally:
        model.close()


def prepare(folder: Path) -> sqlite3.Connection:
    """The writer's connection to the file, created if it is not there.

    Raises StorageFailed with a line for the operator when the file is not ours, is damaged or locked, and Unwritable
    when it may be well but nothing can be written.
    """
    db = None
    try:
        db = connect(folder, cache_kib=8192)
        _prepare(folder, db)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        if db is not None:
            db.close()
        refusal = errors.refusal(folder, error)
        if isinstance(refusal, StorageBusy):
            raise StorageFailed(
                f"{folder / FILE} is locked by another program, such as an sqlite3 shell; end that first"
            ) from error
        raise refusal or errors.failed(folder, error) from error
    except StorageFailed:
        assert db is not None
        db.close()
        raise
    return db


def _prepare(folder: Path, db: sqlite3.Connection) -> None:
    version = one(db, "PRAGMA user_version")[0]
    owner = one(db, "PRAGMA application_id")[0]
    if is_empty(db):
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        one(db, "PRAGMA journal_mode = WAL")
        db.executescript(
            f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {VERSION};"
            f" PRAGMA application_id = {_APPLICATION_ID}; COMMIT;"
        )
    elif version in _UPGRADES and owner == _APPLICATION_ID:
        steps = " ".join(_UPGRADES[each] for each in range(version, VERSION))
        db.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {VERSION};")
        _sum_times(db)
        db.execute("COMMIT")
    else:
        check_version(folder, db)
    if one(db, "PRAGMA journal_mode = WAL")[0] != "wal":
        raise StorageFailed(f"the file system of {folder} can't do write-ahead logging; use a local disk")
    _drop_staged(folder, db)


def _sum_times(db: sqlite3.Connection) -> None:
    """Give the rows of times their checksums; where they can't be read they are noted anew, and streams kept longer."""
    db.create_function("sum_of", -1, sum_of, deterministic=True)
    db.execute("SAVEPOINT times")
    try:
        db.execute("UPDATE times SET sum = sum_of(stream, at, position) WHERE sum IS NULL")
    except sqlite3.Error as error:
        if not errors.is_damage(error):
            raise
        db.execute("ROLLBACK TO times")
    db.execute("RELEASE times")


def is_empty(db: sqlite3.Connection) -> bool:
    """Whether nothing has been made in the file yet, or a first start got no further."""
    marks = one(db, "PRAGMA user_version")[0], one(db, "PRAGMA application_id")[0]
    return marks == (0, 0) and not one(db, "SELECT 1 FROM sqlite_master")


def check_version(folder: Path, db: sqlite3.Connection) -> None:
    """Raise StorageFailed when the file is none that this code serves as it is."""
    if is_ours(db):
        return
    if is_known(db):
        raise StorageFailed(f"{folder / FILE} is of an earlier version, and can't be upgraded without writing")
    raise StorageFailed(
        f"{folder / FILE} is not a stream store of version {VERSION}; give another --data directory"
    )


def _drop_staged(folder: Path, db: sqlite3.Connection) -> None:
    """Drop what a crash left staged; what has no room or no lock for that leaves it to the next who stages."""
    try:
        db.execute("BEGIN IMMEDIATE")
        if one(db, "SELECT 1 FROM staged LIMIT 1") is not None:
            unstage(db)
        else:
            db.execute("DELETE FROM staged WHERE blob < 0")  # no change, but a file that can only be read refuses it
        db.execute("COMMIT")
    except sqlite3.Error as error:
        if errors.is_damage(error):  # dropping it is upkeep, and ends no start
            log.error("%s: what a crash left staged can't be told: %s; run 'ds check'", folder / FILE, error)
        elif not isinstance(errors.refusal(folder, error), (StorageFull, StorageBusy)):
            raise
        if db.in_transaction:
            db.execute("ROLLBACK")
