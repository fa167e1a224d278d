"""Outbox and cursor on the real littlefs and FAT of MicroPython: power cuts, no room, no memory, failing blocks.

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


@pytest.mark.timeout(600)
@pytest.mark.parametrize("build", [64, 32])
def test_what_append_returned_for_is_on_flash_when_a_block_cannot_be_written(build: int) -> None:
    """One program or erase after the other fails. (Where a name could not be removed, littlefs took a later sync of a
    file that was open for done, with nothing on flash.)
    """
    program = [HERE / "failing_flash.py", ROOT, "one", 1 if EVERY else 2]
    out = run([*interpreter(build), "-X", "heapsize=200m", *program])
    assert re.findall(r"^runs (\d+) bad 0$", out, re.MULTILINE), out


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("build", "seed"), [(64, 1), (32, 2)])
def test_blocks_that_fail_at_random_lose_and_repeat_nothing(build: int, seed: int) -> None:
    program = [HERE / "failing_flash.py", ROOT, seed, 10000 if EVERY else 300]
    out = run([*interpreter(build), "-X", "heapsize=200m", *program])
    assert re.findall(r"^runs (\d+) bad 0$", out, re.MULTILINE), out
