"""What CPython lacks of MicroPython: ticks, files that `flush` makes durable; and what it has beyond: name lookups
and waits that end. Not for a device.
"""

import contextlib
import fcntl
import functools
import os
import select
import socket
import threading
import time
from os.path import dirname, isfile, realpath


def ticks_ms():
    return int(time.monotonic() * 1000)


def sleep_ms(ms):
    time.sleep(ms / 1000)


class Socket(socket.socket):
    """With MicroPython's names of the methods for bytes."""

    readinto = socket.socket.recv_into
    write = socket.socket.send


def lookup(host, port, ms):
    """A row of getaddrinfo, one of IPv4 if there is any; OSError, TimeoutError."""
    if host.replace(".", "").encode().isdigit():
        return socket.AF_INET, (host, port)
    found = []

    def look():
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as exc:
            found.append(exc)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(ms / 1000)
    if not found:
        raise TimeoutError(110, "looking up " + host)
    if isinstance(found[0], OSError):
        raise found[0]
    return prefer(found[0])


def prefer(rows):
    """An IPv4 address, or else the first: a server that listens on one of them listens on that one."""
    for row in rows:
        if row[0] == socket.AF_INET:
            return row
    return rows[0]


def near(name, names):
    """What a misspelt name was meant to be, as the end of a sentence."""
    import difflib

    found = difflib.get_close_matches(name, names, 1)
    return "; did you mean %s?" % found[0] if found else ""


def outdated(text):
    """Warn, where the caller's own code is."""
    import sys
    import warnings

    depth = 2
    while sys._getframe(depth - 1).f_globals.get("__name__", "").startswith(("ds_micro", "contextlib")):
        depth += 1
    warnings.warn(text, DeprecationWarning, stacklevel=depth)


def shown(decorate):
    """The same decorator, but that help() and type checkers see what it decorates."""
    return lambda step: functools.wraps(step)(decorate(step))


def sync(f, folder=None):
    """Make a file durable, and creations and deletions in a folder (or in that of a file)."""
    if f:
        f.flush()
        os.fsync(f.fileno())
    if folder:
        fd = os.open((dirname(folder) or ".") if isfile(folder) else folder, 0)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


class Owners(dict):
    """ds_micro.flash's OWNERS, by what a path means, and with a lock on each folder against other processes: held until
    its owner is closed, or the process ends. (Where a file system has no locks, it has none.)
    """

    _locks: "dict[str, tuple[int, int]]" = {}  # the lock's file, and the process that has it: a fork has not

    def __setitem__(self, path, files):
        key = realpath(path)
        if self.get(path) is files:
            return
        self.pop(path)  # an older owner in this process
        fd = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise RuntimeError("another process has the outbox in " + path) from None
        except OSError:
            pass
        self._locks[key] = fd, os.getpid()
        with contextlib.suppress(PermissionError):  # to read the folder that it is in
            sync(None, dirname(key))  # where it may be new
        super().__setitem__(key, files)

    def get(self, path, default=None):
        key = realpath(path)
        return super().get(key, default) if self._locks.get(key, (0, os.getpid()))[1] == os.getpid() else default

    def pop(self, path, default=None):
        key = realpath(path)
        if key in self._locks:
            os.close(self._locks.pop(key)[0])
        return super().pop(key, default)


OWNERS = Owners()


def replace(path, data):
    """Replace a small file at once."""
    with open(path + ".new", "wb") as f:
        f.write(data)
        sync(f)
    os.rename(path + ".new", path)
    sync(None, path.rpartition("/")[0] or ".")


async def within(flow, ms):
    """Await, for at most so long; OSError when it takes longer. A cancellation is never lost."""
    import asyncio

    try:
        async with asyncio.timeout(ms / 1000):
            return await flow
    except TimeoutError:
        raise OSError(110, "no progress in time") from None


async def look_up(host, port, ms):
    """As lookup(), on asyncio."""
    import asyncio

    loop = asyncio.get_running_loop()
    return prefer(await within(loop.getaddrinfo(host, port, type=socket.SOCK_STREAM), ms))


@functools.cache
def _reader():
    """asyncio's StreamReader, but that what came before the connection broke can be read, for it may say why, and that
    it knows how much is `unread`."""
    import asyncio

    class Reader(asyncio.StreamReader):
        broken = None
        unread = 0

        def feed_data(self, data):
            self.unread += len(data)
            super().feed_data(data)

        def set_exception(self, exc):
            self.broken = exc
            self.feed_eof()

        async def read(self, n=-1):
            data = await super().read(n)
            self.unread -= len(data)
            if not data and self.broken:
                raise self.broken
            return data

    return Reader


async def connect(host, port, **options):
    """As asyncio.open_connection, with such a reader."""
    import asyncio

    loop = asyncio.get_running_loop()
    reader = _reader()()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.create_connection(lambda: protocol, host, port, **options)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def unasked(reader, writer):
    """Whether an idle connection is no use any more: closed by the peer, or it sent what nobody asked for."""
    transport = writer.transport
    if reader.unread or reader.at_eof() or transport.is_closing():
        return True
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))  # it has come, and the loop has not looked yet


def last_words(reader, transport):
    """What the peer had sent when sending to it failed at once: asyncio closes the socket without reading that. (Not of
    TLS, where it is not text yet.)
    """
    fd = transport.get_extra_info("socket").fileno()
    if fd < 0 or transport.get_extra_info("ssl_object"):
        return
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as again:
        again.setblocking(False)
        reader.feed_data(again.recv(65536))
