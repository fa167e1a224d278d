"""The table of engines: which one a place means, and what that one makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ds_trio_server.store.engines import ENGINES, Terms, chosen
from ds_trio_server.store.memory import MemoryStore
from ds_trio_server.store.retention import parse
from ds_trio_server.store.sqlite.engine import SQLiteStore


@pytest.mark.parametrize(
    ("place", "engine", "where"),
    [
        ("data", "sqlite", "data"),
        ("/var/lib/ds", "sqlite", "/var/lib/ds"),
        ("sqlite:/var/lib/ds", "sqlite", "/var/lib/ds"),
        ("memory:", "memory", ""),
        ("memory", "sqlite", "memory"),
        ("./memory:", "sqlite", "./memory:"),
        ("a:b", "sqlite", "a:b"),  # no name of an engine's, so a directory's
    ],
)
def test_a_place_names_its_engine_or_is_a_directory(place: str, engine: str, where: str) -> None:
    assert chosen(place) == (engine, where)


def test_engines_are_made_by_name(tmp_path: Path) -> None:
    assert isinstance(ENGINES["memory"].make(Terms()), MemoryStore)
    store = ENGINES["sqlite"].make(Terms(str(tmp_path / "data"), [parse("7d")]))
    assert isinstance(store, SQLiteStore) and not (tmp_path / "data").exists(), "opening it is what makes it"
    with pytest.raises(ValueError, match="in no place"):
        ENGINES["memory"].make(Terms("/somewhere"))


def test_who_keeps_to_no_rules_says_so() -> None:
    assert ENGINES["sqlite"].trims and not ENGINES["memory"].trims
