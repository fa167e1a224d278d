"""One server per store for the official clients; with DS_TEST_PEER set, the Node reference server instead."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tools import ci, node, serve

# Shorter than a test's pause before an append, so that tailing clients live through an empty long-poll.
LONG_POLL = "0.5"
PAUSE = 0.8


@pytest.fixture(scope="module", params=["sqlite", "memory"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[serve.Server]:
    on_disk: Path | None = None
    if request.param == "sqlite":
        on_disk = tmp_path_factory.mktemp("interop") / "data"
    if os.environ.get("DS_TEST_PEER"):
        try:
            running = serve.start_peer(data=on_disk, long_poll=float(LONG_POLL))
        except node.Unavailable as exc:
            ci.missing(exc)
    else:
        store = ["--data", on_disk] if on_disk else ["--memory"]
        running = serve.start(*store, "--long-poll-timeout", LONG_POLL)
    with running:
        yield running


_numbers = itertools.count()


@pytest.fixture
def new_url(server: serve.Server) -> Callable[[], str]:
    """URLs of streams that no other test uses."""
    return lambda: f"{server.url}/interop/{next(_numbers)}"
