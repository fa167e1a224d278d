from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ds_trio_server.store.base import Store
from ds_trio_server.store.memory import MemoryStore
from ds_trio_server.store.sqlite.engine import SQLiteStore
from tests.store.rig import Rig, Soon, Time, narrow


@pytest.fixture(params=["memory", "sqlite", "memory soon", "sqlite soon", "sqlite bulk"])
async def rig(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Rig]:
    """An open store of each kind."""
    time = Time()
    if "bulk" in request.param:
        narrow(monkeypatch, row=8, step=20_000)  # most appends are large
    store: Store
    if "memory" in request.param:
        store = MemoryStore(time.clock())
    else:
        store = SQLiteStore(tmp_path / "data", time.clock())
    await store.open()
    yield Rig(Soon(store) if "soon" in request.param else store, time)
    await store.close()
