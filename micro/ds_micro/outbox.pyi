from typing import Any, Literal, Protocol

from ds_core.client.errors import StreamError
from ds_core.client.writer import Writer as Writer
from ds_micro.stream import Flows

class _Batch(Protocol):
    """One POST: its numbers, how many records and bytes it has, its content type, and the bytes."""

    type: str
    epoch: int
    seq: int
    @property
    def count(self) -> int: ...
    @property
    def length(self) -> int: ...
    def readinto(self, view: memoryview, /) -> int: ...

class _Store(Protocol):
    """What keeps records until the server has them; see ds_core.client.writer."""

    @property
    def records(self) -> int: ...
    def batch(self, i: int, /) -> Any: ...  # a _Batch, or None
    def done(self) -> None: ...
    def claim(self, epoch: int, /) -> None: ...

class Outbox:
    store: _Store
    writer: Writer
    error: StreamError | None
    @property
    def records(self) -> int: ...
    @property
    def dropped(self) -> int: ...
    @property
    def damaged(self) -> int: ...
    def __init__(
        self,
        path: str | None,
        stream: Flows,
        producer: str,
        limit: int = 65536,
        when_full: Literal["drop-oldest", "drop-newest", "refuse"] = "drop-oldest",
        sync_every: int = 1,
        segment: int = 0,
        count: int = 0,
        age: float = 0,
        epoch: int | None = None,
        in_flight: int = 1,
    ) -> None: ...
    def append(self, value: object, raw: bool = False) -> bool: ...
    def due(self) -> bool: ...
    def flush(self, timeout: float = 30) -> int: ...
    def discard(self) -> int: ...
    def close_stream(self, timeout: float = 30) -> bool: ...
    def close(self) -> None: ...
