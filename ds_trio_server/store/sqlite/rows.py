"""How a stream becomes a row and back, and the checksums of rows.

A row that is not what was written is never taken for one: SQLite has no checksums, and flash wears out.
"""

import sqlite3
import zlib
from typing import NamedTuple

from ds_core.server.stream import Stream

from ..base import Damaged
from . import schema


class StreamRow(NamedTuple):
    """A row of `streams`. `closed_by` is `EPOCH SEQ ID`."""

    id: int
    path: str
    incarnation: int
    content_type: str
    start: int
    tail: int
    closed: int
    closed_by: str | None
    stream_seq: str | None
    ttl: int | None
    deadline: float | None
    expires_at: str | None
    expires: float | None
    source: int | None
    fork_at: int | None
    fork_spec: str | None
    forks: int
    deleted: int
    sum: int | None


CONTINUES = 1 << 32
"""In the checksum of a row that goes on with an append; those of files before version 6 have none."""
StateRow = tuple[int, int, str | None, str | None, float | None, int, int]
"""The parameters of UPDATE_STREAM: tail, closed, closed_by, stream_seq, deadline, sum and id. A plain tuple: there is
one for each stream of each commit, and sqlite3 takes no other as quickly."""

# One column has kept a name of earlier versions.
_COLUMNS = ", ".join("recipe" if field == "fork_spec" else field for field in StreamRow._fields)
INSERT_STREAM = f"INSERT INTO streams ({_COLUMNS}) VALUES ({','.join('?' * len(StreamRow._fields))})"
_BY_PATH, _BY_ID = (f"SELECT {_COLUMNS} FROM streams WHERE {key} = ?" for key in ("path", "id"))
UPDATE_STREAM = (
    "UPDATE streams SET tail = ?, closed = ?, closed_by = ?, stream_seq = ?, deadline = ?, sum = ? WHERE id = ?"
)


def damaged(stream: int) -> Damaged:
    """What to raise where the row of a stream is not what was written, or is missing and needed."""
    return Damaged(f"stream {stream}", f"the row of stream {stream} is damaged")


def damaged_data(stream: int, position: int) -> Damaged:
    """What to raise where bytes of a stream are missing or not what was written."""
    return Damaged(f"stream {stream}", f"the data of stream {stream} at position {position} is damaged")


def checksum(stream: int, position: int, data: bytes | memoryview) -> int:
    """What `sum` is for a row: of its bytes and of where they belong."""
    return zlib.crc32(data, (stream * 0x9E3779B1 + position) & 0xFFFFFFFF)


def part_checksum(stream: int, position: int, part: int, data: bytes | memoryview) -> int:
    """As `checksum`, with a mark on rows that don't begin an append: so none is taken for one that does."""
    return checksum(stream, position, data) | (CONTINUES if part else 0)


def is_whole(stream: int, position: int, part: int, sum: int, data: bytes) -> bool:
    """Whether a row is what was written, as far as it says itself."""
    found = checksum(stream, position, data)
    return found == sum or (part > 0 and found | CONTINUES == sum)


def identity(stream: Stream) -> int:
    """The part of a row's checksum that never changes: a CRC of what the stream is."""
    return zlib.crc32(
        repr(
            (
                stream.id, stream.path, stream.incarnation, stream.content_type,
                stream.lineage[-1] if stream.lineage else None, stream.fork_spec,
            )
        ).encode()
    )  # fmt: skip


def state_row(stream: Stream, deadline: float | None, identity: int) -> StateRow:
    """What a stream's row becomes; `identity` is what the function of that name gives."""
    by = stream.closed_by
    closed_by = None if by is None else f"{by[1]} {by[2]} {by[0]}"
    closed = int(stream.closed)  # what is no plain int, sqlite3 looks for an adapter of
    # As the file gives it back: the column is REAL, and the core has whole numbers as such.
    expires = None if stream.expires is None else float(stream.expires)
    state = (
        f"{stream.start} {stream.tail} {closed} {closed_by} {stream.stream_seq} {stream.ttl} {deadline} "
        f"{stream.expires_at} {expires} {stream.forks} {stream.deleted}"
    )
    sum = zlib.crc32(state.encode(), identity)
    return stream.tail, closed, closed_by, stream.stream_seq, deadline, sum, stream.id


def recount_forks(stream: Stream) -> tuple[str, tuple[object, ...]]:
    """What to run when a stream that is not in memory has another number of forks."""
    *_, sum, id = state_row(stream, stream.deadline, identity(stream))
    return "UPDATE streams SET forks = ?, sum = ? WHERE id = ?", (stream.forks, sum, id)


def new_row(stream: Stream, deadline: float | None) -> StreamRow:
    """The parameters of INSERT_STREAM: the row of a new stream."""
    _, closed, closed_by, _, _, sum, _ = state_row(stream, deadline, identity(stream))
    source, fork_at = stream.lineage[-1] if stream.lineage else (None, None)
    return StreamRow(
        stream.id, stream.path, stream.incarnation, stream.content_type, stream.start, stream.tail, closed,
        closed_by, stream.stream_seq, stream.ttl, deadline, stream.expires_at, stream.expires, source, fork_at,
        stream.fork_spec, stream.forks, int(stream.deleted), sum,
    )  # fmt: skip


def load(
    db: sqlite3.Connection, key: str | int, lineage: tuple[tuple[int, int], ...] | None = None
) -> Stream | None:
    """The durable state of the stream with a path or an id for its key.

    Its ancestors are walked up to, one row each, and held against their checksums; not those of a deleted one whose
    `lineage` is given, because nobody reads through it. Raises Damaged.
    """
    found = read(db, key)
    if found is None:
        return None
    if found.lineage:
        if lineage is not None and found.deleted:
            # A descendant may need less of them all, but where this one left its source is its own: its sum is of that.
            found.lineage = (*lineage[:-1], found.lineage[-1])
        else:
            found.lineage = _lineage(db, found)
    return found


def load_needed(db: sqlite3.Connection, id: int, lineage: tuple[tuple[int, int], ...] | None = None) -> Stream:
    """As `load`, of a stream that must be there because a fork needs it."""
    found = load(db, id, lineage)
    if found is None:
        raise damaged(id)
    return found


def read(db: sqlite3.Connection, key: str | int) -> Stream | None:
    """As `load`, without a look at other rows: of a fork's lineage the last alone, as its own row has it."""
    try:
        found = schema.one(db, _BY_PATH if isinstance(key, str) else _BY_ID, key)
    except sqlite3.OperationalError as error:
        if hasattr(error, "sqlite_errorcode"):
            raise
        raise damaged(number(db, key) if isinstance(key, str) else key) from error  # text that is not UTF-8
    if found is None:
        return None
    row = StreamRow._make(found)
    try:
        stream = _stream(row)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise damaged(row.id) from error
    if isinstance(key, str) and stream.path != key:
        raise damaged(row.id)
    stream.publish()
    return stream


def paths(db: sqlite3.Connection) -> list[str]:
    """The paths of all streams that can be asked for, in order."""
    return [path for (path,) in db.execute("SELECT path FROM streams WHERE deleted = 0 ORDER BY path")]


def path(db: sqlite3.Connection, id: int) -> str | None:
    """The path of a stream; None when there is none (any more)."""
    found = schema.one(db, "SELECT CAST(path AS BLOB) FROM streams WHERE id = ?", id)
    try:
        return None if found is None else found[0].decode()
    except (ValueError, AttributeError) as error:
        raise damaged(id) from error


def count(db: sqlite3.Connection) -> int:
    """How many streams there are, with those that only forks need."""
    return int(schema.one(db, "SELECT count(*) FROM streams")[0])


def number(db: sqlite3.Connection, path: str) -> int:
    """The id of the stream at a path, 0 when there is none."""
    found = schema.one(db, "SELECT id FROM streams WHERE path = ?", path)
    return 0 if found is None else int(found[0])


def _stream(row: StreamRow) -> Stream:
    stream = Stream(row.id, row.path, row.content_type)
    stream.incarnation = row.incarnation
    stream.start = row.start
    stream.tail = row.tail
    stream.closed = bool(row.closed)
    if row.closed_by is not None:
        epoch, seq, producer = row.closed_by.split(" ", 2)
        stream.closed_by = (producer, int(epoch), int(seq))
    stream.stream_seq = row.stream_seq
    stream.ttl = row.ttl
    stream.deadline = row.deadline
    stream.expires_at = row.expires_at
    stream.expires = row.expires
    if row.source is not None and row.fork_at is not None:
        stream.lineage = ((row.source, row.fork_at),)
    stream.fork_spec = row.fork_spec
    stream.forks = row.forks
    stream.deleted = bool(row.deleted)
    # A source is older than its forks: so no chain of them has a circle.
    whole = (row.source is None) == (row.fork_at is None) and (row.source is None or row.source < row.id)
    *_, sum, _ = state_row(stream, stream.deadline, identity(stream))
    if not whole or row.sum not in (None, sum):
        raise damaged(stream.id)
    return stream


def _lineage(db: sqlite3.Connection, stream: Stream) -> tuple[tuple[int, int], ...]:
    """All ancestors of a fork whose row has just been read, root first."""
    above = stream.lineage
    found: list[tuple[int, int]] = []
    while above:
        ((id, upto),) = above
        found.append((id, min(upto, found[-1][1]) if found else upto))
        ancestor = read(db, id)
        if ancestor is None:
            raise damaged(id)
        above = ancestor.lineage
    return tuple(reversed(found))
