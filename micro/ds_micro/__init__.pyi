# The shapes of the blocking client. What each of them does, the docstrings beside the code say.

from collections.abc import Collection, Coroutine
from typing import Any, Literal, TypeVar, overload

from typing_extensions import deprecated

from ds_core.client.errors import StreamError as StreamError
from ds_core.client.reader import MARK as MARK
from ds_micro import aio as aio
from ds_micro.cursor import Cursor as Cursor
from ds_micro.net import Net as Net
from ds_micro.outbox import Outbox as Outbox
from ds_micro.stream import Flows as Flows, Items, Result, _Bytes, _Live, _Place, alone as alone

_T = TypeVar("_T")

__all__ = [
    "Stream", "Outbox", "Cursor", "MARK", "aio", "StreamError", "Disconnected", "Timeout", "Untrusted", "BadResponse",
    "BadRequest", "Unauthorized", "Forbidden", "Fenced", "NotFound", "Conflict", "Closed", "Gone", "TooLarge", "Busy",
    "ServerError", "NoSpace", "OutboxFull",
]  # fmt: skip

def run(flow: Coroutine[Any, Any, _T]) -> _T: ...

class Stream(Flows):
    def create(
        self,
        *,
        values: Collection[object] = (),
        ttl: int | None = None,
        expires_at: str | None = None,
        closed: bool = False,
    ) -> Result: ...
    @overload
    def append(
        self, *values: object, raw: Literal[False] = False, seq: str | None = None, close: bool = False
    ) -> Result: ...
    @overload
    def append(self, *values: _Bytes, raw: bool, seq: str | None = None, close: bool = False) -> Result: ...
    def seal(self) -> Result: ...
    @deprecated("seal() it, or disconnect()")
    def close(self) -> Result: ...
    def disconnect(self) -> None: ...
    def head(self) -> Result: ...
    def adopt(self) -> Result: ...
    def delete(self) -> Result: ...
    def fork(
        self,
        source: Flows | str,
        *,
        values: Collection[object] = (),
        ttl: int | None = None,
        expires_at: str | None = None,
        closed: bool = False,
        offset: str | None = None,
        sub_offset: int = 0,
    ) -> Result: ...
    @overload
    def read(
        self,
        cursor: _Place | str | None = None,
        live: _Live | None = None,
        patience: float | None = 60,
        limit: int = 65536,
        *,
        raw: Literal[True],
        deadline: float | None = None,
        marks: Literal[False] = False,
    ) -> Items[bytes]: ...
    @overload
    def read(
        self,
        cursor: _Place | str | None = None,
        live: _Live | None = None,
        patience: float | None = 60,
        limit: int = 65536,
        raw: bool = False,
        deadline: float | None = None,
        marks: bool = False,
    ) -> Items[Any]: ...

# An error for each kind of refusal; classes, though they are made by calls (see ds_core.client.refusals).

class Disconnected(StreamError): ...
class Timeout(Disconnected): ...
class Untrusted(Disconnected):
    lasting: bool  # nothing will be sent until somebody does something

class BadResponse(Disconnected): ...
class BadRequest(StreamError): ...
class Unauthorized(StreamError): ...
class Forbidden(StreamError): ...
class Fenced(Forbidden): ...
class NotFound(StreamError): ...
class Conflict(StreamError): ...
class Closed(Conflict): ...
class Gone(StreamError): ...
class TooLarge(StreamError): ...
class Busy(StreamError): ...
class ServerError(StreamError): ...
class NoSpace(ServerError): ...
class OutboxFull(StreamError): ...
