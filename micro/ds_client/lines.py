"""A line: one connection of a pool, with the device's flows on it, for whichever stream is spoken of."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import cbor2

from ds_core.client.errors import StreamError
from ds_core.wire.http1 import ResponseParser
from ds_core.wire.kinds import kind_of
from ds_micro.stream import _KEEP, Flows, Result as Result  # type: ignore[attr-defined]

BUFFER = 16384
log = logging.getLogger("ds_client")
_SCALARS = frozenset((int, float, str, bytes, bool, type(None)))

Hook = Callable[[StreamError, int], object]


class Line(Flows):
    """Made after a pattern, which has the server, TLS, headers and deadlines."""

    _conn: Any
    _parser: Any
    _due: int
    content_type: str | None

    def __init__(self, pattern: Flows, net: object, hook: Hook | None) -> None:
        vars(self).update(vars(pattern))
        self._parser = ResponseParser(bytearray(BUFFER), _KEEP)
        self._conn = net
        self._hook = hook
        self.over = False
        self.drop()

    @staticmethod
    def _run(flow: Any) -> Any:
        return flow

    _turn = _run

    def about(self, url: str, path: str, content_type: str | None) -> None:
        """From here on this stream is spoken of."""
        self.url = url
        self.path = path
        self.content_type = content_type
        self._type = kind_of(content_type or "")

    @property
    def idle(self) -> bool:
        """Whether there is a connection, and no answer is due or half read on it."""
        return not (self._due or self._parser.busy or self._parser.pending)

    async def _send(self, method: str, *args: Any, **options: Any) -> None:
        if self.over:
            raise RuntimeError("the session is over")
        await super()._send(method, *args, **options)  # type: ignore[misc]
        log.debug("%s %s", method, self.url)

    def retried(self, error: StreamError, attempt: int) -> None:
        """Called before a pause: what went wrong will be tried again."""
        log.info("%s %d (%s): attempt %d failed", type(error).__name__, error.status, self.url, attempt)
        if self._hook:
            self._hook(error, attempt)

    def encode(self, value: object) -> bytes:
        """The bytes of one value, in machine code where its own flows would make the same of it."""
        if self._type == "cbor" and _plain(value, 30):
            try:
                return cbor2.dumps(value)
            except (cbor2.CBOREncodeError, ValueError):
                pass  # told by the other
        return super().encode(value)


def _plain(value: object, depth: int) -> bool:
    """Whether CBOR has this value as it is, and both encoders mean the same by it."""
    kind = type(value)
    if kind is dict:
        if not _SCALARS.issuperset(map(type, value)):  # type: ignore[call-overload]
            return False
        value = value.values()  # type: ignore[attr-defined]
    elif kind is not list:
        return kind in _SCALARS
    if _SCALARS.issuperset(map(type, value)):  # type: ignore[call-overload]
        return True
    return depth > 0 and all(_plain(each, depth - 1) for each in value)  # type: ignore[attr-defined]
