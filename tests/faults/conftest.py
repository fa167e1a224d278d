"""What the tests of faults share: a disk under command, compiled once, and servers on it."""

from __future__ import annotations

import pytest

from tests.faults import disk
from tests.faults.servers import Faulty


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    """The library to be loaded before a process; see `disk`."""
    return disk.library(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def faulty(shim, tmp_path):
    """Starts a server on a disk under command; all of them are gone at the end."""
    started = []

    def start(*args):
        started.append(Faulty(shim, tmp_path, *args))
        return started[-1]

    yield start
    for each in started:
        each.server.kill()
