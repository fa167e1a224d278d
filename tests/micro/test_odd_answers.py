"""Servers and proxies that answer at once, early, or with what is no number: told in words, and never a storm."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections import Counter
from pathlib import Path

import pytest

from tests.micro.listening import Listening
from tests.micro.test_suite import ROOT, interpreter, run

HERE = Path(__file__).resolve().parent


class Odd(Listening):
    """Answers as the path says, /KIND/NAME; /count/KIND/NAME tells how many requests there were for that."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        super().__init__()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

    def serve(self, conn: socket.socket) -> None:
        with conn, contextlib.suppress(OSError, ValueError):
            file = conn.makefile("rb", buffering=0)
            while line := file.readline():
                path, _, query = line.split()[1].decode().partition("?")
                length = 0
                while (field := file.readline().strip()) != b"":
                    if field.lower().startswith(b"content-length:"):
                        length = int(field[15:])
                kind = path.split("/")[1]
                if kind != "count" and "live=" in query:
                    self.asked[path] += 1
                if kind.startswith("early"):
                    conn.sendall(answer(int(kind[5:]), "Connection: close", body=b"no"))
                    return  # with the body unread: the connection is reset
                if kind == "hangup":
                    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                while length:
                    length -= len(file.read(length))
                conn.sendall(self.answer(kind, path, query))
                if kind in ("empty", "each") and "live=sse" in query:
                    return

    def answer(self, kind: str, path: str, query: str) -> bytes:
        offset = query.partition("offset=")[2] or "0"
        tail = "Stream-Up-To-Date: true"
        text = "Content-Type: text/plain"
        if kind == "count":
            return answer(200, f"Stream-Next-Offset: {self.asked[path[6:]]}", body=None)
        if kind == "empty":
            if "live=sse" in query:
                control = b'event: control\ndata: {"streamNextOffset":"0","upToDate":true}\n\n'
                control = control if self.asked[path] % 2 else b": nothing\n\n"
                return b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + control
            return answer(204 if "live" in query else 200, "Stream-Next-Offset: 0", tail, text)
        if kind == "each":
            n = int(offset)
            if "live" not in query:
                return answer(200, "Stream-Next-Offset: 0", tail, text)
            closed = n == 39
            if "live=sse" in query:
                control = b'{"streamNextOffset":"%d","upToDate":true%s}' % (n + 1, b',"streamClosed":true' * closed)
                return (
                    b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
                    b"event: data\ndata: x\n\nevent: control\ndata: " + control + b"\n\n"
                )
            more = ["Stream-Closed: true"] if closed else []
            return answer(200, f"Stream-Next-Offset: {n + 1}", tail, text, *more, body=b"x")
        if kind == "deep":
            body = b"[" + b"[" * 3000 + b'"\\u0041"' + b"]" * 3000 + b"]"
            return answer(200, "Stream-Next-Offset: 5", tail, "Content-Type: application/json", body=body)
        if kind == "length":
            return "HTTP/1.1 200 X\r\nStream-Next-Offset: 5\r\nContent-Length: \xb2\r\n\r\n".encode("latin-1")
        if kind == "retry":
            return answer(503, "Retry-After: \xb2")
        fields = {"Producer-Epoch": "1", "Producer-Seq": "0", "Producer-Expected-Seq": "0"}
        fields |= {name: "\xb2" for name in fields if kind in name.lower()}
        lines = [f"{name}: {value}" for name, value in fields.items()]
        return answer(409 if kind == "expected" else 204, "Stream-Next-Offset: 5", *lines)


def answer(status: int, *lines: str, body: bytes | None = b"") -> bytes:
    size = [] if status == 204 else [f"Content-Length: {len(body or b'')}"]
    return ("\r\n".join([f"HTTP/1.1 {status} X", *lines, *size]) + "\r\n\r\n").encode("latin-1") + (body or b"")


@pytest.mark.parametrize("build", ["cpython", 64, 32])
def test_odd_answers(build: int | str, tmp_path: Path) -> None:
    python = interpreter(build)
    if build != "cpython":
        python = [*python, "-X", "heapsize=64m"]
    server = Odd()
    with server.listener:
        run([*python, HERE / "odd_answers.py", ROOT, server.url, tmp_path])
