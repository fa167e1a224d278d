"""Reading files anew: whatever comes of it, the server goes on with what it has."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest
import trio

from ds_trio_server.cli import security as securities, serve_options
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

    monkeypatch.setattr(security.access, "look", fail)
    await security.reload()
    assert "not reloaded, the old one stays" in caplog.text and str(keys.file) in caplog.text
    assert security.access.policy is before


async def test_a_file_that_never_ends_holds_up_no_later_reload(
    keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(securities, "_LONGEST", 0.2)
    nothing = argparse.Namespace(**dict.fromkeys(serve_options.OPTIONS))
    security = Security(serve_options.settings(nothing, {"DS_ACCESS": str(keys.file)}))
    assert security.access is not None
    before = security.access.policy
    good = keys.file.read_bytes()
    keys.file.unlink()
    os.mkfifo(keys.file)
    await security.reload()
    assert "not reloaded, the old one stays" in caplog.text and "takes longer" in caplog.text
    assert security.access.policy is before
    (tmp_path / "new").write_bytes(good)
    pipe = os.open(keys.file, os.O_RDWR)  # who hangs goes on, and finds what is older
    (tmp_path / "new").rename(keys.file)
    await security.reload()
    after = security.access.policy
    assert after is not before
    os.write(pipe, good)
    os.close(pipe)
    await trio.sleep(0.2)
    assert security.access.policy is after
