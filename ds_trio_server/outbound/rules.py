"""Where a request of the gateway's may go: the Internet, and what the operator allows besides.

A request that somebody else has asked for must not reach what only the gateway can: its own services, its network, a
cloud's metadata. So every address that a name resolves to is judged, at every request, right before it is connected to.
"""

import ipaddress
from collections.abc import Iterable

from ds_core.server.subscriptions import urls

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# What ipaddress takes for global, here or in some versions: among it translators, which lead into private networks.
_SPECIAL = tuple(map(ipaddress.ip_network, (
    "100.64.0.0/10", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4",
    "64:ff9b::/96", "64:ff9b:1::/48", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fec0::/10",
)))  # fmt: skip
_COMPATIBLE = ipaddress.IPv6Network("::/96")


class Rules:
    """What an operator allows besides the Internet: networks (`10.1.0.0/16`), addresses, names (`ops.local`), and names
    with all below them (`*.plant.example`). Raises ValueError for anything else."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._names: set[str] = set()
        self._suffixes: list[str] = []
        for entry in allowed:
            text = entry.strip().lower().strip("[]")
            try:
                self._networks.append(ipaddress.ip_network(text))
                continue
            except ValueError as error:
                if "/" in text or ":" in text:
                    raise ValueError(f"'{entry}' is no network, as 10.1.0.0/16 or fd00::/8: {error}") from None
            name = text.removeprefix("*.")
            if not name or not set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-."):
                raise ValueError(f"'{entry}' is no network, address or host name")
            if text.startswith("*."):
                self._suffixes.append("." + name)
            else:
                self._names.add(name)

    def allows(self, scheme: str, host: str, port: int) -> bool:
        """Whether the operator allows this host as it is written, a name or an address, over plain http too."""
        name = host.rstrip(".").lower()
        if name in self._names or any(name.endswith(suffix) for suffix in self._suffixes):
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(unmapped(address) in network for network in self._networks)

    def check(self, url: str) -> str:
        """The URL, where its scheme and what it says of its host may be asked at all (`urls.check`): https, or http to
        this machine, or what is allowed. Raises ProtocolError 400. What a name means is judged when it is asked."""
        return urls.check(url, self._accepts)

    def _accepts(self, scheme: str, host: str, port: int) -> bool:
        # The core leaves IPv6 to us.
        public = scheme == "https" and ":" in host and self.objection(host, host) is None
        return public or self.allows(scheme, host, port)

    def objection(self, host: str, address: str) -> str | None:
        """Why a request to a host must not go to an address that it resolved to; None when it may."""
        try:
            found = unmapped(ipaddress.ip_address(address.partition("%")[0]))
        except ValueError:
            return "it is no address"
        if "%" in address:
            return "it is an address of this link alone"
        if self.allows("http", host, 0) or any(found in network for network in self._networks):
            return None
        if is_local(host):
            return None if found.is_loopback else "it is not this machine's"
        if not is_public(found):
            return "it is not one of the Internet's"
        return None


def is_local(host: str) -> bool:
    """Whether a host is written as this machine itself: http may go there (the protocol's section 6)."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.IPv4Network("127.0.0.0/8")
    except ValueError:
        return False


def unmapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address only carries, or itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _COMPATIBLE and int(address) > 0xFFFF:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    """Whether an address, unmapped, is one that anybody on the Internet could have."""
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_unspecified:
        return False
    return not any(address in network for network in _SPECIAL if network.version == address.version)
