"""Servers of a test's own that answer as they are told: each request has its line in a script, in their order."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable

from tests.micro.listening import Listening


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    if status != 204:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class Scripted(Listening):
    """`script(n)` is what the n-th request (from 0 on) is answered: the bytes, and whether the connection is closed."""

    def __init__(self, script: Callable[[int], tuple[bytes, bool]]) -> None:
        self.script = script
        self.heads: list[bytes] = []
        self.lock = threading.Lock()
        super().__init__()

    def serve(self, conn: socket.socket) -> None:
        with conn, contextlib.suppress(OSError, ValueError):
            file = conn.makefile("rb")
            with file:
                while True:
                    head = b""
                    while not head.endswith(b"\r\n\r\n"):
                        line = file.readline()
                        if not line:
                            return
                        head += line
                    length = [each for each in head.lower().split(b"\r\n") if each.startswith(b"content-length:")]
                    if length:
                        file.read(int(length[0].partition(b":")[2]))
                    with self.lock:
                        self.heads.append(head)
                        data, close = self.script(len(self.heads) - 1)
                    conn.sendall(data)
                    if close:
                        return


class Proxy(Listening):
    """A proxy: CONNECT, and whole URLs of http. `refuse`: a status it answers everything with."""

    def __init__(self, refuse: int = 0) -> None:
        self.refuse = refuse
        self.heads: list[bytes] = []
        super().__init__()

    def serve(self, conn: socket.socket) -> None:
        with conn, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += conn.recv(65536)
            self.heads.append(head)
            if self.refuse:
                conn.sendall(answer(self.refuse, b"no"))
                return
            method, target = head.split(b" ", 2)[:2]
            if method == b"CONNECT":
                host, _, port = target.decode().rpartition(":")
            else:
                host, _, port = target.split(b"/")[2].decode().rpartition(":")
            with socket.create_connection((host, int(port)), 10) as there:
                if method == b"CONNECT":
                    conn.sendall(b"HTTP/1.1 200 go on\r\n\r\n")
                else:
                    there.sendall(head)
                threading.Thread(target=self.pump, args=(there, conn), daemon=True).start()
                self.pump(conn, there)

    def pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


class Secured(Scripted):
    """One behind TLS."""

    def __init__(self, context: ssl.SSLContext, script: Callable[[int], tuple[bytes, bool]]) -> None:
        self.context = context
        super().__init__(script)
        self.url = self.url.replace("http://127.0.0.1", "https://localhost")

    def serve(self, conn: socket.socket) -> None:
        with contextlib.suppress(OSError):
            super().serve(self.context.wrap_socket(conn, server_side=True))
