"""Looking for streams that can't be found: who asked for one would be told that there is none, and could make another.

A stream is found by its path in an index, which has no checksum. Where the table of streams is damaged, the index still
has their paths, and who asks for one meets the damage. Where the index is damaged, the table tells which paths it has
lost. Nothing is made at a path before that is known. Where neither is sound, nobody knows what is missing.
"""

import sqlite3
from collections.abc import Container
from itertools import pairwise
from typing import Any, NamedTuple

from . import errors, schema

_MOST_HIDDEN = 10_000
_INDEX = "SELECT CAST(path AS BLOB) FROM streams INDEXED BY sqlite_autoindex_streams_1 ORDER BY path"
_TABLE = "SELECT id, CAST(path AS BLOB) FROM streams NOT INDEXED ORDER BY id"
_BY_PATH = "SELECT id FROM streams WHERE path = CAST(? AS TEXT)"


class Found(NamedTuple):
    """What is wrong, in words, and the paths of streams that are there and `hidden`, EVERY_PATH where nobody knows.
    `closed`: the index of paths is damaged, and nothing may be written to it, for a page might be written anew without
    what can't be read there."""

    text: str
    hidden: Container[str]
    closed: bool


class _EveryPath:
    def __contains__(self, path: object) -> bool:
        return True


EVERY_PATH = _EveryPath()
"""Any of them may be there and not be found."""


def verify(db: sqlite3.Connection) -> Found | None:
    """What keeps streams from being found, if anything does. Raises sqlite3.Error for what is no damage."""
    try:
        text = str(schema.one(db, "PRAGMA integrity_check(streams)")[0])
    except sqlite3.Error as error:
        if not errors.is_damage(error):
            raise
        text = str(error)
    if text == "ok":
        return None
    text = text.strip().splitlines()[-1]
    streams, whole = _as_far_as_it_goes(db, _TABLE)
    paths, sound = _as_far_as_it_goes(db, _INDEX)
    sound = sound and all((first or b"") < (second or b"") for (first,), (second,) in pairwise(paths))
    if not (whole or sound):
        return Found(text, EVERY_PATH, True)
    # What a damaged page holds can be of any kind; a path that is none is nobody's.
    hidden = {path.decode(errors="replace") for id, path in streams if path is not None and _is_hidden(db, id, path)}
    if len(hidden) > _MOST_HIDDEN:
        return Found(text, EVERY_PATH, True)
    return Found(text, frozenset(hidden), bool(hidden) or not sound or (whole and len(paths) != len(streams)))


def _as_far_as_it_goes(db: sqlite3.Connection, query: str) -> tuple[list[tuple[Any, ...]], bool]:
    found = []
    try:
        for row in db.execute(query):
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
