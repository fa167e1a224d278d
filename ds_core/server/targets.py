"""Request targets: one canonical stream path or 400, and the query (protocol sections 1 and 2).

A path is the percent-decoded UTF-8 text behind the root: non-empty segments, no dot segments, no
control characters, no encoded slash. Two spellings of one stream therefore meet here and nowhere
else, and nothing behind this module decodes anything.
"""

from ds_core.wire import names

from .errors import ProtocolError, bad_request

MAX_PATH = 1024
"""Longest stream path in bytes, before and after decoding."""

_HOST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")
_ADDRESS = frozenset("0123456789abcdefABCDEF:.")
_UNRESERVED = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=:@")


def stream_path(raw: str, root: str = names.ROOT) -> str:
    """The canonical path of a stream from the path part of a target, as `/v1/stream/a/b`.

    `root` begins and ends with a slash. Raises ProtocolError 404 outside of it and inside the reserved prefix, 400 for
    a path that has no canonical form, 414 for one that is too long.
    """
    if not raw.startswith(root):
        raise ProtocolError(404, "NOT_FOUND", "streams live under %s<path>" % root)
    path = raw[len(root) :]
    if len(path) > MAX_PATH:
        raise ProtocolError(414, "PATH_TOO_LONG", "a stream path has at most %d bytes" % MAX_PATH)
    segments = path.split("/")
    for index in range(len(segments)):
        segment = percent_decode(segments[index], "path")
        if not segment or segment == "." or segment == "..":
            raise bad_request("a stream path has no empty and no dot segments", "INVALID_PATH")
        for char in segment:
            if char < " " or char == "/" or char == "\x7f":
                raise bad_request(
                    "a stream path has no control characters and no encoded slashes", "INVALID_PATH"
                )
        segments[index] = segment
    if segments[0] == names.RESERVED:
        raise ProtocolError(
            404, "NOT_FOUND", "paths under %s%s/ are reserved for control APIs" % (root, names.RESERVED)
        )
    return "/".join(segments)


def url_path(path: str, root: str = names.ROOT) -> str:
    """The canonical, percent-encoded target of a stream path: what Location shows."""
    parts = []
    for byte in path.encode():
        parts.append(chr(byte) if byte in _UNRESERVED or byte == 0x2F else "%%%02X" % byte)
    return root + "".join(parts)


def split_target(target: str) -> "tuple[str, str]":
    """Path and query of an origin-form or absolute-form target (RFC 9112 section 3.2); a fragment
    is no part of either, and 400."""
    if "#" in target:
        raise bad_request("a target has no fragment; a # in a path or query is written as %23", "INVALID_TARGET")
    if not target.startswith("/"):
        scheme, found, rest = target.partition("://")
        if not found or scheme.lower() not in ("http", "https"):
            raise bad_request("the request target must be a path or an http URL", "INVALID_TARGET")
        rest, _, query = rest.partition("?")
        slash = rest.find("/")
        authority(rest[:slash] if slash >= 0 else rest)
        return rest[slash:] if slash >= 0 else "/", query
    path, _, query = target.partition("?")
    return path, query


def authority(text: str) -> "tuple[str, int | None]":
    """Host and port of what stands in Host or before a target's path (RFC 9110 section 7.2).

    The host is in lower case, an IPv6 address without its brackets; there may be no port. 400 for anything else: what
    goes into a Location, a link or a callback has been here.
    """
    if text[:1] == "[":
        host, _, rest = text[1:].partition("]")
        letters = _ADDRESS
        valid = 1 < len(host) < 46 and host.count(":") > 1 and len(text) > len(host) + 1
    else:
        host, colon, port = text.partition(":")
        rest = colon + port
        letters = _HOST
        valid = 0 < len(host) < 256 and host[0] != "." and ".." not in host
    for char in host:
        if char not in letters:
            valid = False
    port = rest[1:]
    if rest and (rest[0] != ":" or not 0 < len(port) < 6 or not _digits(port) or int(port) > 65535):
        valid = False
    if not valid:
        raise bad_request("Host must be a host, perhaps with a port, such as gateway.example:4437", "INVALID_HOST")
    return host.lower(), int(port) if port else None


def _digits(text: str) -> bool:
    for char in text:
        if not "0" <= char <= "9":
            return False
    return True


def target_authority(target: str) -> "str | None":
    """The authority of an absolute-form target, which goes before Host (RFC 9112 section 3.2.2); None for a path."""
    if target[:1] == "/" or "://" not in target:
        return None
    rest = target.partition("://")[2]
    for mark in ("/", "?", "#"):
        rest = rest.partition(mark)[0]
    return rest


def resolve(target: str, reads: bool, root: str = names.ROOT) -> "tuple[str, dict[str, str]]":
    """The stream path of a target, and its parameters, which only `reads` have. Nobody changes
    what this returns, so it may be remembered."""
    raw_path, query = split_target(target)
    return stream_path(raw_path, root), parse_query(query) if reads else {}


def parse_query(query: str) -> "dict[str, str]":
    """The parameters of a query, decoded. 400 for a repeated `offset`, `live` or `cursor`."""
    found: "dict[str, str]" = {}
    if not query:
        return found
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        name = percent_decode(name.replace("+", " "), "query")
        if name in found and name in (names.OFFSET, names.LIVE, names.CURSOR, names.MAX_BYTES):
            raise bad_request("the parameter %s is given more than once" % name)
        found[name] = percent_decode(value.replace("+", " "), "query")
    return found


def percent_decode(text: str, where: str) -> str:
    """Text with its `%XX` escapes undone, strict about both the escapes and UTF-8."""
    if "%" not in text:
        for char in text:
            if char > "~":
                break
        else:
            return text
    parts = text.split("%")
    try:
        raw = bytearray(_latin(parts[0]))
        for part in parts[1:]:
            if len(part) < 2:
                raise ValueError
            high, low = _HEX.find(part[0].lower()), _HEX.find(part[1].lower())
            if high < 0 or low < 0:
                raise ValueError
            raw.append(high * 16 + low)
            raw.extend(_latin(part[2:]))
        decoded = str(bytes(raw), "utf-8")
        # MicroPython also decodes surrogates and overlong forms; they are not what they decode to.
        for char in decoded:
            if 0xD800 <= ord(char) <= 0xDFFF:
                raise ValueError
        if "".join([chr(ord(char)) for char in decoded]).encode() != raw:
            raise ValueError
        return decoded
    except (ValueError, UnicodeError):
        raise bad_request("the %s must be UTF-8, percent-encoded as %%XX" % where) from None


_HEX = "0123456789abcdef"


def _latin(text: str) -> bytes:
    # Heads are decoded as Latin-1, one character a byte; bytes() refuses anything wider.
    return bytes([ord(char) for char in text])
