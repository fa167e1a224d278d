"""Streams made, removed and trimmed: what such a change does to the states in memory and to a batch.

These are statements whose order matters, unlike appends. Forks tie streams together (section 8): a
source that is deleted lives on, hidden, as long as a fork needs its bytes.
"""

from ds_core.server.stream import Created, Removed, Trimmed

from ..base import Change
from . import rows, schema
from .batches import Batch, Entry
from .cache import StreamCache


def touched(cache: StreamCache, entry: Entry, change: Change) -> list[Entry]:
    """The entries that a change may touch: that of its path, and those that forks tie to it."""
    found = [entry]
    if isinstance(change, (Created, Removed)):
        if entry.stream is not None:
            found += [cache.entry_by_id(id) for id, _ in entry.stream.lineage]
        if isinstance(change, Created) and change.source is not None:
            found.append(cache.entry_by_id(change.source))
    return found


def create(cache: StreamCache, batch: Batch, entry: Entry, change: Created) -> None:
    """Make a stream where there is none."""
    stream = change.stream
    entry.replace(stream)
    cache.keep(entry)
    batch.structure.append((rows.INSERT_STREAM, rows.new_row(stream, entry.deadline_to_store())))
    batch.structure.append((schema.NEWEST, (stream.id,)))
    batch.collect(stream.id, stream.tail - len(change.data), change.data)
    if change.source is not None:
        _count_fork(cache, batch, cache.entry_by_id(change.source), 1)
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
    batch.ended.append(stream)
    cache.touch(entry, batch, structural=True)


def remove(cache: StreamCache, batch: Batch, entry: Entry) -> None:
    """Remove a stream, and every deleted ancestor that only it needed."""
    # Releasing a fork may free its deleted source, and so on up the chain (section 8).
    while True:
        stream = entry.stream
        assert stream is not None
        stream.deleted = True
        batch.structure += (
            ("DELETE FROM streams WHERE id = ?", (stream.id,)),
            ("INSERT OR REPLACE INTO removed VALUES (?, NULL)", (stream.id,)),
            *map(schema.release, stream.lineage),
        )
        batch.ended.append(stream)
        batch.leaves_garbage = True
        # The entry stays, empty, until this is durable: the file still shows the stream.
        cache.forget_id(entry)
        entry.stream = None
        cache.touch(entry, batch, structural=True)
        if not stream.lineage:
            return
        entry = cache.entry_by_id(stream.lineage[-1][0])
        _count_fork(cache, batch, entry, -1)
        assert entry.stream is not None
        if entry.stream.forks or not entry.stream.deleted:
            return


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


def _count_fork(cache: StreamCache, batch: Batch, source: Entry, by: int) -> None:
    assert source.stream is not None
    source.stream.forks += by
    batch.structure.append(("UPDATE streams SET forks = forks + ? WHERE id = ?", (by, source.stream.id)))
    cache.touch(source, batch)
