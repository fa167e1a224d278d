"""A gateway inside a trio program: its streams over HTTP, and in process with the same decisions.

    async with Gateway(SQLiteStore("data")) as gateway:
        print(gateway.url)
        await gateway.create("sensors/1", "application/json")
        await gateway.append("sensors/1", b'{"t": 21.5}')
        async for result in gateway.follow("sensors/1"):
            print(result.body, result.offset)
"""

import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from socket import socket
from types import TracebackType
from typing import TYPE_CHECKING

import trio

from ds_core.server import heads
from ds_core.server.errors import ProtocolError, bad_request
from ds_core.server.requests import Append, Create, Delete, Head, Read
from ds_core.server.responses import Response
from ds_core.server.targets import stream_path
from ds_core.wire import names

from .access import Origins
from .config import Config
from .http.listeners import listen, url_of
from .server import Server
from .store.base import StorageFailed, Store, StoreClosed
from .streams import Streams

if TYPE_CHECKING:
    from .access import Access
    from .http.tls import TLS

log = logging.getLogger("ds")


class Result:
    """What an operation came to: `status` and `headers` (lower-case names) as a client of HTTP sees them, and the
    whole `body`."""

    __slots__ = ("status", "headers", "body")

    def __init__(self, response: Response, body: bytes) -> None:
        self.status: int = response.status
        self.headers = {name.lower(): value for name, value in response.headers}
        self.body = body

    def __repr__(self) -> str:
        return f"<Result {self.status}, {len(self.body)} bytes, next offset {self.headers.get('stream-next-offset')}>"

    @property
    def offset(self) -> str:
        """Where to go on from. KeyError where there is none, as of a stream that was deleted."""
        return self.headers["stream-next-offset"]

    @property
    def up_to_date(self) -> bool:
        """Whether this was all there is, for now."""
        return "stream-up-to-date" in self.headers

    @property
    def closed(self) -> bool:
        """Whether the stream ends here, for good."""
        return "stream-closed" in self.headers

    @property
    def content_type(self) -> str:
        """Of the stream. KeyError where the result doesn't tell."""
        return self.headers["content-type"]


class Gateway:
    """One store behind listeners of its own, from `async with` to its end; there may be several in one program.

    It opens the store and closes it. Without `listeners` it takes `host` and `port` (0: a free one); with
    none at all, `listeners=()`, its streams are there for this program alone. `access`, `tls` and `origins` are as of
    `serve` and for those who come by HTTP: what this program does itself it may do.

    At the end of the block the orderly end: no new connections, live readers are told where to go on, what is in flight
    finishes. When the disk fails, the block is cancelled and StorageFailed raised in its place.

    A path is a stream's name as in a URL behind `/v1/stream/`, or with that. All operations raise ProtocolError
    (`status`, `code`, `message`) for what HTTP would answer 4xx or 5xx, and StorageFailed; before and after the block,
    StoreClosed. They are called from trio's thread.
    """

    def __init__(
        self,
        store: Store,
        config: Config | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        listeners: Sequence[socket] | None = None,
        access: "Access | None" = None,
        tls: "TLS | None" = None,
        origins: Origins | None = None,
    ) -> None:
        self._store = store
        self._listen: Callable[[], Sequence[socket]]
        self._listen = (lambda: listen(host, port)) if listeners is None else (lambda: listeners)
        self._scheme = "http" if tls is None else "https"
        self._make: Callable[[], Server] = lambda: Server(store, config or Config(), access, tls, origins)
        self._server: Server | None = None
        self.url = ""
        self._running: AbstractAsyncContextManager[None] | None = None

    @property
    def server(self) -> Server:
        """What serves, from the block's beginning on."""
        if self._server is None:
            raise StoreClosed
        return self._server

    @property
    def streams(self) -> Streams:
        """The operations on streams as commands and responses of the core, which trust what makes the commands."""
        return self.server.app.streams

    async def __aenter__(self) -> "Gateway":
        if self._running is not None:
            raise RuntimeError("a Gateway runs once: make another one for the next block")
        self._running = self._run()
        await self._running.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._running is not None
        return await self._running.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def _run(self) -> AsyncIterator[None]:
        listeners: Sequence[socket] = ()
        failures: list[StorageFailed] = []
        raised: Exception | None = None
        await self._store.open()
        try:
            listeners = self._listen()
            self._server = self._make()
            if listeners:
                self.url = url_of(listeners[0], self._scheme)
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as block:
                    nursery.start_soon(self._fail, block, failures)
                    ended = trio.Event()
                    nursery.start_soon(self._serve, listeners, ended)
                    try:
                        yield
                    except Exception as error:
                        raised = error  # as it is, and not in a group; after the orderly end
                self._server.stop()
                await ended.wait()
                nursery.cancel_scope.cancel()
        finally:
            for listener in listeners:
                listener.close()
            await self._store.close()
        if failures:
            raise failures[0] from raised
        if raised is not None:
            raise raised

    async def _serve(self, listeners: Sequence[socket], ended: trio.Event) -> None:
        await self.server.run(listeners)
        ended.set()

    async def _fail(self, block: trio.CancelScope, failures: list[StorageFailed]) -> None:
        failures.append(await self._store.wait_failed())
        log.critical("%s", failures[0])
        self.server.stop()
        block.cancel()

    async def create(
        self,
        path: str,
        content_type: str = "application/octet-stream",
        body: bytes = b"",
        *,
        ttl: int | None = None,
        expires_at: str | None = None,
        close: bool = False,
        source: str | None = None,
        fork_offset: str | None = None,
        fork_skip: int | None = None,
    ) -> Result:
        """Create a stream with a first `body`: status 201, or 200 when it is there and just so (protocol section 3).

        `ttl` in seconds without reads or appends; `expires_at` in RFC 3339. With `source`, a path, a fork of that
        stream at `fork_offset` (else its tail) and `fork_skip` messages or bytes further on (section 8).
        """
        name = stream_path(_full(path))
        headers = _headers({
            "content-type": content_type, names.TTL: ttl, names.EXPIRES_AT: expires_at,
            names.CLOSED: "true" if close else None,
            names.FORKED_FROM: None if source is None else _full(source),
            names.FORK_OFFSET: fork_offset, names.FORK_SUB_OFFSET: fork_skip,
        })  # fmt: skip
        command = Create(name, headers, "")
        command.body = _bytes(body)
        return Result(await self.streams.create(command), b"")

    async def append(
        self,
        path: str,
        body: bytes = b"",
        *,
        content_type: str | None = None,
        producer: tuple[str, int, int] | None = None,
        sequence: str | None = None,
        close: bool = False,
    ) -> Result:
        """Append a body, durable when this returns; or close the stream, with it or without (section 4).

        `content_type`: the stream's own, if not given. With a `producer`, an (id, epoch, seq), exactly once however
        often it is repeated: status 200, and 204 for one that was there (section 5). `sequence` is Stream-Seq.
        """
        name = stream_path(_full(path))
        if content_type is None and body:
            content_type = Result(await self.streams.head(Head(name)), b"").content_type
        headers: dict[str, object] = {
            "content-type": content_type, names.STREAM_SEQ: sequence, names.CLOSED: "true" if close else None,
        }  # fmt: skip
        if producer is not None:
            if len(producer) != 3:
                raise TypeError("a producer is (id, epoch, seq)")
            headers |= zip((names.PRODUCER_ID, names.PRODUCER_EPOCH, names.PRODUCER_SEQ), producer, strict=True)
        command = Append(name, _headers(headers))
        command.body = _bytes(body)
        return Result(await self.streams.append(command), b"")

    async def read(self, path: str, offset: str = "-1", *, max_bytes: int | None = None) -> Result:
        """What there is from an offset on, as much of it as one answer holds (section 6): the body, JSON as an array,
        and the `offset` to go on from. `max_bytes`: at most that much, or one message."""
        answer = await self.streams.read(self._reads(path, offset, max_bytes))
        if answer.parts is None:
            return Result(answer.response, answer.response.body)
        async with aclosing(answer.parts) as parts:
            return Result(answer.response, b"".join([part async for part in parts]))

    async def follow(
        self, path: str, offset: str = "-1", *, max_bytes: int | None = None
    ) -> AsyncGenerator[Result, None]:
        """What there is from an offset on, and what comes, in results of `max_bytes` at most (or one message).

        Ends with the stream: the last result is the one that is `closed`. Also ends, without one, when the gateway
        stops. A stream that is deleted or trimmed meanwhile raises ProtocolError. (Use `contextlib.aclosing` where a
        loop over it may be left early.)
        """
        async with aclosing(self.streams.follow(self._reads(path, offset, max_bytes))) as responses:
            async for response in responses:
                yield Result(response, response.body)

    async def head(self, path: str) -> Result:
        """What a stream is, and in `offset` where it ends (section 7)."""
        return Result(await self.streams.head(Head(stream_path(_full(path)))), b"")

    async def delete(self, path: str) -> Result:
        """Delete a stream; its forks keep what they have of it (section 7)."""
        return Result(await self.streams.delete(Delete(stream_path(_full(path)))), b"")

    def _reads(self, path: str, offset: str, max_bytes: int | None) -> Read:
        query = {names.OFFSET: _value(names.OFFSET, offset)}
        if max_bytes is not None:
            query[names.MAX_BYTES] = _value(names.MAX_BYTES, max_bytes)
        return Read(stream_path(_full(path)), {}, query)


def _full(path: str) -> str:
    if not isinstance(path, str):
        raise TypeError(f"a stream's path is a str, not {type(path).__name__}")
    return path if path.startswith(names.ROOT) else names.ROOT + path


def _headers(given: dict[str, object]) -> dict[str, str]:
    """As a request has them: what a request couldn't bring is refused here, and the core checks the rest."""
    headers = {name.lower(): _value(name, value) for name, value in given.items() if value is not None}
    if sum(map(len, headers.values())) > heads.MAX_HEAD:
        raise ProtocolError(431, "HEAD_TOO_LARGE", f"what is said of a body has at most {heads.MAX_HEAD} characters")
    return headers


def _value(name: str, value: object) -> str:
    if not isinstance(value, (str, int)):
        raise TypeError(f"{name} is a str or an int, not {type(value).__name__}")
    text = str(value)
    if not _VALUE.fullmatch(text):
        raise bad_request(f"{name} has characters that no header may have: {text[:80]!a}")
    return text


# RFC 9110 section 5.5, one byte each. A value that begins or ends with a space would not arrive like that.
_VALUE = re.compile("([!-~\xa0-\xff]([\t -~\xa0-\xff]*[!-~\xa0-\xff])?)?")


def _bytes(body: bytes) -> bytes:
    """The body as it is now: what its owner makes of a buffer later is nobody's business."""
    if not isinstance(body, (bytes, bytearray, memoryview)):
        raise TypeError(f"a body is bytes, not {type(body).__name__}: encode a text, json.dumps() a value")
    return bytes(body)


async def serve(
    store: Store,
    config: Config,
    listeners: Sequence[socket],
    started: Callable[[Server], None] = lambda server: None,
    access: "Access | None" = None,
    tls: "TLS | None" = None,
    origins: Origins | None = None,
) -> None:
    """Open the store, serve it until the server's `stop` is called, close everything.

    `started` is given the server when it accepts. Without `access` everybody may do everything;
    with it no shared cache may keep answers. `origins` says which names in Host and which web pages are
    served; without it all are. Raises StorageFailed when the disk gave up.
    """
    gateway = Gateway(store, config, listeners=listeners, access=access, tls=tls, origins=origins)
    async with gateway:
        started(gateway.server)
        await gateway.server.wait_stopping()
