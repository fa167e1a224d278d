"""One connection: its requests in order, its answers framed, its end clean.

The hot path is the plain one: a strict head, a Content-Length body, a response in one send.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import trio

from ds_core.server import responses
from ds_core.server.errors import ProtocolError

from ..app import Handlers
from ..config import Config
from ..live.fanout import Waiter
from ..store.base import StorageFailed, Vanished
from .readers import BodyBudget, H11Reader, PlainReader, Reader, Request, encode
from .transport import Disconnected, Transport

log = logging.getLogger("ds")

_LINGER = 2.0
_SKIPPED = 65536
_ONE_PACKET = 65536


class Connection:
    """Serves one transport until either side is done with it."""

    __slots__ = ("transport", "idle", "closing", "_handlers", "_config", "_budget", "_reader", "_request", "_started")

    def __init__(
        self, transport: Transport, handlers: Handlers, config: Config, budget: BodyBudget
    ) -> None:
        self.transport = transport
        self.idle = True
        self.closing = False
        self._handlers = handlers
        self._config = config
        self._budget = budget
        self._reader: Reader = PlainReader(transport, config, budget)
        self._request: Request | None = None
        self._started = False

    @property
    def started(self) -> bool:
        """Whether something of the current answer has been sent."""
        return self._started

    async def run(self, unsent: bytes | memoryview = b"", may_rest: bool = False) -> bool:
        """Answer requests until the connection ends; never raises for what a peer does.

        First sends what is ``unsent`` of an earlier answer. True when the connection lives on
        because it ``may_rest`` and has nothing to do.
        """
        linger = 0.0
        resting = False
        try:
            if unsent:
                await self.transport.send_all(unsent)
                resting = may_rest and not self.closing and not self._reader.rest()
                if resting:
                    return True
            while not self.closing:
                waiter = await self._step(self._answer_next)
                while waiter is not None:
                    # A live reader asleep costs its task, this frame and the waiter.
                    await waiter.sleep(self._handlers.hub)
                    waiter = await self._step(waiter.resume)
                request, self._request = self._request, None
                if request is None or not request.keep_alive or request.unread:
                    # A peer that is still sending must get to read the answer before the reset.
                    linger = _LINGER if request is not None and request.unread else 0.0
                    break
                following = self._reader.following()
                if following is None:
                    break
                self._reader = following
                resting = may_rest and not self.closing and not following.rest()
                if resting:
                    break
                if following.rest():
                    # Who sends many requests at once has them answered in turn with everybody else's.
                    await trio.lowlevel.checkpoint()
        except (Disconnected, Vanished):
            pass
        except StorageFailed:
            await self._last_words(storage_failed())
        except Exception:
            log.exception("a request failed inside the server; its connection is closed")
            await self._last_words(ProtocolError(500, "INTERNAL_ERROR", "the server failed at this request"))
        finally:
            if not resting:
                await self.transport.close(linger)
        return resting

    async def _step(self, go_on: Callable[[], Awaitable[Waiter | None]]) -> Waiter | None:
        """Go on with the current request, refusing it when that is what comes of it."""
        try:
            return await go_on()
        except ProtocolError as refusal:
            if self._started:
                raise Disconnected from refusal  # halfway through an answer this is all one can say
            if self._request is None:
                # The head could not be read, so nobody knows where the next one begins.
                self._request = Request("GET", "", {}, None, keep_alive=False)
            await self._refuse(self._request, refusal)
            return None

    async def _answer_next(self) -> Waiter | None:
        self.idle = True
        self._started = False
        request = self._request = await self._next_request()
        if request is None:
            return None
        self.idle = False
        self.transport.deadline = float("inf")
        try:
            return await self._handlers.handle(self, request)
        finally:
            self._budget.give_back(request)

    async def refuse(self, refusal: ProtocolError, linger: float) -> None:
        """Answer whatever comes with a refusal and end."""
        self._handlers.stats.reject(refusal.status, refusal.code)
        try:
            await self.respond(Request("GET", "", {}, 0, keep_alive=False), responses.refusal(refusal))
        except Disconnected:
            linger = 0.0
        finally:
            await self.transport.close(linger)

    def stop(self) -> None:
        """The server is stopping: finish what is being answered, take nothing new."""
        self.closing = True
        if self.idle:
            self.transport.stop_receiving()

    def push(self, data: bytes) -> bool:
        """Keep bytes of the next request that came early; False when that are enough of them."""
        self._reader.push(data)
        return len(self._reader.rest()) < _SKIPPED

    async def body(self, request: Request) -> bytes:
        """The whole body of a request, which counts as held until that is answered."""
        if not request.unread:
            return b""
        body = await self._reader.body(request)
        request.unread = False
        self.transport.deadline = float("inf")
        return body

    async def pass_over(self, request: Request) -> None:
        """Read a body that means nothing."""
        await self.body(request)
        self._budget.give_back(request)

    async def _next_request(self) -> Request | None:
        request = await self._reader.next_request()
        if request is None and isinstance(self._reader, PlainReader) and self._reader.rest():
            self._reader = H11Reader(self.transport, self._config, self._budget, self._reader.rest())
            request = await self._reader.next_request()
        return request

    async def _refuse(self, request: Request, refusal: ProtocolError) -> None:
        self._handlers.stats.reject(refusal.status, refusal.code)
        if request.unread and not await self._skip_body(request):
            request.keep_alive = False
        await self.respond(request, responses.refusal(refusal))

    async def _skip_body(self, request: Request) -> bool:
        """Read past the body of a refused request; False when that isn't worth it."""
        if request.length is None or request.length > _SKIPPED or "expect" in request.headers:
            return False
        try:
            await self.pass_over(request)
        except ProtocolError:
            return False
        return True

    async def _last_words(self, refusal: ProtocolError) -> None:
        self._handlers.stats.reject(refusal.status, refusal.code)
        if self._started:
            return
        try:
            await self.respond(Request("GET", "", {}, 0, keep_alive=False), responses.refusal(refusal))
        except Disconnected:
            pass

    # Answering

    def head(
        self, request: Request, response: responses.Response, framing: str, length: int | None
    ) -> bytes:
        """The bytes of a response head; ``framing`` is header lines for a body without a length."""
        keep = request.keep_alive and not self.closing
        extra = self._handlers.date() + framing + ("" if keep else "connection: close\r\n")
        return encode(request, response, extra, length)

    async def respond(self, request: Request, response: responses.Response) -> None:
        """Send a whole response."""
        body = response.body
        if request.method == "HEAD":
            data = self.head(request, response, "", None)
        else:
            data = self.head(request, response, "", len(body)) + body
        self._started = True
        await self.transport.send_all(data)

    async def respond_in_parts(
        self,
        request: Request,
        response: responses.Response,
        parts: AsyncGenerator[bytes, None],
        length: int | None,
    ) -> None:
        """Send a response whose body comes in parts; ``length`` is None when it isn't known."""
        if length is None:
            head = self._open_head(request, response)
        else:
            head = self.head(request, response, "", length)
        try:
            async with aclosing(parts):
                async for part in parts:
                    data = part if length is not None else self.part(request, part)
                    if head and len(data) <= _ONE_PACKET:
                        data = head + data  # small answers leave at once
                    elif head:
                        await self._send(head)
                    head = b""
                    await self._send(data)
        except ProtocolError as error:
            raise Disconnected from error
        if length is None and not request.http10:
            await self._send(b"0\r\n\r\n")

    async def _send(self, data: bytes) -> None:
        self._started = True
        await self.transport.send_all(data)

    def _open_head(self, request: Request, response: responses.Response) -> bytes:
        if request.http10:
            request.keep_alive = False
            return self.head(request, response, "", None)
        return self.head(request, response, "transfer-encoding: chunked\r\n", None)

    async def start(self, request: Request, response: responses.Response) -> None:
        """Send the head of a response whose end isn't known yet."""
        await self._send(self._open_head(request, response))

    def part(self, request: Request, data: bytes) -> bytes:
        """Data framed as a part of a response without a length."""
        return data if request.http10 else b"%x\r\n%b\r\n" % (len(data), data)


def storage_failed() -> ProtocolError:
    """503: what the store promised it can't keep any more."""
    return ProtocolError(503, "STORAGE_FAILED", "the server's storage has failed", (("Retry-After", "30"),))
