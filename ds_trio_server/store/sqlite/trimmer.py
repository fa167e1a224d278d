"""Trimming: which streams keep more than the rules of retention let them, and from where on they stay.

By bytes, whole appends go from the front as long as what remains is at least the limit: right behind the commit that
made a stream too large by a sixteenth of that or 4 KiB, and a little later what is less. By age, appends go when they
are older than the limit, up to a sixty-fourth of it later: their times are noted in steps of that, from outside,
so that appends pay nothing for it.
"""

import sqlite3
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ..retention import Retention
from . import errors, schema

_STEPS = 64
_CUTS_AT_ONCE = 500
_SLACK = 16
_LEAST_SLACK = 4096
_SCANNED_AT_ONCE = 5000
_NOTED = 10_000
# With a place for one more condition: where this meets damage, streams are asked for one by one.
_UNTIMED = (
    "SELECT id FROM streams s WHERE deleted = 0 AND tail >"
    " max(start, coalesce((SELECT max(position) FROM times WHERE stream = s.id), 0)) {}"
)
_OLD = (
    "SELECT t.stream, t.at, max(t.position), t.sum, CAST(s.path AS BLOB) FROM times t JOIN streams s ON s.id = t.stream"
    " WHERE t.at <= ? AND s.deleted = 0 AND t.position > s.start {} GROUP BY t.stream"
)
_TIMES = "SELECT stream, at, position, sum FROM times WHERE stream = ? AND at <= ? ORDER BY at DESC"
INSERT_TIME = "INSERT OR REPLACE INTO times SELECT id, ?, ?, ? FROM streams WHERE id = ?"
_SIZES = (
    "SELECT id, CAST(path AS BLOB), tail - start, deleted FROM streams WHERE id > ? {}"
    f" ORDER BY id LIMIT {_SCANNED_AT_ONCE}"
)
UNKNOWN, ENDLESS = -1, sys.maxsize


def time_row(stream: int, at: float, position: int) -> tuple[object, ...]:
    """The parameters of INSERT_TIME: when a stream's tail was where."""
    return at, position, schema.sum_of(stream, at, position), stream


class Cut:
    """A stream that may keep less: what is `before` a position goes, and `keep` bytes stay."""

    __slots__ = ("stream", "path", "before", "keep")

    def __init__(self, stream: int, path: str, before: int, keep: int | None) -> None:
        self.stream = stream
        self.path = path
        self.before = before
        self.keep = keep


class Plan(NamedTuple):
    """What a look at the file found: `times` to note as (stream id, tail), `cuts` by age, streams that are
    `large` as (id, path), those that stay `active` because their next time isn't due; the last stream that was
    looked at for its size (None: all were), and how long it took (seconds)."""

    times: list[tuple[int, int]]
    cuts: list[Cut]
    large: list[tuple[int, str]]
    active: set[int]
    scanned: int | None
    seconds: float


class Trimmer:
    """Finds out, now and then, which streams are to be trimmed.

    `active` are the ids of streams that changed since their last time was noted, which matter where there are rules by
    age. A row (stream, time, tail) of the table `times` says that everything before that tail is at least as old.
    Between two of these, which may be hours, more streams may come and go than there is memory for: those that went,
    and those that no such rule is for, are taken out whenever there are many, twice as many as stayed the last time.
    `large` maps the ids of streams that are larger than they should be to their paths.
    """

    def __init__(self, rules: Retention) -> None:
        self._rules = rules
        self._step = max(0.5, rules.ages[0] / _STEPS) if rules.ages else 0.0
        self._noted = 0.0
        self._next = 0.0
        self._scanned: int | None = 0 if rules.sizes else None
        self._many = _NOTED
        self._cut = 0
        self.active: set[int] = set()
        self.large: dict[int, str] = {}

    def begin(self, db: sqlite3.Connection) -> None:
        """Find the streams whose times a crash left out."""
        if self._rules.ages:
            self.active.update(id for (id,) in _sound(db, _UNTIMED, (), "AND s.id = ?", lambda: _ids(db)))

    def note(self, ids: list[int]) -> None:
        """Take in that streams have changed."""
        if self._rules.ages:
            self.active.update(ids)

    def most(self, path: str) -> int:
        """From how many bytes on a stream at a path is too large."""
        keep = self._rules.of(path)[1]
        return ENDLESS if keep is None else keep + keep // _SLACK

    def grown(self, id: int, path: str, size: int) -> Cut | None:
        """Take in that a stream has become too large; a cut when it can't wait."""
        keep = self._rules.of(path)[1]
        if keep is not None and size > keep + max(keep // _SLACK, _LEAST_SLACK):
            return Cut(id, path, 0, keep)
        self.large[id] = path
        return None

    def take_large(self) -> list[Cut]:
        """Some of those that are too large."""
        ids = [id for id, _ in zip(self.large, range(_CUTS_AT_ONCE), strict=False)]
        return [Cut(id, path, 0, self._rules.of(path)[1]) for id in ids if (path := self.large.pop(id))]

    def scan(self) -> None:
        """Look at the size of all streams again: cuts were lost."""
        if self._rules.sizes:
            self._scanned = 0

    def due(self, now: float) -> bool:
        """Whether it is time to `plan`."""
        return now >= self._next

    def take(self, now: float) -> set[int]:
        """The active streams, if it is time to note times, or to look which of them matter; for `plan`."""
        if not self._rules.ages or now < self._noted + self._step and len(self.active) < self._many:
            return set()
        self._noted = now
        self._many = ENDLESS  # until it is known how many stay
        active, self.active = self.active, set()
        return active

    def planner(self, now: float) -> Callable[[sqlite3.Connection], Plan]:
        """The look for what is to be done at a (steady) time. It runs in a thread, and touches nothing but the file."""
        active, scanned = self.take(now), self._scanned
        after = self._cut
        return lambda db: _Look(db, self._rules).plan(now, active, scanned, after)

    def planned(self, now: float, plan: Plan) -> None:
        """Take in what a look found."""
        self.active |= plan.active
        if self._many == ENDLESS:
            self._many = max(_NOTED, 2 * len(plan.active))
        self.large.update(plan.large)
        self._cut = plan.cuts[-1].stream if len(plan.cuts) == _CUTS_AT_ONCE else 0
        if self._scanned is not None:
            self._scanned = plan.scanned
        # However many streams there are, this takes a small part of the time.
        self._next = now + max(0.5, 20 * plan.seconds)

    @property
    def is_behind(self) -> bool:
        """Whether the last look found more to cut by age than one takes: the next goes on behind that."""
        return self._cut > 0


class _Look:
    """One look at the file, by the rules. What can't be understood of a stream is left to whoever checks the file."""

    def __init__(self, db: sqlite3.Connection, rules: Retention) -> None:
        self._db = db
        self._rules = rules

    def plan(self, now: float, active: set[int], scanned: int | None, after: int) -> Plan:
        started = time.monotonic()
        times, still = self._times(now, active)
        cuts = self._old(now, after)
        large, scanned = self._large(scanned)
        return Plan(times, cuts, large, still, scanned, time.monotonic() - started)

    def _of(self, path: bytes | None) -> tuple[str, float | None, int | None]:
        try:
            text = "" if path is None else path.decode()
        except ValueError:
            return "", None, None
        return text, *self._rules.of(text)

    def _times(self, now: float, active: set[int]) -> tuple[list[tuple[int, int]], set[int]]:
        times = []
        still = set()
        query = "SELECT CAST(path AS BLOB), tail FROM streams WHERE id = ?"
        for id in active:
            path, tail = next(iter(_unless_damaged(self._db, query, (id,))), (None, 0))
            age = None if path is None else self._of(path)[1]
            if age is None:
                continue
            noted = self._last_time(id, ENDLESS)
            if noted is not None and now < noted[0] + age / _STEPS:
                still.add(id)
            elif isinstance(tail, int) and tail > (0 if noted is None else noted[1]):
                times.append((id, tail))
        return times, still

    def _last_time(self, stream: int, until: float) -> tuple[float, int] | None:
        """The last row of a stream's times up to one, of those that are what was written."""
        for _, at, position, sum in _unless_damaged(self._db, _TIMES, (stream, until)):
            if schema.sum_of(stream, at, position) == sum:
                return at, position
        return None

    def _old(self, now: float, after: int) -> list[Cut]:
        """What is too old, of streams behind one first: those before it have had their turn."""
        cuts: list[Cut] = []
        for limit in self._rules.ages:
            old = (now - limit,)
            found = _sound(self._db, _OLD, old, "AND t.stream = ?", partial(self._timed, old))
            for id, at, position, sum, raw in found:
                path, age, _ = self._of(raw)
                if age != limit:
                    continue
                if schema.sum_of(id, at, position) != sum:
                    noted = self._last_time(id, *old)
                    if noted is None:
                        continue
                    _, position = noted
                cuts.append(Cut(id, path, position, None))
        cuts.sort(key=lambda cut: (cut.stream <= after, cut.stream))
        return cuts[:_CUTS_AT_ONCE]

    def _large(self, after: int | None) -> tuple[list[tuple[int, str]], int | None]:
        if after is None:
            return [], None
        large = []
        apart: list[int] = []

        def next_ids() -> list[int]:
            apart.extend(sorted(id for id in _ids(self._db) if id > after)[:_SCANNED_AT_ONCE])
            return apart

        found = _sound(self._db, _SIZES, (after,), "AND id = ?", next_ids)
        looked_at = apart or [id for id, *_ in found]
        for id, raw, size, deleted in found:
            if not deleted and isinstance(size, int) and size > self._rules.sizes[0]:
                path, _, keep = self._of(raw)
                # A sixteenth of slack: who lives at the limit isn't looked at every time.
                if keep is not None and size > keep + keep // _SLACK:
                    large.append((id, path))
        return large, looked_at[-1] if len(looked_at) == _SCANNED_AT_ONCE else None

    def _timed(self, old: tuple[float]) -> list[int]:
        query = "SELECT DISTINCT stream FROM times INDEXED BY times_by_time WHERE at <= ?"
        return [id for (id,) in _unless_damaged(self._db, query, old)] or _ids(self._db)


def _ids(db: sqlite3.Connection) -> list[int]:
    """The numbers of all streams, as an index has them."""
    return [id for (id,) in _unless_damaged(db, "SELECT id FROM streams INDEXED BY sqlite_autoindex_streams_1", ())]


def _sound(
    db: sqlite3.Connection, query: str, values: tuple[object, ...], one: str, ids: Callable[[], list[int]]
) -> list[tuple[Any, ...]]:
    """What a query (with a place for more conditions) finds; where it meets damage, what it finds of each stream by
    itself that is not damaged."""
    try:
        return db.execute(query.format(""), values).fetchall()
    except sqlite3.Error as error:
        if not errors.is_damage(error):
            raise
    single = query.format(one)
    return [row for id in ids() for row in _unless_damaged(db, single, (*values, id))]


def _unless_damaged(db: sqlite3.Connection, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
    try:
        return db.execute(query, values).fetchall()
    except sqlite3.Error as error:
        if not errors.is_damage(error):
            raise
        return []
