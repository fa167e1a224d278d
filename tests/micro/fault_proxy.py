"""A loopback proxy that breaks connections at a chosen byte, for tests of clients.

    with FaultProxy("127.0.0.1", 4437) as proxy:
        proxy.arm("response", "cut", 17)     # the next connection: 17 bytes of the server's pass, then both sides
        are closed

Directions: "request", "response". Kinds:

    cut       close both sides
    reset     close both sides with RST
    stall     pass nothing more in either direction, but keep the connections
    truncate  end the stream towards the receiver politely (FIN), while the other side goes on

A program in another process arms it over TCP at `control`: a line `response cut 17` is answered with `ok`, a line
`fired` with `1` or `0`. Only the standard library is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading

DIRECTIONS = ("request", "response")
KINDS = ("cut", "reset", "stall", "truncate")


class FaultProxy:
    """Runs in a thread of its own. `port` and `control` are on 127.0.0.1; `fired` tells whether the last fault
    happened."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._tasks: set[asyncio.Task] = set()  # asyncio itself only has weak references
        self._armed: tuple[str, str, int] | None = None
        self.fired = False
        self.port = self.control = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join(10)

    def arm(self, direction: str, kind: str, at: int) -> None:
        """Break the next connection after `at` bytes."""
        assert direction in DIRECTIONS and kind in KINDS
        self.fired = False
        self._armed = (direction, kind, at)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _main(self) -> None:
        self._done = asyncio.Event()
        servers = [
            await asyncio.start_server(self._connection, "127.0.0.1", 0),
            await asyncio.start_server(self._command, "127.0.0.1", 0),
        ]
        self.port, self.control = (server.sockets[0].getsockname()[1] for server in servers)
        self._ready.set()
        await self._done.wait()
        for server in servers:
            server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _command(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while line := (await reader.readline()).decode().split():
                answer = "1" if self.fired else "0"
                if line[0] != "fired":
                    self.arm(line[0], line[1], int(line[2]))
                    answer = "ok"
                writer.write(answer.encode() + b"\n")
                await writer.drain()
        writer.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        armed, self._armed = self._armed, None
        task = asyncio.current_task()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(asyncio.CancelledError):
            await self._relay(reader, writer, armed)

    async def _relay(self, reader, writer, armed) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._server)
        except OSError:
            writer.transport.abort()
            return
        stalled = asyncio.Event()
        up = self._copy(reader, far_writer, "request", armed, stalled, writer)
        down = self._copy(far_reader, writer, "response", armed, stalled, far_writer)
        try:
            await asyncio.gather(up, down)
        finally:
            for one in (writer, far_writer):
                one.transport.abort()

    async def _copy(self, reader, writer, direction, armed, stalled, back) -> None:
        left = armed[2] if armed and armed[0] == direction else None
        with contextlib.suppress(OSError):
            while True:
                data = b"" if left == 0 else await reader.read(min(65536, left or 65536))
                if stalled.is_set():
                    await asyncio.sleep(3600)
                if data:
                    writer.write(data)
                    await writer.drain()
                    if left is not None:
                        left -= len(data)
                elif left == 0:
                    await self._break(armed[1], writer, back, stalled)
                    return
                else:
                    writer.write_eof()
                    return

    async def _break(self, kind, writer, back, stalled) -> None:
        self.fired = True
        if kind == "stall":
            stalled.set()
            await asyncio.sleep(3600)
        if kind == "truncate":
            writer.write_eof()
            return
        for one in (writer, back):
            if kind == "reset":
                sock = one.transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.transport.abort()
            else:
                one.close()
