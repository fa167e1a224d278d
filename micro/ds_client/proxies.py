"""HTTP proxies: which one the environment names, and a transport's way through it (RFC 9110 section 9.3.6).

https goes through a tunnel (CONNECT), so the proxy sees the host's name and nothing else. http goes with the whole URL
in its request's first line (RFC 9112 section 3.2.2).
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

from ds_core.client.errors import BadResponse, Disconnected
from ds_core.wire.http1 import HEAD, ResponseParser

if TYPE_CHECKING:
    from ds_micro.tls import Wrapper


class Proxy(NamedTuple):
    """Where a proxy is, what it is told of who asks, and for which origin (`http://HOST:PORT`) it stands here."""

    host: str
    port: int
    authorization: str
    origin: str


def proxy_for(url: str) -> Proxy | None:
    """The proxy that `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` name for this URL. Raises ValueError."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib import request

    parts = urlsplit(url)
    proxies = request.getproxies_environment()
    found = proxies.get(parts.scheme) or proxies.get("all")
    if not found or request.proxy_bypass_environment(parts.netloc, proxies):  # type: ignore[attr-defined]
        return None
    proxy = urlsplit(found if "://" in found else "http://" + found)
    if proxy.scheme != "http" or not proxy.hostname:
        # (Without the URL, which may have a password.)
        raise ValueError(f"{parts.scheme}_proxy: a proxy is http://HOST:PORT; leave it with trust_env=False")
    authorization = ""
    if proxy.username is not None:
        pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
    return Proxy(proxy.hostname, proxy.port or 80, authorization, f"{parts.scheme}://{parts.netloc}")


class Proxied:
    """A transport (ds_micro.net.Net, or one like it) that may go through a proxy: mixed in before it.

    What is sent first after `open` or `stale` begins with a request's head.
    """

    def __init__(self, proxy: Proxy | None = None) -> None:
        super().__init__()
        self._proxy = proxy
        self._forward = False  # the next bytes begin a request whose URL the proxy needs whole

    async def open(self, host: str, port: int, ms: Callable[[], int], tls: Wrapper | None = None) -> None:
        """Connect, through the proxy if there is one."""
        above: Any = super()
        proxy = self._proxy
        if proxy is None:
            await above.open(host, port, ms, tls)
            return
        await above.open(proxy.host, proxy.port, ms)
        if tls:
            await self._tunnel(proxy, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", ms)
            await self.secure(tls, host, ms)
        self._forward = tls is None

    async def secure(self, tls: Wrapper, host: str, ms: Callable[[], int]) -> None:
        """TLS from here on."""
        raise NotImplementedError

    def stale(self) -> object:
        """Whether an idle connection is no use any more."""
        self._forward = self._proxy is not None and self._proxy.origin.startswith("http:")
        return super().stale()  # type: ignore[misc]

    async def send(self, view: memoryview, ms: Callable[[], int]) -> None:
        """Send all of `view`."""
        if self._forward:
            assert self._proxy
            self._forward = False
            line, _, rest = bytes(view).partition(b"\r\n")
            line = line.replace(b" ", b" " + self._proxy.origin.encode(), 1)
            view = memoryview(line + b"\r\n" + _authorization(self._proxy) + rest)
        await super().send(view, ms)  # type: ignore[misc]

    async def _tunnel(self, proxy: Proxy, target: str, ms: Callable[[], int]) -> None:
        above: Any = super()
        head = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n" % (target.encode(), target.encode())
        await above.send(memoryview(head + _authorization(proxy) + b"\r\n"), ms)
        parser = ResponseParser(bytearray(4096))
        parser.begin(head=True)
        while parser.poll() is not HEAD:
            parser.received(await above.recv(parser.space(), ms))
        if not 200 <= parser.status < 300:
            kind = Disconnected if parser.status >= 500 else BadResponse
            raise kind(f"the proxy {proxy.host}:{proxy.port} opens no way to {target}", parser.status)
        if parser.pending:
            raise BadResponse(f"the proxy {proxy.host}:{proxy.port} speaks in the server's place")


def _authorization(proxy: Proxy) -> bytes:
    return f"Proxy-Authorization: {proxy.authorization}\r\n".encode() if proxy.authorization else b""
