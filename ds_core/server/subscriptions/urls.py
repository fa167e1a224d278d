"""Where a webhook may be, as far as that can be judged without a network (protocol section 9).

There is one reading of a URL, and it is strict: what two parsers could read differently is refused (userinfo,
backslashes, blanks, hosts that are numbers in disguise). A name is judged when it is resolved, at every delivery, by
whoever connects; here only what is written counts.
"""

from ..errors import ProtocolError

TYPE_CHECKING = False  # type checkers take this name for true; MicroPython has no collections.abc
if TYPE_CHECKING:
    from collections.abc import Callable

MAX_URL = 2048
_HOST = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.")
_DIGITS = frozenset("0123456789")
_HEX = frozenset("0123456789abcdef")
_LOCAL = ("localhost", "local", "localdomain", "internal", "intranet", "home.arpa", "corp", "lan", "home")
# Networks that are nobody's on the Internet, or one's own (RFC 6890 and what came since): (address, prefix).
_SPECIAL = (
    (0x00000000, 8), (0x0A000000, 8), (0x64400000, 10), (0x7F000000, 8), (0xA9FE0000, 16), (0xAC100000, 12),
    (0xC0000000, 24), (0xC0000200, 24), (0xC0586300, 24), (0xC0A80000, 16), (0xC6120000, 15), (0xC6336400, 24),
    (0xCB007100, 24), (0xE0000000, 4), (0xF0000000, 4),
)  # fmt: skip


def rejected(message: str) -> ProtocolError:
    """400 for a URL that no request of the server's goes to."""
    return ProtocolError(400, "WEBHOOK_URL_REJECTED", message)


def split(url: str) -> "tuple[str, str, int, str]":
    """Scheme, host in lower case (IPv6 without its brackets), port, and target. ProtocolError 400."""
    if len(url) > MAX_URL:
        raise rejected("a webhook's URL has at most %d characters" % MAX_URL)
    for char in url:
        if not "!" <= char <= "~" or char in '\\"<>^`{|}':
            raise rejected("a webhook's URL has printable ASCII only, percent-encoded, and no blanks or backslashes")
    scheme, found, rest = url.partition("://")
    scheme = scheme.lower()
    if not found or scheme not in ("http", "https"):
        raise rejected("a webhook's URL begins with https://")
    if "#" in rest:
        raise rejected("a webhook's URL has no fragment")
    cut = len(rest)
    for mark in "/?":
        at = rest.find(mark)
        if 0 <= at < cut:
            cut = at
    authority, target = rest[:cut], rest[cut:]
    if "@" in authority:
        raise rejected("a webhook's URL has no user name or password in it")
    if authority[:1] == "[":
        host, closed, port = authority[1:].partition("]")
        valid = bool(closed) and host.count(":") > 1 and (not port or port[0] == ":")
        port = port[1:] if port else ""
        letters = _HEX | frozenset(":.")
        colon = authority[-1:] == ":"
    else:
        host, with_port, port = authority.partition(":")
        valid, letters, colon = bool(host), _HOST, bool(with_port) and not port
    host = host.lower()
    for char in host:
        valid = valid and char in letters
    for char in port:
        valid = valid and char in _DIGITS
    if not valid or colon or len(host) > 253 or len(port) > 5 or (port and not 0 < int(port) < 65536):
        raise rejected("a webhook's URL has a host, and perhaps a port, as in https://ops.example:8443/wake")
    if letters is _HOST:
        _check_name(host)
    return scheme, host, int(port) if port else (443 if scheme == "https" else 80), target or "/"


def _check_name(host: str) -> None:
    """Refuse names that are no names: empty labels, and numbers that some resolvers take for addresses."""
    labels = (host[:-1] if host[-1:] == "." else host).split(".")
    for label in labels:
        if not 0 < len(label) < 64 or label[0] == "-" or label[-1] == "-":
            raise rejected("a webhook's host is a name such as ops.example, or an address")
    last = labels[-1]
    number = last[:2] == "0x"
    for char in last:
        number = number or char in _DIGITS
    if number and ipv4(host) is None:
        for char in last:
            if char not in _HEX and char != "x":
                return  # a name that ends with a digit, as in `gw1`
        raise rejected("an address of a webhook is written as in 203.0.113.7")


def ipv4(host: str) -> "int | None":
    """The number of a dotted quad in its one canonical spelling; None for anything else."""
    parts = host.split(".")
    if len(parts) != 4:
        return None
    number = 0
    for part in parts:
        if not 0 < len(part) < 4 or (len(part) > 1 and part[0] == "0"):
            return None
        for char in part:
            if char not in _DIGITS:
                return None
        if int(part) > 255:
            return None
        number = number << 8 | int(part)
    return number


def is_special(number: int) -> bool:
    """Whether an IPv4 address is private, local, or for nobody: not one of the Internet's."""
    for network, prefix in _SPECIAL:
        if number >> (32 - prefix) == network >> (32 - prefix):
            return True
    return False


def check(url: str, allowed: "Callable[[str, str, int], bool] | None" = None) -> str:
    """The URL, where a webhook may be there: https, or http to this machine (`localhost`, 127.x.y.z).

    `allowed(scheme, host, port)` says of which others the operator does. ProtocolError 400.
    """
    scheme, host, port, _ = split(url)
    if allowed is not None and allowed(scheme, host, port):
        return url
    name = host[:-1] if host[-1:] == "." else host
    number = ipv4(name)
    here = name == "localhost" or (number is not None and number >> 24 == 127)
    if scheme == "http":
        if not here or host != name:
            raise rejected("a webhook is https, or http on this machine (localhost, 127.0.0.1)")
        return url
    if here or ":" in host or (number is not None and is_special(number)):
        raise rejected("a webhook's address must be one of the Internet's; the operator may allow others")
    for suffix in _LOCAL:
        if name == suffix or name[-len(suffix) - 1 :] == "." + suffix:
            raise rejected("a webhook's host must be one of the Internet's; the operator may allow others")
    return url
