"""Creation: plain streams and forks (protocol sections 3 and 8).

A fork copies nothing: up to the position where it diverges its bytes are its ancestors', read
through `lineage`; its own bytes begin there. Its offsets carry the root's incarnation, so the
inherited ones are the very tokens that the source gave out.
"""

from ds_core.wire import media, names

from . import messages, offsets, responses
from .errors import ProtocolError, bad_request
from .requests import Create
from .stream import CLOSED, GONE, MISSING, OPEN, Created, Now, Stream, View, condition

MOST_ANCESTORS = 64
"""How long a chain of forks may become: every stream in memory knows its ancestors, and a read goes through them."""


def create(
    view: View, command: Create, parsers: messages.Parsers
) -> "tuple[responses.Response, Created | None]":
    """Decide a PUT: 201 with a new stream, 200 when it is there as asked, else 409."""
    found = condition(view.stream, view.now)
    if found == GONE:
        raise ProtocolError(409, "PATH_IN_USE", "a deleted stream at this path still has forks")
    if found != MISSING:
        assert view.stream is not None
        return _again(view.stream, command)
    if command.source is None:
        stream = Stream(view.fresh, command.path, command.content_type or media.OCTETS)
        stream.limit_life(command.ttl, command.expires_at, view.now)
        source = None
    else:
        stream, source = _fork(view, command)
    data = messages.stored_form(stream.kind, command.body, parsers) if command.body else b""
    stream.tail += len(data)
    stream.closed = command.closes
    return _answer(201, stream, command), Created(stream, data, source)


def _again(stream: Stream, command: Create) -> "tuple[responses.Response, None]":
    asked = command.content_type
    if asked is None and command.source is None:
        asked = media.OCTETS
    same = asked is None or media.essence(asked) == media.essence(stream.content_type)
    same = same and stream.closed == command.closes
    if stream.fork_spec is not None or command.fork_spec is not None:
        # A fork's lifetime may be inherited, so what was asked is compared, not what came of it.
        same = same and stream.fork_spec == command.fork_spec
    else:
        same = same and stream.ttl == command.ttl and _instants_equal(stream, command)
    if not same:
        raise ProtocolError(
            409,
            "STREAM_EXISTS",
            "a stream with another configuration is at this path: %s" % describe(stream),
        )
    return _answer(200, stream, command), None


def _instants_equal(stream: Stream, command: Create) -> bool:
    if command.expires_at is None or stream.expires is None:
        return command.expires_at is None and stream.expires is None
    from .fields import instant

    return instant(command.expires_at) == stream.expires


def describe(stream: Stream) -> str:
    """A stream's configuration in a few words, for the message of a 409."""
    words = [stream.content_type]
    if stream.ttl is not None:
        words.append("Stream-TTL %d" % stream.ttl)
    if stream.expires_at is not None:
        words.append("Stream-Expires-At " + stream.expires_at)
    if stream.closed:
        words.append("closed")
    if stream.fork_spec is not None:
        words.append("forked from " + stream.fork_spec.split(" ", 1)[0])
    return ", ".join(words)


def _answer(status: int, stream: Stream, command: Create) -> responses.Response:
    headers = [
        ("Location", command.location),
        ("Content-Type", stream.content_type),
        stream.next_offset(),
    ]
    if stream.closed:
        headers.append((names.CLOSED, "true"))
    return responses.Response(status, headers)


def _fork(view: View, command: Create) -> "tuple[Stream, int]":
    source = view.source
    found = condition(source, view.now)
    if found == GONE:
        raise ProtocolError(409, "SOURCE_GONE", "the stream to fork from is deleted")
    if source is None or found not in (OPEN, CLOSED):
        raise ProtocolError(404, "SOURCE_NOT_FOUND", "there is no stream to fork from at this path")
    asked = command.content_type
    if asked is not None and media.essence(asked) != media.essence(source.content_type):
        raise ProtocolError(
            409,
            "CONTENT_TYPE_MISMATCH",
            "a fork holds what its source holds: %s, not %s" % (source.content_type, asked),
        )
    if len(source.lineage) >= MOST_ANCESTORS:
        raise ProtocolError(
            409,
            "FORK_TOO_DEEP",
            "a stream has at most %d ancestors, and the source has %d: fork from one of those, or put a copy into a "
            "stream of its own and fork from that" % (MOST_ANCESTORS, len(source.lineage)),
        )
    at = divergence(source, command, view.piece, view.fresh)
    stream = Stream(view.fresh, command.path, source.content_type)
    stream.incarnation = source.incarnation
    stream.start = source.start
    stream.tail = at
    stream.lineage = lineage(source, at)
    stream.fork_spec = command.fork_spec
    if command.ttl is None and command.expires_at is None:
        stream.limit_life(source.ttl, source.expires_at, view.now)
    else:
        stream.limit_life(command.ttl, command.expires_at, view.now)
    return stream, source.id


def fork_position(source: Stream, command: Create, fresh: int) -> int:
    """The position Stream-Fork-Offset names in the source, before any sub-offset.

    The shell reads the append that holds it, so that `divergence` can look inside. 400 or 410
    when it names none.
    """
    if isinstance(command.fork_offset, str):
        return source.tail
    return offsets.position(command.fork_offset, source.incarnation, source.start, source.tail, fresh - 1)


def piece_position(
    source: "Stream | None", command: Create, now: Now, fresh: int
) -> "int | None":
    """`fork_position`, for the shell that reads the append that holds it: what the decision must see as its view's
    `piece`. At the tail there is none yet, `(position, b"")`.

    None where nothing is to be read: without a source that can be forked from, or there. The decision says what is
    wrong, in its own order of checks: a shell that refused here would answer 410 for an offset where 409 is due.
    """
    if source is None or condition(source, now) not in (OPEN, CLOSED):
        return None
    try:
        return fork_position(source, command, fresh)
    except ProtocolError:
        return None


def divergence(
    source: Stream, command: Create, piece: "tuple[int, bytes] | None", fresh: int
) -> int:
    """Where the fork's own bytes begin. `piece` is the append at `fork_position`, or as many whole
    messages of it as matter; without bytes where there was none yet; None where nobody knows whether
    messages meet there, which only the source's own start and tail need not be told."""
    at = fork_position(source, command, fresh)
    if piece is None and at not in (source.start, source.tail):
        raise bad_request("Stream-Fork-Offset is not at a message boundary", "INVALID_OFFSET")
    if piece is not None:
        first, data = piece
        if not messages.is_boundary(source.kind, data, at - first):
            raise bad_request("Stream-Fork-Offset is not at a message boundary", "INVALID_OFFSET")
        if command.fork_skip:
            end = messages.skip(source.kind, data, at - first, command.fork_skip)
            if end is not None:
                return first + end
    if command.fork_skip:
        raise bad_request(
            "Stream-Fork-Sub-Offset leads past the end of the append at Stream-Fork-Offset", "INVALID_OFFSET"
        )
    return at


def lineage(source: Stream, at: int) -> "tuple[tuple[int, int], ...]":
    """The ancestors of a fork that leaves `source` at a position, root first."""
    return tuple([each if each[1] <= at else (each[0], at) for each in source.lineage]) + ((source.id, at),)


def owners(stream: Stream, start: int, end: int) -> "list[tuple[int, int, int]]":
    """Whose bytes a range is: (id, start, end) of each owner in order, ancestors first, empty ones left out."""
    ranges = []
    for id, upto in stream.lineage:
        if start >= end:
            break
        stop = min(upto, end)
        if start < stop:
            ranges.append((id, start, stop))
            start = stop
    if start < end:
        ranges.append((stream.id, start, end))
    return ranges
