"""One TCP or TLS connection with deadlines, blocking: the transport under `ds_micro.Stream`.

The socket never blocks by itself; `poll` waits, so that connecting, the TLS handshake, each read and each write end in
time on every port. The methods are coroutines that never suspend, for the flows above are shared with asyncio
(`ds_micro.aio` has the other transport). Times are milliseconds. All raise OSError; a passed deadline is errno
110.
"""

import errno
import select
import socket

try:
    from time import sleep_ms, ticks_add, ticks_diff, ticks_ms

    Socket = socket.socket

    def lookup(host, port, ms):
        """A row of getaddrinfo; one of IPv4, if there is any."""
        for found in socket.getaddrinfo(host, port):
            if found[0] == socket.AF_INET:
                break
        return found

except ImportError:
    from ds_micro.cpython import Socket, lookup, sleep_ms, ticks_add, ticks_diff, ticks_ms  # noqa: F401

# "Not now": EAGAIN, and what CPython's ssl calls wanting to read (2) or to write (3).
_AGAIN = (errno.EAGAIN, errno.EINPROGRESS, 2, 3)


class Net:
    """`tls`: a function that wraps a connected socket (ds_micro.tls), or None."""

    def __init__(self):
        self._socket = self._address = None

    async def open(self, host, port, ms, tls=None):
        """Connect; `ms()` says how long a step may take. A name is looked up once, and again after a failure.

        Closes what was open before, so that a device never holds two sockets.
        """
        self.close()
        address = self._address or lookup(host, port, ms())
        self._address = None
        self._socket = s = Socket(address[0])
        s.setblocking(False)
        try:
            # TCP_NODELAY: the second packet of a request must not wait for the acknowledgement of the first.
            s.setsockopt(6, 1, 1)
        except OSError:
            pass
        self._poll = select.poll()
        self._poll.register(s)
        self._try(s.connect, address[-1], select.POLLOUT, ms())
        if tls:
            self._socket = s = tls(s, host, ms(), self._wait)
            self._poll = select.poll()
            self._poll.register(s)
        self._address = address

    def _wait(self, flag, ms):
        self._poll.modify(self._socket, flag)
        if not self._poll.poll(ms):
            raise OSError(110)

    def _try(self, call, argument, flag, ms):
        """What the socket says to a call; None, after waiting, when it says "not now"."""
        try:
            done = call(argument)
            if done is not None:
                return done
        except OSError as exc:
            if exc.errno not in _AGAIN:
                raise
        return self._wait(flag, ms)

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
        n = None
        while n is None:
            n = self._try(self._socket.readinto, view, select.POLLIN, ms)
        return n

    async def send(self, view, ms):
        """Send all of `view`; the deadline begins anew with each part that left."""
        while view:
            view = view[self._try(self._socket.write, view, select.POLLOUT, ms) or 0 :]

    async def sleep(self, ms):
        sleep_ms(ms)
