"""What the operator tells a running server: SIGTERM and SIGINT end it in order, SIGHUP has it read its files anew.

A server can be told to stop before it serves. A reload may take as long as its disk does and holds up nothing else,
least of all a stop; those that are asked for meanwhile are one, and come after it.
"""

import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio

from ..ops import systemd

log = logging.getLogger("ds")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def held_back() -> Iterator[None]:
    """Have signals wait, until they are `let_through` or the block ends."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        let_through()


def let_through() -> None:
    """Take the signals that waited, and those to come."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


class Obedience:
    """The signals of one server process; `reload` must be one that can be cancelled."""

    def __init__(self, reload: Callable[[], Awaitable[None]]) -> None:
        self._reload = reload
        self._reloads = trio.Event()
        self._stop: Callable[[], None] | None = None
        self.stopping = False

    def serving(self, stop: Callable[[], None]) -> None:
        """The server runs; `stop` begins its orderly end, at once if that was asked for already."""
        self._stop = stop
        if self.stopping:
            stop()

    async def run(self, signals: AsyncIterator[int]) -> None:
        """Do what signals say, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_reloading)
            async for number in signals:
                log.info("got %s", signal.Signals(number).name)
                if number == signal.SIGHUP:
                    self._reloads.set()
                    continue
                systemd.stopping()
                self.stopping = True
                if self._stop is not None:
                    self._stop()

    async def _keep_reloading(self) -> None:
        while True:
            await self._reloads.wait()
            self._reloads = trio.Event()
            systemd.reloading()
            await self._reload()
            if not self.stopping:
                systemd.ready()
