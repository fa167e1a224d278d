"""Retention: how long and how much of a stream is kept, and what follows for the streams there are.

Rules are read in order, and a later one wins over an earlier one of the same kind (age or bytes)
for the paths it matches. By bytes, whole appends go from the front as long as what remains is at
least the limit; by age, appends go when they are older than the limit, up to a sixty-fourth of it
later: their times are noted in steps of that, from outside, so that appends pay nothing for it.
"""

import re
import sqlite3
import time
from collections.abc import Iterable

from ..globs import Glob
from . import schema

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SIZES = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_STEPS = 64
_CUTS_AT_ONCE = 500


class Rule:
    """Which paths (None: all), and an age in seconds, a size in bytes, or neither: forever."""

    __slots__ = ("pattern", "age", "bytes")

    def __init__(self, pattern: Glob | None, age: float | None, bytes: int | None) -> None:
        self.pattern = pattern
        self.age = age
        self.bytes = bytes


def parse(text: str) -> Rule:
    """A rule as an operator writes it: ``7d``, ``256M``, ``logs/**=90m``, ``keep/*=forever``.

    Raises ValueError with what would be right.
    """
    glob, equals, limit = text.rpartition("=")
    pattern = None
    if equals:
        if not glob.strip("/"):
            raise ValueError(f"'{text}' has no path before the '='")
        pattern = Glob(glob.strip("/"))
    if limit == "forever":
        return Rule(pattern, None, None)
    found = re.fullmatch(r"(\d{1,15})([a-zA-Z]?)", limit, re.ASCII)
    if found and int(found[1]) > 0:
        if found[2] in _UNITS:
            return Rule(pattern, float(int(found[1]) * _UNITS[found[2]]), None)
        if found[2] in _SIZES:
            return Rule(pattern, None, int(found[1]) << _SIZES[found[2]])
    raise ValueError(
        f"'{limit}' is neither an age (90s, 15m, 12h, 7d, 4w) nor a size (65536, 64K, 256M, 2G) nor 'forever'"
    )


class Retention:
    """All rules."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = tuple(rules)
        self.ages = sorted({rule.age for rule in self._rules if rule.age is not None})
        self.sizes = sorted({rule.bytes for rule in self._rules if rule.bytes is not None})

    def __bool__(self) -> bool:
        return bool(self.ages or self.sizes)

    def of(self, path: str) -> tuple[float | None, int | None]:
        """The age and the size that a stream at this path may have."""
        age: float | None = None
        size: int | None = None
        for rule in self._rules:
            if rule.pattern is not None and not rule.pattern.matches(path):
                continue
            if rule.age is not None:
                age = rule.age
            elif rule.bytes is not None:
                size = rule.bytes
            else:
                age = size = None
        return age, size


class Cut:
    """A stream that may keep less: what is ``before`` a position goes, and ``keep`` bytes stay."""

    __slots__ = ("stream", "path", "before", "keep")

    def __init__(self, stream: int, path: str, before: int, keep: int | None) -> None:
        self.stream = stream
        self.path = path
        self.before = before
        self.keep = keep


class Trimmer:
    """Finds out, now and then, which streams are to be trimmed.

    ``active`` are the ids of streams that changed since their last mark. A mark (stream, time,
    tail) in the table ``times`` says that everything before that tail is at least as old.
    """

    def __init__(self, rules: Retention) -> None:
        self._rules = rules
        self._step = max(0.5, rules.ages[0] / _STEPS) if rules.ages else 0.0
        self._marked = 0.0
        self._next = 0.0
        self.active: set[int] = set()

    def begin(self, db: sqlite3.Connection) -> None:
        """Find what a crash left unmarked."""
        if self._rules.ages:
            self.active.update(
                id
                for (id,) in db.execute(
                    "SELECT id FROM streams s WHERE deleted = 0 AND tail >"
                    " max(start, coalesce((SELECT max(position) FROM times WHERE stream = s.id), 0))"
                )
            )

    def due(self, now: float) -> bool:
        """Whether it is time to ``plan``."""
        return now >= self._next

    def take(self, now: float) -> set[int]:
        """The active streams, if it is time to look for marks; for ``plan``."""
        if not self._rules.ages or now < self._marked + self._step:
            return set()
        self._marked = now
        active, self.active = self.active, set()
        return active

    def plan(
        self, db: sqlite3.Connection, now: float, active: set[int]
    ) -> tuple[list[tuple[int, int]], list[Cut]]:
        """What to do at a (steady) time: marks as (stream id, tail), and cuts. Runs in a thread."""
        started = time.monotonic()
        marks = self._marks(db, now, active)
        cuts: dict[int, Cut] = {}
        self._find_old(db, now, cuts)
        self._find_large(db, cuts)
        # However many streams there are, this takes a small part of the time.
        self._next = now + max(0.5, 20 * (time.monotonic() - started))
        return marks, list(cuts.values())[:_CUTS_AT_ONCE]

    def _marks(self, db: sqlite3.Connection, now: float, active: set[int]) -> list[tuple[int, int]]:
        marks = []
        for id in active:
            row = schema.one(db, "SELECT path, tail FROM streams WHERE id = ?", id)
            age = None if row is None else self._rules.of(row[0])[0]
            if age is None:
                continue
            at, position = schema.one(db, "SELECT max(at), max(position) FROM times WHERE stream = ?", id)
            if at is not None and now < at + age / _STEPS:
                self.active.add(id)
            elif row[1] > (position or 0):
                marks.append((id, row[1]))
        return marks

    def _find_old(self, db: sqlite3.Connection, now: float, cuts: dict[int, Cut]) -> None:
        for age in self._rules.ages:
            for id, position, path in db.execute(
                "SELECT t.stream, max(t.position), s.path FROM times t JOIN streams s ON s.id = t.stream"
                " WHERE t.at <= ? AND s.deleted = 0 AND t.position > s.start GROUP BY t.stream",
                (now - age,),
            ):
                if self._rules.of(path)[0] == age:
                    cuts[id] = Cut(id, path, position, None)

    def _find_large(self, db: sqlite3.Connection, cuts: dict[int, Cut]) -> None:
        if not self._rules.sizes:
            return
        for id, path, size in db.execute(
            "SELECT id, path, tail - start FROM streams WHERE tail - start > ? AND deleted = 0",
            (self._rules.sizes[0],),
        ):
            keep = self._rules.of(path)[1]
            # A sixteenth of slack: who lives at the limit isn't looked at every time.
            if keep is not None and size > keep + keep // 16:
                if id in cuts:
                    cuts[id].keep = keep
                else:
                    cuts[id] = Cut(id, path, 0, keep)
