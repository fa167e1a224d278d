"""What a server counts: plain integers that cost the hot path next to nothing.

Each class has tables of what operators are shown (`COUNTERS`, `GAUGES`, `HISTOGRAMS`), from a field to a metric's name
and what it means. A new one is a line in a table and its first value here, and the place where it is counted:
`/metrics` shows what the tables have. All of it is touched in the trio thread only.
"""

import time
from bisect import bisect_left
from collections.abc import Sequence

NEVER = float("-inf")

Shown = dict[str, tuple[str, str]]
"""By field: the name of a metric, and what it means."""

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


class Shows:
    """Has tables of what is shown to operators."""

    COUNTERS: Shown = {}
    GAUGES: Shown = {}
    HISTOGRAMS: Shown = {}
    __slots__ = ()


class Commits(Shows):
    """What a store made durable: counted once per commit, however many appends it holds.

    `fsync` has the part of `seconds` that the write and fsync took, of commits to a disk only.
    `stored_at` is when it last made an append durable, in the machine's monotonic seconds.
    """

    COUNTERS: Shown = {
        "appends": ("ds_appends", "Appends made durable."),
        "bytes": ("ds_append_bytes", "Bytes of appends made durable."),
    }
    HISTOGRAMS: Shown = {
        "sizes": ("ds_commit_appends", "Appends in one commit."),
        "seconds": ("ds_commit_seconds", "How long a commit took, its fsync included."),
        "fsync": ("ds_fsync_seconds", "How long the write and fsync of a commit took."),
    }
    __slots__ = (*COUNTERS, *HISTOGRAMS, "stored_at")

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


class Upkeep(Shows):
    """What a store does beside its clients: `failures` are steps that failed, of one stream or of all together;
    `damage` is how often something damaged was met, `damaged` of how many streams;
    `freed` the streams whose last row was freed. `log` and `held` are the bytes that its log takes, and those of
    them that a reader keeps from being used again."""

    COUNTERS: Shown = {
        "failures": ("ds_upkeep_failures", "Streams passed over, or rounds ended, by a failure in upkeep."),
        "damage": ("ds_damage_met", "How often stored data was asked for, or was to be changed, and is damaged."),
        "freed": ("ds_streams_freed", "Streams that ended and whose room is free."),
    }
    GAUGES: Shown = {
        "damaged": ("ds_streams_damaged", "Streams whose stored data was found damaged since the start."),
        "log": ("ds_log_bytes", "Bytes the write-ahead log takes."),
        "held": ("ds_log_held_bytes", "Bytes of it that a long reader keeps from being used again."),
    }
    __slots__ = (*COUNTERS, *GAUGES)

    def __init__(self) -> None:
        self.failures = self.freed = self.damage = self.damaged = 0
        self.log = self.held = 0


class Stats(Shows):
    """What a server did for its clients.

    `full_at` is when it last had no room for something, in the machine's monotonic seconds.
    """

    COUNTERS: Shown = {
        "requests": ("ds_requests", "Requests whose head was read."),
        "connections": ("ds_connections_accepted", "Connections accepted."),
        "handshakes_failed": ("ds_tls_handshakes_failed", "Connections without a TLS handshake."),
    }
    __slots__ = (*COUNTERS, "rejected", "full_at")

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
