# The shapes of reading in batches.

from typing import Any

from ds_core.client import reader
from ds_micro.stream import Flows, Items, _Live, _Place

class Reader(reader.Reader):
    def head(self, status: int, headers: dict[str, str]) -> None: ...
    def feed(self, piece: bytes | memoryview) -> None: ...
    def next(self, plain: bool = False) -> object: ...

def batches(
    stream: Flows,
    cursor: _Place | str | None = None,
    live: _Live | None = None,
    patience: float | None = 60,
    limit: int = 65536,
    raw: bool = False,
    deadline: float | None = None,
    marks: bool = False,
) -> Items[Any]: ...
