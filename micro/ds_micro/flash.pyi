from collections.abc import Callable
from typing import Concatenate, ParamSpec, Self, TypeVar, TypeVarTuple

from ds_micro.cpython import OWNERS as OWNERS, replace as replace, sync as sync

TROUBLE: list[int]

_Owner = TypeVar("_Owner")
_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_Arguments = TypeVarTuple("_Arguments")

def guarded(
    step: Callable[Concatenate[_Owner, _Parameters], _Result],
) -> Callable[Concatenate[_Owner, _Parameters], _Result]: ...
def absent(call: Callable[[*_Arguments], _Result], *args: *_Arguments) -> _Result | None: ...

class FlashStore:
    type: str
    dropped: int
    epoch: int
    seq: int
    count: int
    length: int
    @property
    def records(self) -> int: ...
    def __init__(
        self,
        path: str,
        epoch: int,
        content_type: str,
        json: bool,
        limit: int,
        size: int,
        count: int,
        full: str,
        sync_every: int,
    ) -> None: ...
    def claim(self, epoch: int | None, drop: int = 0) -> None: ...
    def append(self, record: bytes | bytearray | memoryview) -> bool: ...
    def ready(self) -> bool: ...
    def batch(self, i: int) -> Self | None: ...
    def readinto(self, view: memoryview) -> int: ...
    def done(self) -> None: ...
