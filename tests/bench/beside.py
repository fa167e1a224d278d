"""What one client notices while others are at work: small appends, one at a time, beside readers, commands, upkeep.

    python -m tests.bench.beside HOST PORT PATH COUNT       # a process of COUNT event streams that catch up for ever
"""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

from . import load, machine
from .client import Client
from .subjects import Server

_PAUSE = 0.001  # seconds between appends, so that the probe is no load
_TAIL = 200  # bytes; an event that says where a reader is, is shorter


class Probe:
    """Appends 100 bytes to a stream of its own, one at a time."""

    def __init__(self, server: Server, path: str = "probe") -> None:
        with Client(server) as client:
            client.create(path)
        head = f"POST {server.root}{path} HTTP/1.1\r\nHost: {server.host}\r\nContent-Type: application/octet-stream\r\n"
        self._request = head.encode() + b"Content-Length: 100\r\n\r\n" + b"x" * 100
        self._socket = socket.create_connection((server.host, server.port), 60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def append(self) -> float:
        """One append: the seconds until its answer."""
        began = time.perf_counter()
        self._socket.sendall(self._request)
        answer = self._socket.recv(65536)
        if not answer.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(f"an append: {answer[:500]!r}")
        return time.perf_counter() - began

    def until(self, ended: Callable[[], bool]) -> list[float]:
        """Append until something has ended, at least once; the seconds of each, sorted."""
        found = [self.append()]
        while not ended():
            time.sleep(_PAUSE)
            found.append(self.append())
        return sorted(found)

    def during(self, seconds: float) -> list[float]:
        end = time.monotonic() + seconds
        return self.until(lambda: time.monotonic() > end)


def at(times: list[float], share: float) -> float:
    """A percentile of sorted times, in milliseconds."""
    return times[min(len(times) - 1, int(len(times) * share))] * 1000


@contextlib.contextmanager
def reading(server: Server, path: str, connections: int, seconds: float) -> Iterator[Callable[[], bool]]:
    """wrk reads a stream from its start on so many connections for so long; yields whether that has ended."""
    faults: list[BaseException] = []

    def run() -> None:
        try:
            load.run(server, "GET", path + "?offset=-1", connections=connections, seconds=seconds)
        except RuntimeError as fault:
            faults.append(fault)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield lambda: not thread.is_alive()
    finally:
        thread.join()
    if faults:
        raise faults[0]


@contextlib.contextmanager
def catching_up(server: Server, path: str, count: int) -> Iterator[None]:
    """A process of event streams that read from the start to the tail and begin again, until the block ends."""
    words = [server.host, str(server.port), server.root + path, str(count)]
    argv = [sys.executable, "-m", "tests.bench.beside", *words]
    with subprocess.Popen(argv, cwd=machine.ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "caught up\n":
                raise RuntimeError("no event stream has caught up")
            yield
            if process.poll() is not None:
                raise RuntimeError("the event streams have ended")
        finally:
            process.kill()


def _catch_up(host: str, port: int, target: str, count: int) -> None:
    request = f"GET {target}?offset=-1&live=sse HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    poll = select.epoll()
    readers: dict[int, socket.socket] = {}
    tails: dict[int, bytes] = {}

    def begin() -> None:
        sock = socket.create_connection((host, port), 60)
        sock.sendall(request)
        sock.setblocking(False)
        readers[sock.fileno()] = sock
        tails[sock.fileno()] = b""
        poll.register(sock, select.EPOLLIN)

    for _ in range(count):
        begin()
    first = True
    while True:
        for number, _ in poll.poll():
            data = readers[number].recv(1 << 18)
            tails[number] = (tails[number] + data)[-_TAIL:]
            if not data or b'"upToDate"' in tails[number]:
                if first and data:
                    print("caught up", flush=True)
                    first = False
                poll.unregister(number)
                readers.pop(number).close()
                begin()


if __name__ == "__main__":
    _catch_up(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
