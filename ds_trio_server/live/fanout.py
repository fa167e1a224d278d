"""Live readers: how one append reaches a thousand of them.

A live reader at the tail holds an offset and nothing else. When a commit makes more of its stream
visible, the stream's feed encodes one frame for that range, writes it to every waiting socket from
right here, and leaves each reader's task asleep. A reader whose socket doesn't take the frame at
once, or whose offset isn't where the frame begins, is woken and goes on from storage at its own
pace. A task is also woken when its stream ends, its time is up, or its peer goes away.
"""

import trio

from ds_core.server import reads
from ds_core.server.stream import Stream

from ..http.transport import Disconnected, Transport
from ..store.base import Store

SHARED = 64 * 1024
"""Largest range that is sent as a shared frame; a reader of more goes to storage."""


class Waiter:
    """A live reader asleep at ``position`` of ``stream``; ``followers`` has the two kinds.

    Equal ``key`` (not None) promises equal frames. After a sleep, ``unsent`` is what the socket did
    not take of a frame, ``served`` whether anything was sent, ``ended`` whether that was the
    stream's end. One-shot waiters wake after one frame.
    """

    __slots__ = (
        "transport", "stream", "position", "deadline", "key", "unsent", "served", "ended", "_woken", "_scope",
    )  # fmt: skip

    one_shot = False

    def __init__(self, transport: Transport, stream: Stream, position: int, deadline: float) -> None:
        self.transport = transport
        self.stream = stream
        self.position = position
        self.deadline = deadline
        self.key: object = None
        self.unsent: bytes | memoryview = b""
        self.served = self.ended = self._woken = False
        self._scope: trio.CancelScope | None = None

    def encode(self, plan: reads.Plan, data: bytes) -> bytes | None:
        """The bytes to send for a range that begins at ``position``; None to be woken instead."""
        raise NotImplementedError

    async def resume(self) -> "Waiter | None":
        """Go on after a sleep: the waiter that sleeps next, None when the answer is complete."""
        raise NotImplementedError

    def received(self, data: bytes) -> bool:
        """The peer sent something meanwhile; False to be woken for it."""
        raise NotImplementedError

    def wake(self) -> None:
        """Let the task go on."""
        self._woken = True
        if self._scope is not None:
            self._scope.cancel()

    async def sleep(self, hub: "Hub") -> None:
        """Until woken or ``deadline``.

        Nothing may be awaited between looking at the stream and this, so that no commit is missed.
        """
        if not hub.join(self):
            return
        try:
            with trio.CancelScope(deadline=self.deadline) as self._scope:
                while not self._woken:
                    await self.transport.wait_readable()
                    received = self.transport.receive_nowait()
                    if received is not None:
                        if not received:
                            raise Disconnected
                        if not self.received(received):
                            break
        finally:
            self._scope = None
            hub.leave(self)


class Feed:
    """The waiters of one stream."""

    __slots__ = ("waiters",)

    def __init__(self) -> None:
        self.waiters: dict[Waiter, None] = {}

    def __call__(self, stream: Stream, at: int, data: bytes) -> None:
        """The store's call: ``data`` has become visible from ``at`` on, or the stream ended."""
        if not data or len(data) > SHARED or stream.deleted:
            self.wake_all()
            return
        plan = reads.Plan(stream, at, True)
        frames: dict[object, bytes] = {}
        done = [waiter for waiter in self.waiters if not self._serve(waiter, plan, data, frames)]
        for waiter in done:
            del self.waiters[waiter]
            waiter.wake()

    def _serve(self, waiter: Waiter, plan: reads.Plan, data: bytes, frames: dict[object, bytes]) -> bool:
        """Send one waiter its frame; whether it may sleep on."""
        if waiter.position != plan.start:
            return False
        frame = frames.get(waiter.key)
        if frame is None:
            frame = waiter.encode(plan, data)
            if frame is None:
                return False
            if waiter.key is not None:
                frames[waiter.key] = frame
        try:
            sent = waiter.transport.send_nowait(frame)
        except Disconnected:
            return False
        waiter.served = True
        waiter.ended = plan.closed
        waiter.position = plan.tail
        if sent < len(frame):
            waiter.unsent = memoryview(frame)[sent:]
            return False
        return not (waiter.one_shot or plan.closed)

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

    def join(self, waiter: Waiter) -> bool:
        """Have a waiter served from now on; False when the server is stopping."""
        if self.closing:
            return False
        feed = self._feeds.get(waiter.stream.id)
        if feed is None:
            feed = self._feeds[waiter.stream.id] = Feed()
            self._store.watch(waiter.stream, feed)
        feed.waiters[waiter] = None
        return True

    def leave(self, waiter: Waiter) -> None:
        """Have it served no more."""
        feed = self._feeds.get(waiter.stream.id)
        if feed is None:
            return
        feed.waiters.pop(waiter, None)
        if not feed.waiters:
            del self._feeds[waiter.stream.id]
            self._store.unwatch(waiter.stream, feed)

    def close(self) -> None:
        """Wake everyone, for good: the server is stopping."""
        self.closing = True
        for feed in list(self._feeds.values()):
            feed.wake_all()
