"""Time that streams can live by, on machines whose clocks lie.

A gateway without a battery-backed clock boots in 1970 and jumps when NTP answers. Two readings are
kept apart: ``steady`` counts only seconds that this store's processes saw pass, and sliding TTLs
live by it; ``wall`` is UNIX time as far as it can be believed, and only ``Stream-Expires-At`` and
cursors use it. Neither ever goes back, and a jump of the system's clock moves no steady deadline.
"""

import time
from collections.abc import Callable

from ds_core.server.stream import Now

BUILT = 1767225600.0
"""2026-01-01: no honest clock shows an earlier time to this code."""

_FIRST_STEP = 20 * 365 * 86400.0
_LATER_STEP = 366 * 86400.0


class Clock:
    """Both clocks, continued from where the last process left them.

    ``steady`` and ``wall`` are the saved readings (0.0 for a new store). A wall reading is believed
    when it is not behind the last believed one and at most 366 days ahead of it (20 years ahead of
    the build for a new store); until then time goes on by the monotonic clock.
    """

    def __init__(
        self,
        steady: float = 0.0,
        wall: float = 0.0,
        monotonic: Callable[[], float] = time.monotonic,
        system: Callable[[], float] = time.time,
    ) -> None:
        self._monotonic = monotonic
        self._system = system
        started = monotonic()
        self._steady_base = steady - started
        self._trusted = wall > BUILT
        self._wall_base = max(wall, BUILT) - started

    def now(self) -> Now:
        """Both readings at this moment."""
        tick = self._monotonic()
        wall = tick + self._wall_base
        ahead = self._system() - wall
        if 0.0 < ahead <= (_LATER_STEP if self._trusted else _FIRST_STEP):
            self._wall_base += ahead
            self._trusted = True
            wall += ahead
        return Now(tick + self._steady_base, wall)
