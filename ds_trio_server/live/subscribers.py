"""The kinds of live reader: a long-poll, which is answered once, an event stream (protocol section 6), and a follower
in this process.

Between two frames a reader is nothing but its `Remote` and a sleeping task: everything else of
its request has been let go.
"""

import math
from collections.abc import AsyncGenerator

import trio

from ds_core.server import messages, reads, responses
from ds_core.server.errors import ProtocolError
from ds_core.server.requests import Read
from ds_core.wire import media

from ..http.exchange import Exchange
from ..reads.catchup import Answer, CatchUp, accepted, send
from ..reads.reading import Reading
from ..store.base import Damaged, Vanished
from .fanout import FanOut, Remote, Subscriber

_BATCH = 256 * 1024
_SHARED = 1024 * 1024  # of an answer that is encoded once for many; a longer one is read by each, in windows
_COMMENT = b":\n\n"
_COMMENT_PART = b"3\r\n:\n\n\r\n"


class LiveReads:
    """Begins live reads of one store."""

    def __init__(self, reading: Reading, catchup: CatchUp, fanout: FanOut) -> None:
        self.reading = reading
        self.catchup = catchup
        self.fanout = fanout

    async def long_poll(self, exchange: Exchange, command: Read) -> Remote | None:
        """Answer at once when there is something to show; else the subscriber that will."""
        deadline = trio.current_time() + self.reading.config.long_poll_timeout
        plan = await self.reading.plan(command.path, command.offset, True)
        if plan.waits:
            return LongPoll(self, exchange, command, plan, deadline)
        await send(exchange, await self.catchup.answer(command, accepted(exchange), plan))
        return None

    async def events(self, exchange: Exchange, command: Read) -> Remote | None:
        """Begin an event stream; the subscriber that goes on with it, None when it has ended already."""
        ends = trio.current_time() + self.reading.config.sse_max
        plan = await self.reading.plan(command.path, command.offset, True)
        exchange.keep_alive = False
        response = responses.sse(not media.is_text(plan.stream.content_type))
        await exchange.start(response)
        return await EventStream(self, exchange, command, plan, ends).begin(plan)

    async def answer(self, command: Read, accept: str | None) -> Answer:
        """As a long-poll, for a caller in this process: returns when there is something to show, or its time is up."""
        deadline = trio.current_time() + self.reading.config.long_poll_timeout
        plan = await self.reading.plan(command.path, command.offset, True)
        plan = await self._wait(command, plan, deadline)
        return await self.catchup.answer(command, accept, plan)

    async def follow(self, command: Read) -> AsyncGenerator[responses.Response, None]:
        """One response after another, each as to a catch-up read, for a caller in this process: until the stream is
        closed or the server stops. Raises ProtocolError, also later on."""
        reading = self.reading
        command.live = None
        limit = min(reading.limit(command), _BATCH)
        plan = await reading.plan(command.path, command.offset, True)
        while True:
            plan = await self._wait(command, plan, math.inf)
            if plan.waits:
                return
            try:
                async with reading.turn():
                    end = await reading.end(plan, limit)
                    data = await reading.data(plan.stream, plan.start, end)
            except Vanished:
                pass  # the next look tells why
            else:
                position = plan.position(end)
                response, _ = self.catchup.response(command, position, None, "")
                response.body = messages.body(position.kind, data)
                yield response
                if position.closed:
                    return
                command.offset = (plan.stream.incarnation, end)
            plan = await reading.plan(command.path, command.offset, True, renew=False)

    async def _wait(self, command: Read, plan: reads.Plan, deadline: float) -> reads.Plan:
        """A plan that doesn't wait, or what there is at the deadline or when the server stops. What `now` was when the
        command came is its offset from here on: what is appended meanwhile is not passed over."""
        command.offset = (plan.stream.incarnation, plan.start)
        while plan.waits and not self.fanout.closing and trio.current_time() < deadline:
            await Subscriber(self.fanout, plan.stream, plan.start, deadline).sleep()
            plan = await self.reading.plan(command.path, command.offset, True, renew=False)
        return plan


class LongPoll(Remote):
    """A GET with `live=long-poll` that has nothing to show yet."""

    __slots__ = ("_live", "_command", "_cursor", "_limit")

    one_shot = True

    def __init__(
        self, live: LiveReads, exchange: Exchange, command: Read, plan: reads.Plan, deadline: float
    ) -> None:
        super().__init__(exchange, live.fanout, plan.stream, plan.start, deadline)
        self._live = live
        self._command = command
        reading = live.reading
        shared = reading.shared_cursor(command.cursor)
        self._cursor = shared or reading.cursor(command.cursor)
        self._limit = min(reading.limit(command), _SHARED)
        if shared and command.max_bytes is None and exchange.keep_alive and not exchange.http10:
            self.key = ("long-poll", shared)

    def encode(self, plan: reads.Plan, data: bytes) -> bytes | None:
        if len(data) > self._limit:
            return None
        # What is sent to many at once is not compressed for some of them.
        response, _ = self._live.catchup.response(self._command, plan.position(plan.tail), None, self._cursor)
        response.body = messages.body(plan.stream.kind, data)
        return self.exchange.encode(response)

    def received(self, data: bytes) -> bool:
        return self.exchange.keep(data) and not self.served

    async def resume(self) -> Remote | None:
        if self.unsent:
            await self.exchange.send(self.unsent)
        if not self.served:
            command = self._command
            command.offset = (self.stream.incarnation, self.position)
            plan = await self._live.reading.plan(command.path, command.offset, True, renew=False)
            if plan.waits and self._woken and not self.over():
                self.again(plan)
                return self
            answer = await self._live.catchup.answer(command, accepted(self.exchange), plan)
            await send(self.exchange, answer)
        return None


class EventStream(Remote):
    """A GET with `live=sse`, from the first event on.

    It ends with its connection: when the stream is closed or gone, when its time is up, or when the
    server stops. Clients come back with the last offset.
    """

    __slots__ = ("_reading", "_path", "_cursor", "_limit")

    def __init__(self, live: LiveReads, exchange: Exchange, command: Read, plan: reads.Plan, ends: float) -> None:
        super().__init__(exchange, live.fanout, plan.stream, plan.start, ends)
        self._reading = live.reading
        self._path = command.path
        # One who is ahead of the others gets a cursor of its own, chosen once: they may not go back.
        self._cursor = None if self._reading.shared_cursor(command.cursor) else self._reading.cursor(command.cursor)
        self._limit = max(reads.CHARACTER, min(self._reading.limit(command), _BATCH))
        if command.max_bytes is None and self._cursor is None:
            self.key = ("sse", exchange.http10)

    @property
    def sign_of_life(self) -> bytes:
        return _COMMENT if self.exchange.http10 else _COMMENT_PART

    def encode(self, plan: reads.Plan, data: bytes) -> bytes | None:
        return None if len(data) > self._limit else self._frame(plan, plan.tail, data)

    def received(self, data: bytes) -> bool:
        return True  # nothing that a client sends during its event stream means anything

    async def begin(self, plan: reads.Plan) -> Remote | None:
        """Send the first events: there is always at least a control event."""
        await self._catch_up(plan)
        return await self._next()

    async def resume(self) -> Remote | None:
        if self.unsent:
            await self.exchange.send(self.unsent)
            self.unsent = b""
        return await self._next()

    async def _next(self) -> Remote | None:
        """Whatever there is to send; then itself, to sleep again, or the end of the response."""
        while not (self.ended or self.over()):
            offset = (self.stream.incarnation, self.position)
            try:
                plan = await self._reading.plan(self._path, offset, True, renew=False)
            except Damaged:
                raise  # cut off, so that nobody takes it for the end
            except ProtocolError:
                break  # deleted, expired or trimmed: the next request is told
            if plan.waits:
                self.again(plan)
                return self
            await self._catch_up(plan)
        if self._fanout.closing and not self.ended:
            # A last word before the server stops: where to go on.
            here = reads.Plan(self.stream, self.position, True)
            await self.exchange.send(self._frame(here, self.position, b""))
        await self.exchange.end()
        return None

    async def _catch_up(self, plan: reads.Plan) -> None:
        """Everything up to the plan's tail, a control event behind every batch."""
        text = media.is_text(plan.stream.content_type)
        reading = self._reading
        while True:
            most = min(self._limit, reading.window(), plan.tail - plan.start)
            # Counted from here on: many may wait for what they read.
            with reading.holding(most):
                async with reading.turn():
                    try:
                        end = await reading.end(plan, most)
                        data = await reading.data(plan.stream, plan.start, end)
                    except Vanished:
                        return  # the next look finds out
                    if text and end < plan.tail:
                        data = reads.whole_text(data) or await self._character(plan)
                        end = plan.start + len(data)
                    frame = self._frame(plan, end, data)
                with reading.holding(max(0, len(data) - most)):
                    del data
                    await self.exchange.send(frame)
            self.spoken = trio.current_time()
            self.position = plan.start = end
            if end == plan.tail:
                self.ended = plan.closed
                return

    async def _character(self, plan: reads.Plan) -> bytes:
        """The next character, where appends meet within it. Raises Vanished."""
        data = await self._reading.data(plan.stream, plan.start, min(plan.tail, plan.start + reads.CHARACTER))
        return reads.whole_text(data) or data

    def _frame(self, plan: reads.Plan, end: int, data: bytes) -> bytes:
        return self.exchange.part(reads.events(plan.position(end), data, self._cursor or self._reading.cursor(None)))
