"""How a flow waits: three ways, each with a transport, an event, and a wait for it that ends in time.

The flows are coroutines. In threads they run to their end without ever suspending, for what they wait for blocks.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .proxies import Proxy


class Event(Protocol):
    """Set once."""

    def set(self) -> object: ...


class Waiting(Protocol):
    """One of the three."""

    name: str

    def net(self, proxy: Proxy | None) -> Any:
        """A transport."""

    def event(self) -> Any:
        """An Event."""

    async def wait(self, event: Any, ms: float) -> bool:
        """Until it is set; False when it is not in time."""


def blocking() -> Waiting:
    """For threads."""
    from .in_threads import InThreads

    return InThreads()


def running() -> Waiting:
    """For the event loop that runs here: trio's, or asyncio's. RuntimeError where none does."""
    if "trio" in sys.modules:
        import trio

        if trio.lowlevel.in_trio_task():
            from .on_trio import OnTrio

            return OnTrio()
    import asyncio

    asyncio.get_running_loop()
    from .on_asyncio import OnAsyncio

    return OnAsyncio()
