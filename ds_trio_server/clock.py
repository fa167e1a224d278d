"""The gateway's clock: the core's, by this machine's readings."""

import time
from collections.abc import Callable

from ds_core.server import clock

BUILT = clock.BUILT
"""No honest clock shows an earlier time to this code."""


class Clock(clock.Clock):
    """Both clocks, continued from the saved readings `steady` and `wall` (0.0 for a new store)."""

    def __init__(
        self,
        steady: float = 0.0,
        wall: float = 0.0,
        monotonic: Callable[[], float] = time.monotonic,
        system: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(steady, wall, monotonic, system)
