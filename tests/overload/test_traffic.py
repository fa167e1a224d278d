"""The traffic that memory is watched under: it runs, what it does is answered as it should be, its slope is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import traffic
from .traffic import Sample


def test_everything_at_once_for_some_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "SAMPLE_SECONDS", 0.5)
    shown: list[Sample] = []
    samples, answers = traffic.run(tmp_path / "data", 4, 200, [], shown.append)
    assert len(samples) > 5 and shown == samples[:1], "a line a minute"
    assert {name for name in answers if not name.isdigit()} == set(), answers
    assert {int(name) for name in answers} <= traffic._EXPECTED
    assert {"200", "201", "204", "404"} <= set(answers)
    assert samples[-1].operations >= 100 and all(sample.resident > 10_000 for sample in samples)


def test_the_slope_is_of_the_second_half() -> None:
    def sample(at: float, resident: int) -> Sample:
        return Sample(at, 0, resident, 0, 0)

    grown = [sample(10 * n, 100 * n) for n in range(10)] + [sample(600 + 30 * n, 5000) for n in range(12)]
    assert traffic.slope(grown) == 0
    assert traffic.slope([sample(60 * n, 1000 + 7 * n) for n in range(20)]) == pytest.approx(7)
    assert traffic.slope([sample(0, 1)]) == 0
