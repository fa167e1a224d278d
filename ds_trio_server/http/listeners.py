"""The sockets that a server listens on: addresses of a host name, both families at once, Unix sockets, systemd's.

An address is `host:port`, `[::1]:port`, `[::]:port` (IPv6 and IPv4 both), or `unix:PATH`. A Unix socket is for
its owner's account alone (0600), and gone when it is closed; sockets from systemd (LISTEN_FDS, sd_listen_fds(3)) have
the rights that their unit gives them.
"""

import errno
import os
import socket
import stat
from collections.abc import Iterable, MutableMapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from ds_core.wire import names

from .. import units
from ..addresses import is_loopback

_BACKLOG = 1024
_FIRST_PASSED = 3
_ANY = "::"


class Address(NamedTuple):
    """Where to listen: a host and a TCP port (0 for a free one), or the `path` of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{self.host} port {self.port}"

    def listen(self) -> list[socket.socket]:
        """Its listening sockets. Raises OSError."""
        return [UnixListener(self.path)] if self.path else listen(self.host, self.port)


def address(text: str) -> Address:
    """An address as an operator writes it; ValueError says what would be right."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or "\0" in path or len(os.fsencode(path)) > 100:
            raise ValueError(f"'{text}' is not a Unix socket; give unix:PATH, at most 100 bytes long")
        return Address(path=path)
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host[:1] == "[" and host[-1:] == "]" else host
    if not colon or not bare or (":" in bare) != (bare != host):
        raise ValueError(f"'{text}' is not an address; give host:port, [::]:port for IPv6 and IPv4, or unix:PATH")
    return Address(bare, units.port(port))


def listen(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for every address of a host name; port 0 takes a free one, `::` is for both families.

    Raises OSError; then none is left open.
    """
    if host == _ANY and not socket.has_dualstack_ipv6():
        host = "0.0.0.0"
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    try:
        for family, kind, proto, _, where in dict.fromkeys(found):
            sock = socket.socket(family, kind, proto)
            listeners.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != _ANY)
            if port == 0 and len(listeners) > 1:
                where = (where[0], listeners[0].getsockname()[1], *where[2:])
            sock.bind(where)
            sock.listen(_BACKLOG)
            sock.setblocking(False)
    except OSError:
        close(listeners)
        raise
    return listeners


class UnixListener(socket.socket):
    """A listening Unix socket that takes its file away when it is closed.

    What another server left behind when it was killed is replaced; one that somebody listens on is not.
    """

    def __init__(self, path: str) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self._path = os.path.abspath(path)
        self._bound: tuple[int, int] | None = None
        try:
            _remove_stale(self._path)
            mask = os.umask(0o177)  # from its first moment on
            try:
                self.bind(self._path)
            finally:
                os.umask(mask)
            found = os.stat(self._path)
            self._bound = found.st_dev, found.st_ino
            self.listen(_BACKLOG)
            self.setblocking(False)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        bound, self._bound = self._bound, None
        if bound is not None:
            with suppress(OSError):
                found = os.stat(self._path)
                if (found.st_dev, found.st_ino) == bound:  # else it is another server's by now
                    os.unlink(self._path)
        super().close()


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "there is a file of that name, and it is not a socket", path)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError:
            pass  # busy, or not ours to ask: somebody's
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)


def passed(environment: MutableMapping[str, str]) -> list[socket.socket]:
    """The listening sockets that systemd has opened for this process; no child of ours will take them for its own.

    Raises OSError for what is no listening stream socket.
    """
    count, of = environment.pop("LISTEN_FDS", ""), environment.pop("LISTEN_PID", "")
    environment.pop("LISTEN_FDNAMES", None)
    if not (count.isascii() and count.isdigit()) or of != str(os.getpid()):
        return []
    listeners: list[socket.socket] = []
    for number in range(_FIRST_PASSED, _FIRST_PASSED + int(count)):
        try:
            os.set_inheritable(number, False)
            sock = socket.socket(fileno=number)
            listeners.append(sock)
            if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise OSError(errno.EINVAL, "it is not a listening stream socket (ListenStream=, Accept=no)")
            sock.setblocking(False)
        except OSError as error:
            close(listeners)
            why = f"can't listen on file {number}, which systemd gave: {error.strerror}"
            raise OSError(error.errno, why) from None
    return listeners


def close(listeners: Iterable[socket.socket]) -> None:
    """Close them all."""
    for listener in listeners:
        listener.close()


def listen_all(addresses: Sequence[Address]) -> list[socket.socket]:
    """Listen on every address or on none. Raises OSError, whose `strerror` names the one where it can't."""
    listeners: list[socket.socket] = []
    for each in addresses:
        try:
            listeners += each.listen()
        except (OSError, UnicodeError) as error:
            close(listeners)
            why = getattr(error, "strerror", None) or str(error)
            raise OSError(getattr(error, "errno", 0) or 0, f"can't listen on {each}: {why}") from None
    return listeners


def is_local(listener: socket.socket) -> bool:
    """Whether only this machine can reach a listener."""
    return listener.family == socket.AF_UNIX or is_loopback(listener.getsockname()[0])


def url_of(listener: socket.socket, scheme: str = "http") -> str:
    """The root URL that a listener serves; of a Unix socket `unix:PATH`."""
    if listener.family == socket.AF_UNIX:
        return "unix:" + os.fsdecode(listener.getsockname())
    host, port = listener.getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{names.ROOT.rstrip('/')}"
