"""Who waits for which stream: the backends' shared bookkeeping for `watch`."""

import logging

from ds_core.server.stream import Stream

from .base import Watcher

log = logging.getLogger("ds")


class Watchers:
    """Watchers by stream id."""

    def __init__(self) -> None:
        self._by_stream: dict[int, list[Watcher]] = {}

    def add(self, stream: Stream, watcher: Watcher) -> None:
        """Have a watcher told of a stream from now on."""
        self._by_stream.setdefault(stream.id, []).append(watcher)

    def remove(self, stream: Stream, watcher: Watcher) -> None:
        """Tell a watcher no more."""
        found = self._by_stream.get(stream.id)
        if found is not None and watcher in found:
            found.remove(watcher)
            if not found:
                del self._by_stream[stream.id]

    def watched(self, stream: Stream) -> bool:
        """Whether anybody is told of a stream."""
        return stream.id in self._by_stream

    def notify(self, stream: Stream, at: int, data: bytes) -> None:
        """Tell everyone who watches this stream; a watcher may remove itself meanwhile."""
        for watcher in tuple(self._by_stream.get(stream.id, ())):
            try:
                watcher(stream, at, data)
            except Exception:
                # What is committed is committed, and everyone else is to hear of it.
                log.exception("a live reader's watcher failed inside the server")
