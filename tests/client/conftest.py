"""A gateway in this process, and the ways to wait."""

from __future__ import annotations

import gc
import queue
import threading
import warnings
from collections.abc import Iterator

import pytest
import trio

from ds_core.client.backoff import Backoff
from ds_trio_server import Config, Gateway, MemoryStore
from tests.client.ways import NAMES, Way


@pytest.fixture(scope="session")
def gateway() -> Iterator[str]:
    """The URL of a real gateway's streams."""
    told: queue.Queue[object] = queue.Queue()
    over = trio.Event()

    async def main() -> None:
        async with Gateway(MemoryStore(), Config(grace=0.2, long_poll_timeout=1.0)) as gateway:
            told.put((gateway.url, trio.lowlevel.current_trio_token()))
            await over.wait()

    thread = threading.Thread(target=trio.run, args=(main,), daemon=True)
    thread.start()
    url, token = told.get(timeout=20)  # type: ignore[misc]
    yield url
    token.run_sync_soon(over.set)
    thread.join(20)


@pytest.fixture(params=NAMES)
def way(request: pytest.FixtureRequest) -> Way:
    return Way(request.param)


@pytest.fixture(params=NAMES[1:])
def tasks(request: pytest.FixtureRequest) -> Way:
    return Way(request.param)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test waits for what happens, and not for time to pass."""
    whole = Backoff.delay
    monkeypatch.setattr(Backoff, "delay", lambda self, after=None: whole(self, after) // 100)


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """A socket that is left to the garbage collector fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        yield
        gc.collect()
