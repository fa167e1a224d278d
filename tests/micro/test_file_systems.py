"""Outbox and cursor on the real littlefs and FAT, which MicroPython has: power cuts, no room, no memory.

Some of the cuts; all of them with DS_TEST_FAULTS=1.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.micro.test_suite import ROOT, interpreter, run
from tests.tools import serve

HERE = Path(__file__).resolve().parent
EVERY = bool(os.environ.get("DS_TEST_FAULTS"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("build", [64, 32])
@pytest.mark.parametrize("kind", ["littlefs", "fat"])
@pytest.mark.parametrize("sync_every", [1, 3])
def test_a_power_cut_at_any_block_loses_and_repeats_nothing(build: int, kind: str, sync_every: int) -> None:
    step = 1 if EVERY else 7
    program = [HERE / "cut_file_systems.py", ROOT, kind, sync_every, step]
    out = run([*interpreter(build), "-X", "heapsize=8m", *program])
    cuts = int(re.findall(r"^cuts (\d+)$", out, re.MULTILINE)[0])
    assert cuts > 300 // step


@pytest.mark.parametrize("build", [64, 32])
@pytest.mark.parametrize("kind", ["littlefs", "fat"])
@pytest.mark.parametrize("sync_every", [1, 3])
def test_a_full_file_system_keeps_every_record_it_took(build: int, kind: str, sync_every: int) -> None:
    with serve.start("--memory") as server:
        program = [HERE / "full_flash.py", ROOT, server.url + "/full", kind, sync_every]
        run([*interpreter(build), "-X", "heapsize=4m", *program])


@pytest.mark.parametrize(("build", "heap", "room"), [(64, "1m", 9000), (32, "256k", 6000)])
@pytest.mark.parametrize("sync_every", [1, 3])
def test_without_memory_nothing_is_lost_and_all_goes_on(
    build: int, heap: str, room: int, sync_every: int, tmp_path: Path
) -> None:
    step = 16 if EVERY else 48
    program = [HERE / "out_of_memory.py", ROOT, tmp_path / "box", sync_every, step, room]
    out = run([*interpreter(build), "-X", f"heapsize={heap}", *program])
    assert "errors" in out
