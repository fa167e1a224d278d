"""One connection: its requests in order, its answers whole, its end clean.

The usual request has a strict head and a Content-Length body; whatever else comes is h11's to read. What is answered
without waiting never gets here (see `idle`), and comes here when it would have had to wait after all.
"""

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from ds_core.server.errors import ProtocolError

from ..config import Config
from .budgets import Backlog, BodyBudget
from .exchange import SKIPPED, Application, Exchange, Suspended, encode_last
from .readers import Reader
from .transport import Disconnected, Transport

_LINGER = 2.0
_STOPPING = ProtocolError(
    503, "STOPPING", "the server is stopping; try again when it has come back", (("Retry-After", "5"),)
)


class Connection:
    """Serves one transport until either side is done with it.

    `closing` has it end behind the present answer; `parting` says that an answer is on its way that the client must
    get to read: to close a socket that holds unread bytes, or gets more, is a reset, which takes what was sent away.
    """

    __slots__ = ("transport", "idle", "closing", "parting", "_app", "_config", "_budget", "_reader")

    def __init__(
        self, transport: Transport, app: Application, config: Config, budget: BodyBudget, backlog: Backlog
    ) -> None:
        self.transport = transport
        self.idle = True
        self.closing = False
        self.parting = False
        self._app = app
        self._config = config
        self._budget = budget
        self._reader = Reader(transport, config, backlog)

    async def run(self, unsent: bytes | memoryview = b"", may_rest: bool = False) -> bool:
        """Answer requests until the connection is to be closed; never raises for what a peer does, or an application.

        First sends what is `unsent` of an earlier answer. True when the connection lives on
        because it `may_rest` and waits for nobody, whatever came ahead.
        """
        resting = False
        try:
            if unsent:
                await self.transport.send_all(unsent)
                resting = may_rest and not self.closing
            while not (resting or self.closing):
                exchange = await self._next()
                if exchange is None:
                    break
                await self._serve(exchange)
                if exchange.unread or not exchange.keep_alive:
                    self.parting = True
                    break
                # Who sends many requests at once has them answered in turn with everybody else's.
                resting = may_rest and not self.closing
                if self.ahead and not resting:
                    await trio.lowlevel.checkpoint()
        except Disconnected:
            self.parting = False
        except ProtocolError as refusal:
            # The head could not be read, so nobody knows where the next one begins.
            self.parting = await self._last_words(_STOPPING if self.closing else refusal)
        return resting

    async def close(self, linger: bool) -> None:
        """Close; one that is `parting` may `linger` for a little."""
        await self.transport.close(_LINGER if self.parting and linger else 0.0)

    async def refuse(self, refusal: ProtocolError, linger: float) -> None:
        """Answer whatever comes with a refusal and end."""
        try:
            if not await self._last_words(refusal):
                linger = 0.0
        finally:
            await self.transport.close(linger)

    def stop(self) -> None:
        """The server is stopping: finish what is being answered, take nothing new."""
        self.closing = True
        if self.idle:
            self.transport.stop_receiving()

    @property
    def ahead(self) -> bytes:
        """What was received and is to be read next."""
        return self._reader.ahead

    @ahead.setter
    def ahead(self, data: bytes) -> None:
        self._reader.ahead = data

    def keep(self, data: bytes) -> bool:
        """Keep bytes of the next request that came early; False when those are enough."""
        self.ahead += data
        return len(self.ahead) < SKIPPED

    async def body(self, exchange: Exchange) -> bytes:
        """The whole body of a request."""
        body = await self._reader.body(exchange.length, partial(self._budget.take, exchange))
        exchange.unread = False
        self.transport.deadline = float("inf")
        return body

    async def pass_over(self, exchange: Exchange) -> None:
        """Read the body of a request, whose length is known, and keep nothing of it."""
        assert exchange.length is not None
        await self._reader.pass_over(exchange.length)
        exchange.unread = False
        self.transport.deadline = float("inf")

    def release(self, exchange: Exchange) -> None:
        """Give back what a body took of the room for bodies."""
        self._budget.give_back(exchange)

    async def _next(self) -> Exchange | None:
        self.idle = True
        request = await self._reader.next_request()
        if request is None:
            return None
        self.idle = False
        self.transport.deadline = float("inf")
        return Exchange(self, *request)

    async def _serve(self, exchange: Exchange) -> None:
        """Have a request answered, whatever comes of it."""
        try:
            suspended = await self._step(exchange, partial(self._app.answer, exchange))
        finally:
            self._budget.give_back(exchange)
        while suspended is not None:
            # A live reader asleep costs its task, these frames and itself.
            await suspended.sleep()
            suspended = await self._step(exchange, suspended.resume)

    async def _step(self, exchange: Exchange, go_on: Callable[[], Awaitable[Suspended | None]]) -> Suspended | None:
        try:
            return await go_on()
        except Disconnected:
            raise
        except Exception as error:
            response = self._app.refused(exchange, error)
            if exchange.started:
                raise Disconnected from error  # halfway through an answer this is all one can say
        # The error is let go of by now, with all that its frames hold.
        try:
            await exchange.pass_over()
        except ProtocolError:
            exchange.keep_alive = False
        await exchange.respond(response)
        return None

    async def _last_words(self, refusal: ProtocolError) -> bool:
        """Refuse what no exchange could be made of; whether the peer was there to be told."""
        try:
            await self.transport.send_all(encode_last(self._app.refused(None, refusal)))
        except Disconnected:
            return False
        return True
