"""A real server in this process, on loopback sockets, and a client that sees every byte.

The client is not an HTTP library on purpose: a test says what goes over the wire and asserts what comes back.
It is strict about framing: a body is read exactly as its head announces it, and `ended` fails on anything more.
"""

from __future__ import annotations

import json
import socket
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from ds_core.wire import sse
from ds_trio_server import gateway, server
from ds_trio_server.access.file import Access
from ds_trio_server.access.origins import Origins
from ds_trio_server.config import Config
from ds_trio_server.http import listeners
from ds_trio_server.http.tls import TLS
from ds_trio_server.store.base import Store
from ds_trio_server.store.memory import MemoryStore

ROOT = "/v1/stream/"
SECURITY = {"x-content-type-options": "nosniff", "cross-origin-resource-policy": "cross-origin"}


def small_send_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the sockets of servers that are started from now on hold next to nothing of what they send."""
    listen = listeners.listen

    def small(host: str, port: int) -> list[socket.socket]:
        sockets = listen(host, port)
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        return sockets

    monkeypatch.setattr(listeners, "listen", small)


class Answer:
    """A response: `headers` by lower-case name, `body` with chunks undone but as encoded."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def __repr__(self) -> str:
        return f"<{self.status} {self.headers} {self.body[:200]!r}>"

    def header(self, name: str) -> str | None:
        return self.headers.get(name.lower())

    @property
    def offset(self) -> str:
        return self.headers["stream-next-offset"]

    @property
    def text(self) -> bytes:
        """The body with its content coding undone."""
        return zlib.decompress(self.body, 31) if self.header("content-encoding") == "gzip" else self.body

    @property
    def code(self) -> str:
        """The code of a refusal, whose whole shape is checked on the way."""
        assert self.headers["content-type"] == "application/json", self
        error = json.loads(self.body)
        assert list(error) == ["error"] and sorted(error["error"]) == ["code", "message"], error
        assert error["error"]["message"], error
        code = error["error"]["code"]
        assert isinstance(code, str)
        return code


class Client:
    """One connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.buffer = b""
        self.chunked = False

    async def send(self, data: bytes | str) -> None:
        await self.stream.send_all(data.encode("latin-1") if isinstance(data, str) else data)

    async def more(self) -> bool:
        received = await self.stream.receive_some(65536)
        self.buffer += received
        return bool(received)

    async def until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            assert await self.more(), f"the connection ended; got {self.buffer[:500]!r}"
        found, _, self.buffer = self.buffer.partition(mark)
        return found

    async def exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            assert await self.more(), f"the connection ended; got {self.buffer[:500]!r}, wanted {size} bytes"
        found, self.buffer = self.buffer[:size], self.buffer[size:]
        return found

    async def head(self) -> tuple[int, dict[str, str]]:
        lines = (await self.until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        version, status, _ = lines[0].split(" ", 2)
        assert version == "HTTP/1.1"
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(": ")
            assert colon and name == name.strip() and name.lower() not in headers, line
            headers[name.lower()] = value
        self.chunked = headers.get("transfer-encoding") == "chunked"
        if int(status) >= 200:
            assert SECURITY.items() <= headers.items(), headers
        return int(status), headers

    async def answer(self, method: str = "GET") -> Answer:
        """The next response, read to exactly where its head says that it ends."""
        status, headers = await self.head()
        if method == "HEAD" or status in (100, 204, 304):
            assert "content-length" not in headers or method == "HEAD"
            return Answer(status, headers, b"")
        if self.chunked:
            assert "content-length" not in headers
            parts = [part async for part in self.parts()]
            return Answer(status, headers, b"".join(parts))
        if "content-length" in headers:
            return Answer(status, headers, await self.exactly(int(headers["content-length"])))
        while await self.more():
            pass
        body, self.buffer = self.buffer, b""
        return Answer(status, headers, body)

    async def part(self) -> bytes:
        """The next chunk, empty at the proper end of the body."""
        size = int(await self.until(b"\r\n"), 16)
        data = await self.exactly(size)
        assert await self.exactly(2) == b"\r\n"
        return data

    async def parts(self) -> AsyncIterator[bytes]:
        while part := await self.part():
            yield part

    async def ask(self, method: str, target: str, body: bytes | None = None, **headers: Any) -> Answer:
        await self.send(request(method, target, body, **headers))
        return await self.answer(method)

    async def ended(self) -> None:
        """The server has closed, and there is nothing that was not asked for."""
        try:
            while await self.more():
                pass
        except trio.BrokenResourceError:
            pass
        assert self.buffer == b""

    async def events(self) -> Events:
        """The head of an SSE response; the events follow."""
        status, headers = await self.head()
        assert status == 200 and headers["content-type"] == "text/event-stream", headers
        assert "content-length" not in headers and headers["cache-control"] == "no-cache"
        return Events(self, headers)

    def close(self) -> None:
        if self.stream.socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self.stream.socket)
            self.stream.socket.close()


class Events:
    """Server-sent events, one after the other."""

    def __init__(self, client: Client, headers: dict[str, str]) -> None:
        self.client = client
        self.headers = headers
        self.parser = sse.Parser(1 << 24)
        self.raw = b""

    async def next(self) -> tuple[str, bytes] | None:
        """(name, data), None at the proper end of the response."""
        while (found := self.parser.next()) is sse.NEED_DATA:
            if self.client.chunked:
                part = await self.client.part()
            else:
                part = b""
                if self.client.buffer or await self.client.more():
                    part, self.client.buffer = self.client.buffer, b""
            if not part:
                return None
            self.raw += part
            self.parser.feed(part)
        name, data = found  # type: ignore[misc]
        return str(name), bytes(data)

    async def control(self) -> dict[str, Any]:
        found = await self.next()
        assert found is not None and found[0] == "control", found
        control = json.loads(found[1])
        assert isinstance(control, dict)
        return control

    async def data(self) -> bytes:
        found = await self.next()
        assert found is not None and found[0] == "data", found
        return found[1]

    async def finished(self) -> None:
        found = await self.next()
        assert found is None, found


class Site:
    """The running server."""

    def __init__(self, running: server.Server, store: Store, port: int) -> None:
        self.server = running
        self.store = store
        self.port = port
        self._clients: list[Client] = []
        self.stopped = trio.Event()

    async def connect(self, address: str = "127.0.0.1") -> Client:
        """A connection, from any of this machine's own addresses: it has 2^24 of them."""
        sock = trio.socket.socket()
        await sock.bind((address, 0))
        await sock.connect(("127.0.0.1", self.port))
        client = Client(trio.SocketStream(sock))
        self._clients.append(client)
        return client

    def disconnect(self) -> None:
        for client in self._clients:
            client.close()

    async def ask(self, method: str, target: str, body: bytes | None = None, **headers: Any) -> Answer:
        """One request on a connection of its own."""
        client = await self.connect()
        try:
            return await client.ask(method, target, body, **headers)
        finally:
            client.close()

    async def create(self, path: str, content_type: str = "text/plain", body: bytes = b"", **headers: Any) -> Answer:
        answer = await self.ask("PUT", ROOT + path, body, content_type=content_type, **headers)
        assert answer.status == 201, answer
        return answer

    async def append(self, path: str, body: bytes, content_type: str = "text/plain", **headers: Any) -> Answer:
        answer = await self.ask("POST", ROOT + path, body, content_type=content_type, **headers)
        assert answer.status in (200, 204), answer
        return answer


@asynccontextmanager
async def running(
    store: Store | None = None,
    access: Access | None = None,
    tls: TLS | None = None,
    origins: Origins | None = None,
    **settings: Any,
) -> AsyncIterator[Site]:
    """A server for as long as the block lasts; leaving it is not the orderly end, `site.server.stop()` is."""
    store = store or MemoryStore()
    sockets = listeners.listen("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    async with trio.open_nursery() as nursery:
        sites: list[Site] = []

        async def run(task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
            def started(instance: server.Server) -> None:
                sites.append(Site(instance, store, port))
                task_status.started()

            await gateway.serve(store, Config(**settings), sockets, started, access, tls, origins)
            sites[0].stopped.set()

        await nursery.start(run)
        try:
            yield sites[0]
        finally:
            sites[0].disconnect()
            nursery.cancel_scope.cancel()


def request(method: str, target: str, body: bytes | None = None, **headers: Any) -> bytes:
    """A plain request; `content_type="x"` is the header Content-Type."""
    lines = [f"{method} {target} HTTP/1.1", "Host: test"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value is not None]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body or b"")
