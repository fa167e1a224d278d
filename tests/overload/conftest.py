from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ds_trio_server.config import Config
from ds_trio_server.store.base import Store
from ds_trio_server.store.memory import MemoryStore
from ds_trio_server.store.sqlite.engine import SQLiteStore
from tests.server.site import Site, running
from tests.server.test_idle import held, until


@pytest.fixture(params=["memory", "sqlite"])
async def site(
    request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Site]:
    """A server with an empty stream, which must have forgotten everybody and complained of nothing."""
    store: Store = MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "data")
    with caplog.at_level(logging.WARNING, "ds"):
        async with running(store, long_poll_timeout=request.module.LONG_POLL_TIMEOUT) as site:
            await site.create("s")
            yield site
            site.disconnect()
            await until(lambda: held(site) == 0)
            assert site.server._budget._left == Config().body_memory
            assert site.server.app.fanout.count() == 0
            assert site.server.app.reading._held == 0
    assert caplog.records == []
