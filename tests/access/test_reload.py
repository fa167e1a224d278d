"""Reading files anew: whatever comes of it, the server goes on with what it has."""

from __future__ import annotations

import argparse

import pytest

from ds_trio_server.cli import serve_options
from ds_trio_server.cli.security import Security
from tests.access.conftest import Keys


@pytest.mark.parametrize("fault", [RuntimeError("unforeseen"), MemoryError(), OSError(5, "Input/output error")])
async def test_a_fault_at_a_reload_ends_nothing(
    keys: Keys, fault: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nothing = argparse.Namespace(**dict.fromkeys(serve_options.OPTIONS))
    security = Security(serve_options.settings(nothing, {"DS_ACCESS": str(keys.file)}))
    assert security.access is not None
    before = security.access.policy

    def fail() -> None:
        raise fault

    monkeypatch.setattr(security.access, "reload", fail)
    await security.reload()
    assert "not reloaded, the old one stays" in caplog.text and str(keys.file) in caplog.text
    assert security.access.policy is before
