"""Waiting in threads: the device's blocking transport, and events of `threading`."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ds_micro import net

from .proxies import Proxied

if TYPE_CHECKING:
    from ds_micro.tls import Wrapper

    from .proxies import Proxy


class Net(Proxied, net.Net):
    """The blocking transport, through a proxy if need be."""

    _socket: Any
    _watch: Callable[[], None]
    _wait: Callable[[int, int], None]

    def __init__(self, proxy: Proxy | None, over: threading.Event) -> None:
        super().__init__(proxy)
        self._over = over

    async def secure(self, tls: Wrapper, host: str, ms: Callable[[], int]) -> None:
        """TLS from here on."""
        self._socket = tls.wrap(self._socket, host)
        self._watch()
        while not tls.ready(self._socket):
            self._wait(1, ms())  # POLLIN

    def hang_up(self) -> None:
        """End what another thread waits for; that closes the socket."""
        found = self._socket
        if found:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(found, socket.SHUT_RDWR)

    async def sleep(self, ms: float) -> None:
        """Wait for so many milliseconds, or until the session is over."""
        self._over.wait(ms / 1000)


class InThreads:
    """See waiting.Waiting."""

    name = "threads"

    def __init__(self) -> None:
        self._over = threading.Event()

    def net(self, proxy: Proxy | None) -> Net:
        """A transport."""
        return Net(proxy, self._over)

    def event(self) -> threading.Event:
        """An event."""
        return threading.Event()

    async def wait(self, event: threading.Event, ms: float) -> bool:
        """Until it is set; False when it is not in time."""
        return event.wait(max(0, ms) / 1000)

    def end(self) -> None:
        """Wake those who sleep."""
        self._over.set()
