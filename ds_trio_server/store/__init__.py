"""Where streams are kept: the interface of every engine, and the one in memory.

The engine that a gateway uses is `store.sqlite.SQLiteStore`; this package loads no engine that is not asked for.
"""

from typing import TYPE_CHECKING

from .base import (
    FORGET_PRODUCERS_AFTER,
    MOST_PRODUCERS,
    SLICES,
    WINDOW,
    Change,
    Damaged,
    Decide,
    Done,
    LogHeld,
    Overloaded,
    Piece,
    StorageBusy,
    StorageFailed,
    StorageFull,
    StorageReadOnly,
    Store,
    StoreClosed,
    TooManyProducers,
    Unwritable,
    Usage,
    Vanished,
    Watcher,
)
from .retention import Retention
from .watchers import Watchers

if TYPE_CHECKING:
    from .memory import MemoryStore

__all__ = [
    "Store", "Decide", "Change", "Done", "Piece", "Usage", "WINDOW", "SLICES", "MOST_PRODUCERS",
    "FORGET_PRODUCERS_AFTER", "StorageFailed", "StoreClosed", "Unwritable", "StorageFull", "StorageReadOnly",
    "StorageBusy", "LogHeld", "Damaged", "Overloaded", "TooManyProducers", "Vanished", "Watcher", "Watchers",
    "Retention", "retention", "engines", "MemoryStore",
]


def __getattr__(name: str) -> object:
    # A late import: who keeps streams on a disk loads no store in memory.
    if name == "MemoryStore":
        from . import memory

        return memory.MemoryStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
