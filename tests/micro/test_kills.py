"""Real processes, really killed: the device at random instants, the server with it now and then. End to end,
exactly once."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tools import ci, micropython, serve

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
# 300 or more for the long variant.
CUTS = int(os.environ.get("DS_TEST_CUTS", "30"))


@pytest.mark.timeout(max(120, 4 * CUTS))
@pytest.mark.parametrize("build", ["cpython", 64, 32])
def test_power_cuts(build, tmp_path):
    if build == "cpython":
        python = [sys.executable]
    else:
        try:
            python = micropython.find(build)
        except micropython.Unavailable as exc:
            ci.missing(exc)
    cuts = CUTS if build == 32 or CUTS > 30 else CUTS // 3
    rng = random.Random(int(os.environ.get("DS_TEST_SEED", "1")))
    tried = 0
    safe: set[int] = set()
    server = serve.start("--data", tmp_path / "data")
    try:
        from ds_micro import Outbox, Stream

        url = server.url + "/cuts"
        Stream(url).create()
        for _ in range(cuts):
            argv = [*python, HERE / "cut_device.py", ROOT, url, tmp_path / "box", tried + 1]
            argv = [str(word) for word in argv]
            # Without a buffer, which would keep from communicate() what it has read ahead.
            device = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
            # From the moment of its first append on; the start of an interpreter is not what is tested.
            first = device.stdout.readline()
            assert first.startswith(b"try"), device.stderr.read()
            time.sleep(rng.expovariate(10))
            kill_server = rng.random() < 0.3
            if kill_server:
                server.kill()
                time.sleep(rng.expovariate(20))
            device.kill()
            out, err = device.communicate(timeout=20)
            assert not err, err
            for line in (first + out).decode().splitlines(keepends=True):
                words = line.split()
                if line[-1] == "\n" and words[0] == "try":
                    tried = max(tried, int(words[1]))
                elif line[-1] == "\n":
                    safe.add(int(words[1]))
            if kill_server:
                server = serve.start("--data", tmp_path / "data", port=server.port)
        s = Stream(url)
        box = Outbox(str(tmp_path / "box"), s, producer="device", limit=1 << 20, segment=512)
        assert box.flush(60) == 0, box.error
        arrived = [item["n"] for item in s.read()]
    finally:
        server.kill()
    assert arrived == sorted(set(arrived)), "out of order or twice"
    assert safe <= set(arrived), "lost"
    assert set(arrived) <= set(range(1, tried + 1))
    assert len(safe) > cuts
