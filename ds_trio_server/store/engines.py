"""The storage engines that there are: one table by name, for whoever is told which (`ds serve`, the contract suite).

An engine `x` is the module or the room `store/x`, and nothing of it is loaded until it is chosen. A place is
`x:WHERE`, where WHERE is the engine's own business; what does not begin with a name of the table is a directory for
SQLite.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ..clock import Clock
from .base import Store
from .retention import Retention, Rule

if TYPE_CHECKING:
    from .sqlite.space import MinFree

DEFAULT = "sqlite"
"""The engine of a place that names none."""


@dataclass(frozen=True)
class Terms:
    """How an operator wants streams kept: `where`, as the engine understands it, empty for where it usually does;
    rules of retention, and how much of a disk stays free. `clock` is for tests."""

    where: str = ""
    retain: Sequence[Rule] = ()
    min_free: "MinFree | None" = None
    clock: Clock | None = None


class Engine(NamedTuple):
    """How a store is made, and how it is spoken of."""

    make: Callable[[Terms], Store]
    """A store that is still to be opened. Raises ValueError for a place that can't be one of its."""
    place: str
    """Where streams are then, with `{where}` in it."""
    trims: bool = True
    """Whether it keeps to rules of retention."""


def _sqlite(terms: Terms) -> Store:
    from .sqlite.engine import SQLiteStore

    return SQLiteStore(terms.where or "data", terms.clock, Retention(terms.retain), terms.min_free)


def _memory(terms: Terms) -> Store:
    from .memory import MemoryStore

    if terms.where:
        raise ValueError(f"'memory:{terms.where}': what is kept in memory is in no place")
    return MemoryStore(terms.clock)


ENGINES = {
    "sqlite": Engine(_sqlite, "in {where}"),
    "memory": Engine(_memory, "in memory only", trims=False),
}


def chosen(place: str) -> tuple[str, str]:
    """The name of the engine that a place means, and where that keeps streams."""
    name, colon, where = place.partition(":")
    return (name, where) if colon and name in ENGINES else (DEFAULT, place)
