"""The smallest HTTP client that a workload needs: one kept-alive connection per worker, on trio."""

from __future__ import annotations

import trio


class Cut(Exception):
    """The server is gone; what was asked last may or may not have happened."""


class Client:
    """Requests to one server, one after the other."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stream: trio.SocketStream | None = None
        self._buffer = b""

    async def __call__(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers with lower-case names, and body. Raises Cut."""
        head = [f"{method} /v1/stream/{path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
        if body or method == "PUT":
            head.append("Content-Type: text/plain")
        head += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        try:
            if self._stream is None:
                self._stream = await trio.open_tcp_stream("127.0.0.1", self._port)
                self._buffer = b""
            await self._stream.send_all("\r\n".join([*head, "", ""]).encode() + body)
            return await self._answer(method)
        except (OSError, trio.BrokenResourceError, EOFError) as error:
            await self.close()
            raise Cut from error

    async def _answer(self, method: str) -> tuple[int, dict[str, str], bytes]:
        while b"\r\n\r\n" not in self._buffer:
            await self._receive()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        length = 0 if method == "HEAD" else int(headers.get("content-length", "0"))
        while len(self._buffer) < length:
            await self._receive()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        if headers.get("connection") == "close":
            await self.close()
        status = int(lines[0].split()[1])
        if status == 503 and b"STORAGE_FAILED" in body:
            raise EOFError  # its storage has failed: as good as gone
        return status, headers, body

    async def _receive(self) -> None:
        assert self._stream is not None
        with trio.move_on_after(20):
            received = await self._stream.receive_some()
            if not received:
                raise EOFError
            self._buffer += received
            return
        raise EOFError

    async def close(self) -> None:
        """Hang up."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            await trio.aclose_forcefully(stream)
