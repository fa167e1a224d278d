"""The public conformance suite, whole, against a real `ds serve` process on each store."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools import ci, node, serve

# The suite's size when this was written; fewer means that something kept tests from running.
AT_LEAST = 332
SECONDS = 420
# Below the suite's 5 s patience for an empty long-poll, above the 0.5 s it sleeps before an append.
LONG_POLL = "1.5"


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("store", ["sqlite", "memory"])
def test_the_public_suite_passes(store: str, tmp_path: Path) -> None:
    try:
        node.modules()
    except node.Unavailable as exc:
        ci.missing(exc)
    where = ["--memory"] if store == "memory" else ["--data", str(tmp_path / "data")]
    with serve.start(*where, "--long-poll-timeout", LONG_POLL) as server:
        report = node.vitest(
            "conformance/public.test.mjs",
            tmp_path / "report.json",
            env={"DS_TEST_ORIGIN": server.origin},
            seconds=SECONDS,
        )
        if report.failed:
            pytest.fail(f"{report.text()}\n\nserver:\n{server.output[-4000:]}", pytrace=False)
        assert len(report.passed) >= AT_LEAST, report.text()
        assert server.process.poll() is None, server.output
