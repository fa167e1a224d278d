"""Several tasks, threads and callbacks on one Stream and one Outbox; see sharing.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.micro.test_suite import ROOT, interpreter, run
from tests.tools import serve

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize("build", ["cpython", 64, 32])
def test_every_method_beside_every_other(build: int | str, tmp_path: Path) -> None:
    with serve.start("--memory") as server:
        out = run([*interpreter(build), HERE / "sharing.py", ROOT, server.url + "/shared", tmp_path])
    assert "done" in out and "never awaited" not in out
