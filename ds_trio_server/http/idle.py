"""Connections between two requests: sockets, one epoll, and how long each may live.

A connection at rest has no task, only a place in one epoll set. When bytes come and they are one whole request of the
plain kind (a strict head, a small body), the application is asked for an answer without waiting, now or when a commit
has made it durable. What can't be answered like that goes to a task of its own (`Connection.run`), from the same
bytes on, and comes back to rest when it is done: a large request, a live read, a cold one, whatever h11 must look at.

Where there is no epoll, every connection has its task and nothing else changes.
"""

import logging
import os
import re
import select
from collections import deque
from collections.abc import Callable
from typing import TypeVar

import trio

from ds_core.server import heads
from ds_core.server.responses import Response

from ..config import Config
from .connection import Connection
from .exchange import Application, Exchange
from .readers import begin
from .transport import RESTING, Disconnected

log = logging.getLogger("ds")

T = TypeVar("T")

_AT_ONCE = 64
_APPENDS_A_TURN = 32
_APPENDS_OF_CROWDS = 256
_OTHERS_A_TURN = 8
_RECEIVE = 65536
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,9}) *\r\n", re.IGNORECASE)
_NONE = Response(500, [])
_FOREVER = float("inf")


class IdleConnections:
    """The connections at rest of one server.

    `serve(connection, unsent)` must give a connection its task, which first sends the bytes that
    the socket did not take; `closed(connection)` is told of those that ended here.
    """

    def __init__(
        self,
        app: Application,
        config: Config,
        serve: Callable[[Connection, bytes | memoryview], None],
        closed: Callable[[Connection], None],
    ) -> None:
        self._app = app
        self._largest_body = config.max_body
        self._serve = serve
        self._closed = closed
        self._epoll = select.epoll()
        self._watched: dict[int, Connection] = {}
        self._answering: set[Connection] = set()
        self._pipelines: dict[Connection, _Pipeline] = {}
        # Those that are to go on, in their order, and what wakes the loop for them.
        self._more: deque[Connection] = deque()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._bell, select.EPOLLIN)
        self._empty = trio.Event()

    def add(self, connection: Connection) -> bool:
        """Take over a connection that waits for nobody; False when there is no room for it here."""
        connection.idle = True
        connection.transport.deadline = RESTING
        number = connection.transport.fileno()
        if number not in self._watched:
            try:
                self._epoll.register(number, select.EPOLLIN)
            except OSError:  # the system's own limit of files to watch, say
                return False
            self._watched[number] = connection
        if connection.closing:
            connection.stop()
        elif connection.ahead:
            self._begin_pipeline(connection)
        return True

    async def run(self) -> None:
        """Have requests answered, until cancelled."""
        try:
            while True:
                if self._more:
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                # So many at once, then the tasks have their turn.
                for number, _ in self._epoll.poll(0, _AT_ONCE):
                    if number == self._bell:
                        os.eventfd_read(number)
                    elif (connection := self._watched.get(number)) is not None:
                        self._attend(self._receive, connection)
                # And about as many of those that came in crowds, a few of each connection.
                budget = _AT_ONCE
                for _ in range(len(self._more)):
                    if budget <= 0:
                        break
                    connection = self._more.popleft()
                    budget -= self._attend(self._go_on, connection) or 1
        finally:
            os.close(self._bell)
            for connection in {*self._watched.values(), *self._answering}:
                connection.transport.close_nowait()
            trio.lowlevel.notify_closing(self._epoll.fileno())
            self._epoll.close()

    def _attend(self, step: Callable[[Connection], T], connection: Connection) -> T | None:
        try:
            return step(connection)
        except Exception:
            log.exception("a connection failed inside the server")
            self._end(connection)
            return None

    async def drain(self) -> None:
        """Wait until every connection is gone, when the server takes no new ones."""
        while self._watched or self._answering:
            self._empty = trio.Event()
            await self._empty.wait()

    def _unwatch(self, connection: Connection) -> None:
        number = connection.transport.fileno()
        if self._watched.pop(number, None) is not None:
            self._epoll.unregister(number)

    def _leave(self, connection: Connection) -> None:
        self._unwatch(connection)
        if not self._watched and not self._answering:
            self._empty.set()

    def _end(self, connection: Connection) -> None:
        self._answering.discard(connection)
        self._pipelines.pop(connection, None)
        self._leave(connection)
        connection.transport.close_nowait()
        self._closed(connection)

    # Requests

    def _receive(self, connection: Connection) -> None:
        if connection in self._answering:
            # It has sent more than was asked for, or is gone: that can wait until it is answered.
            self._unwatch(connection)
            return
        try:
            data = connection.transport.receive_nowait(_RECEIVE)
        except Disconnected:
            data = b""
        if data is None:
            return
        if not data:
            self._end(connection)
            return
        exchange = self._exchange(connection, data)
        if exchange is not None:
            # From here on it may wait for its commit, which may have come before the application returns.
            self._answering.add(connection)
            connection.idle = False
            connection.transport.deadline = _FOREVER
            try:
                self._app.answer_nowait(exchange)
                return
            except trio.WouldBlock:
                self._answering.discard(connection)
            except Exception as error:
                self._fail(exchange, error)
                return
        elif self._first(connection, data) is not None:
            connection.ahead = data
            self._begin_pipeline(connection)
            return
        # Nothing has happened: a task begins with the same bytes.
        connection.ahead = data
        self._hand_over(connection)

    def _hand_over(self, connection: Connection, unsent: bytes | memoryview = b"") -> None:
        """Give a connection its task, which begins with what came `ahead`."""
        self._leave(connection)
        self._serve(connection, unsent)

    def _exchange(self, connection: Connection, data: bytes) -> Exchange | None:
        """The request that these bytes are, if they are one, whole and plain."""
        end = data.find(heads.END) + len(heads.END)
        if end < len(heads.END) or end > heads.MAX_HEAD:
            return None
        head = heads.parse(data[:end], True)
        if head is None or head.length != len(data) - end or head.length > self._largest_body:
            return None
        if "expect" in head.headers:
            return None
        return Exchange(
            connection, head.method, head.target, head.headers, head.length, False, data[end:], self._finish
        )

    def _first(self, connection: Connection, data: bytes) -> tuple[Exchange, bytes] | None:
        """The request that these bytes begin with, if it is whole and plain, and what follows it."""
        data = begin(data)
        end = data.find(heads.END) + len(heads.END)
        if len(heads.END) <= end <= heads.MAX_HEAD:
            size = end + _length(data[:end])
            if end <= size <= len(data):
                exchange = self._exchange(connection, data[:size])
                if exchange is not None:
                    return exchange, data[size:]
        return None

    def _fail(self, exchange: Exchange, error: Exception) -> None:
        """Answer a request that the application raised an exception for."""
        if exchange.started:
            log.error("a request failed inside the server behind its answer", exc_info=error)
        self._finish(exchange, _NONE, error)

    def _finish(self, exchange: Exchange, response: Response, error: Exception | None) -> None:
        """Send an answer: as far as the socket takes it here, the rest by a task."""
        if exchange.started:
            return  # it has failed meanwhile, and its client was told
        exchange.started = True
        connection: Connection = exchange.connection  # type: ignore[assignment]  # `_exchange` made it of one
        try:
            if error is not None:
                response = self._app.refused(exchange, error)
            data = exchange.encode(response)
        except Exception:
            log.exception("an answer failed inside the server; its connection is closed")
            data, exchange.keep_alive = b"", False
        if self._pipelines and (pipeline := self._pipelines.get(connection)) is not None:
            pipeline.answers[exchange] = data
            pipeline.outstanding -= 1
            if not pipeline.outstanding and not pipeline.going_on:
                self._flush(connection, pipeline)
            return
        self._send(connection, data, exchange.keep_alive)

    def _send(self, connection: Connection, data: bytes, keep_alive: bool) -> None:
        """Send answers; then the connection ends, or comes to rest, or goes on in a task."""
        self._answering.discard(connection)
        try:
            sent = connection.transport.send_nowait(data)
        except Disconnected:
            self._end(connection)
            return
        if connection.closing or not keep_alive:
            # Its task sees to it that the client gets to read all of this.
            connection.closing = connection.parting = True
            connection.ahead = b""
            self._hand_over(connection, memoryview(data)[sent:] if sent < len(data) else b"")
        elif sent < len(data):
            self._hand_over(connection, memoryview(data)[sent:])
        elif connection.ahead or not self.add(connection):
            self._hand_over(connection)

    # Requests that come many at once

    def _begin_pipeline(self, connection: Connection) -> None:
        self._answering.add(connection)
        self._pipelines[connection] = _Pipeline()
        self._later(connection)

    def _later(self, connection: Connection) -> None:
        """Let a connection go on when it is its turn."""
        if not self._more:
            os.eventfd_write(self._bell, 1)  # the loop may be asleep
        self._more.append(connection)

    def _go_on(self, connection: Connection) -> int:
        """Have some of the requests that came ahead answered: in order, each as if it had come alone.

        An append may follow appends that are not durable yet, as it is decided on top of them: so they share commits.
        Anything else waits until all before it are. The more connections there are like this, the fewer appends of each
        share a commit: who sends one waits for it, too. Returns how many it were.
        """
        pipeline = self._pipelines.get(connection)
        if pipeline is None:
            return 0  # it ended meanwhile
        self._answering.add(connection)
        connection.idle = False
        connection.transport.deadline = _FOREVER
        pipeline.going_on = True
        blocked = False
        others = 0
        most = max(1, min(_APPENDS_A_TURN, _APPENDS_OF_CROWDS // len(self._pipelines)))
        while len(pipeline.answers) < most and others < _OTHERS_A_TURN and not connection.closing:
            found = self._first(connection, connection.ahead)
            if found is None:
                blocked = True
                break
            exchange, behind = found
            waiting = pipeline.outstanding
            if waiting and exchange.method != "POST":
                break
            pipeline.answers[exchange] = b""
            pipeline.outstanding += 1
            try:
                self._app.answer_nowait(exchange)
            except trio.WouldBlock:
                del pipeline.answers[exchange]
                pipeline.outstanding -= 1
                blocked = True
                break
            except Exception as error:
                self._fail(exchange, error)
            others += pipeline.outstanding == waiting  # answered already, with no commit to share
            connection.ahead = behind
            if not exchange.keep_alive or not behind:
                break
        pipeline.going_on = False
        # What can't be answered here is tried again behind the others, and then by a task.
        count = len(pipeline.answers)
        pipeline.blocked = blocked and not count
        if not pipeline.outstanding:
            self._flush(connection, pipeline)
        return count

    def _flush(self, connection: Connection, pipeline: "_Pipeline") -> None:
        """Send all answers there are, in order."""
        data = b"".join(pipeline.answers.values())
        keep_alive = all(exchange.keep_alive for exchange in pipeline.answers)
        pipeline.answers.clear()
        if keep_alive and connection.ahead and not pipeline.blocked and not connection.closing:
            try:
                sent = connection.transport.send_nowait(data)
            except Disconnected:
                sent, keep_alive = 0, False
            if keep_alive and sent == len(data):
                self._later(connection)
                return
            data = data[sent:]
        del self._pipelines[connection]
        self._send(connection, data, keep_alive)


def _length(head: bytes) -> int:
    """A guess at what follows a head, which the parser then confirms or not."""
    found = _LENGTH.search(head)
    return int(found[1]) if found else 0


class _Pipeline:
    """Requests of one connection that came at once: `answers` in their order, empty while `outstanding`; `blocked`
    when what is still ahead can't be answered without a task."""

    __slots__ = ("answers", "outstanding", "blocked", "going_on")

    def __init__(self) -> None:
        self.answers: dict[Exchange, bytes] = {}
        self.outstanding = 0
        self.blocked = self.going_on = False
