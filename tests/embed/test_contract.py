"""The stores of the examples keep what the five calls promise."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ds_core.server import storage
from tests.embed import asyncio_server, contract, sqlite_store
from tests.embed.contract import *  # noqa: F403

STORES = {"a model": contract.Model, "asyncio": asyncio_server.Store, "sqlite": sqlite_store.Store}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param != "sqlite":
        return STORES[request.param]()
    made = sqlite_store.Store(tmp_path / "streams.db")
    request.addfinalizer(made.close)
    return made


@pytest.fixture
def run(store: Any) -> Any:
    return getattr(store, "run", lambda steps: storage.run(steps, store))


@pytest.fixture
def run_all(store: Any, run: Any) -> Any:
    def at_once(many: list[Any]) -> list[Any]:
        with ThreadPoolExecutor(8) as threads:
            return list(threads.map(run, many))

    return at_once if isinstance(store, sqlite_store.Store) else lambda many: list(map(run, many))


@pytest.fixture
def reopen(store: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    if not isinstance(store, sqlite_store.Store):
        pytest.skip("kept in memory")

    def again() -> Any:
        store.close()
        made = sqlite_store.Store(tmp_path / "streams.db")
        request.addfinalizer(made.close)
        return made.run

    return again


class _Forgetful(contract.Model):
    """A store with a fault of each kind that the contract is there to find."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def load(self, key: Any) -> Any:
        found = super().load(key)
        return found if self.fault != "no ids" or isinstance(key, str) else None

    def pieces(self, id: int, start: int, end: int) -> Any:
        found = super().pieces(id, start, end)
        if self.fault == "cut" and found:
            return [(max(at, start), data[max(0, start - at) :]) for at, data in found]
        return found[:1] if self.fault == "first only" else found

    def commit(self, changes: Any) -> None:
        if self.fault == "producers":
            changes.producer = None
        if self.fault == "newest":
            changes.newest = max((each.id for each in self.streams.values()), default=0)
        if self.fault == "in place" and changes.puts and changes.puts[0].id in self.streams:
            self.streams[changes.puts[0].id].tail = changes.puts[0].tail
        super().commit(changes)


def _failures(fault: str) -> list[str]:
    failed = []
    for name in contract.__all__:
        test = getattr(contract, name)
        if name.startswith("test_"):
            store = _Forgetful(fault)
            given: dict[str, Any] = {"run": lambda steps, store=store: storage.run(steps, store), "seed": 1}
            given["run_all"] = lambda many, run=given["run"]: list(map(run, many))
            given["reopen"] = lambda run=given["run"]: run
            wanted = test.__code__.co_varnames[: test.__code__.co_argcount]
            try:
                test(**{each: given[each] for each in wanted})
            except (AssertionError, AttributeError, IndexError, TypeError):
                failed.append(name)
    return failed


@pytest.mark.parametrize("fault", ["no ids", "cut", "first only", "producers", "newest", "in place"])
def test_the_contract_finds_a_fault(fault: str) -> None:
    assert _failures(fault) and not _failures("none")
