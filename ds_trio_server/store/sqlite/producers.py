"""What producers last sent: looked up before a decision that needs it, in memory first, then in the file.

States that are not durable yet are the batches' (``Queues.producer``); here are those that are, as many as fit.
A producer that appends often is found in memory, whatever its stream.
"""

import sqlite3

from . import schema
from .queries import Queries

Key = tuple[int, str]
"""A stream's id and a producer's."""
State = tuple[int, int]
"""The epoch and the sequence number of the last append that was accepted."""

_GENERATION = 4096


class Producers:
    """The durable states that were used last, in two generations: when the young one is full, it becomes
    the old one, and what was not used meanwhile is forgotten."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self._young: dict[Key, State] = {}
        self._old: dict[Key, State] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, stream: int, producer: str) -> State | None:
        """The state of a stream's producer as the file has it. Raises StorageFailed."""
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


def _find(db: sqlite3.Connection, key: Key) -> State | None:
    found: State | None = schema.one(db, "SELECT epoch, seq FROM producers WHERE stream = ? AND id = ?", *key)
    return found
