"""What a server that asks for no token answers to: names in Host that no stranger can own, pages of its own machine.

A web page may send requests wherever its browser's user can. It gets past the browser's own rules by a name of its
owner's that is made to mean this machine (DNS rebinding), which Host shows; and, as the protocol wants CORS for
everybody, by just asking, which Origin shows. So without access control

- Host must be a name of this machine (`LOOPBACK`), or, when others are let in (`NETWORK`), an address or a name
  that can't be had on the Internet; or one of the `hosts` that the operator names. Behind a certificate
  (`CERTIFIED`) it may be any: browsers check that themselves.
- Origin, where there is one, must be of this machine, the one that is asked itself, or one that `cors` names.

An absolute target's authority doesn't count here: browsers send such targets to proxies, and a page has no say in it.

With access control (`ANYWHERE`) a page has to bring a token, and only the syntax of Host is checked. It always is.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from typing import TypeVar

from ds_core.server import targets
from ds_core.server.errors import ProtocolError

T = TypeVar("T")

ANYWHERE, LOOPBACK, NETWORK, CERTIFIED = "anywhere", "loopback", "network", "certified"
"""Where those come from whom a server listens to, as `Origins` is told: it decides which names in Host are answered."""

# Not delegated, and not going to be (RFC 6761, 6762, 8375, and ICANN's resolutions): nobody can register below them.
_PRIVATE = ("local", "internal", "home.arpa", "lan", "home", "corp", "test")
_MOST_KNOWN = 256


class Origins:
    """The names and pages that a server answers to.

    `reach` is where those come from whom it listens to: ANYWHERE, LOOPBACK, NETWORK or CERTIFIED. `hosts` are names in
    Host to answer besides, `cors` origins of pages; `*` stands for all.
    """

    def __init__(self, reach: str = ANYWHERE, hosts: Iterable[str] = (), cors: Iterable[str] = ()) -> None:
        self._reach = reach
        self._hosts = frozenset(hosts)
        self._cors = frozenset(cors)
        self.guarded = reach != ANYWHERE and "*" not in self._cors
        # What was accepted, within a bound: the same few come again and again.
        self._known_hosts: set[str] = set()
        self._known_origins: set[str] = set()

    def check(self, headers: Mapping[str, str], preflight: bool = False) -> None:
        """Raise ProtocolError 400, 421 or 403 unless a request may go on; to be called for each, before all else.

        A `preflight` (OPTIONS) only asks; the protocol has everybody answered, and what comes of it is checked.
        """
        host = headers.get("host")
        if host and host not in self._known_hosts:  # HTTP/1.0 may have none, and no browser sends that
            self._check_host(host)
            _remember(self._known_hosts, host)
        if self.guarded and not preflight:
            origin = headers.get("origin")
            if origin is None and headers.get("sec-fetch-site") == "cross-site":
                # A script or an image: no page can read it, but what it is and how large shows. A link may be followed.
                if headers.get("sec-fetch-mode") != "navigate":
                    origin = "/".join(headers.get("referer", "null").split("/", 3)[:3])
            if origin is not None and origin not in self._known_origins:
                scheme, _, page = origin.partition("://")
                itself = host and page == host and scheme in ("http", "https")
                if not (itself or origin.lower() in self._cors or _is_of_this_machine(origin)):
                    raise ProtocolError(
                        403,
                        "UNKNOWN_ORIGIN",
                        "without access control this server is for pages of its own machine; its operator can add "
                        "others: ds serve --cors ORIGIN",
                    )
                if not itself:
                    _remember(self._known_origins, origin)

    def _check_host(self, text: str) -> None:
        host, _ = targets.authority(text)
        host = host.rstrip(".")
        if self._reach in (ANYWHERE, CERTIFIED) or host in self._hosts or "*" in self._hosts or is_loopback_name(host):
            return
        if self._reach == NETWORK and _is_private(host):
            return
        raise ProtocolError(
            421,
            "UNKNOWN_HOST",
            "without access control this server answers only to names that no stranger can own; its operator can "
            "add one: ds serve --allow-host NAME",
        )


def host_name(text: str) -> str:
    """A name that may stand in Host, as an operator gives it: without a port; `*` is any."""
    if text == "*":
        return text
    try:
        host, port = targets.authority(text)
    except ProtocolError:
        host, port = "", None
    if not host or port is not None:
        raise ValueError(f"'{text}' is not the name of a host; give it without a port, as in gateway.example")
    return host.rstrip(".")


def origin(text: str) -> str:
    """An origin of pages, as an operator gives it: `https://dashboard.example`; `*` is any, `null` of files."""
    found = text.lower()
    if found in ("*", "null"):
        return found
    scheme, separator, rest = found.partition("://")
    try:
        port = targets.authority(rest)[1]
    except ProtocolError:
        separator, port = "", None
    if not separator or not scheme.isalpha():
        raise ValueError(f"'{text}' is not an origin; give scheme and host of a page, as in https://dashboard.example")
    # Browsers leave out the port that a scheme has by itself.
    return found.rpartition(":")[0] if port is not None and port == _PORTS.get(scheme) else found


_PORTS = {"http": 80, "https": 443}


def is_loopback_name(host: str) -> bool:
    """Whether a host, in lower case, is this machine by name or address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _address(host)
    return address is not None and (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _is_private(host: str) -> bool:
    return _address(host) is not None or "." not in host or host.endswith(tuple("." + name for name in _PRIVATE))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_of_this_machine(origin: str) -> bool:
    scheme, _, rest = origin.partition("://")
    try:
        return scheme in ("http", "https") and is_loopback_name(targets.authority(rest)[0].rstrip("."))
    except ProtocolError:
        return False


def _remember(known: set[T], value: T) -> None:
    if len(known) >= _MOST_KNOWN:
        known.clear()
    known.add(value)
