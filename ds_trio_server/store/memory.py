"""Streams in memory: for tests and scratch use. Everything is lost with the process."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import TypeVar

import trio

from ds_core.server.create import owners
from ds_core.server.decide import Needs
from ds_core.server.stream import Appended, Created, Now, Removed, Stream, Trimmed, View, condition, expire

from ..clock import Clock
from ..stats import Commits, Upkeep
from . import base
from .base import SLICES, WINDOW, Change, Decide, Store, TooManyProducers, Usage, Vanished, Watcher
from .watchers import Watchers

T = TypeVar("T")


class _Log:
    """The appends of one stream: where each begins, and its bytes."""

    __slots__ = ("starts", "data")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.data: list[bytes] = []

    def add(self, at: int, data: bytes) -> None:
        self.starts.append(at)
        self.data.append(data)


class MemoryStore(Store):
    """One dict of streams by path, one of logs by id; a change is durable when it is made."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self.commits = Commits()
        self.upkeep = Upkeep()
        self._streams: dict[str, Stream] = {}
        self._by_id: dict[int, Stream] = {}
        self._logs: dict[int, _Log] = {}
        self._producers: dict[int, dict[str, tuple[int, int]]] = {}
        self._mortal: dict[int, Stream] = {}
        self._newest = 0
        self._watchers = Watchers()

    async def open(self) -> None:
        self.is_open = True
        await trio.lowlevel.checkpoint()

    async def close(self) -> None:
        self.is_open = False
        await trio.lowlevel.checkpoint()

    def now(self) -> Now:
        return self._clock.now()

    async def transact(self, needs: Needs, decide: Decide[T]) -> T:
        await trio.lowlevel.checkpoint()
        return self._decide(needs, decide)

    async def look(self, path: str, decide: Decide[T]) -> T:
        return self._decide(Needs(path), decide)

    def transact_nowait(
        self, needs: Needs, decide: Decide[T], done: Callable[[T, Exception | None], object]
    ) -> None:
        done(self._decide(needs, decide), None)

    def look_nowait(self, path: str, decide: Decide[T]) -> T:
        return self._decide(Needs(path), decide)

    def read_nowait(self, stream: Stream, start: int, end: int) -> list[bytes]:
        slices = self._slices(stream, start, end)
        if sum(map(len, slices)) < end - start:
            raise trio.WouldBlock
        return slices

    def _decide(self, needs: Needs, decide: Decide[T]) -> T:
        self.check_open()
        stream = self._streams.get(needs.path)
        origin = self._streams.get(needs.source) if needs.source is not None else None
        producer = None
        if stream is not None and needs.producer is not None:
            producer = self._producers[stream.id].get(needs.producer)
        response, change = decide(
            View(stream, self.now(), self._newest + 1, origin, needs.piece, producer)
        )
        if change is not None:
            if isinstance(change, Appended) and change.producer is not None and producer is None:
                assert stream is not None
                if len(self._producers[stream.id]) >= base.MOST_PRODUCERS:
                    raise TooManyProducers
            self._apply(stream, change)
        return response

    def _apply(self, stream: Stream | None, change: Change) -> None:
        if isinstance(change, Created):
            if stream is not None:
                self._remove(stream)
            self._create(change)
            return
        assert stream is not None
        if isinstance(change, Removed):
            if change.soft:
                stream.deleted = True
                self._watchers.notify(stream, stream.visible_tail, b"")
                self._free(stream.id)
            else:
                self._remove(stream)
            return
        change.apply(stream)
        if isinstance(change, Appended):
            if change.producer is not None:
                self._producers[stream.id][change.producer[0]] = change.producer[1:]
            if change.data:
                self._logs[stream.id].add(change.at, change.data)
                self.commits.count(1, len(change.data), 0.0)
            stream.publish()
            self._watchers.notify(stream, change.at, change.data)
        elif isinstance(change, Trimmed):
            self._free(stream.id)
            for ancestor, _ in stream.lineage:
                self._free(ancestor)

    def _free(self, id: int) -> None:
        """Drop what lies before a stream's start, or all of a deleted one, as far as its forks don't need it."""
        below = _shown_from(self._by_id[id])
        if not below:
            return
        for stream in self._by_id.values():
            first = _shown_from(stream)
            for ancestor, upto in stream.lineage:
                if ancestor == id and first < upto:
                    below = min(below, first)
        log = self._logs[id]
        keep = bisect_left(log.starts, below)
        del log.starts[:keep], log.data[:keep]

    def _create(self, change: Created) -> None:
        stream = change.stream
        self._newest = stream.id
        self._streams[stream.path] = self._by_id[stream.id] = stream
        if stream.deadline is not None or stream.expires is not None:
            self._mortal[stream.id] = stream
        self._producers[stream.id] = {}
        log = self._logs[stream.id] = _Log()
        if change.data:
            log.add(stream.tail - len(change.data), change.data)
        if change.source is not None:
            self._by_id[change.source].forks += 1
        stream.publish()

    def _remove(self, stream: Stream) -> None:
        # Releasing a fork may free its deleted source, and so on up the chain.
        while True:
            del self._streams[stream.path], self._by_id[stream.id]
            del self._logs[stream.id], self._producers[stream.id]
            self._mortal.pop(stream.id, None)
            stream.deleted = True
            self._watchers.notify(stream, stream.visible_tail, b"")
            if not stream.lineage:
                return
            for ancestor, _ in stream.lineage:
                self._free(ancestor)
            stream = self._by_id[stream.lineage[-1][0]]
            stream.forks -= 1
            if stream.forks or not stream.deleted:
                return

    async def read(self, stream: Stream, start: int, end: int) -> list[bytes]:
        slices = self._slices(stream, start, end)
        if len(slices) >= SLICES:
            await trio.lowlevel.checkpoint()
        return slices

    def _slices(self, stream: Stream, start: int, end: int) -> list[bytes]:
        slices: list[bytes] = []
        size = 0
        for owner, first, stop in owners(stream, start, end):
            log = self._log(owner)
            index = bisect_right(log.starts, first) - 1
            if index < 0:
                raise Vanished
            while first < stop and size < WINDOW and len(slices) < SLICES:
                data = log.data[index]
                begin = first - log.starts[index]
                part = data[begin : min(len(data), begin + min(stop - first, WINDOW))]
                slices.append(part)
                first += len(part)
                size += len(part)
                if begin + len(part) == len(data):
                    index += 1
            if size >= WINDOW or len(slices) >= SLICES:
                break
        return slices

    async def span(self, stream: Stream, position: int) -> tuple[int, int]:
        return self.span_nowait(stream, position)

    def span_nowait(self, stream: Stream, position: int) -> tuple[int, int]:
        owner, _, stop = owners(stream, position, stream.visible_tail)[0]
        log = self._log(owner)
        index = bisect_right(log.starts, position) - 1
        if index < 0:
            raise Vanished
        first = log.starts[index]
        return first, min(first + len(log.data[index]), stop)

    def _log(self, owner: int) -> _Log:
        self.check_open()
        try:
            return self._logs[owner]
        except KeyError:
            raise Vanished from None

    def watch(self, stream: Stream, watcher: Watcher) -> None:
        self.check_open()
        self._watchers.add(stream, watcher)

    def unwatch(self, stream: Stream, watcher: Watcher) -> None:
        self._watchers.remove(stream, watcher)

    async def sweep(self) -> int:
        self.check_open()
        now = self.now()
        ended = [s for s in self._mortal.values() if not s.deleted and condition(s, now) in (0, 3)]
        for stream in ended:
            self._decide(Needs(stream.path), expire)
        await trio.lowlevel.checkpoint()
        return len(ended)

    async def paths(self) -> list[str]:
        self.check_open()
        await trio.lowlevel.checkpoint()
        return sorted(path for path, stream in self._streams.items() if not stream.deleted)

    async def usage(self) -> Usage:
        self.check_open()
        await trio.lowlevel.checkpoint()
        return Usage(len(self._streams), sum(stream.tail - stream.start for stream in self._streams.values()))


def _shown_from(stream: Stream) -> int:
    return stream.tail if stream.deleted else stream.start
