"""A connected socket: receive, send, and send at once from anywhere without waiting.

Deadlines cost nothing per request: a transport carries the time by which it must have made
progress, and the server's sweep (`expire`) shuts down the side that is overdue, which wakes
whatever waits on it.
"""

import socket

import trio

from ..addresses import LOCAL, plain

RESTING = float("-inf")
"""The deadline of a transport that waits for its next request: the next sweep says how long it may. So a request
costs no look at the clock."""

_MOST_DRAINED = 256 * 1024
"""What a peer may go on sending while it reads its last answer."""


class Disconnected(Exception):
    """The peer is gone, or was cut off because it made no progress."""


class Transport:
    """A non-blocking TCP socket in the hands of one task.

    `deadline` is on trio's clock, or RESTING; `overdue` tells that it has passed. `send_nowait` may be called
    by other tasks while the owner waits in `wait_readable`. `identities` are the names that the
    peer has proved to be its own.
    """

    __slots__ = ("_socket", "_send_timeout", "_sending", "deadline", "overdue", "peer", "identities")

    scheme = "http"

    def __init__(self, sock: socket.socket, send_timeout: float) -> None:
        sock.setblocking(False)
        if sock.family != getattr(socket, "AF_UNIX", None):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._send_timeout = send_timeout
        self._sending = False
        self.deadline = float("inf")
        self.overdue = False
        self.peer = plain(sock.getpeername()[0]) if sock.family != socket.AF_UNIX else LOCAL
        self.identities: tuple[str, ...] = ()

    async def receive(self, most: int = 65536) -> bytes:
        """Some bytes, empty at the end of the stream. Always lets other tasks run."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._socket)
                try:
                    return self._socket.recv(most)
                except BlockingIOError:
                    pass  # woken for nothing
        except OSError as error:
            raise Disconnected from error  # whatever it was, nothing more comes of this socket

    async def wait_readable(self) -> None:
        """Return when the peer sent something or hung up."""
        try:
            await trio.lowlevel.wait_readable(self._socket)
        except OSError as error:
            raise Disconnected from error

    def hung_up(self) -> bool:
        """Whether the peer has closed, and sent nothing before."""
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def receive_nowait(self, most: int = 65536) -> bytes | None:
        """What is there now: None when nothing is, empty at the end of the stream."""
        try:
            return self._socket.recv(most)
        except BlockingIOError:
            return None
        except OSError as error:
            raise Disconnected from error

    def send_nowait(self, data: bytes | memoryview) -> int:
        """How many bytes the kernel took at once; may be none."""
        return self._push(data)

    def _push(self, data: bytes | memoryview) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise Disconnected from error

    async def send_all(self, data: bytes | memoryview) -> None:
        """Send everything; the deadline moves as long as the peer takes something."""
        sent = self._push(data)
        if sent == len(data):
            return
        rest = memoryview(data)[sent:]
        self._sending = True
        while rest:
            self.deadline = trio.current_time() + self._send_timeout
            try:
                await trio.lowlevel.wait_writable(self._socket)
            except OSError as error:
                raise Disconnected from error
            rest = rest[self._push(rest) :]
        self._sending = False
        self.deadline = float("inf")

    def expire(self, rested: float) -> None:
        """Cut off a peer that is overdue: its reads end, and its writes fail. One that has come to rest since the last
        sweep may do so up to `rested`."""
        if self.deadline == RESTING:
            self.deadline = rested
            return
        self.overdue = True
        self.deadline = float("inf")
        # Shutting down the reading side wouldn't wake a task that waits to write.
        self._shut(socket.SHUT_RDWR if self._sending else socket.SHUT_RD)

    def stop_receiving(self) -> None:
        """Let a wait for the next request end as if the peer had closed."""
        self._shut(socket.SHUT_RD)

    def cut(self) -> None:
        """End both directions at once, whatever is still to be sent."""
        self._shut(socket.SHUT_RDWR)

    def _shut(self, how: int) -> None:
        try:
            self._socket.shutdown(how)
        except OSError:
            pass  # it is gone already, in whatever way

    async def close(self, linger: float = 0.0) -> None:
        """Close; with `linger` first let the peer read an answer to a request it is still sending."""
        if linger:
            self._shut(socket.SHUT_WR)
            drained = 0
            with trio.move_on_after(linger, shield=True):
                try:
                    while drained < _MOST_DRAINED and (received := await self.receive()):
                        drained += len(received)
                except Disconnected:
                    pass
        self.close_nowait()

    def close_nowait(self) -> None:
        """Close at once."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    def fileno(self) -> int:
        """The number of the socket's file."""
        return self._socket.fileno()
