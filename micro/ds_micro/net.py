"""One TCP or TLS connection with deadlines, blocking: the transport under `ds_micro.Stream`.

The socket never blocks by itself; `poll` waits, so that connecting, the TLS handshake, each read and each write end in
time on every port. The methods are coroutines that never suspend, for the flows above are shared with asyncio
(`ds_micro.aio` has the other transport). Times are milliseconds; `ms` is a function, asked before each wait how long
that may take, so that no dribbling peer extends a caller's deadline. All raise OSError; a passed deadline is errno 110.
"""

import errno
import select
import socket

try:
    from time import sleep_ms, ticks_ms

    Socket = socket.socket

    def lookup(host, port, ms):
        """A row of getaddrinfo; one of IPv4, if there is any."""
        for found in socket.getaddrinfo(host, port):
            if found[0] == socket.AF_INET:
                break
        return found

except ImportError:
    from ds_micro.cpython import Socket, lookup, sleep_ms, ticks_ms

# "Not now": EAGAIN, and what CPython's ssl calls wanting to read (2) or to write (3).
_AGAIN = (errno.EAGAIN, errno.EINPROGRESS, 2, 3)
_READ = 1  # POLLIN and POLLOUT, everywhere
_WRITE = 4
_clock = [0, ticks_ms()]


def now():
    """The time in milliseconds, which never goes round, as long as somebody asks every twelve days: all deadlines,
    pauses and ages are told by it, and nothing else looks at a port's ticks.
    """
    ticks = ticks_ms()
    # A port's ticks go round at 2**30 or at a greater power of two.
    gone = ticks - _clock[1] & 0x3FFFFFFF
    if gone < 0x3FFF0000:  # else it is a little less than before: another thread asked meanwhile
        _clock[0] += gone
        _clock[1] = ticks
    return _clock[0]


class Net:
    """`tls`: what wraps a connected socket (ds_micro.tls), or None."""

    def __init__(self):
        self._socket = self._address = None

    async def open(self, host, port, ms, tls=None):
        """Connect. A name is looked up once, and again after a failure.

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
        self._watch()
        self._try(s.connect, address[-1], _WRITE, ms)
        if tls:
            self._socket = s = tls.wrap(s, host)
            self._watch()
            while not tls.ready(s):
                self._wait(_READ, ms())
        self._address = address

    def _watch(self):
        self._poll = select.poll()
        self._poll.register(self._socket)

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
        return self._wait(flag, ms())

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
        self._poll.modify(self._socket, _READ)
        return self._poll.poll(0)

    async def recv(self, view, ms):
        """Receive into `view`; how many bytes, 0 when the peer has closed."""
        n = None
        while n is None:
            n = self._try(self._socket.readinto, view, _READ, ms)
        return n

    async def send(self, view, ms):
        """Send all of `view`."""
        while view:
            view = view[self._try(self._socket.write, view, _WRITE, ms) or 0 :]

    async def sleep(self, ms):
        sleep_ms(ms)
