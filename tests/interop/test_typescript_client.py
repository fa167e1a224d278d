"""The official TypeScript client (`@durable-streams/client` on npm) against `ds serve`.

Its tests are in typescript.test.mjs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.conftest import PAUSE
from tests.tools import ci, node, serve

AT_LEAST = 27


@pytest.mark.timeout(240)
def test_the_typescript_client(server: serve.Server, tmp_path: Path) -> None:
    try:
        node.modules()
    except node.Unavailable as exc:
        ci.missing(exc)
    report = node.vitest(
        "interop/typescript.test.mjs",
        tmp_path / "report.json",
        env={"DS_TEST_URL": server.url, "DS_TEST_PAUSE_MS": str(round(PAUSE * 1000))},
        seconds=200,
    )
    if report.failed or report.skipped or len(report.passed) < AT_LEAST:
        pytest.fail(f"{report.text()}\n\nserver:\n{server.output[-4000:]}", pytrace=False)
