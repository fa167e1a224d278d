"""What the file says of the store as a whole: the newest number that a stream got, and the time that streams live by.

No row of it has a checksum, and none of it may end a start, or a stream: what can't be true is worked out from what
else is there, and told.
"""

import logging
import math
import sqlite3
from pathlib import Path
from typing import NamedTuple

from . import errors, files, schema

log = logging.getLogger("ds")

_LONGEST = 2.0**33
"""Seconds: more than two centuries, which no clock of a store has run for."""
_NUMBERS = (
    "SELECT max(id) FROM streams",
    "SELECT max(stream) FROM removed",
    "SELECT max(stream) FROM appends WHERE typeof(stream) = 'integer'",
)
_LAST_USED = "SELECT max(used) FROM producers WHERE typeof(used) = 'integer' AND used < ?"


class Meta(NamedTuple):
    """`newest` is the last number that was given to a stream; `steady` and `wall` are the clocks' saved readings
    (0.0 for none)."""

    newest: int
    steady: float
    wall: float


def load(folder: Path, db: sqlite3.Connection) -> Meta:
    """What the file says, or what must be so where that can't be. Raises sqlite3.Error."""
    said = _said(db)
    found = _believable(db, said)
    for name, value in found._asdict().items():
        if name in said and said[name] != value:
            log.error(
                "%s is damaged: its '%s' can't be %.40r; it goes on with %r. Run 'ds check'",
                folder / files.FILE, name, said[name], value,
            )  # fmt: skip
    return found


def problems(db: sqlite3.Connection) -> list[str]:
    """What of it can't be so, in words. Raises sqlite3.Error."""
    said = _said(db)
    found = _believable(db, said)._asdict()
    wrong = {name: value for name, value in said.items() if found.get(name, value) != value}
    return [f"the store's '{name}' can't be {value!r:.40}" for name, value in wrong.items()]


def _said(db: sqlite3.Connection) -> dict[str, object]:
    # As bytes where it is text: that may be no text any more.
    return dict(
        db.execute(
            "SELECT name, CASE typeof(value) WHEN 'text' THEN CAST(value AS BLOB) ELSE value END FROM meta"
            " WHERE name IN ('newest', 'steady', 'wall')"
        )
    )


def _believable(db: sqlite3.Connection, said: dict[str, object]) -> Meta:
    newest = said.get("newest")
    least = 0
    for query in _NUMBERS:
        try:
            least = max(least, int(schema.one(db, query)[0] or 0))
        except sqlite3.Error as error:
            # A damaged page of some streams ends no start, as long as the file says what it can't be asked.
            if not isinstance(newest, int) or not errors.is_damage(error):
                raise
    if not isinstance(newest, int) or newest < least:
        newest = least
    steady, wall = said.get("steady", 0.0), said.get("wall", 0.0)
    if not _is_time(steady):
        # Streams may live longer by that, and producers; nothing that is kept until then ends too soon.
        steady = float(schema.one(db, _LAST_USED, int(_LONGEST))[0] or 0)
    return Meta(newest, float(steady), float(wall) if _is_time(wall) else 0.0)  # type: ignore[arg-type]


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and 0 <= value < _LONGEST
