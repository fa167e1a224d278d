"""Where streams are kept: the interface of every engine, and the one in memory.

The engine that a gateway uses is ``store.sqlite.SQLiteStore``; this package loads no engine that is not asked for.
"""

from typing import TYPE_CHECKING

from .base import (
    WINDOW,
    Overloaded,
    Piece,
    StorageBusy,
    StorageFailed,
    StorageFull,
    StorageReadOnly,
    Store,
    Unwritable,
    Usage,
    Vanished,
    Watcher,
)
from .retention import Retention

if TYPE_CHECKING:
    from .memory import MemoryStore

__all__ = [
    "WINDOW",
    "MemoryStore",
    "Overloaded",
    "Piece",
    "Retention",
    "StorageBusy",
    "StorageFailed",
    "StorageFull",
    "StorageReadOnly",
    "Store",
    "Unwritable",
    "Usage",
    "Vanished",
    "Watcher",
]


def __getattr__(name: str) -> object:
    # A late import: who keeps streams on a disk loads no store in memory.
    if name == "MemoryStore":
        from . import memory

        return memory.MemoryStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
