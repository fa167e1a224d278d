"""Catch-up reads, and long-polls whose time has come: from a plan to a whole answer (protocol section 6).

With or without waiting, the same code decides what an answer says; only where its bytes come from differs.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import trio

from ds_core.server import messages, reads
from ds_core.server.requests import Read
from ds_core.server.responses import Position, Response
from ds_core.wire import names

from ..http.exchange import Exchange
from ..store.base import Store, Vanished
from . import compression
from .reading import Reading, vanished

_AT_ONCE = 64 * 1024
_MOST_KEPT = 256
_LARGEST_KEPT = 4096


class Answer:
    """The answer to a read: whole in `response`, or its body in `parts`, of `length` bytes in all (None when
    that isn't known, for it is being compressed)."""

    __slots__ = ("response", "parts", "length")

    def __init__(
        self, response: Response, parts: AsyncGenerator[bytes, None] | None = None, length: int | None = None
    ) -> None:
        self.response = response
        self.parts = parts
        self.length = length


class CatchUp:
    """Answers reads of one store. `accept` is a client's Accept-Encoding, None for one who can't be sent a body
    whose length isn't known."""

    def __init__(self, store: Store, reading: Reading) -> None:
        self._store = store
        self._reading = reading
        # The small answers that were given last, by what their ETags stand for: those who follow a stream all ask for
        # the same. Whether a reader may have one is decided each time; nothing of them is ever changed.
        self._kept: dict[tuple[int, int, int, bool], Response] = {}

    async def answer(self, command: Read, accept: str | None, plan: reads.Plan) -> Answer:
        """The answer to a read that need not wait, or no longer. Raises ProtocolError."""
        try:
            return await self._answer(command, accept, plan)
        except Vanished:
            # Deleted or trimmed since the look: a second one tells which, or where it begins now.
            plan = await self._reading.plan(command.path, command.offset, command.live is not None, renew=False)
            try:
                return await self._answer(command, accept, plan)
            except Vanished:
                raise vanished() from None

    async def _answer(self, command: Read, accept: str | None, plan: reads.Plan) -> Answer:
        reading = self._reading
        end = await reading.end(plan, reading.limit(command))
        position = plan.position(end)
        response, packed = self.response(command, position, accept, reading.cursor(command.cursor))
        if response.status != 200 or plan.start == end:
            return Answer(response)
        if packed:
            compression.mark(response)
            return Answer(response, await _begun(reading.compressing(compression.gzip(reading.body(plan, end)))))
        if position.size() <= _AT_ONCE:
            response.body = messages.body(position.kind, await reading.data(plan.stream, plan.start, end))
            return Answer(response)
        return Answer(response, await _begun(reading.body(plan, end)), position.size())

    def answer_nowait(self, command: Read, accept: str | None) -> Response:
        """The answer to a read, where that needs no waiting. Raises trio.WouldBlock where it does, or ProtocolError."""
        reading = self._reading
        if command.live is not None:
            raise trio.WouldBlock
        plan = reading.plan_nowait(command.path, command.offset)
        size = plan.tail - plan.start
        if size > _AT_ONCE or size > reading.limit(command):
            raise trio.WouldBlock
        alike = size < compression.WORTHWHILE or (size <= _LARGEST_KEPT and accept is None)
        if not alike or command.if_none_match is not None or command.offset == names.NOW:
            return self._whole(command, plan, accept)
        key = (plan.stream.id, plan.start, plan.tail, plan.closed)
        kept = self._kept.get(key)
        if kept is None:
            kept = self._whole(command, plan, None)
            if len(self._kept) >= _MOST_KEPT:
                del self._kept[next(iter(self._kept))]  # the oldest
            self._kept[key] = kept
        return kept

    def _whole(self, command: Read, plan: reads.Plan, accept: str | None) -> Response:
        """The answer that shows all there is to read. Raises trio.WouldBlock where it is to be compressed, or its
        bytes must be waited for."""
        size = plan.tail - plan.start
        response, packed = self.response(command, plan.position(plan.tail), accept, "")
        if size and response.status == 200:
            if packed:
                raise trio.WouldBlock
            try:
                pieces = self._store.read_nowait(plan.stream, plan.start, plan.tail)
            except Vanished:
                raise trio.WouldBlock from None
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            assert len(data) == size, (len(data), size)  # else the offset would pass over what isn't there
            response.body = messages.body(plan.stream.kind, data)
        return response

    def response(self, command: Read, position: Position, accept: str | None, cursor: str) -> tuple[Response, bool]:
        """The answer that shows a range, all but its body; and whether that is to be compressed."""
        reading = self._reading
        response = reads.answer(command, position, b"", cursor, reading.cache_control)
        worthwhile = compression.is_worthwhile(position.content_type, position.size())
        response.headers += reading.vary[worthwhile]
        return response, (
            worthwhile and accept is not None and compression.wants_gzip(accept) and reading.may_compress()
        )


async def send(exchange: Exchange, answer: Answer) -> None:
    """Answer an exchange."""
    if answer.parts is None:
        await exchange.respond(answer.response)
    else:
        await exchange.respond_in_parts(answer.response, answer.parts, answer.length)


def accepted(exchange: Exchange) -> str | None:
    """The content codings that a client takes, as it sent them; None where it can't be sent a compressed body."""
    return None if exchange.http10 else exchange.headers.get("accept-encoding")


async def _begun(parts: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The same parts, of which the first is there already: what vanished since the look is found out before the
    answer begins."""
    try:
        first = await anext(parts)
    except BaseException:
        await parts.aclose()
        raise
    return _behind(first, parts)


async def _behind(first: bytes, parts: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(parts):
        yield first
        del first
        async for part in parts:
            yield part
            del part
