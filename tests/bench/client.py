"""A blocking client: it prepares streams and reads them whole."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import time
from collections.abc import Iterable
from types import TracebackType

from .subjects import Server

OPAQUE = "application/octet-stream"
_KEPT_ALIVE = 2.0  # seconds; shorter than any server's patience with an idle connection


class Client:
    """One kept-alive connection to a server; paths are below the root of its streams."""

    def __init__(self, server: Server) -> None:
        self._root = server.root
        self._connection = http.client.HTTPConnection(server.host, server.port, timeout=120)
        self._used = 0.0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._connection.close()

    def _send(self, method: str, path: str, body: bytes | None, kind: str) -> http.client.HTTPResponse:
        if time.monotonic() - self._used > _KEPT_ALIVE:
            self._connection.close()  # it opens again by itself
        headers = {} if body is None and method != "PUT" else {"Content-Type": kind}
        self._connection.request(method, self._root + path, body, headers)
        answer = self._connection.getresponse()
        self._used = time.monotonic()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {answer.read()[:500]!r}")
        return answer

    def create(self, path: str, kind: str = OPAQUE) -> str:
        """Make a stream, return its tail."""
        return self._offset(self._send("PUT", path, None, kind))

    def append(self, path: str, body: bytes, kind: str = OPAQUE) -> str:
        """Append, return the offset after it."""
        return self._offset(self._send("POST", path, body, kind))

    def delete(self, path: str) -> None:
        self._send("DELETE", path, None, "").read()

    @staticmethod
    def _offset(answer: http.client.HTTPResponse) -> str:
        answer.read()
        return answer.headers["Stream-Next-Offset"]

    def read_whole(self, path: str) -> int:
        """Follow Stream-Next-Offset from the start until up-to-date; return how many bytes there were."""
        buffer, offset, size = bytearray(1 << 20), "-1", 0
        while True:
            answer = self._send("GET", f"{path}?offset={offset}", None, "")
            while taken := answer.readinto(buffer):
                size += taken
            if answer.headers["Stream-Up-To-Date"] == "true":
                return size
            offset = answer.headers["Stream-Next-Offset"]


def fill(
    server: Server,
    requests: Iterable[tuple[str, str, bytes]],
    kind: str = OPAQUE,
    connections: int = 64,
    headers: str = "",
) -> None:
    """Send (method, path, small body) exactly once each, many at a time; `headers` are more lines of each head."""
    todo = iter(requests)
    poll = select.epoll()
    busy: dict[int, socket.socket] = {}

    def send_next(sock: socket.socket) -> bool:
        for method, path, body in todo:
            head = f"{method} {server.root}{path} HTTP/1.1\r\nHost: {server.host}\r\nContent-Type: {kind}\r\n{headers}"
            sock.sendall(b"%bContent-Length: %d\r\n\r\n%b" % (head.encode(), len(body), body))
            return True
        return False

    with contextlib.ExitStack() as stack:
        stack.callback(poll.close)
        for _ in range(connections):
            sock = stack.enter_context(socket.create_connection((server.host, server.port), timeout=60))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not send_next(sock):
                break
            busy[sock.fileno()] = sock
            poll.register(sock, select.EPOLLIN)
        while busy:
            for number, _ in poll.poll(60):
                answer = busy[number].recv(65536)
                if not answer.startswith(b"HTTP/1.1 2"):
                    raise RuntimeError(f"setting up: {answer[:500]!r}")
                if not send_next(busy[number]):
                    poll.unregister(busy.pop(number))
