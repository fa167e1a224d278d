"""What a server counts: plain integers that cost the hot path next to nothing.

Nothing here knows who reads it; `metrics` shows it to Prometheus when that asks. All of it is
touched in the trio thread only.
"""

import time
from bisect import bisect_left
from collections.abc import Sequence

NEVER = float("-inf")

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Histogram:
    """How often values were at most each of `bounds`, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[str, int]]:
        """(bound, values up to it), the last bound `+Inf`: as Prometheus has it."""
        found: list[tuple[str, int]] = []
        total = 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            total += count
            found.append((str(bound), total))
        return found


class Commits:
    """What a store made durable: counted once per commit, however many appends it holds.

    `fsync` has the part of `seconds` that the write and fsync took, of commits to a disk only.
    `stored_at` is when it last made an append durable, in the machine's monotonic seconds.
    """

    __slots__ = ("appends", "bytes", "sizes", "seconds", "fsync", "stored_at")

    def __init__(self) -> None:
        self.appends = 0
        self.bytes = 0
        self.stored_at = NEVER
        self.sizes = Histogram((1, 2, 5, 10, 20, 50, 100, 200, 500, 1000))
        self.seconds = Histogram(_SECONDS)
        self.fsync = Histogram(_SECONDS)

    def count(self, appends: int, size: int, seconds: float, synced: float = 0.0) -> None:
        """One commit of so many appends and bytes, how long it took, and its write and fsync alone."""
        self.appends += appends
        self.bytes += size
        if appends:
            self.sizes.observe(appends)
            self.stored_at = time.monotonic()
        self.seconds.observe(seconds)
        if synced > 0:
            self.fsync.observe(synced)


class Upkeep:
    """What a store does beside its clients: `failures` are steps that failed, of one stream or of all together;
    `freed` the streams whose last row was freed. `log` and `held` are the bytes that its log takes, and those of
    them that a reader keeps from being used again."""

    __slots__ = ("failures", "freed", "log", "held")

    def __init__(self) -> None:
        self.failures = self.freed = 0
        self.log = self.held = 0


class Stats:
    """What a server did for its clients.

    `full_at` is when it last had no room for something, in the machine's monotonic seconds.
    """

    __slots__ = ("connections", "requests", "rejected", "handshakes_failed", "full_at")

    def __init__(self) -> None:
        self.connections = 0
        self.requests = 0
        self.handshakes_failed = 0
        self.full_at = NEVER
        # By (status, code): both come from this code and never from a client, so there are few.
        self.rejected: dict[tuple[int, str], int] = {}

    def reject(self, status: int, code: str) -> None:
        """One answer that was a refusal."""
        key = (status, code)
        self.rejected[key] = self.rejected.get(key, 0) + 1
        if status == 507:
            self.full_at = time.monotonic()
