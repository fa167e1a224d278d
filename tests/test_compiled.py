"""`make compile`: the modules it compiles are the same ones, and decide the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.tools import ci

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = (".git", ".venv", "build", "node_modules", "data", "*.so", "__pycache__", ".*_cache", ".hypothesis")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    if shutil.which("gcc") is None or not Path(sysconfig.get_path("include"), "Python.h").is_file():
        ci.missing("no C compiler, or no Python.h: sudo apt install gcc libc6-dev python3-dev")
    return Path(shutil.copytree(ROOT, tmp_path / "checkout", ignore=shutil.ignore_patterns(*LEFT_OUT)))


@pytest.mark.timeout(600)
def test_the_compiled_core_passes_the_tests_of_the_core(checkout: Path) -> None:
    made = subprocess.run(
        ["make", "compile", f"PYTHON={sys.executable}"], cwd=checkout, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-2000:]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    where = "import ds_core.server.heads as heads, ds_core.server.reads as reads; print(heads.__file__, reads.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=checkout, env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert all(file.startswith(str(checkout)) and file.endswith(".so") for file in found), found
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/core/server"]
    tested = subprocess.run(tests, cwd=checkout, env=environment, capture_output=True, text=True)
    assert tested.returncode == 0, tested.stdout[-3000:]
    assert " passed" in tested.stdout
    assert subprocess.run(["make", "clean"], cwd=checkout, capture_output=True).returncode == 0
    assert not list(checkout.glob("*.so")) and not list(checkout.glob("ds_core/*/*.so"))
