"""Reads: what a GET means to a stream, up to the bytes themselves (protocol section 6).

`plan` says where the read starts and whether it can be answered now; the shell fetches bytes and
`chunk_end` tells how far one response goes. Readers see a stream only as far as it is durable.
"""

from ds_core.wire import media, names

from . import messages, offsets, responses
from .errors import ProtocolError, bad_request
from .requests import Read
from .responses import Position, Response
from .stream import Renewed, Stream, View, renewal, require


class Plan:
    """A read that may go on: from `start` to `tail` of the stream as readers see it.

    `waits` is true for a live read that has nothing to show yet.
    """

    __slots__ = ("stream", "start", "tail", "closed", "waits")

    def __init__(self, stream: Stream, start: int, live: bool) -> None:
        self.stream = stream
        self.start = start
        self.tail = stream.visible_tail
        self.closed = stream.visible_closed
        self.waits = live and start == self.tail and not self.closed

    def may_be_inside(self) -> bool:
        """Whether it may begin inside of a message: nobody knows where those meet but who looks at the append
        (`check_start`)."""
        return self.stream.kind != media.BYTES and self.stream.start < self.start < self.tail

    def position(self, end: int) -> Position:
        """The response's place in the stream when it goes up to `end`."""
        stream = self.stream
        at_tail = end == self.tail
        return Position(
            stream.id,
            stream.incarnation,
            stream.kind,
            stream.content_type,
            self.start,
            end,
            at_tail,
            at_tail and self.closed,
        )


def plan(view: View, offset: "tuple[int, int] | str", live: bool) -> "tuple[Plan, Renewed | None]":
    """Decide a read from an offset, as `offsets.parse` gives it; a `live` one may wait for more.

    Every kind of read renews a sliding TTL, when it begins: a shell that goes on with one leaves the change out.
    Raises ProtocolError 400, 404 or 410.
    """
    stream = require(view.stream, view.now)
    if isinstance(offset, str):
        assert offset == names.NOW
        start = stream.visible_tail
    else:
        start = offsets.position(offset, stream.incarnation, stream.start, stream.visible_tail, view.fresh - 1)
    deadline = renewal(stream, view.now)
    change = None if deadline is None else Renewed(deadline)
    return Plan(stream, start, live), change


def check_start(kind: int, piece: "tuple[int, bytes]", start: int) -> None:
    """400 unless a read may begin here. `piece` is the append that holds the position, or as many whole
    messages of it as do."""
    first, data = piece
    if not messages.is_boundary(kind, data, start - first):
        raise misplaced()


def misplaced() -> ProtocolError:
    """400 for an offset inside of a message."""
    return bad_request(
        "offset is not at a message boundary; use a Stream-Next-Offset value as it was given", "INVALID_OFFSET"
    )


def chunk_end(kind: int, start: int, limit: int, last: "tuple[int, int]", data: "bytes | None") -> "int | None":
    """Where a response that starts at `start` and may show `limit` bytes ends.

    `last` is the append (its first and end positions) that holds position `start + limit`.
    Whole appends go together: the chunk ends where that append begins, unless the chunk would be
    empty; then the append is cut, for JSON and CBOR between messages. None asks for the append's
    stored bytes in `data`.
    """
    first, end = last
    if first > start:
        return first
    if kind == media.BYTES:
        return min(end, start + max(limit, 1))
    if data is None:
        return None
    return first + messages.cut(kind, data, start - first, limit)


def answer(command: Read, position: Position, data: bytes, cursor: str, cache_control: str) -> Response:
    """The whole response to any GET but SSE. `data` is the stored bytes of the position's range.

    `cursor` comes from `cursors.next_cursor`; `cache_control` is `responses.PUBLIC` or PRIVATE.
    """
    if command.live is not None:
        response = responses.long_poll(position, cursor, cache_control)
    elif command.offset == names.NOW:
        return responses.at_now(position)
    else:
        response = responses.catch_up(position, command.if_none_match, cache_control)
    if response.status == 200:
        response.body = messages.body(position.kind, data)
    return response


def events(position: Position, data: bytes, cursor: str) -> bytes:
    """The SSE events of one batch: its data, if there is any, and the control event that follows."""
    from ds_core.wire import sse

    batch = sse.control_event(
        offsets.token(position.incarnation, position.end),
        None if position.closed else cursor,
        position.up_to_date,
        position.closed,
    )
    if position.start == position.end:
        return batch
    binary = not media.is_text(position.content_type)
    return sse.data_event(messages.body(position.kind, data), binary) + batch


CHARACTER = 4
"""Bytes of the longest character in UTF-8: so many of a text hold a whole one, or none that was cut."""


def whole_text(data: bytes) -> bytes:
    """Without what a cut at the end would make something else of: the first bytes of a UTF-8 character, or the CR of
    a CRLF, which in two events would be two line ends. Empty when it is nothing else: then show what goes on for
    CHARACTER bytes, across the end of the append."""
    if data[-1:] == b"\r":
        return data[:-1]
    for back in range(1, min(CHARACTER, len(data) + 1)):
        if data[-back] >= 0xC0:
            width = 2 if data[-back] < 0xE0 else 3 if data[-back] < 0xF0 else 4
            return data[:-back] if back < width else data
        if data[-back] < 0x80:
            break
    return data
