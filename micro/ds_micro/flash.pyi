from typing import Self

from ds_micro.cpython import OWNERS as OWNERS, replace as replace, sync as sync

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
