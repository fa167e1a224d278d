"""The index of the log in shared memory: its room is there before SQLite writes into it, or is refused in words.

A page of a mapped file that has no block, on a disk that has none left, is a SIGBUS: nothing can catch that.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from ds_trio_server.store.base import StorageFailed, StorageFull
from ds_trio_server.store.sqlite import maintenance
from ds_trio_server.store.sqlite.engine import SQLiteStore
from ds_trio_server.store.sqlite.shm import SharedIndex
from ds_trio_server.store.sqlite.space import MinFree
from tests.store.rig import Rig, Time

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no such lock here")


def allocated(folder: Path) -> int:
    """How many bytes of the index have blocks, all of which are whole pages of it; it has no holes."""
    found = (folder / "streams.db-shm").stat()
    assert found.st_blocks * 512 >= found.st_size
    return found.st_size


async def opened(folder: Path) -> SQLiteStore:
    store = SQLiteStore(folder, min_free=MinFree())
    await store.open()
    return store


async def put(store: SQLiteStore, path: str, body: bytes) -> None:
    await Rig(store, Time()).create(path, body)


async def post(store: SQLiteStore, path: str, body: bytes) -> None:
    await Rig(store, Time()).append(path, body)


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """While it holds something, no file gets another block by being asked for."""
    asked: list[int] = []
    real = os.posix_fallocate

    def allocate(handle: int, at: int, size: int) -> None:
        if asked:
            asked.append(size)
            raise OSError(errno.ENOSPC, "no room")
        real(handle, at, size)

    monkeypatch.setattr(os, "posix_fallocate", allocate)
    return asked


async def test_it_has_its_blocks_from_the_start_and_ahead_of_the_log(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    try:
        first = allocated(tmp_path)
        await put(store, "s", b"x")
        reader = sqlite3.connect(f"file:{tmp_path}/streams.db?mode=ro", uri=True, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM streams").fetchone()
        for _ in range(8):  # the log can't begin again, and outgrows what one region of the index tells
            await post(store, "s", bytes(3_000_000))
            assert allocated(tmp_path) >= first
        reader.close()
        assert (tmp_path / "streams.db-wal").stat().st_size > 4096 * 4100
        assert allocated(tmp_path) > first
    finally:
        await store.close()


async def test_who_opens_it_beside_a_server_changes_nothing_of_it(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    try:
        await put(store, "s", b"x")
        before = (tmp_path / "streams.db-shm").stat()
        other = "import sys; from pathlib import Path; from ds_trio_server.store.sqlite import maintenance;"
        other += "print(maintenance.check(Path(sys.argv[1])).problems)"
        done = await trio.to_thread.run_sync(
            lambda: subprocess.run([sys.executable, "-c", other, str(tmp_path)], capture_output=True, text=True)
        )
        assert done.stdout == "[]\n", done.stderr
        after = (tmp_path / "streams.db-shm").stat()
        assert (before.st_ino, before.st_size) == (after.st_ino, after.st_size)
        await post(store, "s", b"y")
    finally:
        await store.close()
    assert not (tmp_path / "streams.db-shm").exists()


def test_who_looks_at_a_file_without_a_log_leaves_nothing(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "streams.db", isolation_level=None)
    db.execute("CREATE TABLE t (x)")
    db.close()
    index = SharedIndex(tmp_path)
    index.take()
    index.close()
    assert [path.name for path in tmp_path.iterdir()] == ["streams.db"]


async def test_what_a_crash_left_in_it_is_not_believed(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await put(store, "s", b"x")
    await store.close()
    (tmp_path / "streams.db-shm").write_bytes(os.urandom(32768))
    store = await opened(tmp_path)
    try:
        await post(store, "s", b"y")
        assert (tmp_path / "streams.db-shm").stat().st_ino
    finally:
        await store.close()
    assert maintenance.check(tmp_path).problems == []


async def test_without_room_for_it_a_store_that_has_something_is_read(tmp_path: Path, no_room: list[int]) -> None:
    store = await opened(tmp_path)
    await put(store, "s", b"x")
    await store.close()
    (tmp_path / "reserve").unlink(missing_ok=True)
    no_room.append(0)
    store = await opened(tmp_path)
    try:
        assert len(no_room) > 1
        with pytest.raises(StorageFull):
            await post(store, "s", b"y")
        assert await store.look("s", lambda view: (view.stream.tail if view.stream else None, None)) == 1
        assert maintenance.check(tmp_path).problems == []
        no_room.clear()
        await store.sweep()
        await post(store, "s", b"y")
    finally:
        await store.close()


async def test_without_room_for_it_a_new_store_says_so(tmp_path: Path, no_room: list[int]) -> None:
    no_room.append(0)
    for _ in range(2):
        with pytest.raises(StorageFailed, match="can't be made: the server's disk is full"):
            await opened(tmp_path)
    no_room.clear()
    await (await opened(tmp_path)).close()


async def test_a_first_start_that_got_halfway_is_no_other_programs_file(tmp_path: Path, no_room: list[int]) -> None:
    db = sqlite3.connect(tmp_path / "streams.db")
    db.execute("PRAGMA journal_mode = WAL")  # what SQLite writes first
    db.close()
    assert (tmp_path / "streams.db").stat().st_size
    no_room.append(0)
    with pytest.raises(StorageFailed, match="can't be made: the server's disk is full"):
        await opened(tmp_path)
    no_room.clear()
    await (await opened(tmp_path)).close()


async def test_a_commit_that_it_has_no_room_for_is_refused_before_it_is_written(
    tmp_path: Path, no_room: list[int]
) -> None:
    store = await opened(tmp_path)
    try:
        await put(store, "s", b"x")
        no_room.append(0)
        store._db.index._frames = 0  # as if the log were that long
        with pytest.raises(StorageFull):
            await post(store, "s", b"y")
        no_room.clear()
        await post(store, "s", b"z")
    finally:
        await store.close()


def test_the_lock_is_the_one_that_sqlite_shares(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "streams.db", isolation_level=None)
    index = SharedIndex(tmp_path)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE t (x)")
        index.take()  # beside a connection it is shared, and emptied by nobody
        assert db.execute("SELECT count(*) FROM t").fetchone() == (0,)
        assert not index._lock(fcntl.F_WRLCK) and index._lock(fcntl.F_RDLCK)
    finally:
        db.close()
        index.close()
