"""Retention: how long and how much of a stream is kept, and what follows for the streams there are.

Rules are read in order, and a later one wins over an earlier one of the same kind (age or bytes)
for the paths it matches. By bytes, whole appends go from the front as long as what remains is at
least the limit; by age, appends go when they are older than the limit, up to a sixty-fourth of it
later: their times are noted in steps of that, from outside, so that appends pay nothing for it.
"""

from collections.abc import Iterable
from contextlib import suppress

from .. import units
from ..globs import Glob


class Rule:
    """Which paths (None: all), and an age in seconds, a size in bytes, or neither: forever."""

    __slots__ = ("pattern", "age", "bytes")

    def __init__(self, pattern: Glob | None, age: float | None, bytes: int | None) -> None:
        self.pattern = pattern
        self.age = age
        self.bytes = bytes


def parse(text: str) -> Rule:
    """A rule as an operator writes it: `7d`, `256M`, `logs/**=90m`, `keep/*=forever`.

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
    with suppress(ValueError):
        # Its unit makes an age of it: 90m is minutes, 90M is a size.
        return Rule(pattern, units.duration(limit, 1, 1e12, plain=False), None)
    with suppress(ValueError):
        return Rule(pattern, None, units.size(limit))
    raise ValueError(
        f"'{limit}' is neither an age (90s, 15m, 12h, 7d, 4w) nor a size (65536, 64K, 256M, 2G) nor 'forever'"
    )


class Retention:
    """All rules; false when none of them limits anything. `ages` (seconds) and `sizes` (bytes) are all there are."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = tuple(rules)
        self.ages = sorted({rule.age for rule in self._rules if rule.age is not None})
        self.sizes = sorted({rule.bytes for rule in self._rules if rule.bytes is not None})

    def __bool__(self) -> bool:
        return bool(self.ages or self.sizes)

    def of(self, path: str) -> tuple[float | None, int | None]:
        """The age in seconds and the size in bytes that a stream at this path may have; None for no limit."""
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
