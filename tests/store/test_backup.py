"""A backup reaches the disk bit by bit, so that who shares that disk with it hardly notices; and a failure is told."""

from __future__ import annotations

import errno
import os
from itertools import pairwise
from pathlib import Path

import pytest

from ds_trio_server.store.sqlite import maintenance
from tests.store.test_sqlite import opened

MIB = 1024 * 1024


async def large(folder: Path) -> None:
    async with opened(folder) as rig:
        await rig.create("a")
        for _ in range(40):
            await rig.append("a", b"x" * MIB)


async def test_a_backup_never_has_much_to_sync_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await large(tmp_path / "data")
    sizes = [0]
    sync = os.fsync

    def noting(handle: int) -> None:
        sizes.append(os.fstat(handle).st_size)
        sync(handle)

    monkeypatch.setattr(os, "fsync", noting)
    report = maintenance.backup(tmp_path / "data", tmp_path / "copy")
    assert not report.problems and report.bytes == 40 * MIB
    sizes = [size for size in sizes if size >= MIB or size == 0]
    steps = [after - before for before, after in pairwise(sizes)]
    assert len(steps) >= 3 and max(steps) <= 16 * MIB, steps


async def test_a_sync_that_fails_on_the_way_is_no_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await large(tmp_path / "data")
    failed = [0]

    def failing(handle: int) -> None:
        if os.fstat(handle).st_size >= MIB and not failed[0]:
            failed[0] += 1
            raise OSError(errno.EIO, "the stick is broken")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="the stick is broken"):
        maintenance.backup(tmp_path / "data", tmp_path / "copy")
    assert not (tmp_path / "copy" / "streams.db").exists()
    monkeypatch.undo()
    assert not maintenance.backup(tmp_path / "data", tmp_path / "copy").problems, "the next one is none the worse"


async def test_a_backup_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path / "data") as rig:
        await rig.create("s", b"x")
    with pytest.raises(maintenance.Unusable, match="is not there"):
        maintenance.backup(tmp_path / "none", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(maintenance.copying, "copy", interrupted)
        maintenance.backup(tmp_path / "data", tmp_path / "copy")
    assert not list((tmp_path / "copy").iterdir())
