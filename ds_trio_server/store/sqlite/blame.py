"""Whose change it is that a transaction can't hold, because the file is damaged where that belongs.

A batch that meets damage is undone as a whole. Then its rows are written one after the other, in the order they had,
in a transaction that is undone as well, up to the first that meets damage, and again without that one (what SQLite has
in memory behind such an error is not to be built upon). Where that meets none, each change is tried alone. Where what
any commit needs is damaged too, nobody can go on.
"""

import sqlite3
from collections.abc import Callable, Iterable

from . import schema
from .damages import CHANGE, REMOVAL, Undone
from .writes import Item, Listed, Owner, Writes

_ROUNDS = 32
"""Beyond so many at once the others are found when the next batch meets them."""


def find(
    db: sqlite3.Connection, writes: Writes, error: Exception, is_damage: Callable[[Exception], bool]
) -> Undone | None:
    """What of a batch that met an error is to blame: nothing where that meets none any more, None when nobody can go
    on. Raises sqlite3.Error when the disk fails meanwhile."""
    if not schema.takes_commits(db):
        return None
    found = Undone(str(error))
    listed = Listed(db)
    writes.to(listed)
    paths = writes.paths()
    for _ in range(_ROUNDS):
        owner = _first(db, [item for item in listed.items if not _is_blamed(found, item[1])], is_damage)
        if owner is None:
            break
        _blame(found, owner)
    if not found:
        alone: dict[object, list[Item]] = {}
        for item in listed.items:
            owner = item[1]  # a stream that is made has no row without what makes it
            alone.setdefault(owner.path or paths.get(owner.stream) or owner, []).append(item)
        for each in alone.values():
            owner = _first(db, each, is_damage)
            if owner is not None:
                _blame(found, owner)
    return found


def _first(db: sqlite3.Connection, items: Iterable[Item], is_damage: Callable[[Exception], bool]) -> Owner | None:
    """Whose is the first that meets damage in a transaction of all, None when it holds them."""
    db.execute("BEGIN IMMEDIATE")
    try:
        for run, owner in items:
            try:
                run()
            except Exception as error:
                if not is_damage(error):
                    raise
                return owner
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
    return None


def _is_blamed(found: Undone, owner: Owner) -> bool:
    if owner.stream:  # whoever ends a stream needs its row as well
        return (owner.stream, REMOVAL if owner.row else CHANGE) in found.streams
    return owner.at in found.upkeep if owner.at >= 0 else (owner.path, owner.kind) in found.changes


def _blame(found: Undone, owner: Owner) -> None:
    if owner.stream:
        found.streams.add((owner.stream, CHANGE))
        if owner.row:
            found.streams.add((owner.stream, REMOVAL))
    elif owner.at >= 0:
        found.upkeep.add(owner.at)
    else:
        found.changes.add((owner.path, owner.kind))
