"""The room on the disk: appends stop before it is gone, so that reads, closes and deletes never do.

A file system that is really full also stops the transactions that would free something. The
watermark keeps enough for those, and for whatever else lives on the same card.
"""

import logging
import os
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
        """In bytes, for a file system of ``size`` bytes."""
        return max(self.bytes, int(size * self.share))


@dataclass(frozen=True)
class DefaultMinFree(MinFree):
    """128 MiB, or 5 % where that is less: small cards are small."""

    bytes: int = 128 * 1024 * 1024
    share: float = 0.05

    def of(self, size: int) -> int:
        return min(self.bytes, int(size * self.share))


class Space:
    """Whether there is room for more in a folder: ``low`` as of the last measurement."""

    def __init__(self, folder: Path, least: MinFree | None = None) -> None:
        self._folder = folder
        self._least = DefaultMinFree() if least is None else least
        self._largest = files.largest(folder)
        self.low = False

    @property
    def limited(self) -> bool:
        """Whether the file itself may only become so large."""
        return self._largest is not None

    def measure(self, unused: int = 0) -> None:
        """Ask the file system; cheap enough for every second. ``unused`` bytes are free in the file."""
        try:
            found = os.statvfs(self._folder)
        except OSError:
            return  # what is wrong with the disk shows in what the store does
        free, size = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
        if self._largest is not None:
            room = files.room_in_files(self._folder, self._largest) + unused
            free, size = min(free, room), min(size, self._largest)
        least = self._least.of(size)
        # A little more than what stopped it lets it go on, so that it doesn't flap.
        low = free < (least + least // 16 if self.low else least)
        if low and not self.low:
            log.error(
                "%s has %d MiB free, less than the %d MiB that --min-free keeps: appends are refused "
                "with 507 until there is more", self._folder, free >> 20, least >> 20,
            )  # fmt: skip
        elif self.low and not low:
            log.warning("%s has %d MiB free again: appends go on", self._folder, free >> 20)
        self.low = low
