"""The room on the disk: appends stop before it is gone, so that reads, closes and deletes never do.

A file system that is really full also stops the transactions that would free something. The
watermark keeps enough for those, and for whatever else lives on the same card.

The file system is asked every second, and whenever what was let through since then may have used up what
it said: so the watermark holds however quickly appends come. What is promised but not written yet is
counted, and what the file has still to grow by to take in what is in the log.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import files

log = logging.getLogger("ds")


@dataclass(frozen=True)
class MinFree:
    """How much of the file system stays free: bytes, or a share of its size (0.05 for 5 %)."""

    bytes: int = 0
    share: float = 0.0

    def of(self, size: int) -> int:
        """In bytes, for a file system of `size` bytes."""
        return max(self.bytes, int(size * self.share))


@dataclass(frozen=True)
class DefaultMinFree(MinFree):
    """128 MiB, or 5 % where that is less: small cards are small."""

    bytes: int = 128 * 1024 * 1024
    share: float = 0.05

    def of(self, size: int) -> int:
        return min(self.bytes, int(size * self.share))


_LEAST = 16 * 1024
"""What the smallest append may take: pages of four trees in the log, and later in the file."""


class Space:
    """Whether there is room for more in a folder: `low` as of the last measurement.

    `owed()` says how many bytes of the disk will be taken by what has been let through already, `log_room()` how many
    the log may take beyond what it has, for changes that free something. `unused()` says how many are free in the file
    for what has not been let through yet; it is only asked where the file itself may only become so large.
    """

    def __init__(
        self,
        folder: Path,
        least: MinFree | None = None,
        owed: Callable[[], int] = lambda: 0,
        log_room: Callable[[], int] = lambda: 0,
        unused: Callable[[], int] = lambda: 0,
    ) -> None:
        self._folder = folder
        self._least = DefaultMinFree() if least is None else least
        self._owed = owed
        self._log_room = log_room
        self._unused = unused
        self._largest = files.largest(folder)
        self._left = 0
        self._refused = 0
        self.low = False

    def take(self, size: int) -> bool:
        """Whether there is room for an append of so many bytes, once in the log and once in the file; if so, it is
        counted."""
        cost = 2 * size + _LEAST
        if self._left < cost:
            self.measure()
        if self.low or self._left < cost:
            self._refused = 2
            return False
        self._left -= cost
        return True

    @property
    def wanted(self) -> bool:
        """Whether something was refused not long ago."""
        return self._refused > 0

    def look(self) -> None:
        """As `measure`, every second or so; what was refused long before is forgotten."""
        self._refused = max(0, self._refused - 1)
        self.measure()

    def measure(self) -> None:
        """Ask the file system; cheap enough for every second."""
        try:
            found = os.statvfs(self._folder)
            owed = self._owed()
        except OSError:
            return  # what is wrong with the disk shows in what the store does
        free, size = found.f_bavail * found.f_frsize - owed, found.f_blocks * found.f_frsize
        if self._largest is not None:
            room = files.room_in_files(self._folder, self._largest) + self._unused()
            free, size = min(free, room), min(size, self._largest)
        kept = self._least.of(size)
        least = kept + min(kept, self._log_room())
        self._left = free - least
        # A little more than what stopped it lets it go on, so that it doesn't flap.
        low = free < (least + least // 16 if self.low else least)
        if low and not self.low:
            log.error(
                "%s has %d MiB free; --min-free keeps %d MiB, and the log may need %d MiB: appends are refused "
                "with 507 until there is more", self._folder, max(0, free) >> 20, kept >> 20, (least - kept) >> 20,
            )  # fmt: skip
        elif self.low and not low:
            log.warning("%s has %d MiB free again: appends go on", self._folder, free >> 20)
        self.low = low
