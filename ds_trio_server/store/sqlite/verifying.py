"""Looking for streams that can't be found: who asked for one would be told that there is none, and could make another.

A stream is found by its path in an index, which has no checksum. Where the table of streams is damaged, the index still
has their paths, and who asks for one meets the damage. Where the index is damaged, the table tells which paths it has
lost. Nothing is made at a path before that is known. Where neither is sound, nobody knows what is missing.
"""

import sqlite3
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from . import errors, schema

_MOST_HIDDEN = 10_000
_INDEX = "SELECT CAST(path AS BLOB) FROM streams INDEXED BY sqlite_autoindex_streams_1 ORDER BY path"
_TABLE = "SELECT id, CAST(path AS BLOB) FROM streams NOT INDEXED ORDER BY id"
_BY_PATH = "SELECT id FROM streams WHERE path = CAST(? AS TEXT)"


class Found(NamedTuple):
    """What is wrong, in words, and the paths of streams that are there and `hidden`."""

    text: str
    hidden: frozenset[str]


def verify(db: sqlite3.Connection) -> Found | None:
    """What keeps streams from being found, if anything does. Raises sqlite3.DatabaseError where that can't be told."""
    try:
        text = str(schema.one(db, "PRAGMA integrity_check(streams)")[0])
    except sqlite3.Error as error:
        if not errors.is_damage(error):
            raise
        text = str(error)
    if text == "ok":
        return None
    streams, whole = _as_far_as_it_goes(db.execute(_TABLE))
    if not whole:
        paths, sound = _as_far_as_it_goes(db.execute(_INDEX))
        if not sound or any((first or b"") >= (second or b"") for (first,), (second,) in pairwise(paths)):
            raise sqlite3.DatabaseError(text)
    # What a damaged page holds can be of any kind; a path that is none is nobody's.
    hidden = {path.decode(errors="replace") for id, path in streams if path is not None and _is_hidden(db, id, path)}
    if len(hidden) > _MOST_HIDDEN:
        raise sqlite3.DatabaseError(text)
    return Found(text, frozenset(hidden))


def _as_far_as_it_goes(cursor: Iterator[tuple[Any, ...]]) -> tuple[list[tuple[Any, ...]], bool]:
    found = []
    try:
        for row in cursor:
            found.append(row)
    except sqlite3.Error as error:
        if not errors.is_damage(error):
            raise
        return found, False
    return found, True


def _is_hidden(db: sqlite3.Connection, id: int, path: bytes) -> bool:
    try:
        return bool(schema.one(db, _BY_PATH, path) != (id,))
    except sqlite3.Error as error:
        if not errors.is_damage(error):
            raise
        return False  # who asks for it meets the same
