"""Warnings that come again and again while something lasts."""

import logging
import time
from collections.abc import Callable


class Seldom:
    """A warning that comes again and again while something lasts: one line a minute, which says how often it was."""

    def __init__(self, log: logging.Logger, every: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._every = every
        self._clock = clock
        self._next = float("-inf")
        self._kept = 0

    def warning(self, text: str, *values: object, exc_info: BaseException | None = None) -> None:
        """Log it, or count it for the next line."""
        now = self._clock()
        if now < self._next:
            self._kept += 1
            return
        self._next = now + self._every
        more = f" ({self._kept} more times since the last such line)" if self._kept else ""
        self._kept = 0
        self._log.warning(text + "%s", *values, more, exc_info=exc_info)
