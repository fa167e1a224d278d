"""Live readers: how one append reaches a thousand of them.

A live reader at the tail holds an offset and nothing else. When a commit makes more of its stream
visible, the stream's feed encodes one frame for that range, writes it to every waiting socket from
right here, and leaves each reader's task asleep. A reader whose socket doesn't take the frame at
once, or whose offset isn't where the frame begins, is woken and goes on from storage at its own
pace. A task is also woken when its stream ends, its time is up, or its peer goes away.
"""

from collections.abc import Callable

import trio

from ds_core.server import reads
from ds_core.server.stream import Stream

from .store.base import Store
from .transport import Disconnected, Transport

SHARED = 64 * 1024
"""Largest range that is sent as a shared frame; a reader of more goes to storage."""


class Waiter:
    """A live reader asleep at ``position``.

    ``encode(plan, data)`` gives the bytes to send for a range that begins there, or None to be
    woken instead; equal ``key`` (not None) promises equal bytes. ``unsent`` is what the socket did
    not take, ``served`` whether anything was sent, ``ended`` whether that was the stream's end,
    ``woken`` whether the feed has let go of it.
    One-shot waiters (long-poll) wake after it.
    """

    __slots__ = ("transport", "position", "key", "encode", "one_shot", "unsent", "served", "ended", "woken", "_scope")

    def __init__(
        self,
        transport: Transport,
        position: int,
        key: object,
        encode: "Callable[[reads.Plan, bytes], bytes | None]",
        one_shot: bool,
    ) -> None:
        self.transport = transport
        self.position = position
        self.key = key
        self.encode = encode
        self.one_shot = one_shot
        self.unsent: bytes | memoryview = b""
        self.served = self.ended = self.woken = False
        self._scope = trio.CancelScope()

    def wake(self) -> None:
        """Let the task go on."""
        self.woken = True
        self._scope.cancel()

    async def sleep(self, deadline: float) -> bytes | None:
        """Until woken or ``deadline``: None; earlier when the peer sent something: that."""
        self._scope = trio.CancelScope(deadline=deadline)
        with self._scope:
            while True:
                await self.transport.wait_readable()
                received = self.transport.receive_now()
                if received is not None:
                    if not received:
                        raise Disconnected
                    return received
        return None


class Feed:
    """The waiters of one stream."""

    __slots__ = ("_hub", "waiters")

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self.waiters: dict[Waiter, None] = {}

    def __call__(self, stream: Stream, at: int, data: bytes) -> None:
        """The store's call: ``data`` has become visible from ``at`` on, or the stream ended."""
        if not data or len(data) > SHARED or stream.deleted:
            self.wake_all()
            return
        plan = reads.Plan(stream, at, True)
        frames: dict[object, bytes] = {}
        done: list[Waiter] = []
        for waiter in self.waiters:
            if waiter.position != at:
                done.append(waiter)
                continue
            frame = frames.get(waiter.key)
            if frame is None:
                frame = waiter.encode(plan, data)
                if frame is None:
                    done.append(waiter)
                    continue
                if waiter.key is not None:
                    frames[waiter.key] = frame
            try:
                sent = waiter.transport.send_now(frame)
            except Disconnected:
                done.append(waiter)
                continue
            waiter.served = True
            waiter.ended = plan.closed
            waiter.position = plan.tail
            if sent < len(frame):
                waiter.unsent = memoryview(frame)[sent:]
            if sent < len(frame) or waiter.one_shot or plan.closed:
                done.append(waiter)
        for waiter in done:
            del self.waiters[waiter]
            waiter.wake()

    def wake_all(self) -> None:
        """Let every reader look for itself."""
        waiters, self.waiters = self.waiters, {}
        for waiter in waiters:
            waiter.wake()


class Hub:
    """The feeds of all streams that have live readers."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._feeds: dict[int, Feed] = {}
        self.closing = False

    def count(self) -> int:
        """Live readers that are asleep now."""
        return sum(len(feed.waiters) for feed in self._feeds.values())

    async def wait(self, stream: Stream, waiter: Waiter, deadline: float) -> bytes | None:
        """Sleep until the stream has more than the waiter's position, or its end, or ``deadline``.

        Nothing may be awaited between looking at the stream and calling this, so that no commit is
        missed. Returns what the peer sent meanwhile, if it woke the waiter.
        """
        if self.closing or waiter.woken:
            return None
        feed = self._feeds.get(stream.id)
        if feed is None:
            feed = self._feeds[stream.id] = Feed(self)
            self._store.watch(stream, feed)
        feed.waiters[waiter] = None
        try:
            return await waiter.sleep(deadline)
        finally:
            feed.waiters.pop(waiter, None)
            if not feed.waiters and self._feeds.get(stream.id) is feed:
                del self._feeds[stream.id]
                self._store.unwatch(stream, feed)

    def close(self) -> None:
        """Wake everyone, for good: the server is stopping."""
        self.closing = True
        for feed in list(self._feeds.values()):
            feed.wake_all()

