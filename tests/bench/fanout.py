"""Live readers by the thousand: one thread, one epoll, and no more work per event than finding a mark in it."""

from __future__ import annotations

import contextlib
import gc
import resource
import select
import socket
import struct
import time
from types import TracebackType
from typing import NamedTuple

from .subjects import Server

KIND = "text/plain"  # its events carry the payload as it is, so that a reader need not decode to find the mark
_SOCKETS_PER_ADDRESS = 20_000
_AT_ONCE = 200
_RESET = struct.pack("ii", 1, 0)


class Arrival(NamedTuple):
    """Seconds from the append's send; `cpu` is what this client itself used meanwhile."""

    median: float
    last: float
    cpu: float


class Readers:
    """`count` live readers (`live` is "sse" or "long-poll") of one text/plain stream, from its tail."""

    def __init__(self, server: Server, path: str, live: str, count: int) -> None:
        self._server = server
        self._path = server.root + path
        self._live = live
        self._poll = select.epoll()
        self._readers: dict[int, socket.socket] = {}
        self._marks = 0
        self._writer = self._connect("127.0.0.1")
        allow_files(count + 100)
        try:
            while len(self._readers) < count:
                self._add(min(_AT_ONCE, count - len(self._readers)))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Reset every connection, so that no port is kept in TIME_WAIT."""
        for sock in (self._writer, *self._readers.values()):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            sock.close()
        self._readers.clear()
        self._poll.close()

    def _connect(self, source: str) -> socket.socket:
        sock = socket.create_connection((self._server.host, self._server.port), 30, (source, 0))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def _add(self, count: int) -> None:
        """Some more readers, asleep at the tail when this returns (as far as a client can see)."""
        new = [self._connect(f"127.0.0.{1 + len(self._readers) // _SOCKETS_PER_ADDRESS}") for _ in range(count)]
        for sock in new:
            sock.setblocking(False)
            self._readers[sock.fileno()] = sock
            self._poll.register(sock, select.EPOLLIN)
            self._ask(sock, "now")
        if self._live == "sse":
            self._wait_for(b"event: control", {sock.fileno() for sock in new})

    def _ask(self, sock: socket.socket, offset: str) -> None:
        sock.send(f"GET {self._path}?live={self._live}&offset={offset} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    def _wait_for(self, mark: bytes, waiting: set[int], seconds: float = 30) -> list[float]:
        """Until each of these readers has received `mark`; the times they did, on the performance counter."""
        deadline = time.monotonic() + seconds
        arrived: list[float] = []
        before: dict[int, bytes] = {}
        clock = time.perf_counter
        while waiting:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(waiting)} of {len(self._readers)} {self._live} readers got no event")
            for number, _ in self._poll.poll(1):
                try:
                    data = self._readers[number].recv(16384)
                except BlockingIOError:
                    continue
                if not data:
                    raise RuntimeError(f"the server ended a {self._live} reader: {before.get(number, b'')!r}")
                if number not in waiting:
                    continue
                if mark in data or mark in before.get(number, b"") + data:
                    arrived.append(clock())
                    waiting.discard(number)
                else:
                    before[number] = before.get(number, b"") + data
        return arrived

    def append(self, size: int = 100) -> Arrival:
        """Append once, wait until every reader has it."""
        self._marks += 1
        mark = b"<%08d>" % self._marks
        head = f"POST {self._path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {KIND}\r\n"
        head += f"Content-Length: {size}\r\n\r\n"
        request = head.encode() + mark.rjust(size, b".")
        gc.disable()
        try:
            cpu, start = time.process_time(), time.perf_counter()
            self._writer.sendall(request)
            arrived = self._wait_for(mark, set(self._readers))
            cpu = time.process_time() - cpu
        finally:
            gc.enable()
        offset = self._next_offset(self._writer.recv(65536))
        if self._live != "sse":
            for sock in self._readers.values():
                self._ask(sock, offset)
        times = sorted(moment - start for moment in arrived)
        return Arrival(times[len(times) // 2], times[-1], cpu)

    @staticmethod
    def _next_offset(answer: bytes) -> str:
        for line in answer.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"stream-next-offset":
                return value.strip().decode()
        raise RuntimeError(f"not an answer to an append: {answer!r}")


def allow_files(count: int) -> None:
    """Let this process and the servers it starts hold so many open sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= count:
        return
    if hard < count:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))
            return
        except (ValueError, OSError):
            raise RuntimeError(f"{count} open files are needed, the limit is {hard}: ulimit -Hn {count}") from None
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
