"""The hot path: what can be answered without waiting is answered without a task.

A connection between two requests is *at rest*: it has no task, only a place in one epoll set. When
bytes come, and they are one whole request of the plain kind (a strict head, a small body) that the
store can answer from memory, it is decided and answered right here; an append is answered by the
commit that makes it durable. Everything else goes to a task of its own (``Connection.run``), from
the same bytes on, and comes back to rest when it is done: a request that is refused, a large one,
a live read, a cold one, whatever h11 must look at. So this module never writes an error.

Where there is no epoll, every connection has its task and nothing else changes.
"""

import logging
import select
from collections.abc import Callable

import trio

from ds_core.server import heads, messages, reads, requests, responses, stream
from ds_core.server.errors import ProtocolError
from ds_core.server.requests import Append, Read
from ds_core.wire import media

from ..app import Handlers, resolve
from ..config import Config
from ..reads import compression
from ..store.base import StorageFailed, Store, Vanished
from .connection import Connection, storage_failed
from .readers import Request
from .transport import Disconnected

log = logging.getLogger("ds")

_AT_ONCE = 64
_RECEIVE = 65536
_LARGEST = 65536


class HotPath:
    """The connections at rest of one server.

    ``serve(connection, unsent)`` must give a connection its task, which first sends the bytes that
    the socket did not take; ``closed(connection)`` is told of those that ended here.
    """

    def __init__(
        self,
        store: Store,
        handlers: Handlers,
        config: Config,
        serve: Callable[[Connection, bytes | memoryview], None],
        closed: Callable[[Connection], None],
    ) -> None:
        self._store = store
        self._handlers = handlers
        self._idle_timeout = config.idle_timeout
        self._largest_body = config.max_body
        self._largest_read = min(config.chunk, _LARGEST)
        self._serve = serve
        self._closed = closed
        self._epoll = select.epoll()
        self._watched: dict[int, Connection] = {}
        self._answering: set[Connection] = set()
        self._empty = trio.Event()

    def rest(self, connection: Connection) -> None:
        """Take over a connection that has nothing to do."""
        connection.idle = True
        connection.transport.deadline = trio.current_time() + self._idle_timeout
        number = connection.transport.fileno()
        if number not in self._watched:
            self._watched[number] = connection
            self._epoll.register(number, select.EPOLLIN)
        if connection.closing:
            connection.stop()

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

    async def run(self) -> None:
        """Answer, until cancelled."""
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
        try:
            answered = self._answer(connection, data)
        except (ProtocolError, trio.WouldBlock, Vanished, StorageFailed):
            answered = False
        except Exception:
            # Nobody knows whether it was decided, so it may not be tried again.
            log.exception("a request failed inside the server; its connection is closed")
            self._end(connection)
            return
        if not answered:
            self._leave(connection)
            connection.push(data)
            self._serve(connection, b"")

    def _answer(self, connection: Connection, data: bytes) -> bool:
        """Whether the bytes are one request that has been decided; if not, nothing has happened."""
        end = data.find(heads.END) + len(heads.END)
        if end < len(heads.END) or end > heads.MAX_HEAD:
            return False
        head = heads.parse(data[:end], True)
        if head is None or head.length != len(data) - end or "expect" in head.headers:
            return False
        if head.length > self._largest_body or head.headers.get("connection", "keep-alive").lower() != "keep-alive":
            return False
        self._handlers.origins.check(head.headers)
        request = Request(head.method, head.target, head.headers, head.length)
        if head.method == "POST":
            return self._append(connection, request, data[end:])
        return head.method == "GET" and head.length == 0 and self._read(connection, request)

    def _append(self, connection: Connection, request: Request, body: bytes) -> bool:
        command = requests.parse("POST", request.target, request.headers, resolve=resolve)
        assert isinstance(command, Append)
        self._handlers.admit(connection.transport, request, command)
        command.body = body
        codecs = self._handlers.codecs
        # From here on it waits for its commit, which may have come before the store returns.
        self._answering.add(connection)
        connection.idle = False
        connection.transport.deadline = float("inf")
        try:
            self._store.transact_nowait(
                command.path,
                lambda view: stream.append(view, command, codecs),
                lambda response, error: self._finish(connection, request, response, error),
            )
        except BaseException:
            self._answering.discard(connection)
            connection.idle = True
            raise
        return True

    def _finish(
        self, connection: Connection, request: Request, response: responses.Response, error: Exception | None
    ) -> None:
        """The store's word on an append: it is durable, or has failed."""
        self._answering.discard(connection)
        try:
            if error is not None:
                refusal = error if isinstance(error, ProtocolError) else storage_failed()
                self._handlers.stats.reject(refusal.status, refusal.code)
                response = responses.refusal(refusal)
                request.keep_alive = isinstance(error, ProtocolError)
            self._send(connection, request, response)
        except Exception:
            log.exception("an answer failed inside the server; its connection is closed")
            self._end(connection)

    def _read(self, connection: Connection, request: Request) -> bool:
        command = requests.parse("GET", request.target, request.headers, resolve=resolve)
        assert isinstance(command, Read)
        if command.live is not None:
            return False
        self._handlers.admit(connection.transport, request, command)
        store, reading = self._store, self._handlers.reading
        plan = store.look_nowait(command.path, lambda view: reads.plan(view, command))
        source, start, end = plan.stream, plan.start, plan.tail
        if end - start > self._largest_read or (command.max_bytes is not None and end - start > command.max_bytes):
            return False
        if source.kind != media.BYTES and source.start < start < end and store.span_nowait(source, start)[0] != start:
            return False  # it may begin inside of a message
        position = plan.position(end)
        response = reads.answer(command, position, b"", "", reading.cache_control)
        worthwhile = compression.is_worthwhile(position.content_type, position.size())
        response.headers += reading.vary[worthwhile]
        if response.status == 200 and start < end:
            if worthwhile and compression.wants_gzip(request.headers.get("accept-encoding")):
                return False
            pieces = store.read_nowait(source, start, end)
            response.body = messages.shown(source.kind, pieces[0] if len(pieces) == 1 else b"".join(pieces))
        self._send(connection, request, response)
        return True

    def _send(self, connection: Connection, request: Request, response: responses.Response) -> None:
        self._handlers.stats.requests += 1
        data = connection.head(request, response, "", len(response.body)) + response.body
        try:
            sent = connection.transport.send_nowait(data)
        except Disconnected:
            self._end(connection)
            return
        if sent < len(data):
            connection.closing = connection.closing or not request.keep_alive
            self._leave(connection)
            self._serve(connection, memoryview(data)[sent:])
        elif connection.closing or not request.keep_alive:
            self._end(connection)
        else:
            self.rest(connection)
