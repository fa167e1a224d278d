"""A data directory belongs to one server, and a server to the directory that it opened."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from ds_trio_server.store.base import StorageFailed
from ds_trio_server.store.sqlite import maintenance, schema
from ds_trio_server.store.sqlite.engine import SQLiteStore
from tests.store.rig import Rig, Time
from tests.tools import serve


def replace(folder: Path) -> None:
    """Another directory of the same name, with a copy of the files."""
    folder.rename(folder.with_name("old"))
    shutil.copytree(folder.with_name("old"), folder)


LOST: dict[str, Callable[[Path], object]] = {
    "deleted": shutil.rmtree,
    "renamed": lambda folder: folder.rename(folder.with_name("elsewhere")),
    "replaced": replace,
    "without its file": lambda folder: (folder / schema.FILE).unlink(),
    "without its log": lambda folder: (folder / (schema.FILE + "-wal")).unlink(),
}


@pytest.mark.parametrize("lost", LOST)
async def test_nothing_is_acknowledged_into_a_directory_that_is_not_there_any_more(lost: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    store = SQLiteStore(folder)
    await store.open()
    rig = Rig(store, Time())
    await rig.create("a", b"kept")
    LOST[lost](folder)
    with pytest.raises(StorageFailed, match="deleted, renamed or replaced"):
        await rig.append("a", b"lost")
    with trio.fail_after(10):
        await store.wait_failed()
    with pytest.raises(StorageFailed):
        store.check_writable()
    await store.close()


@pytest.mark.parametrize("lost", LOST)
async def test_a_sweep_finds_out_where_nobody_appends(lost: str, tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "data")
    await store.open()
    await Rig(store, Time()).create("a", b"kept")
    await store.sweep()
    LOST[lost](tmp_path / "data")
    with pytest.raises(StorageFailed, match="deleted, renamed or replaced"):
        await store.sweep()
    await store.close()


async def test_no_query_opens_the_file_that_took_the_place(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "data")
    await store.open()
    await Rig(store, Time()).create("mine", b"x")
    replace(tmp_path / "data")
    with pytest.raises(StorageFailed, match="replaced"):
        await store.paths()
    await store.close()


async def test_the_one_who_leaves_harms_nothing_of_the_one_who_took_the_place(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    first = SQLiteStore(folder)
    await first.open()
    await Rig(first, Time()).create("a", b"first")
    folder.rename(tmp_path / "old")
    second = SQLiteStore(folder)
    await second.open()
    rig = Rig(second, Time())
    await rig.create("b", b"second")
    with pytest.raises(StorageFailed):
        await first.close()
    assert (folder / (schema.FILE + "-wal")).exists()
    await rig.append("b", b"!")
    assert await rig.read("b") == b"second!"
    await second.close()


@pytest.mark.parametrize("way", ["lock removed", "renamed", "link", "file moved", "file linked"])
async def test_there_is_no_way_to_a_second_server_on_the_same_data(way: str, tmp_path: Path) -> None:
    folder, second = tmp_path / "data", tmp_path / "data"
    store = SQLiteStore(folder)
    await store.open()
    await Rig(store, Time()).create("a", b"x")
    if way == "lock removed":
        (folder / "lock").unlink()
    elif way == "renamed":
        second = folder.rename(tmp_path / "elsewhere")
    elif way == "link":
        second = tmp_path / "link"
        second.symlink_to(folder)
    else:
        second = tmp_path / "second"
        second.mkdir()
        for file in folder.glob("streams.db*"):
            if way == "file moved":
                file.rename(second / file.name)
            else:
                os.link(file, second / file.name)
    code = (
        "import sys, trio; from ds_trio_server.store.sqlite import SQLiteStore; trio.run(SQLiteStore(sys.argv[1]).open)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(second)], capture_output=True, text=True, timeout=60, env=serve.environment()
    )
    assert "in use by another server" in done.stderr, done.stderr
    if way in ("lock removed", "link", "file linked"):
        await store.close()
    else:
        with pytest.raises(StorageFailed):
            await store.close()


async def test_what_was_locked_is_free_when_the_store_is_closed(tmp_path: Path) -> None:
    for _ in range(2):
        store = SQLiteStore(tmp_path)
        await store.open()
        await store.close()


# Who else may read it


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o777])
async def test_what_is_made_is_for_its_owner_alone_whatever_the_umask(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask & ~0o700)
    try:
        store = SQLiteStore(tmp_path / "data")
        await store.open()
        await Rig(store, Time()).create("a", b"secret")
        maintenance.backup(tmp_path / "data", tmp_path / "copy")
    finally:
        os.umask(before)
    for folder in (tmp_path / "data", tmp_path / "copy"):
        for name, mode in modes(folder).items():
            assert mode == (0o700 if name == folder.name else 0o600), name
    await store.close()


async def test_what_everybody_could_read_is_closed_and_said_and_a_group_keeps_its_right(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "data"
    store = SQLiteStore(folder)
    await store.open()
    await store.close()
    folder.chmod(0o755)
    (folder / schema.FILE).chmod(0o644)
    store = SQLiteStore(folder)
    await store.open()
    await Rig(store, Time()).create("a", b"secret")
    assert modes(folder)["data"] == 0o750
    assert {mode for name, mode in modes(folder).items() if name.startswith(schema.FILE)} == {0o640}
    assert f"{folder} could be read by everybody" in caplog.text
    caplog.clear()
    await store.close()
    store = SQLiteStore(folder)
    await store.open()
    assert "everybody" not in caplog.text
    await store.close()


async def test_a_directory_with_other_peoples_files_is_not_closed_to_them(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "theirs").touch()
    for _ in range(2):
        store = SQLiteStore(tmp_path)
        await store.open()
        assert modes(tmp_path)[tmp_path.name] == 0o755 and modes(tmp_path)[schema.FILE] == 0o600
        await store.close()
