# The shapes of the client on asyncio.

from collections.abc import Callable, Collection, Coroutine
from typing import Any, Literal, TypeVar, overload

from typing_extensions import deprecated

import ds_micro.outbox
from ds_core.client.errors import StreamError as StreamError
from ds_core.client.reader import MARK as MARK
from ds_micro import (
    BadRequest as BadRequest,
    BadResponse as BadResponse,
    Busy as Busy,
    Closed as Closed,
    Conflict as Conflict,
    Disconnected as Disconnected,
    Fenced as Fenced,
    Forbidden as Forbidden,
    Gone as Gone,
    NoSpace as NoSpace,
    NotFound as NotFound,
    OutboxFull as OutboxFull,
    ServerError as ServerError,
    Timeout as Timeout,
    TooLarge as TooLarge,
    Unauthorized as Unauthorized,
    Untrusted as Untrusted,
)
from ds_micro.cpython import connect as connect, last_words as last_words, look_up as look_up, within as within
from ds_micro.cursor import Cursor as Cursor
from ds_micro.net import lookup as lookup, now as now
from ds_micro.stream import (
    END as END,
    Flows as Flows,
    Items as Items,
    Result as Result,
    _Bytes,
    _Live,
    _Place,
)
from ds_micro.tls import Wrapper

_T = TypeVar("_T")
_Done = Coroutine[Any, Any, Result]

class Net:
    async def open(self, host: str, port: int, ms: Callable[[], int], tls: Wrapper | None = None) -> None: ...
    def close(self) -> None: ...
    def stale(self) -> bool: ...
    async def recv(self, view: memoryview, ms: Callable[[], int]) -> int: ...
    async def send(self, view: memoryview, ms: Callable[[], int]) -> None: ...
    async def sleep(self, ms: float) -> None: ...

class _Items(Items[_T]):
    def __aiter__(self) -> _Items[_T]: ...
    async def __anext__(self) -> _T: ...

class Stream(Flows):
    def create(
        self,
        *,
        values: Collection[object] = (),
        ttl: int | None = None,
        expires_at: str | None = None,
        closed: bool = False,
    ) -> _Done: ...
    @overload
    def append(
        self, *values: object, raw: Literal[False] = False, seq: str | None = None, close: bool = False
    ) -> _Done: ...
    @overload
    def append(self, *values: _Bytes, raw: bool, seq: str | None = None, close: bool = False) -> _Done: ...
    def seal(self) -> _Done: ...
    @deprecated("seal() it, or disconnect()")
    def close(self) -> _Done: ...
    def disconnect(self) -> Coroutine[Any, Any, None]: ...
    def head(self) -> _Done: ...
    def adopt(self) -> _Done: ...
    def delete(self) -> _Done: ...
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
    ) -> _Done: ...
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
    ) -> _Items[bytes]: ...
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
    ) -> _Items[Any]: ...

class Outbox(ds_micro.outbox.Outbox):
    async def flush(self, timeout: float = 30) -> int: ...  # type: ignore[override]
    async def close_stream(self, timeout: float = 30) -> bool: ...  # type: ignore[override]
    async def run(self, interval: float = 1.0) -> None: ...
