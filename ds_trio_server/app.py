"""What a server answers: one table of routes, and one place where failures become answers.

A route is a path, or everything below one, and what answers there (`Route`). A family of endpoints is added by a
line in the table of `App`. What stands behind a route can be called without HTTP, as `Streams` can.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import trio

from ds_core.server import responses, targets
from ds_core.server.errors import ProtocolError
from ds_core.wire import names

from .access import Origins
from .config import Config
from .http.exchange import Exchange, Suspended
from .live.fanout import FanOut
from .live.subscribers import LiveReads
from .ops.endpoints import Endpoint, Endpoints
from .reads.catchup import CatchUp
from .reads.reading import Reading, vanished
from .stats import Stats
from .store.base import StorageFailed, Store, Vanished
from .streams import Streams, StreamsRoute

if TYPE_CHECKING:
    from .access import Access

log = logging.getLogger("ds")

_STORAGE_FAILED = ProtocolError(
    503, "STORAGE_FAILED", "the server's storage has failed", (("Retry-After", "30"),)
)
_INTERNAL = ProtocolError(500, "INTERNAL_ERROR", "the server failed at this request")


class Route(Protocol):
    """Answers what comes for one path, or for all below one."""

    def answer_nowait(self, exchange: Exchange) -> None:
        """As `http.exchange.Application.answer_nowait`."""

    async def answer(self, exchange: Exchange) -> Suspended | None:
        """As `http.exchange.Application.answer`."""


class _Preflight:
    """What a browser asks before it asks, of any path."""

    def answer_nowait(self, exchange: Exchange) -> None:
        exchange.respond_nowait(responses.preflight())

    async def answer(self, exchange: Exchange) -> Suspended | None:
        await exchange.pass_over()
        await exchange.respond(responses.preflight())
        return None


_PREFLIGHT = _Preflight()


class App:
    """The application of one server over one store: what there is, and the table of who answers where.

    A path that ends with a slash stands for all below it. Without `access` everybody may do everything;
    `connections()` is how many there are now.
    """

    def __init__(
        self,
        store: Store,
        config: Config,
        access: "Access | None" = None,
        connections: Callable[[], int] = lambda: 0,
        origins: Origins | None = None,
    ) -> None:
        self._origins = Origins() if origins is None else origins
        self.stats = Stats()
        self.reading = Reading(store, config, self.stats, by_origin=self._origins.guarded)
        self.fanout = FanOut(store)
        live = LiveReads(self.reading, CatchUp(store, self.reading), self.fanout)
        self.streams = Streams(store, live)
        endpoints = Endpoints(store, self.stats, access, lambda: (connections(), self.fanout.count()))
        self._streams_route = StreamsRoute(self.streams, live, access, store.now)
        self._routes: dict[str, Route] = {
            names.ROOT: self._streams_route,
            "/healthz": Endpoint(endpoints.healthz),
            "/readyz": Endpoint(endpoints.readyz),
            "/metrics": Endpoint(endpoints.metrics),
        }
        self._roots = [path for path in self._routes if path.endswith("/")]

    def stop(self) -> None:
        """The server is stopping: live readers are told where to go on, and end."""
        self.fanout.close()

    def answer_nowait(self, exchange: Exchange) -> None:
        """Answer a request that has come whole. Raises trio.WouldBlock where that needs waiting."""
        self.stats.requests += 1
        try:
            self._route(exchange).answer_nowait(exchange)
        except trio.WouldBlock:
            self.stats.requests -= 1  # it comes again
            raise

    async def answer(self, exchange: Exchange) -> Suspended | None:
        """Answer a request, or begin to."""
        self.stats.requests += 1
        return await self._route(exchange).answer(exchange)

    def _route(self, exchange: Exchange) -> Route:
        """Who answers, for a page and a host that may ask. Raises ProtocolError."""
        options = exchange.method == "OPTIONS"
        self._origins.check(exchange.headers, options)
        if options:
            return _PREFLIGHT
        target = exchange.target
        if target.startswith(names.ROOT):
            return self._streams_route
        path, _ = targets.split_target(target)
        root = next(filter(path.startswith, self._roots), path)
        # Where nothing answers, streams say where they are.
        return self._routes.get(root, self._streams_route)

    def refused(self, exchange: Exchange | None, error: Exception) -> responses.Response:
        """The answer that an exception comes to. What is a fault of ours also ends its connection."""
        if isinstance(error, Vanished):
            error = vanished()
        if not isinstance(error, ProtocolError):
            if exchange is not None:
                exchange.keep_alive = False
            if isinstance(error, StorageFailed):
                error = _STORAGE_FAILED
            else:
                log.error("a request failed inside the server; its connection is closed", exc_info=error)
                error = _INTERNAL
        self.stats.reject(error.status, error.code)
        return responses.refusal(error)
