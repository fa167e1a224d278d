"""Addresses of sockets, as far as the gateway tells them apart. A peer on a Unix socket is `LOCAL`."""

import ipaddress

LOCAL = "local"


def is_loopback(address: str) -> bool:
    """Whether only this machine can have, or reach, an address."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
        return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback
    except ValueError:
        return address == LOCAL


def plain(address: str) -> str:
    """An IPv4 address as such, also when it came to a socket of both families (`::ffff:192.0.2.1`)."""
    return address[7:] if address.startswith("::ffff:") and "." in address else address


def client_of(peer: str) -> str:
    """Whom an address belongs to: of IPv6, everybody has at least the 2^64 of one network."""
    return str(ipaddress.IPv6Network((peer.partition("%")[0], 64), strict=False)) if ":" in peer else peer
