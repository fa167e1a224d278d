"""The same names on asyncio: `await s.append(...)`, `async for item in s.read(...)`, `await box.flush()`.

The flows are those of the blocking client; only the transport differs. One Stream is one connection and serves one
task at a time; cancelling is safe, the next call opens a new connection.
"""

import asyncio
import errno
import sys

import ds_micro.outbox
from ds_core.client.errors import BadResponse, Disconnected, StreamError, Timeout  # noqa: F401
from ds_core.client.refusals import *  # noqa: F403
from ds_micro.cursor import Cursor  # noqa: F401
from ds_micro.net import lookup
from ds_micro.stream import END, Flows, Items, Result  # noqa: F401

_CPYTHON = sys.implementation.name != "micropython"


async def _within(awaitable, ms):
    try:
        return await asyncio.wait_for(awaitable, ms / 1000)
    except asyncio.TimeoutError:
        raise OSError(errno.ETIMEDOUT, "no progress in time")


async def _lookup(host, port, ms):
    if not _CPYTHON:
        return lookup(host, port, ms)
    import socket

    from ds_micro.cpython import prefer

    loop = asyncio.get_running_loop()
    return prefer(await _within(loop.getaddrinfo(host, port, type=socket.SOCK_STREAM), ms))


class Net:
    """The transport on asyncio's streams; see ds_micro.net.Net."""

    def __init__(self):
        self._reader = self._writer = self._address = None

    async def open(self, host, port, ms, tls=None):
        self.close()
        address = self._address or await _lookup(host, port, ms())
        self._address = None
        if _CPYTHON:
            options = {"ssl": tls.context, "server_hostname": host} if tls else {}
            opened = asyncio.open_connection(address[-1][0], port, **options)
            self._reader, self._writer = await _within(opened, ms())
            if tls:
                tls.check(self._writer.get_extra_info("ssl_object"))
        else:
            self._reader = self._writer = await _within(_connect(address, tls, host, ms()), ms())
        self._address = address

    def close(self):
        if self._writer:
            if _CPYTHON:
                self._writer.transport.abort()
            else:
                self._writer.s.close()
            self._reader = self._writer = None

    def stale(self):
        if _CPYTHON:
            return self._reader.at_eof() or self._writer.transport.is_closing()
        import select

        poll = select.poll()
        poll.register(self._reader.s, select.POLLIN)
        return bool(poll.poll(0))

    async def recv(self, view, ms):
        if _CPYTHON:
            data = await _within(self._reader.read(len(view)), ms)
            view[: len(data)] = data
            return len(data)
        while True:
            n = await _within(self._reader.readinto(view), ms)
            if n is not None:  # None: TLS bytes that carry no data
                return n

    async def send(self, view, ms):
        if _CPYTHON:
            self._writer.write(bytes(view))
            await _within(self._writer.drain(), ms)
        else:
            self._writer.write(view)
            await _within(self._writer.drain(), ms)

    async def sleep(self, ms):
        await asyncio.sleep(ms / 1000)


def _connect(address, tls, host, ms):
    """MicroPython, where generators are coroutines: asyncio.open_connection to an address that is known already."""
    import select
    import socket

    s = socket.socket(address[0])
    try:
        s.setblocking(False)
        try:
            s.setsockopt(6, 1, 1)  # TCP_NODELAY, as in net
        except OSError:
            pass
        try:
            s.connect(address[-1])
        except OSError as exc:
            if exc.errno != errno.EINPROGRESS:
                raise
        stream = asyncio.StreamWriter(s)
        yield asyncio.core._io_queue.queue_write(s)
        if tls:
            poll = select.poll()

            def wait(flag, ms):
                poll.register(stream.s, flag)
                if not poll.poll(ms):
                    raise OSError(errno.ETIMEDOUT)

            stream = asyncio.StreamWriter(tls(s, host, ms, wait))
        return stream
    except BaseException:
        s.close()
        raise


class _Items(Items):
    def __aiter__(self):
        return self

    async def __anext__(self):
        item = await self.next()
        if item is END:
            raise StopAsyncIteration
        return item


def _awaited(coroutine):
    return coroutine


class Stream(Flows):
    _net = Net
    _items = _Items
    _run = staticmethod(_awaited)


class Outbox(ds_micro.outbox.Outbox):
    async def run(self, interval=1.0):
        """For a task of its own: send each batch once it is due (see `count`, `age`); raises as flush() does."""
        while True:
            if self.due():
                await self.flush()
            await asyncio.sleep(interval)
