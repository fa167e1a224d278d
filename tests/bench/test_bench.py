"""Every row of the benchmarks runs and yields numbers, with the smallest sizes. How fast is not asked here."""

from __future__ import annotations

import math
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.bench import __main__ as bench, clients, growth, load, machine, profile, report
from tests.bench.rows import ROWS, SMOKE, Row
from tests.bench.subjects import node_missing
from tests.tools import ci, serve


@pytest.fixture(autouse=True)
def wrk() -> None:
    try:
        load.find()
    except load.Unavailable as reason:
        ci.missing(reason)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row(row: Row, tmp_path: Path) -> None:
    samples, _ = bench.measure(row, SMOKE, 1, {}, tmp_path)
    result = report.summarize(row, samples)
    assert {figure["name"] for figure in result["figures"]} == {figure.name for figure in row.figures}
    for figure in result["figures"]:
        assert math.isfinite(figure["values"]["ours"]["median"])
        assert ("target" in figure or "target_ratio" in figure) <= (figure["unit"] != "%")


@pytest.mark.parametrize("case", growth.CASES)
def test_growth(case: str, tmp_path: Path) -> None:
    lines = list(growth.CASES[case](tmp_path / "data", growth.SMOKE))
    assert lines
    for line in lines:
        assert math.isfinite(line.grown) and line.grown >= 0
        assert math.isfinite(line.fresh) == bool(line.than)
        assert growth.show(line).count("|") == 4


@pytest.mark.parametrize("which", ["ours", "official"])
def test_a_client(which: str) -> None:
    with serve.start("--memory") as server:
        found = clients.measure(sys.executable, which, server.url, clients.SMOKE)
    assert set(found) == set(clients.FIGURES)
    assert all(math.isfinite(value) and value > 0 for value in found.values())


def test_beside_a_peer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = node_missing()
    if missing:
        ci.missing(missing)
    row = next(row for row in ROWS if row.name == "append-memory")
    result = report.summarize(row, *bench.measure(row, SMOKE, 1, {"node": ""}, tmp_path))
    figure = result["figures"][0]
    assert set(figure["values"]) == {"ours", "node memory"}
    assert figure["ratios"]["node memory"]["median"] > 0
    report.show(result)
    assert "target >= 1.2" in capsys.readouterr().out
    for _ in range(2):  # a row is replaced when it is measured again
        report.save(tmp_path / "results.json", result, machine.describe(tmp_path), SMOKE._asdict())
    assert len(report.load(tmp_path / "results.json")["rows"]) == 1
    ElementTree.parse(tmp_path / "results.svg")


def test_a_profile_is_a_table_of_what_took_the_time() -> None:
    stacks = [
        "run (trio/_core/_run.py:10);plan (/x/ds_core/server/reads.py:7);pread64 (libc.so.6) 30",
        "run (trio/_core/_run.py:10);plan (/x/ds_core/server/reads.py:9);plan (/x/ds_core/server/reads.py:3) 9",
        "run (trio/_core/_run.py:10);plan (/x/ds_core/server/reads.py:9);0x7f6 (libc.so.6) 1",
        "run (trio/_core/_run.py:10);epoll_wait (libc.so.6) 1000",
    ]
    text = profile.table(stacks)
    assert text.startswith("40 samples"), "those that only waited don't count"
    assert " 75.0 %  pread64 (libc)" in text
    assert text.count("100.0 %  ds_core/server/reads: plan") == 1, "recursion counts once"
    assert " 22.5 %  ds_core/server/reads: plan" in text
    assert "  2.5 %  libc in ds_core/server/reads: plan" in text


def test_a_wrong_row_is_named() -> None:
    with pytest.raises(ValueError, match="no such row: nonsense"):
        bench.choose("append,nonsense")
