"""Streams in one SQLite file: what an edge gateway keeps them in."""

from .engine import SQLiteStore
from .space import DefaultMinFree, MinFree

__all__ = ["DefaultMinFree", "MinFree", "SQLiteStore"]
