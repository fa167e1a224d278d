"""What operators ask a server, outside of all streams: `/healthz`, `/readyz`, `/metrics`.

`/healthz` answers whenever the event loop runs. `/readyz` is 200 as long as the store takes
appends, else 503: also after one found the disk full, until another is stored or, where no more
come, for a while. Its body is `degraded` when stored data of some stream was found damaged. Both
tell nothing else and need no token. `/metrics` is for who may have it: everybody without access
control; with it a token that says so, or this machine itself.
"""

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from ds_core.server import responses, targets
from ds_core.server.errors import ProtocolError

from ..addresses import is_loopback
from ..http.exchange import Exchange
from ..stats import Stats
from ..store.base import Damaged, StorageFailed, StorageFull, Store, Usage
from . import metrics

if TYPE_CHECKING:
    from ..access import Access

_TEXT = ("Content-Type", "text/plain; charset=utf-8")
_FRESH = ("Cache-Control", "no-store")
_USAGE_TIMEOUT = 2.0
_RETRY_FULL = 30.0
"""Who is told that the disk is full may try again then, and not before."""


class Endpoints:
    """The operators' part of one server. `gauges()` gives open connections and live readers."""

    def __init__(
        self, store: Store, stats: Stats, access: "Access | None", gauges: Callable[[], tuple[int, int]]
    ) -> None:
        self._store = store
        self._stats = stats
        self._access = access
        self._gauges = gauges

    async def healthz(self, exchange: Exchange) -> responses.Response:
        """200 as long as the event loop runs."""
        return responses.Response(200, [_TEXT, _FRESH], b"ok\n")

    async def readyz(self, exchange: Exchange) -> responses.Response:
        """200 as long as the store takes appends, else 503; says whether something is damaged."""
        self.check_ready()
        # One stream's damage takes a gateway out of nobody's rotation.
        return responses.Response(200, [_TEXT, _FRESH], b"degraded\n" if self._store.upkeep.damaged else b"ok\n")

    async def metrics(self, exchange: Exchange) -> responses.Response:
        """A moment of the server, for whom it is for."""
        if self._access is not None and not _is_here(exchange):
            wall = self._store.now().wall
            self._access.check_metrics(exchange.headers, exchange.target, exchange.certified, wall)
        return await self.exposition(exchange.headers.get("accept", ""))

    def check_ready(self) -> None:
        """Raise ProtocolError 503 unless appends can be stored."""
        try:
            self._store.check_writable()
            # Where nobody asks for free space in time, only an append finds out that there is none.
            full = self._stats.full_at
            if full > self._store.commits.stored_at and time.monotonic() < full + _RETRY_FULL:
                raise StorageFull
        except StorageFailed:
            raise ProtocolError(503, "STORAGE_FAILED", "the server's storage has failed") from None
        except ProtocolError as error:
            retry = (("Retry-After", f"{_RETRY_FULL:.0f}"),)
            raise ProtocolError(503, error.code, error.message, retry) from None

    async def exposition(self, accept: str) -> responses.Response:
        """A moment of the server, in the format that `accept` asks for."""
        usage = Usage(0, 0)
        with trio.move_on_after(_USAGE_TIMEOUT):
            try:
                usage = await self._store.usage()
            except (StorageFailed, Damaged):
                pass  # now more than ever
        snapshot = metrics.Snapshot(self._stats, self._store.commits, self._store.upkeep, *self._gauges(), usage)
        content_type, body = metrics.exposition(snapshot, accept)
        return responses.Response(200, [("Content-Type", content_type), _FRESH], body)


class Endpoint:
    """A route whose answers are small and whole, and rare enough to wait."""

    def __init__(self, respond: Callable[[Exchange], Awaitable[responses.Response]]) -> None:
        self._respond = respond

    def answer_nowait(self, exchange: Exchange) -> None:
        """Always raises trio.WouldBlock."""
        raise trio.WouldBlock

    async def answer(self, exchange: Exchange) -> None:
        """Answer a GET or HEAD."""
        if exchange.method not in ("GET", "HEAD"):
            path, _ = targets.split_target(exchange.target)
            raise ProtocolError(405, "METHOD_NOT_ALLOWED", f"{path} knows GET, HEAD", (("Allow", "GET, HEAD"),))
        response = await self._respond(exchange)
        await exchange.pass_over()
        await exchange.respond(response)


def _is_here(exchange: Exchange) -> bool:
    """Whether this machine itself asks, and not a proxy on it for somebody else."""
    if not is_loopback(exchange.peer):
        return False
    return not any(name in exchange.headers for name in ("forwarded", "x-forwarded-for", "via", "x-real-ip"))
