"""What operators ask a server, outside of all streams: ``/healthz``, ``/readyz``, ``/metrics``.

``/healthz`` answers whenever the event loop runs. ``/readyz`` is 200 as long as the store takes
appends, else 503: also after one found the disk full, until another is stored or, where no more
come, for a while. Both tell nothing else and need no token. ``/metrics`` is for who may have it:
everybody without access control; with it a token that says so, or this machine itself.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from ds_core.server import responses, targets
from ds_core.server.errors import ProtocolError

from ..addresses import is_loopback
from ..http.readers import Request
from ..http.transport import Transport
from ..stats import Stats
from ..store.base import StorageFailed, StorageFull, Store, Usage
from . import metrics

if TYPE_CHECKING:
    from ..access import Access

PATHS = ("/healthz", "/readyz", "/metrics")

_TEXT = ("Content-Type", "text/plain; charset=utf-8")
_FRESH = ("Cache-Control", "no-store")
_USAGE_TIMEOUT = 2.0
_RETRY_FULL = 30.0
"""Who is told that the disk is full may try again then, and not before."""


class Endpoints:
    """The operators' part of one server. ``gauges()`` gives open connections and live readers."""

    def __init__(
        self, store: Store, stats: Stats, access: "Access | None", gauges: Callable[[], tuple[int, int]]
    ) -> None:
        self._store = store
        self._stats = stats
        self._access = access
        self._gauges = gauges

    async def answer(self, transport: Transport, request: Request) -> responses.Response | None:
        """The answer to a request for one of ``PATHS``, None for any other."""
        path = targets.split_target(request.target)[0]
        if path not in PATHS:
            return None
        if request.method not in ("GET", "HEAD"):
            raise ProtocolError(405, "METHOD_NOT_ALLOWED", f"{path} knows GET, HEAD", (("Allow", "GET, HEAD"),))
        if path == "/healthz":
            return responses.Response(200, [_TEXT, _FRESH], b"ok\n")
        if path == "/readyz":
            self._check_ready()
            return responses.Response(200, [_TEXT, _FRESH], b"ok\n")
        self._admit(transport, request)
        return await self._metrics(request)

    def _check_ready(self) -> None:
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

    def _admit(self, transport: Transport, request: Request) -> None:
        if self._access is None or _is_here(transport, request):
            return
        self._access.check_metrics(
            request.headers, request.target, transport.identities, self._store.now().wall
        )

    async def _metrics(self, request: Request) -> responses.Response:
        usage = Usage(0, 0)
        with trio.move_on_after(_USAGE_TIMEOUT):
            try:
                usage = await self._store.usage()
            except StorageFailed:
                pass  # now more than ever
        snapshot = metrics.Snapshot(self._stats, self._store.commits, *self._gauges(), usage)
        content_type, body = metrics.exposition(snapshot, request.headers.get("accept", ""))
        return responses.Response(200, [("Content-Type", content_type), _FRESH], body)


def _is_here(transport: Transport, request: Request) -> bool:
    """Whether this machine itself asks, and not a proxy on it for somebody else."""
    if not is_loopback(transport.peer):
        return False
    return not any(name in request.headers for name in ("forwarded", "x-forwarded-for", "via", "x-real-ip"))
