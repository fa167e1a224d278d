from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ds_trio_server.store.engines import ENGINES, Terms
from tests.store.rig import Rig, Soon, Time, narrow


@pytest.fixture(params=[*ENGINES, *(f"{name} soon" for name in ENGINES), "sqlite bulk"])
async def rig(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Rig]:
    """An open store of each engine that there is, and by its doors that never wait."""
    time = Time()
    if "bulk" in request.param:
        narrow(monkeypatch, row=8, step=20_000)  # most appends are large
    name = request.param.split()[0]
    where = str(tmp_path / "data") if name == "sqlite" else ""
    store = ENGINES[name].make(Terms(where, clock=time.clock()))
    await store.open()
    yield Rig(Soon(store) if "soon" in request.param else store, time)
    await store.close()
