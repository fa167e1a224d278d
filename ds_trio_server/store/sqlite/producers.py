"""What producers last sent: looked up before a decision that needs it, in memory first, then in the file.

States that are not durable yet are the batches' (`Queues.producer`); here are those that are, as many as fit.
A producer that appends often is found in memory, whatever its stream.

A stream knows so many producers and no more: a new one beyond that is refused. None that may still retry is forgotten
for it: only the one that has appended nothing for a long time, which a walk through all of them finds bit by bit.
"""

import sqlite3
from collections.abc import Iterable

from .. import base
from . import schema
from .queries import Queries

Key = tuple[int, str]
"""A stream's id and a producer's."""
State = tuple[int, int]
"""The epoch and the sequence number of the last append that was accepted."""

_GENERATION = 4096
_COUNTED_STREAMS = 4096
_WALK_ROWS = 500
_REST = 3600.0
_START = (0, b"")


class Producers:
    """The durable states that were used last, in two generations: when the young one is full, it becomes
    the old one, and what was not used meanwhile is forgotten."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self._young: dict[Key, State] = {}
        self._old: dict[Key, State] = {}
        # How many each stream has, as far as decided; what a batch that failed added is looked up again.
        self._counts: dict[int, int] = {}
        self._walked = _START
        self._walk_at = 0.0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, stream: int, producer: str) -> State | None:
        """The state of a stream's producer as the file has it. Raises Damaged, StorageFailed."""
        key = (stream, producer)
        found = self._young.get(key)
        if found is not None:
            return found
        found = self._old.get(key) or self._queries.run_nowait(_find, key)
        if found is not None:
            self.learn({key: found})
        return found

    def learn(self, states: dict[Key, State]) -> None:
        """Take in what has become durable, or was read."""
        self._young.update(states)
        if len(self._young) >= _GENERATION:
            self._old, self._young = self._young, {}

    def admit(self, stream: int) -> None:
        """See whether a stream may have one more. Raises TooManyProducers, StorageFailed."""
        count = self._counts.get(stream)
        if count is None:
            if len(self._counts) >= _COUNTED_STREAMS:
                self._counts.clear()
            count = self._counts[stream] = self._queries.run_nowait(_count, stream)
        if count >= base.MOST_PRODUCERS:
            raise base.TooManyProducers

    def admitted(self, stream: int) -> None:
        """Count one that a decision has let in."""
        if stream in self._counts:
            self._counts[stream] += 1

    def recount(self) -> None:
        """What was decided may not have happened."""
        self._counts.clear()

    def any(self) -> bool:
        """Whether a stream has any. Raises StorageFailed."""
        return self._queries.run_nowait(_any)

    def walk(self, steady: float) -> Iterable[tuple[str, tuple[object, ...]]]:
        """Look at some more of them at a (steady) time; what to run to forget those that are idle for long.

        Who appends meanwhile is in the same or a later batch: it is not forgotten, or it is there again.
        """
        if steady < self._walk_at:
            return
        self._walk_at = steady + _REST  # unless it goes well
        rows = self._queries.run_nowait(lambda db: _some(db, self._walked))
        if len(rows) < _WALK_ROWS:
            self._walked = _START
        else:
            self._walked, self._walk_at = rows[-1][:2], steady
        last = int(steady) - base.FORGET_PRODUCERS_AFTER
        for stream, raw, used in rows:
            try:
                key = (stream, raw.decode())
            except UnicodeDecodeError:
                continue  # nobody can ask for it; a check tells of it
            if used is not None and (not isinstance(used, int) or used > last):
                continue
            # One that is in memory was asked for lately, with retries of what it had sent: it stays for another round.
            met = [states.pop(key, None) for states in (self._young, self._old)] != [None, None]
            if used is None or met:
                yield (
                    "UPDATE producers SET used = max(ifnull(used, 0), ?) WHERE stream = ? AND id = ?",
                    (int(steady), *key),
                )
            else:
                self._counts.pop(stream, None)
                yield "DELETE FROM producers WHERE stream = ? AND id = ? AND used <= ?", (*key, last)


def _find(db: sqlite3.Connection, key: Key) -> State | None:
    found: State | None = schema.one(db, "SELECT epoch, seq FROM producers WHERE stream = ? AND id = ?", *key)
    if found is not None and not all(isinstance(each, int) and each >= 0 for each in found):
        raise base.Damaged(f"stream {key[0]}", f"what is known of producer {key[1]!r} of stream {key[0]} is damaged")
    return found


def _any(db: sqlite3.Connection) -> bool:
    return schema.one(db, "SELECT 1 FROM producing LIMIT 1") is not None


def _count(db: sqlite3.Connection, stream: int) -> int:
    found = schema.one(db, "SELECT count FROM producing WHERE stream = ?", stream)
    if found is not None and not isinstance(found[0], int):
        raise base.Damaged(f"stream {stream}", f"how many producers stream {stream} has is damaged")
    return 0 if found is None else int(found[0])


def _some(db: sqlite3.Connection, behind: tuple[int, bytes]) -> list[tuple[int, bytes, int | None]]:
    # As bytes: one that is damaged is no text any more, and keeps nobody from the others.
    return db.execute(
        "SELECT stream, CAST(id AS BLOB), used FROM producers WHERE (stream, id) > (?, CAST(? AS TEXT))"
        f" ORDER BY stream, id LIMIT {_WALK_ROWS}",
        behind,
    ).fetchall()
