"""The field notes: their measurements run, their links lead somewhere, their unit is one that systemd understands."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples import device
from tests.tools import ci, micropython, serve

NOTES = serve.ROOT / "hardware-notes"
PAGES = sorted(NOTES.glob("*.md"))


def measure(build: int, heap: str, script: str, *arguments: str) -> str:
    try:
        argv = micropython.find(build)
    except micropython.Unavailable as exc:
        ci.missing(exc)
    return device.run([*argv, "-X", f"heapsize={heap}", str(NOTES / "measure" / script), *arguments], serve.ROOT)


def test_flash_wear_is_measured() -> None:
    rows = [line.split("|")[1:-1] for line in measure(64, "16m", "flash_wear.py", "300").splitlines()[2:]]
    assert len(rows) == 2 + 3 * 4
    erases = {(row[0].strip(), row[1].strip()): float(row[2]) for row in rows[2:]}
    assert erases["ESP32, 2 MB", "outbox, sync_every=20"] < erases["ESP32, 2 MB", "outbox, sync_every=1"] / 5


def test_heap_is_measured() -> None:
    output = measure(32, "256k", "heap.py", "ds_micro", "ds_micro.outbox")
    assert re.search(r"\d{4,6}  in all", output)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_in_the_index() -> None:
    index = (NOTES / "README.md").read_text()
    assert [page.name for page in PAGES if f"]({page.name})" not in index] == ["README.md"]


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if not program:
        ci.missing("systemd-analyze is not here")
    unit = tmp_path / "durable-streams.service"
    text = (NOTES / "systemd" / unit.name).read_text()
    assert text.count("/opt/durable-streams/bin/ds") == 1
    unit.write_text(text.replace("/opt/durable-streams/bin/ds", sys.executable))
    done = subprocess.run([program, "verify", str(unit)], capture_output=True, text=True, timeout=60)
    # It reads the machine's other units as well, and their faults are not ours.
    faults = [line for line in done.stderr.splitlines() if unit.name in line]
    assert not faults, done.stderr
