"""Live readers: how one append reaches a thousand of them.

A live reader at the tail holds an offset and nothing else. When a commit makes more of its stream
visible, the stream's feed encodes one frame for that range, writes it to every waiting socket from
right here, and leaves each reader's task asleep. A reader whose socket doesn't take the frame at
once, or whose offset isn't where the frame begins, is woken and goes on from storage at its own
pace. A task is also woken when its stream ends, its time is up, or its peer goes away.
"""

import logging

import trio

from ds_core.server import reads
from ds_core.server.stream import Stream

from ..http.exchange import Disconnected, Exchange
from ..store.base import Store

log = logging.getLogger("ds")

SHARED = 64 * 1024
"""Largest range that is sent as a shared frame; a reader of more goes to storage."""

QUIET = 15.0
"""Seconds of silence after which a reader whose answer has begun gets a sign of life: proxies cut after 30 to 60."""


class Subscriber:
    """A live reader asleep at `position` of `stream`: one that is woken when there is more to see.

    Equal `key` (not None) promises equal frames. After a sleep, `served` is whether anything was sent, `ended` whether
    that was the stream's end. One-shot subscribers wake after one frame. `spoken` is when something was last sent.
    """

    __slots__ = ("stream", "position", "deadline", "key", "served", "ended", "spoken", "_fanout", "_woken", "_scope")

    one_shot = False

    def __init__(self, fanout: "FanOut", stream: Stream, position: int, deadline: float) -> None:
        self.stream = stream
        self.position = position
        self.deadline = deadline
        self.key: object = None
        self.served = self.ended = self._woken = False
        self.spoken = trio.current_time()
        self._fanout = fanout
        self._scope: trio.CancelScope | None = None

    @property
    def sign_of_life(self) -> bytes:
        """What to send into silence; nothing for a reader whose answer has not begun."""
        return b""

    def encode(self, plan: reads.Plan, data: bytes) -> bytes | None:
        """The bytes to send for a range that begins at `position`; None to be woken instead."""
        return None

    def send_nowait(self, frame: bytes) -> bool:
        """Send a frame from here; False when not all of it was taken. Raises Disconnected."""
        raise NotImplementedError

    def wake(self) -> None:
        """Let the task go on."""
        self._woken = True
        if self._scope is not None:
            self._scope.cancel()

    def over(self) -> bool:
        """Whether its time is up, or the server's."""
        return self._fanout.closing or trio.current_time() >= self.deadline

    def again(self, plan: reads.Plan) -> None:
        """Be ready to sleep again: it was woken, and there is nothing to see."""
        self.stream = plan.stream
        self._woken = False

    async def sleep(self) -> None:
        """Until woken or `deadline`.

        Nothing may be awaited between looking at the stream and this, so that no commit is missed.
        """
        if not self._fanout.join(self):
            return
        try:
            with trio.CancelScope(deadline=self.deadline) as self._scope:
                while not self._woken and not await self._disturbed():
                    pass
        finally:
            self._scope = None
            self._fanout.leave(self)

    async def _disturbed(self) -> bool:
        """Wait for what else may end the sleep, and tell whether it does."""
        await trio.sleep_forever()
        raise AssertionError


class Remote(Subscriber):
    """A live reader behind an exchange, to whom frames are sent; `subscribers` has the two kinds.

    After a sleep, `unsent` is what the socket did not take of a frame.
    """

    __slots__ = ("exchange", "unsent")

    def __init__(
        self, exchange: Exchange, fanout: "FanOut", stream: Stream, position: int, deadline: float
    ) -> None:
        super().__init__(fanout, stream, position, deadline)
        self.exchange = exchange
        self.unsent: bytes | memoryview = b""

    async def resume(self) -> "Remote | None":
        """Go on after a sleep: the subscriber that sleeps next, None when the answer is complete."""
        raise NotImplementedError

    def received(self, data: bytes) -> bool:
        """The peer sent something meanwhile; False to be woken for it."""
        raise NotImplementedError

    async def _disturbed(self) -> bool:
        await self.exchange.wait_readable()
        received = self.exchange.receive_nowait()
        if received is None:
            return False
        if not received:
            raise Disconnected
        return not self.received(received)

    def send_nowait(self, frame: bytes) -> bool:
        sent = self.exchange.send_nowait(frame)
        if sent < len(frame):
            self.unsent = memoryview(frame)[sent:]
            return False
        return True


class Feed:
    """The subscribers of one stream that are asleep."""

    __slots__ = ("asleep",)

    def __init__(self) -> None:
        self.asleep: dict[Subscriber, None] = {}

    def __call__(self, stream: Stream, at: int, data: bytes) -> None:
        """The store's call: `data` has become visible from `at` on, or the stream ended."""
        if not data or len(data) > SHARED or stream.deleted:
            self.wake_all()
            return
        plan = reads.Plan(stream, at, True)
        frames: dict[object, bytes] = {}
        now = trio.current_time()
        done = [subscriber for subscriber in self.asleep if not self._serve(subscriber, plan, data, frames, now)]
        for subscriber in done:
            self._wake(subscriber)

    def _serve(
        self, subscriber: Subscriber, plan: reads.Plan, data: bytes, frames: dict[object, bytes], now: float
    ) -> bool:
        """Send one subscriber its frame; whether it may sleep on."""
        if subscriber.position != plan.start:
            return False
        try:
            frame = frames.get(subscriber.key)
            if frame is None:
                frame = subscriber.encode(plan, data)
                if frame is None:
                    return False
                if subscriber.key is not None:
                    frames[subscriber.key] = frame
            whole = subscriber.send_nowait(frame)
        except Disconnected:
            return False
        except Exception:
            log.exception("a live reader failed inside the server")
            return False  # whoever is broken finds that out in a task of its own, and the others are served
        subscriber.served = True
        subscriber.ended = plan.closed
        subscriber.position = plan.tail
        subscriber.spoken = now
        return whole and not (subscriber.one_shot or plan.closed)

    def break_silence(self, now: float) -> None:
        """Give those a sign of life who have heard nothing for long."""
        due = [one for one in self.asleep if one.sign_of_life and now - one.spoken >= QUIET]
        for subscriber in due:
            subscriber.spoken = now
            try:
                heard = subscriber.send_nowait(subscriber.sign_of_life)
            except Disconnected:
                heard = False
            if not heard:
                self._wake(subscriber)

    def _wake(self, subscriber: Subscriber) -> None:
        del self.asleep[subscriber]
        subscriber.wake()

    def wake_all(self) -> None:
        """Let every reader look for itself."""
        asleep, self.asleep = self.asleep, {}
        for subscriber in asleep:
            subscriber.wake()


class FanOut:
    """The feeds of all streams that have live readers."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._feeds: dict[int, Feed] = {}
        self.closing = False

    def count(self) -> int:
        """Live readers that are asleep now."""
        return sum(len(feed.asleep) for feed in self._feeds.values())

    def join(self, subscriber: Subscriber) -> bool:
        """Have a subscriber served from now on; False when the server is stopping."""
        if self.closing:
            return False
        feed = self._feeds.get(subscriber.stream.id)
        if feed is None:
            feed = self._feeds[subscriber.stream.id] = Feed()
            self._store.watch(subscriber.stream, feed)
        feed.asleep[subscriber] = None
        return True

    def leave(self, subscriber: Subscriber) -> None:
        """Have it served no more."""
        feed = self._feeds.get(subscriber.stream.id)
        if feed is None:
            return
        feed.asleep.pop(subscriber, None)
        if not feed.asleep:
            del self._feeds[subscriber.stream.id]
            self._store.unwatch(subscriber.stream, feed)

    def break_silence(self) -> None:
        """Called every second or so: no answer that has begun stays silent for much longer than `QUIET`."""
        now = trio.current_time()
        for feed in list(self._feeds.values()):
            feed.break_silence(now)

    def close(self) -> None:
        """Wake everyone, for good: the server is stopping."""
        self.closing = True
        for feed in list(self._feeds.values()):
            feed.wake_all()
