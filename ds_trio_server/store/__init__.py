"""Where streams are kept: the interface of every engine, and the one in memory.

The engine that a gateway uses is ``store.sqlite.SQLiteStore``; this package loads no engine that is not asked for.
"""

from .base import (
    WINDOW,
    Overloaded,
    Piece,
    StorageBusy,
    StorageFailed,
    StorageFull,
    StorageReadOnly,
    Store,
    TooManyProducers,
    Unwritable,
    Usage,
    Vanished,
    Watcher,
)
from .memory import MemoryStore
from .retention import Retention

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
    "TooManyProducers",
    "Unwritable",
    "Usage",
    "Vanished",
    "Watcher",
]
