"""The recent tail of active streams in memory: what most readers ask for, bounded in all.

A catch-up reader near the tail and every live reader are served from here without a query. Appends
enter in commit order, so dropping the oldest of all also drops the oldest of its own stream, and
every stream's cached part stays one gapless range that ends at its tail.
"""

from bisect import bisect_right
from collections import deque

from ..base import SLICES

_LARGEST = 4


class _Run:
    """The cached appends of one stream: a gapless range up to its tail."""

    __slots__ = ("starts", "data", "dropped")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.data: list[bytes] = []
        # Entries at the front that are dropped but not yet cut off: cutting is done in bulk.
        self.dropped = 0


class TailCache:
    """Holds at most `limit` bytes of appends, whichever streams they belong to."""

    # What an append and a run cost beside the bytes; keeps floods of tiny ones within the bound too.
    _OVERHEAD = 120
    _RUN_OVERHEAD = 400

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._runs: dict[int, _Run] = {}
        self._order: deque[tuple[int, int]] = deque()

    def add(self, stream: int, at: int, data: bytes) -> None:
        """Remember an append that is durable now; it begins where the stream's last one ended.

        One so large that it would push out all others is left to the file.
        """
        if len(data) > self._limit // _LARGEST:
            self.forget(stream)
            return
        cost = len(data) + self._OVERHEAD
        run = self._runs.get(stream)
        if run is None:
            run = self._runs[stream] = _Run()
            cost += self._RUN_OVERHEAD
        run.starts.append(at)
        run.data.append(data)
        self._order.append((stream, cost))
        self._size += cost
        while self._size > self._limit:
            self._drop()

    def _drop(self) -> None:
        stream, cost = self._order.popleft()
        self._size -= cost
        run = self._runs.get(stream)
        if run is None:
            return
        run.data[run.dropped] = b""
        run.dropped += 1
        if run.dropped == len(run.data):
            del self._runs[stream]
        elif run.dropped >= 64 and run.dropped * 2 >= len(run.data):
            del run.starts[: run.dropped], run.data[: run.dropped]
            run.dropped = 0

    def get(self, stream: int, start: int, end: int) -> list[bytes] | None:
        """The bytes of a range in slices, as far as SLICES of them go, or None when it begins before
        what is cached."""
        run = self._runs.get(stream)
        if run is None or start < run.starts[run.dropped]:
            return None
        index = bisect_right(run.starts, start) - 1
        slices: list[bytes] = []
        while start < end and len(slices) < SLICES:
            if index == len(run.starts):
                return None
            begin = start - run.starts[index]
            data = run.data[index]
            if begin or len(data) > end - start:
                data = data[begin : begin + end - start]
            if not data:
                return None
            slices.append(data)
            start += len(data)
            index += 1
        return slices

    def span(self, stream: int, position: int) -> tuple[int, int] | None:
        """The append that holds a position: first and end, or None when it is not cached."""
        run = self._runs.get(stream)
        if run is None or position < run.starts[run.dropped]:
            return None
        index = bisect_right(run.starts, position) - 1
        first = run.starts[index]
        end = first + len(run.data[index])
        return (first, end) if position < end else None

    def forget(self, stream: int) -> None:
        """Drop a stream's bytes; its places in the order are skipped when they come up, or take
        away what came after them a little early."""
        run = self._runs.pop(stream, None)
        if run is not None:
            run.data.clear()
