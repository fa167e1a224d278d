"""Trimming: which streams keep more than the rules of retention let them, and from where on they stay.

By bytes, whole appends go from the front as long as what remains is at least the limit. By age, appends go when
they are older than the limit, up to a sixty-fourth of it later: their times are noted in steps of that, from
outside, so that appends pay nothing for it.
"""

import sqlite3
import time

from ..retention import Retention
from . import schema

_STEPS = 64
_CUTS_AT_ONCE = 500


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
            path, tail = schema.one(db, "SELECT path, tail FROM streams WHERE id = ?", id) or (None, 0)
            age = None if path is None else self._rules.of(path)[0]
            if age is None:
                continue
            at, position = schema.one(db, "SELECT max(at), max(position) FROM times WHERE stream = ?", id)
            if at is not None and now < at + age / _STEPS:
                self.active.add(id)
            elif tail > (position or 0):
                marks.append((id, tail))
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
