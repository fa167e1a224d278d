"""Waiting on trio: a transport on its streams."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import trio

from .proxies import Proxied

if TYPE_CHECKING:
    from ds_micro.tls import Wrapper

    from .proxies import Proxy


@contextlib.contextmanager
def _within(ms: float) -> Iterator[None]:
    """OSError when it takes longer, or the connection breaks: what the flows know."""
    with trio.move_on_after(ms / 1000) as scope:
        try:
            yield
        except trio.BrokenResourceError as exc:
            cause = exc.__cause__
            raise cause if isinstance(cause, OSError) else OSError(104, "the connection broke") from None
        except trio.ClosedResourceError:
            raise OSError(104, "the connection was closed here") from None
    if scope.cancelled_caught:
        raise OSError(110, "no progress in time")


class _Records(trio.abc.Stream):
    """What SSLStream reads of a socket: no more than a record at a time, so that it is known whether more has come."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._left = 0  # of the record that is being read
        self.unread = bytearray()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self.unread:
            await trio.lowlevel.checkpoint()
        while len(self.unread) < (1 if self._left else 5):
            more = await self._stream.receive_some(max_bytes)
            if not more:
                break
            self.unread += more
        if not self._left:
            self._left = 5 + int.from_bytes(self.unread[3:5], "big")
        data = bytes(self.unread[: self._left])
        del self.unread[: self._left]
        self._left -= len(data)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Net:
    """See ds_micro.net.Net."""

    def __init__(self) -> None:
        self._stream: Any = None
        self._socket: trio.socket.SocketType | None = None
        self._records: _Records | None = None

    async def open(self, host: str, port: int, ms: Callable[[], int], tls: Wrapper | None = None) -> None:
        """Connect, after closing what was open before."""
        self.close()
        with _within(ms()):
            found = await trio.open_tcp_stream(host, port)
            self._stream = found
            self._socket = found.socket
        if tls:
            await self.secure(tls, host, ms)

    async def secure(self, tls: Wrapper, host: str, ms: Callable[[], int]) -> None:
        """TLS from here on."""
        self._records = _Records(self._stream)
        self._stream = trio.SSLStream(self._records, tls.context, server_hostname=host, https_compatible=True)
        with _within(ms()):
            await self._stream.do_handshake()
        tls.check(self._stream)

    def close(self) -> None:
        """Close at once; what is under way is void."""
        if self._socket:
            self._socket.close()
            self._stream = self._socket = self._records = None

    hang_up = close

    def stale(self) -> object:
        """Whether an idle connection is no use any more."""
        if self._records and (self._records.unread or self._stream.pending()):
            return True
        poll = select.poll()
        poll.register(self._socket.fileno() if self._socket else -1, select.POLLIN)
        return poll.poll(0)

    async def recv(self, view: memoryview, ms: Callable[[], int]) -> int:
        """Receive into `view`; how many bytes, 0 when the peer has closed."""
        with _within(ms()):
            data: bytes = await self._stream.receive_some(len(view))
        view[: len(data)] = data
        return len(data)

    async def send(self, view: memoryview, ms: Callable[[], int]) -> None:
        """Send all of `view`."""
        with _within(ms()):
            await self._stream.send_all(bytes(view))

    async def sleep(self, ms: float) -> None:
        """Wait for so many milliseconds."""
        await trio.sleep(ms / 1000)


class Net(Proxied, _Net):
    """The transport on trio, through a proxy if need be."""

    secure = _Net.secure


class OnTrio:
    """See waiting.Waiting."""

    name = "trio"

    def net(self, proxy: Proxy | None) -> Net:
        """A transport."""
        return Net(proxy)

    def event(self) -> trio.Event:
        """An event."""
        return trio.Event()

    async def wait(self, event: trio.Event, ms: float) -> bool:
        """Until it is set; False when it is not in time."""
        with trio.move_on_after(max(0, ms) / 1000):
            await event.wait()
        return event.is_set()

    def end(self) -> None:
        """Nothing to do."""
