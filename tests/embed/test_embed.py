"""The core embedded elsewhere: on asyncio, under the public suite; and in-process, without any HTTP."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.embed import in_process
from tests.tools import ci, node, serve

HERE = Path(__file__).resolve().parent
AT_LEAST = 332
SECONDS = 300
# Below the suite's 5 s patience for an empty long-poll, above the 0.5 s it sleeps before an append.
LONG_POLL = "1.5"


@pytest.mark.timeout(SECONDS + 60)
def test_the_public_suite_passes_on_plain_asyncio(tmp_path: Path) -> None:
    try:
        node.modules()
    except node.Unavailable as exc:
        ci.missing(exc)
    argv = [sys.executable, str(HERE / "asyncio_server.py"), "0", LONG_POLL]
    with serve.Server(argv, serve.environment({"PYTHONASYNCIODEBUG": ""}), 20) as server:
        report = node.vitest(
            "conformance/public.test.mjs",
            tmp_path / "report.json",
            env={"DS_TEST_ORIGIN": server.origin},
            seconds=SECONDS,
        )
        if report.failed:
            pytest.fail(f"{report.text()}\n\nserver:\n{server.output[-4000:]}", pytrace=False)
        assert len(report.passed) >= AT_LEAST, report.text()
        assert "Traceback" not in server.output, server.output


def test_a_server_takes_at_most_150_lines() -> None:
    lines = (HERE / "asyncio_server.py").read_text().splitlines()
    assert len(lines) <= 150
    assert max(map(len, lines)) <= 110, "long lines are no way to have few"


def test_a_server_needs_no_other_http_or_io_library() -> None:
    source = (HERE / "asyncio_server.py").read_text()
    for name in ("trio", "h11", "ds_trio_server"):
        assert f"import {name}" not in source and f"from {name}" not in source


def test_the_core_serves_an_application_without_http(capsys: pytest.CaptureFixture[str]) -> None:
    in_process.main()
    assert capsys.readouterr().out.splitlines() == [
        "first append: 200",
        "the next: 200",
        "a retry of it: 204",
        'all messages: [{"t": 21.5},{"t": 21.7},{"t": 21.8}]',
        'since then: [{"t": 22.0}]',
    ]
