"""Request heads: the strict, unambiguous grammar, read in one pass (RFC 9112 sections 2 to 6).

What this module accepts, every correct parser reads the same way; what is legal but rare (obsolete
folding, absolute targets' oddities, transfer codings, expectations) or plain wrong it leaves alone
by returning None, so that a full HTTP authority can take over from the very same bytes.
"""

MAX_HEAD = 16384
"""Longest request head in bytes, its last empty line included."""

END = b"\r\n\r\n"

_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

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
    if len(lines) < 3 or lines[-1] or lines[-2] or not _printable(lines):
        return None
    parts = lines[0].split(" ")
    if len(parts) != 3 or parts[2] != "HTTP/1.1" or not parts[0].isalpha() or parts[1][:1] != "/":
        return None
    headers: "dict[str, str]" = {}
    for line in lines[1:-2]:
        raw, colon, value = line.partition(":")
        name = _names.get(raw) or _name(raw)
        if not colon or not name or name in headers:
            return None
        value = value.strip(" ")
        if name in _TRANSPORT and not (transport and value.lower() in _TRANSPORT[name]):
            return None
        headers[name] = value
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


# Field names as they were written, in lower case: the few that clients use are checked once. Others fill this at
# most, and only until it is full.
_names: "dict[str, str]" = {}
_MOST_NAMES = 64


def _name(raw: str) -> "str | None":
    for char in raw:
        if char not in _TOKEN:
            return None
    name = raw.lower()
    if name and len(raw) <= 32:
        if len(_names) >= _MOST_NAMES:
            _names.clear()  # names that nobody else sends must not keep out those that everybody does
        _names[raw] = name
    return name


def _printable(lines: "list[str]") -> bool:
    # The split took every CRLF; a bare CR or LF, a tab and any other control is still inside. Beyond
    # ASCII: MicroPython decodes "ascii" as UTF-8.
    text = "".join(lines)
    if _IS_PRINTABLE is not None:
        printable: bool = _IS_PRINTABLE(text)
        return printable
    for char in text:
        if char < " " or char > "~":
            return False
    return True


# In C where there is such a thing; for ASCII it means the same.
_IS_PRINTABLE = getattr(str, "isprintable", None)
