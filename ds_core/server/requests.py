"""From an HTTP request head to a command: everything wrong with the request itself ends here.

A command is what the client asked (protocol sections 3 to 8), already validated as far as that is possible without
knowing the stream. What depends on the stream is decided in `stream`, `create` and `reads`. Making one raises
ProtocolError 400, or 415 for a body that is packed.
"""

from ds_core.wire import media, names

from . import fields, offsets, producers, targets
from .errors import ProtocolError, bad_request

TYPE_CHECKING = False  # type checkers take this name for true; MicroPython has no collections.abc
if TYPE_CHECKING:
    from collections.abc import Callable

METHODS = ("GET", "HEAD", "OPTIONS", "PUT", "POST", "DELETE")

CREATE = "create"
APPEND = "append"
READ = "read"
HEAD = "head"
DELETE = "delete"


class Create:
    """PUT (protocol sections 3 and 8).

    `path` is canonical, `location` its absolute URL. `ttl` is seconds, `expires_at` an RFC 3339 time; at most one of
    them is given. `closes`: the stream is closed from the start. `body` is empty until the shell has it. Of a fork
    `source` is the path it leaves, `fork_offset` where, as `offsets.parse` gives it (`names.NOW`: the tail),
    `fork_skip` how many messages or bytes further on, and `fork_spec` all that was asked, in one spelling; else
    `source` is None.
    """

    kind = CREATE
    __slots__ = (
        "path", "location", "content_type", "ttl", "expires_at", "closes", "body",
        "source", "fork_offset", "fork_skip", "fork_spec",
    )  # fmt: skip

    path: str
    location: str
    content_type: "str | None"
    ttl: "int | None"
    expires_at: "str | None"
    closes: bool
    body: bytes
    source: "str | None"
    fork_offset: "tuple[int, int] | str"
    fork_skip: int
    fork_spec: "str | None"

    def __init__(self, path: str, headers: "dict[str, str]", origin: str, root: str = names.ROOT) -> None:
        get = headers.get
        self.path = path
        if origin:
            targets.authority(origin.partition("://")[2])
        self.location = origin + targets.url_path(path, root)
        self.content_type = _content_type(headers)
        if "content-encoding" in headers:
            _check_coding(headers["content-encoding"])
        ttl = get(names.TTL)
        self.ttl = None if ttl is None else fields.seconds(ttl)
        self.expires_at = get(names.EXPIRES_AT)
        if self.expires_at is not None:
            fields.instant(self.expires_at)
            if ttl is not None:
                raise bad_request("give Stream-TTL or Stream-Expires-At, not both")
        self.closes = fields.flag(get(names.CLOSED))
        self.body = b""
        self._fork(headers, root)

    def _fork(self, headers: "dict[str, str]", root: str) -> None:
        source = headers.get(names.FORKED_FROM)
        offset = headers.get(names.FORK_OFFSET)
        skip = headers.get(names.FORK_SUB_OFFSET)
        self.source = self.fork_spec = None
        self.fork_offset = names.NOW
        self.fork_skip = 0
        if source is None:
            if offset is not None or skip is not None:
                raise bad_request("Stream-Fork-Offset and Stream-Fork-Sub-Offset need Stream-Forked-From")
            return
        self.source = targets.stream_path(targets.split_target(source)[0], root)
        if offset is not None:
            self.fork_offset = offsets.parse(offset)
        if skip is not None:
            self.fork_skip = fields.decimal(skip, "Stream-Fork-Sub-Offset", offsets.MAX_POSITION)
            if self.fork_skip and offset is None:
                raise bad_request("Stream-Fork-Sub-Offset needs Stream-Fork-Offset")
        # What was asked, in one spelling: the same request again is recognised by it (section 8).
        self.fork_spec = "%s %s %d %s %s" % (
            targets.url_path(self.source),
            self.fork_offset if isinstance(self.fork_offset, str) else offsets.token(*self.fork_offset),
            self.fork_skip,
            self.ttl,
            self.expires_at,
        )


class Append:
    """POST (protocol sections 4 and 5). `producer` is (id, epoch, seq) or None.

    `closes`: it closes the stream, after its body if there is one. `stream_seq` is compared as text. `body` is empty
    until the shell has it.
    """

    kind = APPEND
    __slots__ = ("path", "content_type", "body", "closes", "producer", "stream_seq")

    path: str
    content_type: "str | None"
    body: bytes
    closes: bool
    producer: "tuple[str, int, int] | None"
    stream_seq: "str | None"

    def __init__(self, path: str, headers: "dict[str, str]") -> None:
        get = headers.get
        self.path = path
        # Validated against the stream only: a close without a body ignores it (section 4).
        self.content_type = get("content-type")
        if "content-encoding" in headers:
            _check_coding(headers["content-encoding"])
        self.body = b""
        self.closes = fields.flag(get(names.CLOSED))
        self.stream_seq = get(names.STREAM_SEQ)
        producer = get(names.PRODUCER_ID)
        epoch = get(names.PRODUCER_EPOCH)
        seq = get(names.PRODUCER_SEQ)
        self.producer = None
        if producer is None and epoch is None and seq is None:
            return
        if producer is None or epoch is None or seq is None:
            raise bad_request("Producer-Id, Producer-Epoch and Producer-Seq go together: give all or none")
        if not 0 < len(producer) <= producers.MAX_ID:
            raise bad_request("Producer-Id must have 1 to %d characters" % producers.MAX_ID)
        self.producer = (
            producer,
            fields.decimal(epoch, "Producer-Epoch", producers.MAX_NUMBER),
            fields.decimal(seq, "Producer-Seq", producers.MAX_NUMBER),
        )


class Read:
    """GET (protocol section 6). `live` is None, `long-poll` or `sse`.

    `offset` is as `offsets.parse` gives it, `max_bytes` the most bytes of the stream that are wanted at once; `cursor`
    and `if_none_match` are as they were sent. What was not given is None.
    """

    kind = READ
    __slots__ = ("path", "offset", "live", "cursor", "max_bytes", "if_none_match")

    path: str
    offset: "tuple[int, int] | str"
    live: "str | None"
    cursor: "str | None"
    max_bytes: "int | None"
    if_none_match: "str | None"

    def __init__(self, path: str, headers: "dict[str, str]", query: "dict[str, str]") -> None:
        self.path = path
        self.live = query.get(names.LIVE)
        if self.live is not None and self.live not in (names.LONG_POLL, names.SSE):
            raise bad_request("live must be long-poll or sse")
        offset = query.get(names.OFFSET)
        if offset is None:
            if self.live is not None:
                raise bad_request("live=%s needs an offset; offset=-1 is the beginning" % self.live)
            self.offset = offsets.START
        else:
            self.offset = offsets.parse(offset)
        self.cursor = query.get(names.CURSOR)
        limit = query.get(names.MAX_BYTES)
        self.max_bytes = None if limit is None else fields.decimal(limit, "max-bytes", offsets.MAX_POSITION)
        self.if_none_match = headers.get("if-none-match")


class Head:
    """HEAD (protocol section 7)."""

    kind = HEAD
    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path


class Delete:
    """DELETE (protocol section 7)."""

    kind = DELETE
    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path


def parse(
    method: str,
    target: str,
    headers: "dict[str, str]",
    origin: str = "",
    body: bytes = b"",
    resolve: "Callable[[str, bool], tuple[str, dict[str, str]]]" = targets.resolve,
    root: str = names.ROOT,
) -> "Create | Append | Read | Head | Delete":
    """The command of a request; a shell that parses before it has the body sets it on Create and Append.

    `headers` has lower-case names; `origin` is `http://` and Host, for absolute Locations. A shell
    with memory to spare passes a `resolve` that remembers. One whose streams live elsewhere than under `/v1/stream/`
    passes its `root`, and a `resolve` that knows it. OPTIONS is answered by
    `responses.preflight` before it gets here. Raises ProtocolError.
    """
    path, query = resolve(target, method == "GET")
    if method == "POST":
        append = Append(path, headers)
        append.body = body
        return append
    if method == "GET":
        return Read(path, headers, query)
    if method == "HEAD":
        return Head(path)
    if method == "PUT":
        create = Create(path, headers, origin, root)
        create.body = body
        return create
    if method == "DELETE":
        return Delete(path)
    raise ProtocolError(
        405,
        "METHOD_NOT_ALLOWED",
        "streams know %s" % ", ".join(METHODS),
        (("Allow", ", ".join(METHODS)),),
    )


def _check_coding(coding: str) -> None:
    # Unpacked, a body could be anything of any size; stored packed, no reader would know.
    if coding.lower() not in ("", "identity"):
        raise ProtocolError(
            415,
            "UNSUPPORTED_CODING",
            "bodies are stored as they are sent: send them without Content-Encoding",
            (("Accept-Encoding", "identity"),),
        )


def _content_type(headers: "dict[str, str]") -> "str | None":
    given = headers.get("content-type")
    if not given:
        return None
    try:
        media.essence(given)
    except ValueError as error:
        raise bad_request(str(error)) from None
    return given
