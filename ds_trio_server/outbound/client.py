"""Requests, each on a connection of its own, to an address that was checked for it.

A name is resolved at every request, all of its addresses are judged by the `Rules`, and the connection goes to one that
passed, so that no answer of a name server can come between. Redirects are answers like others: whoever follows one
begins anew. TLS is verified against the name. All of a request has one deadline, and an answer a size that it may have.
"""

import ssl
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpcore2
import trio

from ds_core.server.errors import ProtocolError
from ds_core.server.subscriptions import urls

from .rules import Rules

_ADDRESSES = 8
_CONNECT = 10.0


class Unreachable(Exception):
    """There was no answer; the text says why, and nothing of the request: it may go into logs and documents."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; header names in lower case. `cut`: the body was longer than it might be, and begins so."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes
    cut: bool

    @property
    def redirects(self) -> bool:
        """Whether it only says where else to ask."""
        return self.status in (301, 302, 303, 307, 308)


class Client:
    """Makes requests for others: use it in `async with`. `ca`: a file of authorities besides the system's; at most
    `at_once` requests are under way, the others wait in order, within their deadlines."""

    def __init__(self, rules: Rules, *, ca: str | None = None, at_once: int = 64) -> None:
        context = ssl.create_default_context()
        if ca is not None:
            context.load_verify_locations(ca)
        self._rules = rules
        self._limit = trio.CapacityLimiter(at_once)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=context,
            max_connections=at_once,
            max_keepalive_connections=0,  # the next request is to be checked like the first
            http1=True,
            http2=False,
            network_backend=_Checked(rules),
        )

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with trio.CancelScope(shield=True):
            await self._pool.aclose()

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        seconds: float = 30.0,
        most: int = 65536,
    ) -> Answer:
        """A request, and its whole answer, of which at most so many bytes are read. Raises Unreachable."""
        async with self.open(method, url, headers, body, seconds=seconds) as answer:
            parts: list[bytes] = []
            size = 0
            async for part in answer.parts:
                parts.append(part[: most - size])
                size += len(part)
                if size > most:
                    break
            return Answer(answer.status, answer.headers, b"".join(parts), size > most)

    @asynccontextmanager
    async def open(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"", *, seconds: float
    ) -> AsyncIterator["Opened"]:
        """A request, and its answer's head; the body comes in parts, all within the `seconds`. Raises Unreachable, also
        out of the parts."""
        try:
            scheme, host, port, target = urls.split(self._rules.check(url))
        except ProtocolError as error:
            raise Unreachable(error.message) from None
        parsed = httpcore2.URL(scheme=scheme, host=host, port=port, target=target)
        fields = [("Host", _authority(scheme, host, port)), *headers.items()]
        try:
            with trio.fail_after(seconds):
                async with self._limit, self._pool.stream(method, parsed, headers=fields, content=body) as found:
                    pairs = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in found.headers]
                    yield Opened(found.status, pairs, found.aiter_stream())
        except trio.TooSlowError:
            raise Unreachable(f"no answer within {seconds:g} s") from None
        except _Refused as error:
            raise Unreachable(f"{host} may not be asked: {error}") from None
        except httpcore2.ConnectError as error:
            raise Unreachable(f"no connection to {host}: {_reason(error)}") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException) as error:
            raise Unreachable(f"no whole answer of {host}: {_reason(error)}") from None


@dataclass(frozen=True, slots=True)
class Opened:
    """An answer's head, and its body as it comes."""

    status: int
    headers: Sequence[tuple[str, str]]
    parts: AsyncIterator[bytes]


class _Refused(Exception):
    """The rules are against it."""


class _Checked(httpcore2.AsyncNetworkBackend):
    """Connections to addresses that were checked, and to nothing else."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._trio = httpcore2.TrioBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        last: Exception | None = None
        for address in await self._addresses(host.strip("[]"), port):
            try:
                return await self._trio.connect_tcp(address, port, _CONNECT, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                last = error
        raise httpcore2.ConnectError(str(last))

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore2.AsyncNetworkStream:
        raise _Refused("requests go to hosts")

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def _addresses(self, host: str, port: int) -> list[str]:
        """All addresses of a host, if all of them may be asked: a name that has others as well is up to something."""
        try:
            found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore2.ConnectError(error.strerror or "the name can't be resolved") from None
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        for address in addresses:
            objection = self._rules.objection(host, address)
            if objection is not None:
                raise _Refused(objection)
        return addresses[:_ADDRESSES]


def _authority(scheme: str, host: str, port: int) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port == (443 if scheme == "https" else 80) else f"{name}:{port}"


def _reason(error: Exception) -> str:
    """What went wrong in a few words: the system's, or those of TLS, wherever in the chain these are."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error).strip() or type(error).__name__
