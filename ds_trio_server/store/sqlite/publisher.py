"""What a batch comes to in memory: seen by readers when it is durable, taken back when it never will be."""

from collections.abc import Callable, Sequence

from ...stats import NEVER
from ..watchers import Watchers
from .batches import Batch, Waiter
from .cache import StreamCache
from .producers import Producers
from .tail import TailCache
from .trimmer import Cut, Trimmer


class Publisher:
    """Brings the states in memory, and who watches them, up to what is on disk.

    `clock_kept` is the steady time that this process has last brought to disk with a batch.
    """

    def __init__(
        self,
        cache: StreamCache,
        producers: Producers,
        tails: TailCache,
        watchers: Watchers,
        trimmer: Trimmer | None,
    ) -> None:
        self._cache = cache
        self._producers = producers
        self._tails = tails
        self._watchers = watchers
        self._trimmer = trimmer
        self.clock_kept = NEVER

    def publish(self, batch: Batch) -> list[Cut]:
        """Let readers see what is durable; returns what it has made too large."""
        cuts: list[Cut] = []
        trimmer = self._trimmer
        for entry in batch.entries:
            if entry.batch is batch:
                entry.batch = None
                if entry.stream is None:
                    self._cache.drop(entry)
                else:
                    self._cache.release(entry)
            if entry.structural is batch:
                entry.structural = None
        if batch.saves_clock and batch.steady is not None:
            self.clock_kept = batch.steady
        if batch.producers:
            self._producers.learn(batch.producers)
        fresh: dict[int, list[bytes]] = {}
        for id, at, data in batch.appends:
            self._tails.add(id, at, data)
            fresh.setdefault(id, []).append(data)
        for tail, closed, _, _, deadline, _, id in batch.rows:
            found = self._cache.get(id)
            if found is None or found.stream is None:
                continue
            stream = found.stream
            before, was_closed = stream.visible_tail, stream.visible_closed
            stream.visible_tail = tail
            stream.visible_closed = bool(closed)
            found.durable_deadline = deadline
            # (A row may say no more than that a TTL begins anew.)
            if (tail > before or closed and not was_closed) and self._watchers.watched(stream):
                self._watchers.notify(stream, before, b"".join(fresh.get(id, ())))
            if trimmer is not None and tail - stream.start > found.most and not stream.deleted:
                if found.most < 0:
                    found.most = trimmer.most(found.path)
                size = tail - stream.start
                cut = trimmer.grown(id, found.path, size) if size > found.most else None
                if cut is not None:
                    cuts.append(cut)
        for stream in batch.ended:
            self._tails.forget(stream.id)
            self._watchers.notify(stream, stream.visible_tail, b"")
        return cuts

    def take_back(self, lost: Sequence[Batch], again: Callable[[Waiter], object] | None = None) -> None:
        """Drop the states that batches have changed which will never be durable, and tell who waits for them, or have
        them decide `again`."""
        self._producers.recount()
        for batch in lost:
            for entry in batch.entries:
                self._cache.drop(entry)
                entry.batch = entry.structural = None
        # Nothing is decided again on what another of them has left.
        for batch in lost:
            batch.finish(again)
