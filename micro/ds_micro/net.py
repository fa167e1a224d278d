"""One TCP or TLS connection with deadlines, blocking: the transport under `ds_micro.Stream`.

The socket never blocks by itself; `poll` waits, so that connecting, the TLS handshake, each read and each write end in
time on every port. The methods are coroutines that never suspend, for the flows above are shared with asyncio
(`ds_micro.aio` has the other transport). Times are milliseconds. All raise OSError; a passed deadline is errno
ETIMEDOUT.
"""

import errno
import select
import socket
import time

try:
    from time import sleep_ms, ticks_add, ticks_diff, ticks_ms
except ImportError:

    def ticks_ms():
        return int(time.monotonic() * 1000)

    def ticks_diff(a, b):
        return a - b

    def ticks_add(a, b):
        return a + b

    def sleep_ms(ms):
        time.sleep(ms / 1000)


# "Not now": EAGAIN, and what CPython's ssl calls wanting to read (2) or to write (3).
_AGAIN = (errno.EAGAIN, errno.EINPROGRESS, 2, 3)


async def resolve(host, port, ms):
    """The address to connect to. An IP address needs no name server."""
    if not host.replace(".", "").isdigit():
        try:
            from ds_micro.names import lookup  # CPython: with a deadline

            return lookup(host, port, ms)
        except ImportError:
            pass
    return socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0][-1]


class Net:
    """`tls`: a function that wraps a connected socket (ds_micro.tls), or None."""

    resolve = staticmethod(resolve)

    def __init__(self):
        self._socket = None

    async def open(self, address, ms, tls=None, host=None):
        """Connect. Closes what was open before, so that a device never holds two sockets."""
        self.close()
        self._socket = s = socket.socket()
        self._poll = select.poll()
        try:
            s.setblocking(False)
            try:
                s.connect(address)
            except OSError as exc:
                if exc.errno not in _AGAIN:
                    raise
            self._poll.register(s, select.POLLOUT)
            self._wait(select.POLLOUT, ms)
            if tls:
                self._socket = tls(s, host, ms, self._wait)
                self._poll = select.poll()
                self._poll.register(self._socket, select.POLLIN)
        except Exception:
            self.close()
            raise
        s = self._socket
        self._read = s.recv_into if hasattr(s, "recv_into") else s.readinto
        self._write = s.send if hasattr(s, "recv_into") else s.write

    def _wait(self, flag, ms):
        self._poll.modify(self._socket, flag)
        ready = self._poll.poll(ms)
        if not ready:
            raise OSError(errno.ETIMEDOUT, "no progress before the deadline")
        if flag == select.POLLOUT and ready[0][1] & (select.POLLERR | select.POLLHUP):
            raise OSError(errno.ECONNRESET, "not connected")

    def close(self):
        """Close at once; what is under way is void."""
        if self._socket:
            try:
                self._socket.close()
            except OSError:
                pass
            self._socket = None

    def stale(self):
        """Whether an idle connection is no use any more: closed by the peer, or it sent what nobody asked for."""
        self._poll.modify(self._socket, select.POLLIN)
        return bool(self._poll.poll(0))

    async def recv(self, view, ms):
        """Receive into `view`; how many bytes, 0 when the peer has closed."""
        while True:
            try:
                n = self._read(view)
            except OSError as exc:
                if exc.errno not in _AGAIN:
                    raise
                n = None
            if n is not None:
                return n
            self._wait(select.POLLIN, ms)

    async def send(self, view, ms):
        """Send all of `view`; the deadline begins anew with each part that left."""
        while len(view):
            try:
                n = self._write(view)
            except OSError as exc:
                if exc.errno not in _AGAIN:
                    raise
                n = None
            if n:
                view = view[n:]
            else:
                self._wait(select.POLLOUT, ms)

    async def sleep(self, ms):
        sleep_ms(ms)
