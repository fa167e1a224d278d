"""Request heads: the strict, unambiguous grammar, read in one pass (RFC 9112 sections 2 to 6).

What this module accepts, every correct parser reads the same way; what is legal but rare (obsolete
folding, absolute targets' oddities, transfer codings, expectations) or plain wrong it leaves alone
by returning None, so that a full HTTP authority can take over from the very same bytes.
"""

MAX_HEAD = 16384
"""Longest request head in bytes, its last empty line included."""

MAX_FIELDS = 100
"""Most fields in a head: each takes time to read, and nobody needs more."""

END = b"\r\n\r\n"

_TOKEN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-0123456789!#$%&'*+.^_`|~"

CHUNKED = -1
"""The `length` of a body in chunks, which `ds_core.wire.chunked.ChunkedDecoder` reads."""

# What changes framing or the connection, and the values of it whose meaning is beyond doubt.
_TRANSPORT = {
    "transfer-encoding": ("chunked",),
    "expect": ("100-continue",),
    "connection": ("keep-alive", "close"),
    "upgrade": (),
    "trailer": (),
    "te": (),
}


class RequestHead:
    """A parsed head. `length` is the declared body length, 0 without one, or CHUNKED."""

    __slots__ = ("method", "target", "headers", "length")

    def __init__(self, method: str, target: str, headers: "dict[str, str]", length: int) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.length = length


def parse(head: bytes, transport: bool = False) -> "RequestHead | None":
    """The head that `head` holds, up to and including its empty line, or None to let another decide.

    Accepted is HTTP/1.1 with `Host`, one space between the parts of the request line, every line
    ended by CRLF, no repeated field, no folding, printable ASCII (no tabs) everywhere, and no field
    that changes framing or connection but Content-Length. Names come back in lower case.

    `transport=True` is for a server without another authority: it also accepts `Connection:
    keep-alive` or `close`, `Expect: 100-continue` and, without Content-Length,
    `Transfer-Encoding: chunked`; what it says about the connection is the caller's to obey.
    """
    try:
        text = str(head, "ascii")
    except UnicodeError:
        return None
    lines = text.split("\r\n")
    if not 3 <= len(lines) <= MAX_FIELDS + 3 or lines[-1] or lines[-2] or not _printable(lines[0]):
        return None
    parts = lines[0].split(" ")
    if len(parts) != 3 or parts[2] != "HTTP/1.1" or not parts[0].isalpha() or parts[1][:1] != "/":
        return None
    headers: "dict[str, str]" = {}
    known = _known[transport]
    for line in lines[1:-2]:
        field = known.get(line) or _field(line, transport)
        if field is None:
            return None
        headers[field[0]] = field[1]
    if len(headers) != len(lines) - 3:
        return None  # a field that comes twice
    if "host" not in headers:
        return None
    if "transfer-encoding" in headers:
        if "content-length" in headers:
            return None
        return RequestHead(parts[0], parts[1], headers, CHUNKED)
    length = headers.get("content-length", "0")
    if not 0 < len(length) <= 12 or not length.isdigit():
        return None
    return RequestHead(parts[0], parts[1], headers, int(length))


# Fields as clients write them again and again (Host, Content-Type): each is checked once. By `transport`, as that
# decides which are accepted. What changes with every request is not worth its place here, and secrets don't stay.
_known: "tuple[dict[str, tuple[str, str]], dict[str, tuple[str, str]]]" = ({}, {})
_MOST_KNOWN = 256
_LONGEST_KNOWN = 256


def _field(line: str, transport: bool) -> "tuple[str, str] | None":
    """Name, in lower case, and value of a field line; None for what isn't accepted."""
    raw, colon, value = line.partition(":")
    # What is left of a name without the characters of a token at either end holds another one.
    if not colon or not raw or raw.strip(_TOKEN) or not _printable(line):
        return None
    name = raw.lower()
    value = value.strip(" ")
    if name in _TRANSPORT and not (transport and value.lower() in _TRANSPORT[name]):
        return None
    if _IS_PRINTABLE is not None and len(line) <= _LONGEST_KNOWN and name not in _PASSING:
        known = _known[transport]
        if len(known) >= _MOST_KNOWN:
            del known[next(iter(known))]  # the oldest: what everybody sends is soon back
        known[line] = (name, value)
    return name, value


def _printable(text: str) -> bool:
    # The split took every CRLF; a bare CR or LF, a tab and any other control is still inside. Beyond
    # ASCII: MicroPython decodes "ascii" as UTF-8.
    if _IS_PRINTABLE is not None:
        printable: bool = _IS_PRINTABLE(text)
        return printable
    for char in text:
        if char < " " or char > "~":
            return False
    return True


# In C where there is such a thing; for ASCII it means the same.
_IS_PRINTABLE = getattr(str, "isprintable", None)
# Where there is not, nothing is remembered.
if _IS_PRINTABLE is not None:
    _PASSING = frozenset(
        ("producer-seq", "stream-seq", "if-none-match", "authorization", "proxy-authorization", "cookie")
    )
