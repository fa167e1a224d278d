"""What one transaction writes for a batch, in its order: once for good, or listed row by row with whose each is.

Both come from the same function, so that a rehearsal (`blame`) does to the file's pages just what the batch did: which
of them are split, or balanced with a damaged neighbour, is decided by the order and the size of rows.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from . import rows, schema
from .batches import Batch, Part, parts

Blob = tuple[int, memoryview]
"""The parameters of INSERT_BLOB."""
Published = tuple[int, int, int, int, int]
"""The parameters of INSERT_ROW: stream, position, part, sum and blob."""
Values = Sequence[object]
Statement = tuple[str, Values]


class Owner(NamedTuple):
    """Whose something is: the change of a `path`, of some kind, or that of a `stream` (perhaps its own `row`); else it
    is the statement `at` a place that no client asked for."""

    path: str = ""
    kind: str = ""
    stream: int = 0
    row: bool = False
    at: int = -1


Item = tuple[Callable[[], None], Owner]
"""What runs something, and whose it is."""


class Target(Protocol):
    """What takes the statements of a transaction."""

    def each(self, statements: Sequence[Statement], owner: Owner) -> None:
        """Statements in order, all of one owner."""

    def all(self, statement: str, values: Sequence[Values], streams: Iterable[int], changes: bool = False) -> None:
        """One statement for each of some rows of parameters, of so many streams; one that `changes` a row each."""


class Writes:
    """The rows of one batch; `number` gives the next blob's."""

    def __init__(self, batch: Batch, number: Callable[[], int]) -> None:
        self._batch = batch
        self._inline: list[tuple[int, int, int, bytes]] = []
        self._published: list[Published] = []
        self._blobs: list[Blob] = []
        checksum = rows.checksum
        for stream, at, data in batch.appends:
            if len(data) <= schema.INLINE_LIMIT:
                self._inline.append((stream, at, checksum(stream, at, data), data))
            elif not batch.bulk:
                for part in parts(stream, at, data):
                    blob = number()
                    self._blobs.append((blob, part.data))
                    self._published.append(published(part, blob))
        used = int(batch.steady or 0)
        self._producers = [(*key, *value, used) for key, value in batch.producers.items()]

    def paths(self) -> dict[int, str]:
        """The paths of the streams that are changed, by id."""
        return self._batch.paths()

    def to(self, target: Target) -> None:
        """Have a target take all of it."""
        batch = self._batch
        at = 0
        for start, stop, path, kind in batch.blocks:
            _upkeep(target, batch.structure, at, start)
            target.each(batch.structure[start:stop], Owner(path, kind))
            at = stop
        _upkeep(target, batch.structure, at, len(batch.structure))
        if batch.rows:
            target.all(rows.UPDATE_STREAM, batch.rows, (row[-1] for row in batch.rows), changes=True)
        if self._inline:
            target.all(schema.INSERT_INLINE, self._inline, (row[0] for row in self._inline))
        if self._published:
            target.all(schema.INSERT_ROW, self._published, (row[0] for row in self._published))
            target.all(schema.INSERT_BLOB, self._blobs, (row[0] for row in self._published))
        if batch.staged:
            target.all(schema.INSERT_ROW, batch.staged, (row[0] for row in batch.staged))
        if self._producers:
            target.all(schema.SAVE_PRODUCER, self._producers, (row[0] for row in self._producers))


class ForGood:
    """Runs what it takes."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def each(self, statements: Sequence[Statement], owner: Owner) -> None:
        for statement, values in statements:
            self._db.execute(statement, values)

    def all(self, statement: str, values: Sequence[Values], streams: Iterable[int], changes: bool = False) -> None:
        if changes:
            schema.change_all(self._db, statement, values)
        else:
            self._db.executemany(statement, values)


class Listed:
    """Lists what it takes."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._run = ForGood(db)
        self.items: list[Item] = []

    def each(self, statements: Sequence[Statement], owner: Owner) -> None:
        self.items.append((partial(self._run.each, statements, owner), owner))

    def all(self, statement: str, values: Sequence[Values], streams: Iterable[int], changes: bool = False) -> None:
        for each, stream in zip(values, streams, strict=True):
            run = partial(self._run.all, statement, [each], (), changes)
            self.items.append((run, Owner(stream=stream, row=changes)))


def published(part: Part, blob: int) -> Published:
    """The row of a part whose bytes are a blob."""
    sum = rows.part_checksum(part.stream, part.position, part.offset, part.data)
    return part.stream, part.position, part.offset, sum, blob


def _upkeep(target: Target, structure: Sequence[Statement], start: int, stop: int) -> None:
    for at in range(start, stop):
        target.each(structure[at : at + 1], Owner(at=at))
