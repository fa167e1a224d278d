"""Waiting on asyncio: the device's transport there, as it is on CPython."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ds_micro import aio
from ds_micro.cpython import within

from .proxies import Proxied

if TYPE_CHECKING:
    from ds_micro.tls import Wrapper

    from .proxies import Proxy


class Net(Proxied, aio.Net):  # type: ignore[misc]
    """The transport on asyncio, through a proxy if need be."""

    _writer: Any

    async def secure(self, tls: Wrapper, host: str, ms: Callable[[], int]) -> None:
        """TLS from here on."""
        await within(self._writer.start_tls(tls.context, server_hostname=host), ms())
        tls.check(self._writer.get_extra_info("ssl_object"))

    hang_up = aio.Net.close


class OnAsyncio:
    """See waiting.Waiting."""

    name = "asyncio"

    def net(self, proxy: Proxy | None) -> Net:
        """A transport."""
        return Net(proxy)

    def event(self) -> asyncio.Event:
        """An event."""
        return asyncio.Event()

    async def wait(self, event: asyncio.Event, ms: float) -> bool:
        """Until it is set; False when it is not in time."""
        try:
            async with asyncio.timeout(ms / 1000):
                return await event.wait()
        except TimeoutError:
            return event.is_set()

    def end(self) -> None:
        """Nothing to do."""
