# The shapes of what both clients share.

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Generic, Literal, Protocol, TypeVar

from ds_core.client.reader import Reader
from ds_micro.net import now as now

_T = TypeVar("_T")
_Bytes = bytes | bytearray | memoryview
_Live = Literal["long-poll", "sse", "auto"]
# A header's value or a token, or what is asked for it at each request.
_Secret = str | Callable[[], str | Awaitable[str]]

class _Place(Protocol):
    """Where a reader is: a Cursor, or what is kept like one."""

    offset: str
    items: int

LONGEST: int
END: object

def alone(it: Any, call: Callable[..., _T], *args: Any) -> _T: ...
def random(n: int) -> int: ...

class Result:
    status: int
    headers: dict[str, str]
    offset: str | None
    duplicate: bool
    closed: bool
    def __init__(self, status: int, headers: dict[str, str]) -> None: ...

class Flows:
    url: str
    path: str
    content_type: str | None
    def __init__(
        self,
        url: str,
        token: _Secret | None = None,
        content_type: str | None = "application/cbor-seq",
        headers: Mapping[str, _Secret] | None = None,
        params: Mapping[str, object] | None = None,
        timeout: float = 10,
        live_timeout: float = 90,
        buffer: int = 1024,
        max_bytes: int = 65536,
        *,
        ca: str | bytes | None = None,
        pin: str | None = None,
        verify: bool = True,
    ) -> None: ...
    def drop(self) -> None: ...
    def encode(self, value: object) -> bytes: ...
    def create(
        self,
        *,
        values: Collection[object] = (),
        ttl: int | None = None,
        expires_at: str | None = None,
        closed: bool = False,
    ) -> Any: ...
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

class Items(Generic[_T]):
    cursor: _Place
    caught_up: bool
    closed: bool
    def __init__(self, stream: Flows, reader: Reader, patience: float | None, deadline: float | None) -> None: ...
    def __iter__(self) -> Items[_T]: ...
    def __next__(self) -> _T: ...
    async def next(self) -> object: ...
