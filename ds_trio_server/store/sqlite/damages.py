"""What is damaged: told, counted, and kept apart, so that one stream's damage stays with that stream.

Everything that meets damage comes here: queries with what they could not read, the pipeline with the changes that no
transaction can hold. Such changes are refused for a while without being tried, because each try fails a whole batch,
which everybody else has to decide again.
"""

import logging
import time
from collections.abc import Container, Iterable
from pathlib import Path
from typing import NamedTuple

from ds_core.server.stream import Removed, Trimmed

from ...stats import Upkeep
from ..base import Change, Damaged
from . import files

log = logging.getLogger("ds")

_TELL_EVERY = 60.0
_MOST_TOLD = 16
_MOST_KNOWN = 4096
_REFUSED_FOR = 60.0
CHANGE, TRIM, REMOVAL, DISCARD = "change", "trim", "removal", "discard"
"""The kinds of changes that are refused apart from each other: a stream that takes no appends can often be deleted, and
one that can't be trimmed takes appends."""


def kind_of(change: Change | None) -> str:
    """The kind of a change, None for the removal of a stream whose state can't be read."""
    if change is None:
        return DISCARD
    if isinstance(change, Trimmed):
        return TRIM
    return REMOVAL if isinstance(change, Removed) else CHANGE


class Undone(Exception):
    """A batch was undone for what some of its changes met: the others are to be decided again.

    `changes` are to blame by path and kind, `streams` by id and kind, `upkeep` by the place of statements that no
    client asked for. `reason` is what they met.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.changes: set[tuple[str, str]] = set()
        self.streams: set[tuple[int, str]] = set()
        self.upkeep: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self.changes or self.streams or self.upkeep)


class Unverified(Exception):
    """A stream would be made before it is known that none is there: `Damages.verified` comes first."""


class _Refusal(NamedTuple):
    until: float
    error: str


class Damages:
    """The damage that one store has met: `counts` has how often and of how many streams.

    `refused` has the changes that can't be committed, by path and kind: while it is empty there is nothing to ask.
    `hidden` are paths whose streams are there and can't be found, because an index has lost them; `verified` says that
    it is known which. `closed` is why nothing can be made, where something keeps it from that. All are bounded.
    """

    def __init__(self, folder: Path, counts: Upkeep) -> None:
        self._folder = folder
        self._counts = counts
        self._known: dict[str, float] = {}
        self._told = 0
        self._kept = 0
        self._round = 0.0
        self.refused: dict[tuple[str, str], _Refusal] = {}
        self.hidden: Container[str] = frozenset()
        self.verified = False
        self.closed = ""

    def met(self, error: Damaged) -> Damaged:
        """Take in that somebody has met damage; what to raise."""
        self._counts.damage += 1
        now = time.monotonic()
        if now >= self._round + _TELL_EVERY:
            self._round, self._told = now, 0
        told = self._known.get(error.what, float("-inf"))
        if now < told + _TELL_EVERY or self._told >= _MOST_TOLD:
            self._kept += 1
        else:
            more = f" ({self._kept} more times since the last such line)" if self._kept else ""
            self._told += 1
            self._kept = 0
            log.error(
                "%s: %s; what is asked of it is answered with 500, and others go on: see 'ds check %s', and restore "
                "it from a backup or delete it%s", self._folder / files.FILE, error, self._folder, more,
            )  # fmt: skip
            told = now
        if error.what not in self._known and len(self._known) >= _MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[error.what] = told
        self._counts.damaged = len(self._known)
        return error

    def refuse(self, undone: Undone, paths: dict[int, str]) -> bool:
        """Take in what a transaction could not hold, with the `paths` of streams by id; False when none of it can be
        told from the rest."""
        found: list[tuple[str, str]] = list(undone.changes)
        found += [(paths[id], kind) for id, kind in undone.streams if id in paths]
        until = time.monotonic() + _REFUSED_FOR
        for path, kind in found:
            if len(self.refused) >= _MOST_KNOWN:
                del self.refused[next(iter(self.refused))]
            self.refused[path, kind] = _Refusal(until, undone.reason)
        for path in {path for path, _ in found}:
            self.met(_unwritable(path, undone.reason))
        return bool(found or undone.upkeep)

    def check(self, paths: Iterable[str], change: Change | None) -> None:
        """Raise Damaged where a change of these paths can't be committed; None for a removal by path alone."""
        kind = kind_of(change)
        for path in paths:
            found = self.refused.get((path, kind))
            if found is None:
                continue
            if time.monotonic() < found.until:
                raise self.met(_unwritable(path, found.error))
            del self.refused[path, kind]

    def check_made(self, path: str) -> None:
        """Raise Unverified, or Damaged, where no stream may be made at a path at which none is found."""
        if not self.verified:
            raise Unverified
        if self.closed:
            raise self.met(Damaged(_at(path), f"{_at(path)} can't be made: what streams are found by is {self.closed}"))

    def check_hidden(self, path: str) -> None:
        """Raise Damaged where nothing is found at a path, and something is there."""
        if path in self.hidden:
            raise self.met(Damaged(_at(path), f"{_at(path)} is there, but an index has lost it"))


def _at(path: str) -> str:
    return f"the stream at {path!r}"


def _unwritable(path: str, reason: str) -> Damaged:
    return Damaged(_at(path), f"a change of {_at(path)} can't be stored: {reason}")
