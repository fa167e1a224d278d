"""Responses: status, headers and body of every answer (protocol sections 1, 3 to 8 and 11).

A `Response` is complete but for what the shell knows alone: framing, `Date` and content coding.
`encode_head` writes the bytes of a head with the headers that every response carries.
"""

from ds_core.wire import names

from . import messages, offsets
from .errors import ProtocolError

PHRASES = {
    100: "Continue", 200: "OK", 201: "Created", 204: "No Content", 304: "Not Modified",
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 408: "Request Timeout", 409: "Conflict", 410: "Gone",
    411: "Length Required", 413: "Content Too Large", 414: "URI Too Long",
    415: "Unsupported Media Type",
    417: "Expectation Failed", 421: "Misdirected Request", 426: "Upgrade Required", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 501: "Not Implemented",
    503: "Service Unavailable", 505: "HTTP Version Not Supported", 507: "Insufficient Storage",
}  # fmt: skip

_REQUEST_HEADERS = (
    "Content-Type, Authorization, If-None-Match, Stream-Seq, Stream-TTL, Stream-Expires-At, "
    "Stream-Closed, Stream-Forked-From, Stream-Fork-Offset, Stream-Fork-Sub-Offset, "
    "Producer-Id, Producer-Epoch, Producer-Seq"
)
_RESPONSE_HEADERS = (
    "Stream-Next-Offset, Stream-Up-To-Date, Stream-Closed, Stream-Cursor, Stream-TTL, "
    "Stream-Expires-At, Stream-SSE-Data-Encoding, Stream-Earliest-Offset, Producer-Epoch, "
    "Producer-Seq, Producer-Expected-Seq, Producer-Received-Seq, ETag, Location, Content-Type, "
    "Content-Encoding, Vary, Retry-After, WWW-Authenticate"
)

SECURITY_HEADERS = "x-content-type-options: nosniff\r\ncross-origin-resource-policy: cross-origin\r\n"
CORS_HEADERS = (
    "access-control-allow-origin: *\r\naccess-control-expose-headers: %s\r\n" % _RESPONSE_HEADERS
)
_SAFE_AND_SHARED = SECURITY_HEADERS + CORS_HEADERS

PUBLIC = "public, max-age=60, stale-while-revalidate=300"
PRIVATE = "private, max-age=60, stale-while-revalidate=300"


class Response:
    """Status, headers as (name, value) pairs, and the whole body."""

    __slots__ = ("status", "headers", "body")

    def __init__(self, status: int, headers: "list[tuple[str, str]]", body: bytes = b"") -> None:
        self.status = status
        self.headers = headers
        self.body = body


def encode_head(
    status: int, headers: "list[tuple[str, str]]", extra: str, cors: bool, length: "int | None"
) -> bytes:
    """The bytes of a response head.

    `extra` is header lines of the shell's own (`Date`, `Connection`, `Transfer-Encoding`),
    each ended by CRLF. `length` is the body's, None when the framing is in `extra` or the
    status has no body (204, 304: RFC 9110 section 8.6). `cors` may be False only for answers to
    a POST without `Origin`: no browser made it, and devices pay for every byte.
    """
    lines = ["HTTP/1.1 %d %s\r\n" % (status, PHRASES[status])]
    for name, value in headers:
        lines.append("%s: %s\r\n" % (name, value))
    if length is not None and status != 204 and status != 304:
        lines.append("content-length: %d\r\n" % length)
    lines.append(_SAFE_AND_SHARED if cors else SECURITY_HEADERS)
    lines.append(extra)
    lines.append("\r\n")
    return "".join(lines).encode("latin-1" if _LATIN else "utf-8")


def pairs(response: Response, length: "int | None", cors: bool = True) -> "list[tuple[str, str]]":
    """What `encode_head` writes as headers, as (name, value) pairs: for a shell behind a server that writes heads
    itself (WSGI, ASGI). Names are in whatever case."""
    found = list(response.headers)
    if length is not None and response.status != 204 and response.status != 304:
        found.append(("content-length", str(length)))
    for line in (_SAFE_AND_SHARED if cors else SECURITY_HEADERS).split("\r\n")[:-1]:
        name, _, value = line.partition(": ")
        found.append((name, value))
    return found


# MicroPython's str.encode knows UTF-8 only; its heads are ASCII anyway.
try:
    _LATIN = "\xe9".encode("latin-1") == b"\xe9"
except (LookupError, TypeError, ValueError):
    _LATIN = False


def preflight() -> Response:
    """The answer to OPTIONS."""
    return Response(
        204,
        [
            ("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS, PUT, POST, DELETE"),
            ("Access-Control-Allow-Headers", _REQUEST_HEADERS),
            ("Access-Control-Max-Age", "86400"),
        ],
    )


def refusal(error: ProtocolError) -> Response:
    """The answer to a request that was refused: short JSON (section 11)."""
    body = '{"error": {"code": "%s", "message": %s}}' % (error.code, json_string(error.message))
    headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
    headers.extend(error.headers)
    return Response(error.status, headers, body.encode())


def json_string(text: str) -> str:
    """A JSON string literal of printable ASCII; everything else becomes an escape."""
    out = ['"']
    for char in text:
        code = ord(char)
        if char == '"' or char == "\\":
            out.append("\\" + char)
        elif 32 <= code < 127:
            out.append(char)
        elif code < 0x10000:
            out.append("\\u%04x" % code)
        else:
            code -= 0x10000
            out.append("\\u%04x\\u%04x" % (0xD800 + (code >> 10), 0xDC00 + (code & 0x3FF)))
    out.append('"')
    return "".join(out)


def appended(
    status: int,
    next_offset: "tuple[str, str]",
    producer: "tuple[int, int] | None",
    closed: bool = False,
) -> Response:
    """The answer to a POST that is done, now or before; `producer` is its (epoch, last seq)."""
    headers = [next_offset]
    if producer is not None:
        headers.append((names.PRODUCER_EPOCH, str(producer[0])))
        headers.append((names.PRODUCER_SEQ, str(producer[1])))
    if closed:
        headers.append((names.CLOSED, "true"))
    return Response(status, headers)


class Position:
    """Where a read ends and what that means: everything its headers are made of (section 6).

    `id` is the stream's own incarnation, which only a fork has beside the one in its offsets.
    """

    __slots__ = ("id", "incarnation", "kind", "content_type", "start", "end", "up_to_date", "closed")

    def __init__(
        self,
        id: int,
        incarnation: int,
        kind: int,
        content_type: str,
        start: int,
        end: int,
        up_to_date: bool,
        closed: bool,
    ) -> None:
        self.id = id
        self.incarnation = incarnation
        self.kind = kind
        self.content_type = content_type
        self.start = start
        self.end = end
        self.up_to_date = up_to_date
        self.closed = closed

    def headers(self) -> "list[tuple[str, str]]":
        """Next offset, up-to-date and closed; the last only at the tail of a closed stream."""
        found = [(names.NEXT_OFFSET, offsets.token(self.incarnation, self.end))]
        if self.up_to_date:
            found.append((names.UP_TO_DATE, "true"))
        if self.closed:
            found.append((names.CLOSED, "true"))
        return found

    def etag(self) -> str:
        """Varies with the stream, the range and with whether the stream ends here. Two forks made
        one after the other at one path share their offsets, but not this."""
        return '"%d:%d:%d%s"' % (self.id, self.start, self.end, ":c" if self.closed else "")

    def size(self) -> int:
        """The length in bytes of the body that shows this range."""
        return messages.body_size(self.kind, self.end - self.start)


def catch_up(position: Position, if_none_match: "str | None", cache_control: str) -> Response:
    """The head of a catch-up read, body to follow; 304 when the client has it already."""
    etag = position.etag()
    headers = position.headers()
    headers.append(("ETag", etag))
    headers.append(("Cache-Control", cache_control))
    if if_none_match is not None and _matches(if_none_match, etag):
        return Response(304, headers)
    _show_type(headers, position.content_type)
    return Response(200, headers)


def _show_type(headers: "list[tuple[str, str]]", content_type: str) -> None:
    headers.append(("Content-Type", content_type))
    kind = content_type.lower()
    if "html" in kind or "xml" in kind:
        # Whoever may append must not be able to run scripts as a page of this server (SVG is XML too).
        headers.append(("Content-Security-Policy", "sandbox"))


def _matches(if_none_match: str, etag: str) -> bool:
    # Weak comparison (RFC 9110 section 13.1.2): a compressed answer carries the tag as weak.
    for tag in if_none_match.split(","):
        tag = tag.strip()
        if tag == "*" or (tag[2:] if tag.startswith("W/") else tag) == etag:
            return True
    return False


def at_now(position: Position) -> Response:
    """The answer to a catch-up read with `offset=now`: the tail, and nothing a cache may keep."""
    headers = position.headers()
    headers.append(("Cache-Control", "no-store"))
    _show_type(headers, position.content_type)
    return Response(200, headers, messages.body(position.kind, b""))


def long_poll(position: Position, cursor: str, cache_control: str) -> Response:
    """The head of a long-poll: 200 with data to follow, or 204 when there is none."""
    headers = position.headers()
    headers.append((names.STREAM_CURSOR, cursor))
    if position.start == position.end:
        headers.append(("Cache-Control", "no-store"))
        return Response(204, headers)
    headers.append(("ETag", position.etag()))
    headers.append(("Cache-Control", cache_control))
    _show_type(headers, position.content_type)
    return Response(200, headers)


def sse(binary: bool) -> Response:
    """The head of an SSE response."""
    # nginx would hold events back until its buffer is full.
    headers = [("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache"), ("X-Accel-Buffering", "no")]
    if binary:
        headers.append((names.SSE_DATA_ENCODING, "base64"))
    return Response(200, headers)
