"""Connections that break at every byte of requests and responses: nothing is lost, nothing comes twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.micro.fault_proxy import DIRECTIONS, KINDS, FaultProxy
from tests.tools import ci, micropython, serve

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
# All bytes with DS_TEST_FAULTS=1; else of cuts all, of the others some, for a stall lasts a deadline.
EVERY = bool(os.environ.get("DS_TEST_FAULTS"))


@pytest.fixture(scope="module")
def edge():
    with serve.start("--memory") as server:
        yield server


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_byte(edge, tmp_path, direction, kind):
    step = 1 if EVERY or kind == "cut" else 37 if kind == "stall" else 4
    break_at_every_byte([sys.executable], edge, tmp_path, direction, kind, KINDS.index(kind), step)


@pytest.mark.parametrize("build", [64, 32])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_micropython(edge, tmp_path, direction, build):
    try:
        python = micropython.find(build)
    except micropython.Unavailable as exc:
        ci.missing(exc)
    for n, kind in enumerate(KINDS):
        step = 1 if EVERY else 67 if kind == "stall" else 11
        break_at_every_byte(python, edge, tmp_path / kind, direction, kind, n, step)


def break_at_every_byte(python, server, folder, direction, kind, first, step):
    folder.mkdir(exist_ok=True)
    with FaultProxy(server.host, server.port) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/v1/stream"
        argv = [*python, HERE / "fault_client.py", ROOT, url, proxy.control, server.url, folder / "box"]
        argv += [direction, kind, first, step]
        done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[1]) > 200 and "read" in done.stdout
