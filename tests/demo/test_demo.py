"""`make demo` in short, and that its proof can fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.demo.__main__ import prove
from tests.tools import ci, micropython, serve

ROOT = Path(__file__).resolve().parents[2]


def test_a_short_demo_proves_it() -> None:
    try:
        micropython.find(32)
    except micropython.Unavailable as exc:
        ci.missing(exc)
    argv = [sys.executable, "-m", "tests.demo", "--seconds", "6", "--cuts", "4", "--seed", "1"]
    done = subprocess.run(
        argv, cwd=ROOT, env=serve.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=110
    )
    text = done.stdout.decode()
    assert done.returncode == 0, text
    assert "EVERY RECORD IS IN THE STREAM EXACTLY ONCE" in text
    assert text.count("POWER    of the sensor") == 3 and text.count("POWER    of the gateway") == 2


class Known:
    """What a sensor knows: records 0..9, of which 7 was cut off while it was being kept."""

    measured = 9
    safe = [0, 1, 2, 3, 4, 5, 6, 8, 9]


@pytest.mark.parametrize(
    ("stream", "good"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 8, 9], True),
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], True),
        ([0, 1, 2, 3, 4, 5, 6, 8], False),
        ([0, 1, 2, 3, 4, 4, 5, 6, 8, 9], False),
        ([0, 1, 2, 3, 5, 4, 6, 8, 9], False),
        ([0, 1, 2, 3, 4, 5, 6, 8, 9, 10], False),
        ([], False),
    ],
)
def test_the_proof_can_fail(stream: list[int], good: bool) -> None:
    known: Any = Known()
    said: list[str] = []

    def say(who: str, text: str) -> None:
        said.append(text)

    screen: Any = say
    assert prove(screen, known, stream, stream) is good
    assert prove(screen, known, stream, stream[:-1]) is False
