"""The same names on asyncio: `await s.append(...)`, `async for item in s.read(...)`, `await box.flush()`.

The flows are those of the blocking client; only the transport differs. One Stream is one connection: what several tasks
ask of it is done one after the other, in the order of asking. Cancelling is safe, the next call opens a new connection.
"""

import asyncio
import errno
import sys

import ds_micro.outbox
from ds_core.client.errors import BadResponse, Disconnected, StreamError  # noqa: F401
from ds_core.client.reader import MARK  # noqa: F401
from ds_core.client.refusals import *  # noqa: F403
from ds_core.client.refusals import Timeout
from ds_micro.cursor import Cursor  # noqa: F401
from ds_micro.net import lookup, now
from ds_micro.stream import END, Flows, Items, Result  # noqa: F401

_CPYTHON = sys.implementation.name != "micropython"

if _CPYTHON:
    from ds_micro.cpython import connect, last_words, look_up, unasked, within
else:

    async def within(flow, ms):
        """Await, for at most so long; OSError when it takes longer."""
        try:
            return await asyncio.wait_for_ms(flow, ms)
        except asyncio.TimeoutError:
            raise OSError(errno.ETIMEDOUT)

    async def look_up(host, port, ms):
        """A row of getaddrinfo. (A device's lookup cannot be interrupted.)"""
        return lookup(host, port, ms)


class Net:
    """The transport on asyncio's streams; see ds_micro.net.Net."""

    def __init__(self):
        self._reader = self._writer = self._address = None

    async def open(self, host, port, ms, tls=None):
        """Connect, after closing what was open before."""
        self.close()
        address = self._address or await look_up(host, port, ms())
        self._address = None
        wait = ms()
        if _CPYTHON:
            options = {"ssl": tls.context, "server_hostname": host} if tls else {}
            self._reader, self._writer = await within(connect(address[-1][0], port, **options), wait)
            if tls:
                tls.check(self._writer.get_extra_info("ssl_object"))
        else:
            self._reader = self._writer = await within(_connect(address, tls, host), wait)
        self._address = address

    def close(self):
        """Close at once; what is under way is void."""
        if self._writer:
            if _CPYTHON:
                self._writer.transport.abort()
            else:
                self._writer.s.close()
            self._reader = self._writer = None

    def stale(self):
        """Whether an idle connection is no use any more."""
        if _CPYTHON:
            return unasked(self._reader, self._writer)
        import select

        poll = select.poll()
        poll.register(self._reader.s, select.POLLIN)
        return bool(poll.poll(0))

    async def recv(self, view, ms):
        """Receive into `view`; how many bytes, 0 when the peer has closed."""
        while True:
            wait = ms()
            if _CPYTHON:
                data = await within(self._reader.read(len(view)), wait)
                view[: len(data)] = data
                return len(data)
            n = await within(self._reader.readinto(view), wait)
            if n is not None:  # None: TLS bytes that carry no data
                return n

    async def send(self, view, ms):
        """Send all of `view`."""
        wait = ms()
        self._writer.write(bytes(view) if _CPYTHON else view)
        if _CPYTHON and self._writer.transport.is_closing():
            last_words(self._reader, self._writer.transport)
        await within(self._writer.drain(), wait)

    async def sleep(self, ms):
        """Wait for so many milliseconds."""
        await asyncio.sleep(ms / 1000)


def _connect(address, tls, host):
    """MicroPython, where generators are coroutines: asyncio.open_connection to an address that is known already."""
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
            stream = asyncio.StreamWriter(tls.wrap(s, host))
            while not tls.ready(stream.s):
                yield asyncio.core._io_queue.queue_read(stream.s)
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


class _Turn:
    """A task's place in a Stream's queue; the first is at work."""

    def __init__(self):
        self.task = asyncio.current_task()
        self.event = asyncio.Event()

    async def come(self, url, until):
        """Wait until it is the first; Timeout."""
        if until is None:
            await self.event.wait()
            return
        try:
            await within(self.event.wait(), max(0, until - now()))
        except OSError:
            raise Timeout("others use this Stream", url=url)


class Stream(Flows):
    """As `ds_micro.Stream`, with operations to be awaited, and `async for` over what `read()` returns."""

    _net = Net
    _items = _Items

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self._queue = []

    async def _run(self, flow, until=None):
        """A flow, when all that were there before have ended; Timeout when that is not until `until`."""
        queue = self._queue
        turn = _Turn()
        try:
            if queue and queue[0].task is turn.task:
                raise RuntimeError("in use: by what called back from within")
            queue.append(turn)
            try:
                if queue[0] is not turn:
                    await turn.come(self.url, until)
                return await flow
            finally:
                first = queue[0] is turn
                queue.remove(turn)
                if first and queue:
                    queue[0].event.set()
        finally:
            flow.close()

    _turn = _run


class Outbox(ds_micro.outbox.Outbox):
    """As `ds_micro.Outbox`; `flush` and `close_stream` are to be awaited, and `run` is for a task of its own."""

    _sending = 0  # flushes under way, or waiting for their turn

    def _keep(self, call, *args):
        return call(*args)

    def _alone(self, call, *args):
        if self._sending:
            raise RuntimeError("a flush is under way")
        return call(*args)

    async def flush(self, timeout=30):
        end = now() + int(timeout * 1000 + 0)
        left = await self._queued(self._flush(end), end, None)
        return self.store.records if left is None else left

    async def _queued(self, flow, until, late):
        """A flow, in its turn; `late` when that does not come in time."""
        self._sending += 1
        try:
            return await self._stream._run(flow, until)
        except Timeout as exc:
            self.error = exc
            return late
        finally:
            self._sending -= 1

    async def close_stream(self, timeout=30):
        """Send what waits and close the stream, exactly once; whether it is closed, else `error` says why not."""
        from ds_micro.closing import closing

        end = now() + int(timeout * 1000 + 0)
        return await self._queued(closing(self, end), end, False)

    async def run(self, interval=1.0):
        """For a task of its own: send each batch once it is due (see `count`, `age`).

        Ends with what flush() raises. Then nothing is sent any more: that is in `error`, and told to the loop's
        exception handler, for nobody may be awaiting the task.
        """
        try:
            while True:
                if self.due():
                    await self.flush()
                await asyncio.sleep(interval)
        except Exception as exc:
            self.error = exc
            if _CPYTHON:  # MicroPython's loop tells by itself
                text = "Outbox.run() has ended, nothing is sent any more"
                asyncio.get_running_loop().call_exception_handler({"message": text, "exception": exc})
            raise
