"""Streams made, removed and trimmed: what such a change does to the states in memory and to a batch.

These are statements whose order matters, unlike appends. Forks tie streams together (section 8): a
source that is deleted lives on, hidden, as long as a fork needs its bytes.
"""

import sqlite3
from typing import NamedTuple

from ds_core.server.stream import Created, Removed, Stream, Trimmed

from ..base import Change, Damaged
from . import errors, rows, schema
from .batches import Batch, Entry
from .cache import StreamCache


class Ties(NamedTuple):
    """The entries that forks tie to a change of one path: the `source` of the fork that it makes, and `released`,
    those that lose a fork by the stream that it removes, from that stream's source on up."""

    source: Entry | None
    released: list[Entry]

    @staticmethod
    def of(cache: StreamCache, entry: Entry, change: Change) -> "Ties":
        """Load what a change will touch, before anything is changed. Raises as what loads an entry does."""
        ends = isinstance(change, Created) or (isinstance(change, Removed) and not change.soft)
        released = cache.sources(entry.stream) if ends and entry.stream is not None else []
        source = None
        if isinstance(change, Created) and change.source is not None:
            # Never two entries of one stream, though the cache may let one go meanwhile.
            source = next((each for each in released if each.stream and each.stream.id == change.source), None)
            source = source or cache.ancestor(change.source)
        return Ties(source, released)

    def entries(self) -> list[Entry]:
        """All of them."""
        return self.released if self.source is None else [self.source, *self.released]


def change(cache: StreamCache, batch: Batch, entry: Entry, change: Created | Removed | Trimmed, ties: Ties) -> None:
    """Add to a batch what a change of one path takes, `ties` included."""
    if isinstance(change, Created):
        if entry.stream is not None:
            remove(cache, batch, entry, ties.released)
        create(cache, batch, entry, change, ties.source)
    elif isinstance(change, Trimmed):
        trim(cache, batch, entry, change)
    elif change.soft:
        soft_delete(cache, batch, entry)
    else:
        remove(cache, batch, entry, ties.released)


def is_mortal(change: Change) -> bool:
    """Whether a change makes a stream that ends by itself."""
    return isinstance(change, Created) and (change.stream.ttl is not None or change.stream.expires is not None)


def create(cache: StreamCache, batch: Batch, entry: Entry, change: Created, source: Entry | None) -> None:
    """Make a stream where there is none, a fork of `source`."""
    stream = change.stream
    entry.replace(stream)
    cache.keep(entry)
    batch.structure.append((rows.INSERT_STREAM, rows.new_row(stream, entry.deadline_to_store())))
    batch.structure.append((schema.NEWEST, (stream.id,)))
    batch.collect(stream.id, stream.tail - len(change.data), change.data)
    if source is not None:
        _count_fork(cache, batch, source, 1)
    cache.touch(entry, batch, structural=True)


def soft_delete(cache: StreamCache, batch: Batch, entry: Entry) -> None:
    """Delete a stream that forks need: it is gone for everyone but them."""
    stream = entry.stream
    assert stream is not None
    stream.deleted = True
    # Its time is over already; what ends it now is its last fork.
    stream.ttl = stream.deadline = stream.expires_at = stream.expires = None
    batch.structure.append(
        (
            "UPDATE streams SET deleted = 1, ttl = NULL, expires_at = NULL, expires = NULL WHERE id = ?",
            (stream.id,),
        )
    )
    # Its forks may begin later than it did.
    batch.structure.append(schema.release((stream.id, 0)))
    batch.leaves_garbage = True
    batch.ended.append(stream)
    cache.touch(entry, batch, structural=True)


def remove(cache: StreamCache, batch: Batch, entry: Entry, released: list[Entry]) -> None:
    """Remove a stream, and every deleted ancestor that only it needed (section 8), out of `Ties.released`."""
    assert entry.stream is not None
    lineage = entry.stream.lineage
    _end(cache, batch, entry)
    for source in released:
        _count_fork(cache, batch, source, -1)
        assert source.stream is not None
        if source.stream.forks or not source.stream.deleted:
            break
        _end(cache, batch, source)
        lineage = lineage[:-1]
    batch.structure += map(schema.release, lineage)


def _end(cache: StreamCache, batch: Batch, entry: Entry) -> None:
    stream = entry.stream
    assert stream is not None
    stream.deleted = True
    batch.structure += _ends(stream.id)
    batch.ended.append(stream)
    batch.leaves_garbage = True
    # The entry stays, empty, until this is durable: the file still shows the stream.
    cache.forget_id(entry)
    entry.gone = stream.id
    entry.stream = None
    cache.touch(entry, batch, structural=True)


def trim(cache: StreamCache, batch: Batch, entry: Entry, change: Trimmed) -> None:
    """Let a stream begin later."""
    stream = entry.stream
    assert stream is not None
    change.apply(stream)
    batch.structure += (
        ("UPDATE streams SET start = ? WHERE id = ?", (stream.start, stream.id)),
        ("DELETE FROM times WHERE stream = ? AND position <= ?", (stream.id, stream.start)),
        ("INSERT OR REPLACE INTO removed VALUES (?, ?)", (stream.id, stream.start)),
        *map(schema.release, stream.lineage),
    )
    batch.leaves_garbage = True
    cache.touch(entry, batch)


class Rest(NamedTuple):
    """What there is of a stream whose state can't be read: the ids that are `gone` with it, its own first and then
    those of deleted ancestors that only it needed, and the state of the one that is `counted` a fork less, if it can be
    told."""

    gone: list[int]
    counted: Stream | None


def look_for_rest(db: sqlite3.Connection, path: str) -> Rest:
    """The query for what the removal of a stream takes, where its state can't be read. Raises Damaged where it can't be
    found, or where forks need what it has: they are to go first."""
    id = rows.number(db, path)
    if not id:
        raise Damaged(f"the stream at {path!r}", f"the stream at {path!r} can't be found by its path")
    if schema.one(db, "SELECT 1 FROM streams WHERE source = ?", id) is not None:
        raise Damaged(f"stream {id}", f"the state of stream {id} is damaged, and it has forks: they are to go first")
    gone = [id]
    try:
        found = rows.read(db, id)
        while found is not None and found.lineage:
            found = rows.read(db, found.lineage[-1][0])
            if found is None or found.forks > 1 or not found.deleted:
                return Rest(gone, found)
            gone.append(found.id)
    except (Damaged, sqlite3.DatabaseError) as error:
        if not errors.is_damage(error):
            raise
    return Rest(gone, None)


def discard(cache: StreamCache, batch: Batch, path: str, rest: Rest, counted: Entry | None) -> None:
    """Remove what there is of a stream; `counted` is the entry of the one that loses a fork by it, if that is in
    memory."""
    for id in rest.gone:
        batch.structure += _ends(id)
        stream = Stream(id, path, "application/octet-stream")
        stream.deleted = True
        batch.ended.append(stream)
        known = cache.get(id)
        if known is not None:
            cache.drop(known)
    batch.leaves_garbage = True
    if counted is not None:
        _count_fork(cache, batch, counted, -1)
    elif rest.counted is not None:
        rest.counted.forks -= 1
        batch.structure.append(rows.recount_forks(rest.counted))
    if rest.counted is not None:
        batch.structure.append(schema.release((rest.counted.id, 0)))
    entry = Entry(path, None)
    entry.gone = rest.gone[0]
    cache.touch(entry, batch, structural=True)


def _ends(id: int) -> tuple[tuple[str, tuple[object, ...]], ...]:
    """What to run when a stream ends."""
    return (
        ("DELETE FROM streams WHERE id = ?", (id,)),
        ("INSERT OR REPLACE INTO removed VALUES (?, NULL)", (id,)),
    )


def _count_fork(cache: StreamCache, batch: Batch, source: Entry, by: int) -> None:
    assert source.stream is not None
    source.stream.forks += by
    batch.structure.append(("UPDATE streams SET forks = forks + ? WHERE id = ?", (by, source.stream.id)))
    cache.touch(source, batch)
