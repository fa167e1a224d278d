"""TLS: the same doors as a plain transport, with trio's SSL stream behind them.

A handshake has a deadline. What clients are told and shown is as without TLS; what differs is that
`send_nowait` takes nothing, so that a live reader's own task encrypts and sends its frame.
"""

import logging
import socket
import ssl
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from ..addresses import client_of
from ..config import Unusable
from ..stats import Stats
from .transport import Disconnected, Transport

log = logging.getLogger("ds")

_PARTING = 0.5
_CROWDED = 3.0
_HANDSHAKE, _RECORD_HEAD, _MOST_IN_RECORD = b"\x16", 5, 16384  # RFC 8446 section 5.1
_REASONS = {
    None: "not a certificate in PEM format",
    "KEY_VALUES_MISMATCH": "the key is not this certificate's",
    "EE_KEY_TOO_SMALL": "the certificate's key is too small to be safe",
    "CA_MD_TOO_WEAK": "the certificate is signed with too weak a hash",
}


class TLSFileError(Unusable):
    """A certificate or key can't be used; one line for the operator."""


class TLS:
    """A server's certificate and key, replaced at `reload`; connections that are open keep theirs.

    `client_ca` is a file of certificates that sign clients' ones; with `required` everybody
    needs such a certificate, else those may come without who show a token or a link. At most
    `handshakes` are under way at once, each of which holds some 65 KiB; others wait their turn, and the oldest then
    have less time. Raises TLSFileError when a file can't be used.
    """

    def __init__(
        self,
        certificate: str | Path,
        key: str | Path,
        client_ca: str | Path | None = None,
        required: bool = True,
        handshake_timeout: float = 10.0,
        handshakes: int = 256,
    ) -> None:
        self._certificate = Path(certificate)
        self._key = Path(key)
        self._client_ca = None if client_ca is None else Path(client_ca)
        self._required = required
        self._handshake_timeout = handshake_timeout
        self._handshakes = Handshakes(handshakes)
        self._context = self._load()

    def __str__(self) -> str:
        return f"certificate {self._certificate}"

    def reload(self) -> None:
        """Take on the files as they are now; when they can't be used raise, and go on with the old ones."""
        self.look()()

    def look(self) -> Callable[[], None]:
        """Read the files, which may take long; then there is what takes them on."""
        return partial(setattr, self, "_context", self._load())

    def transport(self, sock: socket.socket, send_timeout: float, stats: Stats) -> "TLSTransport":
        """The transport of an accepted connection."""
        return TLSTransport(sock, send_timeout, self._context, self._handshake_timeout, self._handshakes, stats)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Python's own choice of ciphers: forward secrecy only.
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        file = self._certificate
        try:
            self._key.open("rb").close()  # OpenSSL doesn't say which file is missing
            file.open("rb").close()
            context.load_cert_chain(file, self._key, password=_no_password)
            if self._client_ca is not None:
                file = self._client_ca
                context.load_verify_locations(file)
                context.verify_mode = ssl.CERT_REQUIRED if self._required else ssl.CERT_OPTIONAL
        except ssl.SSLError as error:
            with_key = f" with key {self._key}" if file == self._certificate else ""
            raise TLSFileError(f"{file}{with_key}: {_REASONS.get(error.reason, error.reason)}") from None
        except OSError as error:
            raise TLSFileError(f"{error.filename or file}: {error.strerror}") from None
        except ValueError as error:
            raise TLSFileError(f"{self._key}: {error}") from None
        return context


def _no_password() -> str:
    raise ValueError("the key is encrypted; a server that starts by itself needs it without a password")


class Handshakes:
    """Those under way, at most `limit` of them. Who waits gets a turn by address, so that a crowd from one keeps out
    nobody but itself; and while anybody waits, all have less time."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._unhurried: dict[trio.CancelScope, float] = {}
        # Who waits, by address; the address at the front has the next turn.
        self._waiting: OrderedDict[str, deque[trio.Event]] = OrderedDict()

    @asynccontextmanager
    async def one(self, client: str, scope: trio.CancelScope, timeout: float) -> AsyncIterator[None]:
        """One more, when it is its turn. `scope` is what ends it: it has `timeout` to wait for that, and as much from
        then on, or less while others wait."""
        scope.deadline = trio.current_time() + timeout
        await self._turn(client)
        scope.deadline = trio.current_time() + timeout
        self._unhurried[scope] = trio.current_time()
        if self._waiting:
            self._hurry()
        try:
            yield
        finally:
            self._unhurried.pop(scope, None)
            self._next()

    async def _turn(self, client: str) -> None:
        if self._free:
            self._free -= 1
            return
        self._hurry()
        turn = trio.Event()
        line = self._waiting.setdefault(client, deque())
        line.append(turn)
        try:
            await turn.wait()
        except trio.Cancelled:
            if turn.is_set():
                self._next()
            else:
                line.remove(turn)
                if not line:
                    del self._waiting[client]
            raise

    def _hurry(self) -> None:
        for scope, begun in self._unhurried.items():
            scope.deadline = min(scope.deadline, begun + _CROWDED)
        self._unhurried.clear()

    def _next(self) -> None:
        """Give a place that is free to who waits."""
        if not self._waiting:
            self._free += 1
            return
        client, line = self._waiting.popitem(last=False)
        line.popleft().set()
        if line:
            self._waiting[client] = line


class TLSTransport(Transport):
    """A TLS connection in the hands of one task. Who has said nothing yet costs no more than without TLS."""

    __slots__ = ("_tls", "_context", "_timeout", "_handshakes", "_stats", "_ahead", "_parting", "_ended")

    scheme = "https"

    def __init__(
        self,
        sock: socket.socket,
        send_timeout: float,
        context: ssl.SSLContext,
        handshake_timeout: float,
        handshakes: Handshakes,
        stats: Stats,
    ) -> None:
        super().__init__(sock, send_timeout)
        self._stats = stats
        self._tls: trio.SSLStream[_Wire] | None = None
        self._context = context
        self._timeout = handshake_timeout
        self._handshakes = handshakes
        self._ahead: bytes | None = None
        self._parting = self._ended = False

    async def receive(self, most: int = 65536) -> bytes:
        if self._parting:
            return await super().receive(most)  # what comes now is only drained
        tls = self._tls or await self._shake_hands()
        if self._ahead is not None:
            await trio.lowlevel.checkpoint()
            ahead = self._ahead
            self._ahead = ahead[most:] if len(ahead) > most else None
            return ahead[:most]
        try:
            return bytes(await tls.receive_some(most))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            if self._ended:
                return b""
            raise Disconnected from error

    async def _shake_hands(self) -> "trio.SSLStream[_Wire]":
        why = "the handshake took too long"
        with trio.move_on_after(self._timeout) as scope:
            try:
                await self.wait_for_record()
                async with self._handshakes.one(client_of(self.peer), scope, self._timeout):
                    if self.hung_up():
                        raise Disconnected  # while it waited, or without a word
                    tls = trio.SSLStream(_Wire(self), self._context, server_side=True, https_compatible=True)
                    try:
                        await tls.do_handshake()
                        self._tls = tls
                    finally:
                        if self._tls is None:
                            _free(tls)
            except (trio.BrokenResourceError, trio.ClosedResourceError, Disconnected) as error:
                why = str(error.__cause__ or "it hung up")  # the error itself would hold this frame, and the frame it
        if self._tls is None:
            self._stats.handshakes_failed += 1
            log.debug("no TLS with %s: %s", self.peer, why)
            raise Disconnected
        self.identities = _names(self._tls.getpeercert())
        return self._tls

    async def wait_for_record(self) -> None:
        """Wait for all of a client's first record: before that no handshake can go on, and none is begun."""
        try:
            begun = await self._at_least(_RECORD_HEAD)
            if begun[:1] == _HANDSHAKE and len(begun) == _RECORD_HEAD:
                await self._at_least(_RECORD_HEAD + min(int.from_bytes(begun[3:], "big"), _MOST_IN_RECORD))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        except OSError as error:
            raise Disconnected from error

    async def _at_least(self, size: int) -> bytes:
        """Wait until so many bytes are there, or no more will come; the first of them, which stay there."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
        await Transport.wait_readable(self)
        return self._socket.recv(_RECORD_HEAD, socket.MSG_PEEK)

    async def wait_readable(self) -> None:
        # Records that carry no data (tickets, key updates) must not count, so this reads ahead.
        if self._ahead is None:
            self._ahead = await self.receive()
        else:
            await trio.lowlevel.checkpoint()

    def receive_nowait(self, most: int = 65536) -> bytes | None:
        ahead = self._ahead
        if ahead is None:
            return None
        self._ahead = ahead[most:] if len(ahead) > most else None
        return ahead[:most]

    def send_nowait(self, data: bytes | memoryview) -> int:
        return 0

    async def send_all(self, data: bytes | memoryview) -> None:
        if self._tls is None:
            raise Disconnected  # one who is turned away before the handshake isn't worth one
        try:
            await self._tls.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Disconnected from error

    async def close(self, linger: float = 0.0) -> None:
        self._parting = True
        if self._tls is not None:
            # Tells a cut connection from a whole answer (close_notify), without waiting for the other's.
            with trio.move_on_after(_PARTING, shield=True):
                try:
                    await self._tls.unwrap()
                except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                    pass
        await super().close(linger)

    def close_nowait(self) -> None:
        super().close_nowait()
        if self._tls is not None:
            _free(self._tls)
            self._tls = None


def _free(stream: "trio.SSLStream[_Wire]") -> None:
    """Let go of a stream's 65 KiB at once: it holds itself, and would wait for the garbage collector."""
    vars(stream).clear()


class _Wire(trio.abc.Stream):
    """The plain transport below a TLS stream: its deadlines hold here too."""

    def __init__(self, transport: TLSTransport) -> None:
        self._transport = transport

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        transport = self._transport
        if transport._parting:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError
        try:
            received = await Transport.receive(transport, max_bytes or 65536)
        except Disconnected as error:
            raise trio.BrokenResourceError from error
        if not received:
            # The stream above must not hear of this end: it would send nothing more, no last answer.
            transport._ended = True
            raise trio.BrokenResourceError
        return received

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await Transport.send_all(self._transport, bytes(data))
        except Disconnected as error:
            raise trio.BrokenResourceError from error

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def _names(certificate: "dict[str, Sequence[object]] | None") -> tuple[str, ...]:
    """The names a verified client certificate gives its owner: common names first, then alternative ones."""
    if not certificate:
        return ()
    found: list[str] = []
    for part in certificate.get("subject", ()):
        assert isinstance(part, tuple)
        found += [value for kind, value in part if kind == "commonName"]
    for pair in certificate.get("subjectAltName", ()):
        assert isinstance(pair, tuple)
        if pair[0] in ("DNS", "URI", "email"):
            found.append(str(pair[1]))
    return tuple(found)
