"""A stream: its state, what each command means to it, and the changes that come of it.

Every decision is `decide(view, command) -> (response, change)`: pure, in no time, with all it
needs in the view. The shell makes the change durable and only then sends the response; a change of
None means there is nothing to store. Protocol sections 3, 4, 5 and 7; creation lives in `create`.
"""

from ds_core.wire import media, names

from . import fields, messages, offsets, producers, responses
from .errors import ProtocolError, bad_request
from .requests import Append, Delete, Head

# Conditions of a path.
MISSING = 0
OPEN = 1
CLOSED = 2
GONE = 3  # soft-deleted: forks still need its data


class Now:
    """Both clocks (seconds). `steady` counts time that the process saw pass and never jumps;
    `wall` is UNIX time as far as it can be believed."""

    __slots__ = ("steady", "wall")

    def __init__(self, steady: float, wall: float) -> None:
        self.steady = steady
        self.wall = wall


class Stream:
    """The state of one stream; every decision starts from it.

    `id` is the incarnation the store issued for it; `incarnation` the one in its offsets, which
    a fork shares with its root. Positions count stored bytes: data before `start` is trimmed,
    `tail` is the end. `visible_tail` and `visible_closed` are what readers may see: they
    follow `tail` and `closed` when the commit is durable. `deadline` is on the steady clock.
    `lineage` lists the ancestors of a fork, root first, as (id, position up to which their bytes
    are this stream's). `forks` counts direct forks.
    """

    __slots__ = (
        "id", "path", "incarnation", "content_type", "kind",
        "start", "tail", "closed", "visible_tail", "visible_closed",
        "ttl", "deadline", "expires_at", "expires",
        "closed_by", "stream_seq",
        "lineage", "fork_spec", "forks", "deleted",
    )  # fmt: skip

    id: int
    path: str
    incarnation: int
    content_type: str
    kind: int
    start: int
    tail: int
    closed: bool
    visible_tail: int
    visible_closed: bool
    ttl: "int | None"
    deadline: "float | None"
    expires_at: "str | None"
    expires: "float | None"
    closed_by: "tuple[str, int, int] | None"
    stream_seq: "str | None"
    lineage: "tuple[tuple[int, int], ...]"
    fork_spec: "str | None"
    forks: int
    deleted: bool

    def __init__(self, id: int, path: str, content_type: str) -> None:
        self.id = self.incarnation = id
        self.path = path
        self.content_type = content_type
        self.kind = media.kind_of(content_type)
        self.start = self.tail = self.visible_tail = 0
        self.closed = self.visible_closed = self.deleted = False
        self.ttl = self.deadline = self.expires_at = self.expires = None
        self.closed_by = self.stream_seq = self.fork_spec = None
        self.lineage = ()
        self.forks = 0

    def copy(self) -> "Stream":
        """Another one in the same state: a shell changes the copy of what it loaded, and keeps that."""
        other = Stream(self.id, self.path, self.content_type)
        for name in _STATE:
            setattr(other, name, getattr(self, name))
        return other

    def limit_life(self, ttl: "int | None", expires_at: "str | None", now: Now) -> None:
        """Set what ends the stream by itself: a sliding TTL in seconds or an RFC 3339 instant."""
        self.ttl = ttl
        self.deadline = None if ttl is None else now.steady + ttl
        self.expires_at = expires_at
        self.expires = None if expires_at is None else fields.instant(expires_at)

    def next_offset(self) -> "tuple[str, str]":
        """The header with the tail as writers know it."""
        return (names.NEXT_OFFSET, offsets.token(self.incarnation, self.tail))

    def publish(self) -> None:
        """Let readers see everything: the store calls it when the commit is durable."""
        self.visible_tail = self.tail
        self.visible_closed = self.closed


# All that a new one doesn't get from its id, path and content type.
_STATE = (
    "incarnation", "start", "tail", "closed", "visible_tail", "visible_closed", "ttl", "deadline", "expires_at",
    "expires", "closed_by", "stream_seq", "lineage", "fork_spec", "forks", "deleted",
)  # fmt: skip


class View:
    """What a decision may look at: the stream at the path, if any; the last (epoch, seq) that it accepted of
    the request's `producer`, if any; for a fork its source and what matters of the append its fork offset
    falls into (`create.divergence`), as (position, stored bytes); the time; and `fresh`, the incarnation
    a stream created now gets (one more than the newest issued)."""

    __slots__ = ("stream", "source", "piece", "producer", "now", "fresh")

    def __init__(
        self,
        stream: "Stream | None",
        now: Now,
        fresh: int,
        source: "Stream | None" = None,
        piece: "tuple[int, bytes] | None" = None,
        producer: "tuple[int, int] | None" = None,
    ) -> None:
        self.stream = stream
        self.source = source
        self.piece = piece
        self.producer = producer
        self.now = now
        self.fresh = fresh


class Created:
    """A new stream with its first bytes. It replaces an expired one at the same path; when it is a
    fork, `source` (an id) gains one in its `forks`."""

    __slots__ = ("stream", "data", "source")

    def __init__(self, stream: Stream, data: bytes, source: "int | None" = None) -> None:
        self.stream = stream
        self.data = data
        self.source = source


class Appended:
    """Bytes at the tail, the closing of the stream, or both, with the producer's new state: one
    atomic commit (section 5). `producer` is (id, epoch, seq) or None: the shell keeps it beside the
    stream, and shows it to the next decision that needs it."""

    __slots__ = ("at", "data", "closes", "producer", "stream_seq", "deadline")

    def __init__(
        self, at: int, data: bytes, command: Append, deadline: "float | None"
    ) -> None:
        self.at = at
        self.data = data
        self.closes = command.closes
        self.producer = command.producer
        self.stream_seq = command.stream_seq
        self.deadline = deadline

    def apply(self, stream: Stream) -> None:
        """Move the state past this change; readers see it only after `publish`."""
        stream.tail = self.at + len(self.data)
        if self.closes:
            stream.closed = True
            stream.closed_by = self.producer
        if self.stream_seq is not None:
            stream.stream_seq = self.stream_seq
        if self.deadline is not None:
            stream.deadline = self.deadline


class Renewed:
    """A sliding TTL starts again; the only change a read makes (section 6)."""

    __slots__ = ("deadline",)

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline

    def apply(self, stream: Stream) -> None:
        """Move the stream's deadline (seconds on the steady clock)."""
        stream.deadline = self.deadline


class Removed:
    """The stream ends: `soft` keeps its data for its forks, else everything goes and the store
    releases the ancestors it held (section 8)."""

    __slots__ = ("soft",)

    def __init__(self, soft: bool) -> None:
        self.soft = soft


class Trimmed:
    """The stream begins at `start` now; what lies before it is freed as far as no fork needs it."""

    __slots__ = ("start",)

    def __init__(self, start: int) -> None:
        self.start = start

    def apply(self, stream: Stream) -> None:
        """Let readers start here; an offset before it is 410."""
        stream.start = self.start


def condition(stream: "Stream | None", now: Now) -> int:
    """MISSING, OPEN, CLOSED or GONE. Expiry counts the moment it is due, whoever sweeps when."""
    if stream is None:
        return MISSING
    if stream.deleted:
        return GONE
    if (stream.deadline is not None and now.steady >= stream.deadline) or (
        stream.expires is not None and now.wall >= stream.expires
    ):
        return GONE if stream.forks else MISSING
    return CLOSED if stream.closed else OPEN


def require(stream: "Stream | None", now: Now) -> Stream:
    """The stream, if it can be read and appended to; 404 when missing or expired, 410 when gone."""
    found = condition(stream, now)
    if found == GONE:
        raise ProtocolError(410, "STREAM_GONE", "this stream was deleted; only its forks still live")
    if stream is None or found == MISSING:
        raise ProtocolError(404, "STREAM_NOT_FOUND", "there is no stream at this path; create it with PUT")
    return stream


def renewal(stream: Stream, now: Now) -> "float | None":
    """The deadline after a use of the stream now, None without a TTL."""
    return None if stream.ttl is None else now.steady + stream.ttl


def append(
    view: View, command: Append, parsers: messages.Parsers
) -> "tuple[responses.Response, Appended | Renewed | None]":
    """Decide a POST. The order of the checks is the protocol's (section 4)."""
    stream = require(view.stream, view.now)
    producer = command.producer
    state = None
    found = producers.ACCEPT
    if producer is not None:
        state = view.producer
        found = producers.verdict(state, producer[1], producer[2])
        if found == producers.STALE:
            assert state is not None
            raise producers.stale(state)
    if stream.closed:
        return _append_to_closed(stream, command), _renew(stream, view.now)
    data = _stored_form(stream, command, parsers)
    if producer is not None:
        if found == producers.DUPLICATE:
            assert state is not None
            return responses.appended(204, stream.next_offset(), state), _renew(stream, view.now)
        if found != producers.ACCEPT:
            raise producers.refuse(found, state, producer[2])
    seq = command.stream_seq
    if seq is not None and stream.stream_seq is not None and seq <= stream.stream_seq:
        raise ProtocolError(
            409, "SEQUENCE_CONFLICT", "Stream-Seq must be greater than the last one, %s" % stream.stream_seq
        )
    change = Appended(stream.tail, data, command, renewal(stream, view.now))
    after = (names.NEXT_OFFSET, offsets.token(stream.incarnation, stream.tail + len(data)))
    if producer is None:
        return responses.appended(204, after, None, command.closes), change
    # 200 tells a producer's first acceptance from a duplicate; a bare close has nothing to duplicate.
    return responses.appended(200 if data else 204, after, producer[1:], command.closes), change


def _append_to_closed(stream: Stream, command: Append) -> responses.Response:
    # The request that closed the stream succeeds again, whatever its body is now; so does a bare
    # close without a producer, because closing is all it asks.
    if command.producer is not None:
        if command.producer == stream.closed_by:
            return responses.appended(204, stream.next_offset(), command.producer[1:], True)
    elif command.closes and not command.body:
        return responses.appended(204, stream.next_offset(), None, True)
    raise ProtocolError(
        409,
        "STREAM_CLOSED",
        "the stream is closed and takes no more appends",
        ((names.CLOSED, "true"), stream.next_offset()),
    )


def _stored_form(stream: Stream, command: Append, parsers: messages.Parsers) -> bytes:
    if not command.body:
        if command.closes:
            return b""
        raise bad_request("an append needs a body; send Stream-Closed: true to close without one", "EMPTY_BODY")
    given = command.content_type
    if not given:
        raise bad_request("an append needs a Content-Type, here %s" % stream.content_type)
    if given != stream.content_type:
        try:
            same = media.essence(given) == media.essence(stream.content_type)
        except ValueError as error:
            raise bad_request(str(error)) from None
        if not same:
            raise ProtocolError(
                409, "CONTENT_TYPE_MISMATCH", "the stream holds %s, not %s" % (stream.content_type, given)
            )
    if stream.kind == media.BYTES:
        return command.body
    data = messages.stored_form(stream.kind, command.body, parsers)
    if not data:
        raise bad_request("an append needs at least one message; [] has none", "EMPTY_BODY")
    return data


def _renew(stream: Stream, now: Now) -> "Renewed | None":
    deadline = renewal(stream, now)
    return None if deadline is None else Renewed(deadline)


def head(view: View, command: Head) -> "tuple[responses.Response, None]":
    """Decide a HEAD: what readers may see, without renewing a TTL (section 7)."""
    stream = require(view.stream, view.now)
    headers = [
        ("Content-Type", stream.content_type),
        (names.NEXT_OFFSET, offsets.token(stream.incarnation, stream.visible_tail)),
        ("Cache-Control", "no-store"),
    ]
    if stream.ttl is not None:
        headers.append((names.TTL, str(stream.ttl)))
    if stream.expires_at is not None:
        headers.append((names.EXPIRES_AT, stream.expires_at))
    if stream.visible_closed:
        headers.append((names.CLOSED, "true"))
    return responses.Response(200, headers), None


def delete(view: View, command: Delete) -> "tuple[responses.Response, Removed]":
    """Decide a DELETE: soft while forks live (sections 7 and 8)."""
    stream = require(view.stream, view.now)
    return responses.Response(204, []), Removed(soft=stream.forks > 0)


def expire(view: View) -> "tuple[None, Removed | None]":
    """Decide what a sweep does with a path: remove the stream if its time is over."""
    stream = view.stream
    if stream is None or stream.deleted or condition(stream, view.now) in (OPEN, CLOSED):
        return None, None
    return None, Removed(soft=stream.forks > 0)


def trim(view: View, id: int, start: int) -> "tuple[None, Trimmed | None]":
    """Decide what retention does: let stream `id`, if it is still here, begin at `start`, where
    one of its appends does."""
    stream = view.stream
    if stream is None or stream.id != id or stream.deleted or not stream.start < start <= stream.visible_tail:
        return None, None
    return None, Trimmed(start)
