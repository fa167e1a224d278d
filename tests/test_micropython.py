"""What a device runs is tested on a device's interpreter: MicroPython, 64-bit and 32-bit, on a small heap.

Imports every module of ds_core, and runs every portable test file (tests/core/portable.py says what that is).
`DS_TEST_HEAP64` and `DS_TEST_HEAP32` change the heap, in MicroPython's notation (`512k`, `2m`).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.tools import ci, micropython

ROOT = Path(__file__).resolve().parent.parent
RUNNER = ROOT / "tests" / "core" / "run_micropython.py"
HEAP = {64: os.environ.get("DS_TEST_HEAP64", "1m"), 32: os.environ.get("DS_TEST_HEAP32", "512k")}
BUILDS = (64, 32)
SECONDS = 90


def modules() -> list[str]:
    found = []
    for path in sorted((ROOT / "ds_core").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def portable_files() -> list[str]:
    return [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "tests" / "core").rglob("test_*.py"))
        if not path.stem.endswith("_cpython")
    ]


def run(build: int, action: str, what: str) -> None:
    try:
        argv = micropython.find(build)
    except micropython.Unavailable as exc:
        ci.missing(exc)
    command = [*argv, "-X", f"heapsize={HEAP[build]}", str(RUNNER), str(ROOT), action, what]
    try:
        done = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS
        )
    except subprocess.TimeoutExpired as exc:
        output = (exc.stdout or b"").decode(errors="replace")
        pytest.fail(f"{what} ran over {SECONDS} s on {build}-bit MicroPython\n{output}", pytrace=False)
    if done.returncode != 0:
        output = done.stdout.decode(errors="replace")
        pytest.fail(
            f"{what} on {build}-bit MicroPython, heap {HEAP[build]}, status {done.returncode}:\n{output}",
            pytrace=False,
        )


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("module", modules())
def test_every_core_module_imports(build: int, module: str) -> None:
    run(build, "import", module)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("path", portable_files())
def test_portable_tests_pass(build: int, path: str) -> None:
    run(build, "test", path)


@pytest.mark.parametrize("build", BUILDS)
def test_the_runner_reports_failures_and_empty_files(build: int, tmp_path: Path) -> None:
    for source, expected in (
        ("def test_no():\n    assert 1 == 2\n", "AssertionError"),
        ("x = 1\n", "no tests"),
        ("import typing\n", "ImportError"),
    ):
        (tmp_path / "test_sample.py").write_text(source)
        with pytest.raises(pytest.fail.Exception, match=expected):
            run(build, "test", os.path.relpath(tmp_path / "test_sample.py", ROOT))
