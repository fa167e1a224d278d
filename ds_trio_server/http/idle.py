"""Connections between two requests: sockets, one epoll, and how long each may live.

A connection at rest has no task, only a place in one epoll set. When bytes come and they are one whole request of the
plain kind (a strict head, a small body), the application is asked for an answer without waiting, now or when a commit
has made it durable. What can't be answered like that goes to a task of its own (`Connection.run`), from the same
bytes on, and comes back to rest when it is done: a large request, a live read, a cold one, whatever h11 must look at.

Where there is no epoll, every connection has its task and nothing else changes.
"""

import logging
import select
from collections.abc import Callable

import trio

from ds_core.server import heads
from ds_core.server.responses import Response

from ..config import Config
from .connection import Connection
from .exchange import Application, Exchange
from .transport import Disconnected

log = logging.getLogger("ds")

_AT_ONCE = 64
_RECEIVE = 65536
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
        self._idle_timeout = config.idle_timeout
        self._largest_body = config.max_body
        self._serve = serve
        self._closed = closed
        self._epoll = select.epoll()
        self._watched: dict[int, Connection] = {}
        self._answering: set[Connection] = set()
        self._empty = trio.Event()

    def add(self, connection: Connection) -> None:
        """Take over a connection that has nothing to do."""
        connection.idle = True
        connection.transport.deadline = trio.current_time() + self._idle_timeout
        number = connection.transport.fileno()
        if number not in self._watched:
            self._watched[number] = connection
            self._epoll.register(number, select.EPOLLIN)
        if connection.closing:
            connection.stop()

    async def run(self) -> None:
        """Have requests answered, until cancelled."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                # So many at once, then the tasks have their turn.
                for number, _ in self._epoll.poll(0, _AT_ONCE):
                    connection = self._watched.get(number)
                    if connection is not None:
                        self._receive(connection)
        finally:
            for connection in {*self._watched.values(), *self._answering}:
                connection.transport.close_nowait()
            trio.lowlevel.notify_closing(self._epoll.fileno())
            self._epoll.close()

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
                if exchange.started:
                    log.exception("a request failed inside the server behind its answer")
                self._finish(exchange, _NONE, error)
                return
        # Nothing has happened: a task begins with the same bytes.
        self._leave(connection)
        connection.keep(data)
        self._serve(connection, b"")

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

    def _finish(self, exchange: Exchange, response: Response, error: Exception | None) -> None:
        """Send an answer: as far as the socket takes it here, the rest by a task."""
        if exchange.started:
            return  # it has failed meanwhile, and its client was told
        connection = exchange.connection
        assert isinstance(connection, Connection)
        self._answering.discard(connection)
        try:
            if error is not None:
                response = self._app.refused(exchange, error)
            data = exchange.encode(response)
            exchange.started = True
            sent = connection.transport.send_nowait(data)
        except Disconnected:
            self._end(connection)
        except Exception:
            log.exception("an answer failed inside the server; its connection is closed")
            self._end(connection)
        else:
            if sent < len(data):
                connection.closing = connection.closing or not exchange.keep_alive
                self._leave(connection)
                self._serve(connection, memoryview(data)[sent:])
            elif connection.closing or not exchange.keep_alive:
                self._end(connection)
            else:
                self.add(connection)
