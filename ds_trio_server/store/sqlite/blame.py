"""Whose change it is that a transaction can't hold, because the file is damaged where that belongs.

A batch that meets damage is undone as a whole. Then each of its changes is tried by itself, in a transaction that is
undone as well: what meets damage then is to blame. Where nothing is, or where what any commit needs is damaged too,
nobody can go on (`None`). It takes about as long as the batch took, and it is rare.
"""

import sqlite3
from collections.abc import Callable

from . import errors, rows, schema
from .batches import Batch
from .damages import CHANGE, REMOVAL, Undone


def find(db: sqlite3.Connection, batch: Batch, error: Exception) -> Undone | None:
    """What of a batch that met an error is to blame, None when that can't be told. Raises sqlite3.Error when the disk
    fails meanwhile."""
    found = _Trial(db, batch, error).run() if schema.takes_commits(db) else None
    return found or None


class _Trial:
    def __init__(self, db: sqlite3.Connection, batch: Batch, error: Exception) -> None:
        self._db = db
        self._batch = batch
        self._found = Undone(str(error))

    def run(self) -> Undone:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._structure()
            self._rows()
        finally:
            self._db.execute("ROLLBACK")
        return self._found

    def _structure(self) -> None:
        batch, found = self._batch, self._found
        at = 0
        for start, stop, path, kind in (*batch.blocks, (len(batch.structure), 0, "", "")):
            for each in range(at, start):
                if not self._holds(lambda each=each: self._execute(each, each + 1)):  # type: ignore[misc]
                    found.upkeep = True
            if stop and not self._holds(lambda: self._execute(start, stop)):  # noqa: B023 - it is called here
                found.changes.add((path, kind))
            at = stop

    def _execute(self, start: int, stop: int) -> None:
        for statement, values in self._batch.structure[start:stop]:
            self._db.execute(statement, values)

    def _rows(self) -> None:
        db, batch, streams = self._db, self._batch, self._found.streams
        for row in batch.rows:
            # Whoever ends a stream needs its row as well.
            if not self._holds(lambda row=row: schema.change_all(db, rows.UPDATE_STREAM, [row])):  # type: ignore[misc]
                streams.update({(row[-1], CHANGE), (row[-1], REMOVAL)})
        for stream, at, data in batch.appends:
            # How long a row is decides where it goes; what is beside it in `blobs`, no stream has for itself.
            inline = data if len(data) <= schema.INLINE_LIMIT else None
            if not self._holds(lambda: db.execute(schema.INSERT_INLINE, (stream, at, 0, inline))):  # noqa: B023
                streams.add((stream, CHANGE))
        for (stream, id), state in batch.producers.items():
            if not self._holds(lambda: db.execute(schema.SAVE_PRODUCER, (stream, id, *state, 0))):  # noqa: B023
                streams.add((stream, CHANGE))

    def _holds(self, step: Callable[[], object]) -> bool:
        """Whether a step of it meets no damage; what it has changed stays in the transaction then."""
        self._db.execute("SAVEPOINT step")
        try:
            step()
        except Exception as error:
            if not errors.is_damage(error):
                raise
            self._db.execute("ROLLBACK TO step")
            return False
        finally:
            self._db.execute("RELEASE step")
        return True
