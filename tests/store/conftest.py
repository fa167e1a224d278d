from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ds_trio_server.store.base import Store
from ds_trio_server.store.memory import MemoryStore
from ds_trio_server.store.sqlite import SQLiteStore
from tests.store.rig import Rig, Time


@pytest.fixture(params=["memory", "sqlite"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    """An open store of each kind."""
    time = Time()
    store: Store
    if request.param == "memory":
        store = MemoryStore(time.clock())
    else:
        store = SQLiteStore(tmp_path / "data", time.clock())
    await store.open()
    yield Rig(store, time)
    await store.close()
