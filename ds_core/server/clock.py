"""Time that streams can live by, on machines whose clocks lie (protocol section 3).

A gateway without a battery-backed clock boots in 1970 and jumps when NTP answers. Two readings are
kept apart: `steady` counts only seconds that this store's processes saw pass, and sliding TTLs
live by it: no jump of the system's clock moves it. `wall` is UNIX time as far as it can be
believed, and only `Stream-Expires-At` and cursors use it. It goes on by the monotonic clock, and
follows the system's clock when that differs from it by

- up to ten minutes ahead: at once;
- up to 366 days ahead, or any time back: when it has held for half a minute;
- more: when it has held for a day. So a jump that is taken back expires nothing.

What lies before this code was built, or more than twenty years behind that, is never believed. A
new store believes the first reading in between.

So a deadline can be kept on disk: a shell keeps both readings with every change, and goes on from there when it starts
again. A TTL may run out late then, never early.
"""

from .stream import Now

TYPE_CHECKING = False  # type checkers take this name for true; MicroPython has no collections.abc
if TYPE_CHECKING:
    from collections.abc import Callable

BUILT = 1767225600.0
"""2026-01-01: no honest clock shows an earlier time to this code."""

_LAST = BUILT + 20 * 365.25 * 86400
_AT_ONCE = 600.0
_YEAR = 366 * 86400.0
_SHORT_WAIT = 30.0
_LONG_WAIT = 86400.0
_BACK = -1.0
_DRIFT = 5.0


class Clock:
    """Both clocks, continued from where the last process left them.

    `steady` and `wall` are the saved readings (0.0 for a new store), `monotonic` and `system` tell seconds, as
    `time.monotonic` and `time.time` do.
    """

    def __init__(
        self, steady: float, wall: float, monotonic: "Callable[[], float]", system: "Callable[[], float]"
    ) -> None:
        self._monotonic = monotonic
        self._system = system
        started = monotonic()
        self._steady_base = steady - started
        self._trusted = BUILT < wall < _LAST
        self._wall_base = (wall if self._trusted else BUILT) - started
        self._doubt: "tuple[float, float] | None" = None

    def now(self) -> Now:
        """Both readings at this moment."""
        tick = self._monotonic()
        system = self._system()
        ahead = system - tick - self._wall_base
        if _BACK <= ahead <= 0.0:
            self._doubt = None
        elif 0.0 < ahead <= _AT_ONCE and system < _LAST:
            self._doubt = None
            self._trusted = True
            self._wall_base += ahead
        else:
            self._wonder(tick, system, ahead)
        return Now(tick + self._steady_base, tick + self._wall_base)

    def _wonder(self, tick: float, system: float, ahead: float) -> None:
        """The clocks disagree: believe the system's when it has stuck to what it says."""
        if not BUILT < system < _LAST:
            self._doubt = None
            return
        offset = system - tick
        if self._trusted:
            if self._doubt is None or abs(offset - self._doubt[1]) > _DRIFT:
                self._doubt = (tick, offset)
            if tick - self._doubt[0] < (_SHORT_WAIT if ahead <= _YEAR else _LONG_WAIT):
                return
        self._trusted = True
        self._doubt = None
        self._wall_base = offset
