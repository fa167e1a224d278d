"""Files of earlier versions: brought up to date by a server, and until then checked and copied as they are."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from ds_trio_server.store.sqlite import maintenance, schema
from tests.store.rig import make_older
from tests.store.test_sqlite import opened

EARLIER = range(3, schema.VERSION)
LARGE = b"large " * 100_000


async def older(folder: Path, version: int) -> None:
    async with opened(folder) as rig:
        await rig.create("s", b"kept", stream_ttl="1000000")
        await rig.append("s", LARGE, producer=("p", 0, 0))
        await rig.fork("f", "s")
        await rig.create("gone", b"x" * 10_000)
        await rig.delete("gone")
    make_older(folder, version)


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


@pytest.mark.parametrize("version", EARLIER)
async def test_an_older_file_is_brought_up_to_date(version: int, tmp_path: Path) -> None:
    await older(tmp_path, version)
    async with opened(tmp_path) as rig:
        assert (await rig.append("s", LARGE, producer=("p", 0, 0))).status == 204, "it knows its producers"
        assert (await rig.append("s", LARGE, producer=("p", 0, 1))).status == 200
        assert (await rig.append("s", LARGE, producer=("q", 0, 0))).status == 200
        assert await rig.read("s") == b"kept" + 3 * LARGE
        assert await rig.read("f") == b"kept" + LARGE
    assert not maintenance.check(tmp_path).problems


@pytest.mark.parametrize("version", EARLIER)
async def test_an_older_file_can_be_checked_and_copied_and_stays_as_it_is(version: int, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    await older(folder, version)
    before = digests(folder)
    report = maintenance.check(folder)
    assert (report.problems, report.streams) == ([], 2)
    copied = maintenance.backup(folder, tmp_path / "copy")
    assert (copied.problems, copied.streams, copied.bytes) == ([], 2, report.bytes)
    assert digests(folder) == before
    db = sqlite3.connect(tmp_path / "copy" / schema.FILE)
    assert db.execute("PRAGMA user_version").fetchone() == (version,), "what went wrong in an upgrade is not in it"
    db.close()
    async with opened(tmp_path / "copy") as rig:
        assert await rig.read("s") == b"kept" + LARGE


@pytest.mark.parametrize("version", EARLIER)
async def test_damage_in_an_older_file_is_found(version: int, tmp_path: Path) -> None:
    await older(tmp_path, version)
    db = sqlite3.connect(tmp_path / schema.FILE)
    db.execute("UPDATE appends SET data = x'00000000' WHERE position = 0 AND stream = 1")
    db.commit()
    db.close()
    assert "damaged" in maintenance.check(tmp_path).problems[0]


@pytest.mark.parametrize("version", [1, 2, schema.VERSION + 1])
async def test_a_file_of_an_unknown_version_is_named_and_left_alone(version: int, tmp_path: Path) -> None:
    await older(tmp_path, schema.VERSION)
    db = sqlite3.connect(tmp_path / schema.FILE)
    db.execute(f"PRAGMA user_version = {version}")
    db.close()
    for command in (maintenance.check, lambda folder: maintenance.backup(folder, folder / "copy")):
        with pytest.raises(maintenance.Unusable, match="version"):
            command(tmp_path)


async def test_a_check_leaves_the_log_of_a_crash_where_it_is(tmp_path: Path) -> None:
    folder, image = tmp_path / "data", tmp_path / "image"
    async with opened(folder) as rig:
        await rig.create("s", b"in the log")
        shutil.copytree(folder, image)
    before = digests(image)
    report = maintenance.check(image)
    assert report.streams == 1 and not report.problems
    after = digests(image)
    for name in ("streams.db", "streams.db-wal"):
        assert before[name] == after[name]
