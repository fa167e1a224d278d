"""The README's tour, run as printed: every `$ ` line of its console blocks in one bash, against a fresh server."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tools import ci, serve

README = Path(__file__).parent.parent / "README.md"
PORT = "4437"
MARK = "--- the next command ---"


def tour() -> list[tuple[str, str]]:
    """(command, what the README prints below it) pairs."""
    steps: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", README.read_text(), re.DOTALL):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = step.partition("\n")
            steps.append((command, printed))
    return steps


def matches(printed: str, real: str) -> bool:
    """Whether a step printed what the README says, `...` standing for anything within a line."""
    pattern = "[^\n]*".join(re.escape(part) for part in printed.rstrip("\n").split("..."))
    return re.fullmatch(pattern, real.rstrip("\n")) is not None


def test_the_tour_works_as_printed(tmp_path: Path) -> None:
    if shutil.which("curl") is None or shutil.which("bash") is None:
        ci.missing("the tour needs bash and curl")
    steps = tour()
    assert len(steps) > 15
    with serve.start("--data", str(tmp_path / "data")) as server:
        # The README speaks of the default port, which may be taken here.
        port = server.origin.rsplit(":", 1)[1]
        script = f"\necho '{MARK}'\n".join(command.replace(PORT, port) for command, _ in steps)
        run = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    real = run.stdout.replace(f":{port}/", f":{PORT}/").split(f"{MARK}\n")
    assert len(real) == len(steps), run.stderr
    for (command, printed), got in zip(steps, real, strict=True):
        if not matches(printed, got):
            pytest.fail(f"$ {command}\nREADME says:\n{printed}\nbut it prints:\n{got}", pytrace=False)
