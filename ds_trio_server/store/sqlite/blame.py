"""Whose change it is that a transaction can't hold, because the file is damaged where that belongs.

A batch that meets damage is undone as a whole. Then its changes are tried one after the other, in a transaction that is
undone as well, up to the first that meets damage, and again without that one (what SQLite has in memory behind such an
error is not to be built upon). Where nothing is to blame, or what any commit needs is damaged too, nobody can go on.
"""

import sqlite3
from collections.abc import Callable, Iterator
from functools import partial

from . import errors, rows, schema
from .batches import Batch
from .damages import CHANGE, REMOVAL, Undone

_ROUNDS = 32
"""Beyond so many at once the others are found when the next batch meets them."""
_Step = tuple[Callable[[], object], Callable[[], object]]
"""A change, and what notes that it is to blame."""


def find(db: sqlite3.Connection, batch: Batch, error: Exception) -> Undone | None:
    """What of a batch that met an error is to blame, None when that can't be told. Raises sqlite3.Error when the disk
    fails meanwhile."""
    found = Undone(str(error))
    if not schema.takes_commits(db):
        return None
    for _ in range(_ROUNDS):
        if _hold(db, batch, found):
            break
    return found or None


def _hold(db: sqlite3.Connection, batch: Batch, found: Undone) -> bool:
    """Whether a transaction holds all that is not to blame; the first that it doesn't is to blame now."""
    db.execute("BEGIN IMMEDIATE")
    try:
        for step, is_to_blame in _steps(db, batch, found):
            try:
                step()
            except Exception as error:
                if not errors.is_damage(error):
                    raise
                is_to_blame()
                return False
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
    return True


def _steps(db: sqlite3.Connection, batch: Batch, found: Undone) -> Iterator[_Step]:
    at = 0
    for start, stop, path, kind in (*batch.blocks, (len(batch.structure), 0, "", "")):
        for each in range(at, start):
            if each not in found.upkeep:
                yield _execution(db, batch, each, each + 1), partial(found.upkeep.add, each)
        if stop and (path, kind) not in found.changes:
            yield _execution(db, batch, start, stop), partial(found.changes.add, (path, kind))
        at = stop
    for row in batch.rows:
        if (row[-1], REMOVAL) not in found.streams:  # whoever ends a stream needs its row as well
            to_blame = partial(found.streams.update, {(row[-1], CHANGE), (row[-1], REMOVAL)})
            yield partial(schema.change_all, db, rows.UPDATE_STREAM, [row]), to_blame
    for stream, at, data in batch.appends:
        if (stream, CHANGE) not in found.streams:
            # What is beside it in `blobs`, no stream has for itself.
            row_of = stream, at, 0, data if len(data) <= schema.INLINE_LIMIT else None
            yield partial(db.execute, schema.INSERT_INLINE, row_of), partial(found.streams.add, (stream, CHANGE))
    for (stream, id), state in batch.producers.items():
        if (stream, CHANGE) not in found.streams:
            saved = stream, id, *state, 0
            yield partial(db.execute, schema.SAVE_PRODUCER, saved), partial(found.streams.add, (stream, CHANGE))


def _execution(db: sqlite3.Connection, batch: Batch, start: int, stop: int) -> Callable[[], None]:
    def execute() -> None:
        for statement, values in batch.structure[start:stop]:
            db.execute(statement, values)

    return execute
