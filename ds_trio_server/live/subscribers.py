"""The two kinds of live reader: a long-poll, which is answered once, and an event stream.

Between two frames a reader is nothing but its ``Waiter`` and a sleeping task: everything else of
its request has been let go.
"""

from typing import TYPE_CHECKING

import trio

from ds_core.server import reads, responses
from ds_core.server.errors import ProtocolError
from ds_core.server.requests import Read
from ds_core.wire import media

from ..http.readers import Request
from ..reads import compression
from ..reads.reading import Reading
from ..store.base import Vanished
from .fanout import Hub, Waiter

if TYPE_CHECKING:
    from ..app import Handlers
    from ..http.connection import Connection

_BATCH = 256 * 1024
_CHARACTER = 4  # bytes of the longest in UTF-8: a batch of text can't be smaller


class LongPoll(Waiter):
    """A GET with ``live=long-poll`` that has nothing to show yet (protocol section 6)."""

    __slots__ = ("_connection", "_handlers", "_request", "_command", "_cursor", "_limit")

    one_shot = True

    def __init__(
        self,
        connection: "Connection",
        handlers: "Handlers",
        request: Request,
        command: Read,
        plan: reads.Plan,
        deadline: float,
    ) -> None:
        super().__init__(connection.transport, plan.stream, plan.start, deadline)
        self._connection = connection
        self._handlers = handlers
        self._request = request
        self._command = command
        reading = handlers.reading
        shared = reading.shared_cursor(command.cursor)
        self._cursor = shared or reading.cursor(command.cursor)
        self._limit = reading.limit(command)
        if shared and command.max_bytes is None and request.keep_alive and not request.http10:
            self.key = ("long-poll", shared)

    def encode(self, plan: reads.Plan, data: bytes) -> bytes | None:
        if len(data) > self._limit:
            return None
        position = plan.position(plan.tail)
        reading = self._handlers.reading
        response = reads.answer(self._command, position, data, self._cursor, reading.cache_control)
        response.headers += reading.vary[compression.is_worthwhile(position.content_type, len(response.body))]
        head = self._connection.head(self._request, response, "", len(response.body))
        return head + response.body

    def received(self, data: bytes) -> bool:
        return self._connection.push(data) and not self.served

    async def resume(self) -> None:
        if self.unsent:
            await self.transport.send_all(self.unsent)
        if not self.served:
            self._command.offset = (self.stream.incarnation, self.position)
            plan = await self._handlers.reading.plan(self._command.path, self._command.offset, True, renew=False)
            await self._handlers.answer(self._connection, self._request, self._command, plan)


class EventStream(Waiter):
    """A GET with ``live=sse``, from the first event on (protocol section 6).

    It ends with its connection: when the stream is closed or gone, when its time is up, or when the
    server stops. Clients come back with the last offset.
    """

    __slots__ = ("_reading", "_hub", "_framed", "_path", "_cursor", "_limit")

    def __init__(
        self, connection: "Connection", hub: Hub, reading: Reading, command: Read, plan: reads.Plan, ends: float,
        framed: bool,
    ) -> None:  # fmt: skip
        super().__init__(connection.transport, plan.stream, plan.start, ends)
        self._reading = reading
        self._hub = hub
        self._framed = framed
        self._path = command.path
        # One who is ahead of the others gets a cursor of its own, chosen once: they may not go back.
        self._cursor = None if reading.shared_cursor(command.cursor) else reading.cursor(command.cursor)
        self._limit = max(_CHARACTER, min(reading.limit(command), _BATCH))
        if command.max_bytes is None and self._cursor is None:
            self.key = ("sse", framed)

    def encode(self, plan: reads.Plan, data: bytes) -> bytes | None:
        return None if len(data) > self._limit else self._frame(plan, plan.tail, data)

    def received(self, data: bytes) -> bool:
        return True  # nothing that a client sends during its event stream means anything

    async def begin(self, plan: reads.Plan) -> Waiter | None:
        """Send the first events: there is always at least a control event."""
        await self._catch_up(plan)
        return await self._next()

    async def resume(self) -> Waiter | None:
        if self.unsent:
            await self.transport.send_all(self.unsent)
            self.unsent = b""
        return await self._next()

    async def _next(self) -> Waiter | None:
        """Whatever there is to send; then itself, to sleep again, or the end of the response."""
        while not (self.ended or self._hub.closing or trio.current_time() >= self.deadline):
            here = (self.stream.incarnation, self.position)
            try:
                plan = await self._reading.plan(self._path, here, True, renew=False)
            except ProtocolError:
                break  # deleted, expired or trimmed: the next request is told
            if plan.waits:
                self.stream = plan.stream
                self._woken = False
                return self
            await self._catch_up(plan)
        if self._hub.closing and not self.ended:
            # A last word before the server stops: where to go on.
            last = reads.Plan(self.stream, self.position, True)
            await self.transport.send_all(self._frame(last, self.position, b""))
        if self._framed:
            await self.transport.send_all(b"0\r\n\r\n")
        return None

    async def _catch_up(self, plan: reads.Plan) -> None:
        """Everything up to the plan's tail, a control event behind every batch."""
        text = media.is_text(plan.stream.content_type)
        reading = self._reading
        while True:
            most = min(self._limit, reading.window(), plan.tail - plan.start)
            # Counted from here on: many may wait for what they read.
            with reading.holding(most):
                try:
                    end = await reading.end(plan, most)
                    data = await reading.data(plan.stream, plan.start, end)
                except Vanished:
                    return  # the next look finds out
                if text and end < plan.tail:
                    data = whole_characters(data)
                    end = plan.start + len(data)
                with reading.holding(max(0, len(data) - most)):
                    await self.transport.send_all(self._frame(plan, end, data))
            self.position = plan.start = end
            if end == plan.tail:
                self.ended = plan.closed
                return

    def _frame(self, plan: reads.Plan, end: int, data: bytes) -> bytes:
        events = reads.events(plan.position(end), data, self._cursor or self._reading.cursor(None))
        return b"%x\r\n%b\r\n" % (len(events), events) if self._framed else events


def whole_characters(data: bytes) -> bytes:
    """Without a UTF-8 character that is cut at the end, unless there is nothing else."""
    for back in range(1, min(4, len(data))):
        if data[-back] >= 0xC0:
            width = 2 if data[-back] < 0xE0 else 3 if data[-back] < 0xF0 else 4
            return data[:-back] if back < width else data
        if data[-back] < 0x80:
            break
    return data


async def start_events(
    connection: "Connection", handlers: "Handlers", request: Request, command: Read, ends: float
) -> Waiter | None:
    """Begin an event stream; the waiter that goes on with it, None when it has ended already."""
    plan = await handlers.reading.plan(command.path, command.offset, True)
    request.keep_alive = False
    await connection.start(request, responses.sse(not media.is_text(plan.stream.content_type)))
    stream = EventStream(connection, handlers.hub, handlers.reading, command, plan, ends, not request.http10)
    return await stream.begin(plan)
