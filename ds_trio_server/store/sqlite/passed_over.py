"""What upkeep can't look after, a damaged row or page above all: counted, told once in a while, and passed over.

Nobody has asked for it, so it keeps nobody waiting and ends nothing.
"""

import logging

from ...seldom import Seldom
from ...stats import Upkeep


class PassedOver:
    """Counts in `counts`, and tells in the log."""

    def __init__(self, counts: Upkeep) -> None:
        self._counts = counts
        self._seldom = Seldom(logging.getLogger("ds"))

    def note(self, what: str, error: Exception) -> None:
        """Take in that this can't be looked after."""
        self._counts.failures += 1
        self._seldom.warning("%s can't be looked after and is passed over: %r; run 'ds check'", what, error)
