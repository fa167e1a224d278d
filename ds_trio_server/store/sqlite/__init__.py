"""Streams in one SQLite file: what an edge gateway keeps them in."""

from typing import TYPE_CHECKING

from .space import DefaultMinFree, MinFree

if TYPE_CHECKING:
    from .engine import SQLiteStore

__all__ = ["SQLiteStore", "MinFree", "DefaultMinFree", "maintenance", "salvaging"]


def __getattr__(name: str) -> object:
    # A late import: what an option means can be asked without loading the engine.
    if name == "SQLiteStore":
        from . import engine

        return engine.SQLiteStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
