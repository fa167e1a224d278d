"""Room on the disk and in the log: what is promised holds under load, and what is full gets out by itself."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import sqlite3
import threading

import pytest
import trio

from ds_core.server.errors import ProtocolError
from ds_trio_server.store.base import LogHeld, StorageFull
from ds_trio_server.store.sqlite import checkpoints, files, maintenance
from ds_trio_server.store.sqlite.space import MinFree, Space

from . import room
from .stores import opened
from .streams import append, delete, put, read
from .test_store import fail, full

MIB = 1 << 20


async def until(condition, seconds=20):
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.01)


def test_a_small_disk_keeps_its_promises(tmp_path):
    said = []
    room.run(tmp_path / "disk", 64, 3, said.append)
    assert len(said) == 4


class Disk:
    """A file system whose room a test sets."""

    f_frsize = 1
    f_blocks = 1000 * MIB

    def __init__(self, monkeypatch, free):
        self.f_bavail = free
        self.asked = 0
        monkeypatch.setattr("os.statvfs", self._ask)

    def _ask(self, path):
        self.asked += 1
        return self


def test_what_is_let_through_between_two_looks_is_counted(tmp_path, monkeypatch):
    disk = Disk(monkeypatch, 100 * MIB)
    owed = 0
    space = Space(tmp_path, MinFree(bytes=60 * MIB), lambda: owed)
    space.measure()
    taken = 0
    while space.take(MIB):
        taken += 1
        owed += 2 * MIB
    assert taken == 19 and not space.low, "once in the log and once in the file"
    assert space.take(1000), "there is still room for a small one"
    disk.f_bavail = 59 * MIB
    owed = 0
    space.measure()
    assert space.low and not space.take(1)
    assert disk.asked < 10, "it is not asked each time"


def test_the_log_has_room_for_what_frees_something(tmp_path, monkeypatch):
    Disk(monkeypatch, 65 * MIB)
    space = Space(tmp_path, MinFree(bytes=60 * MIB), log_room=lambda: 8 * MIB)
    space.measure()
    assert space.low
    space = Space(tmp_path, MinFree(), log_room=lambda: 8 * MIB)
    space.measure()
    assert not space.low, "where nothing is promised nothing is kept"


def test_a_reserve_is_given_up_once(tmp_path):
    assert not files.give_reserve(tmp_path)
    files.keep_reserve(tmp_path)
    files.keep_reserve(tmp_path)
    found = (tmp_path / files.RESERVE).stat()
    assert MIB <= found.st_size == files.reserve_bytes(tmp_path) <= 4 * MIB and found.st_mode & 0o077 == 0
    assert files.give_reserve(tmp_path) and not files.give_reserve(tmp_path)


def test_a_small_reserve_becomes_a_whole_one(tmp_path):
    (tmp_path / files.RESERVE).write_bytes(b"of an earlier version")
    files.keep_reserve(tmp_path)
    assert (tmp_path / files.RESERVE).stat().st_size == files.reserve_bytes(tmp_path)


async def test_a_delete_on_a_full_disk_takes_the_reserve_and_an_append_does_not(tmp_path, monkeypatch):
    reserve = tmp_path / files.RESERVE
    store = await opened(tmp_path)
    await put(store, "a", b"x")
    await store.sweep()
    await until(reserve.exists)
    fail(monkeypatch, store, full())
    with pytest.raises(StorageFull):
        await append(store, "a", b"y")
    assert reserve.exists()
    fail(monkeypatch, store, full())
    await delete(store, "a")
    assert not reserve.exists()
    fail(monkeypatch, store, full())
    with pytest.raises(StorageFull):
        await put(store, "b", b"x")
    await store.sweep()
    await until(reserve.exists)
    await put(store, "b", b"x")
    await store.close()


async def test_a_commit_that_finds_no_room_moves_the_log(tmp_path, monkeypatch):
    """So that the next one finds the log free."""
    store = await opened(tmp_path)
    await put(store, "a", b"x" * 500_000)
    await append(store, "a", b"y")
    assert store._db.log.state().waiting
    fail(monkeypatch, store, full())
    with pytest.raises(StorageFull):
        await append(store, "a", b"z")
    await until(lambda: not store._db.log.state().waiting)
    await append(store, "a", b"z")
    assert store._db.log.state().frames < 20, "it begins again"
    await store.close()


@pytest.fixture
def small_log(monkeypatch):
    monkeypatch.setattr(checkpoints, "LOG_KEPT", MIB)
    monkeypatch.setattr(checkpoints, "_TELL", MIB)
    monkeypatch.setattr(checkpoints, "LOG_MOST", 4 * MIB)


async def test_a_long_reader_stops_appends_only_beyond_a_bound_and_is_named(tmp_path, small_log, caplog):
    store = await opened(tmp_path)
    await put(store, "a", b"")
    reader = room.Reader(tmp_path)
    appended = 0
    with caplog.at_level(logging.WARNING), pytest.raises(LogHeld, match=r"process \d+ \(python") as refusal:
        while True:
            await append(store, "a", b"x" * 100_000)
            appended += 100_000
            if appended % 1_000_000 == 0:
                await store.sweep()
    assert refusal.value.status == 503 and dict(refusal.value.headers)["Retry-After"]
    assert 3 * MIB < appended < 16 * MIB
    assert "has read" in caplog.text and "(python" in caplog.text
    assert store.upkeep.held > 4 * MIB and store.upkeep.log > 4 * MIB
    with pytest.raises(ProtocolError):
        store.check_writable()
    # Reads, deletes and closes go on.
    assert len(await read(store, "a")) == appended
    await append(store, "a", b"", stream_closed="true")
    reader.leave()
    # Nobody commits anything: the sweep sees to it.
    for _ in range(200):
        await store.sweep()
        if store._committer.holder is None and store._db.log.size() <= MIB:
            break
        await trio.sleep(0.02)
    assert store._committer.holder is None and store._db.log.size() <= MIB
    store.check_writable()
    await put(store, "c", b"x")
    await store.sweep()
    await until(lambda: store.upkeep.held == 0)
    await store.close()


async def test_the_bound_holds_while_a_reader_does_however_often_its_log_is_moved(tmp_path, small_log, monkeypatch):
    monkeypatch.setattr(checkpoints, "_FAR", 100)  # more than that is moved by a thread of its own
    monkeypatch.setattr(checkpoints, "_FRAMES", 25)
    store = await opened(tmp_path)
    await put(store, "a", b"")
    reader = room.Reader(tmp_path)
    for _ in range(100):
        try:
            await append(store, "a", b"x" * 100_000)
        except LogHeld:
            await trio.sleep(0.001)
    assert 4 * MIB < store._db.log.size() < 8 * MIB
    for _ in range(30):
        await store.sweep()
        await trio.sleep(0.005)
        assert store._committer.holder is not None, "a reader that holds it does so all the time"
        with pytest.raises(LogHeld):
            store.check_writable()
    reader.leave()
    with trio.fail_after(30):
        while store._committer.holder is not None or store._db.log.size() > MIB:
            await store.sweep()
            await trio.sleep(0.02)
    await append(store, "a", b"x")
    await store.close()


async def test_a_long_log_that_nobody_holds_takes_appends_while_it_is_moved(tmp_path, small_log, monkeypatch):
    monkeypatch.setattr(checkpoints, "LOG_MOST", 1 << 40)
    store = await opened(tmp_path)
    await put(store, "a", b"")
    reader = room.Reader(tmp_path)
    for _ in range(200):
        await append(store, "a", b"x" * 100_000)
    reader.leave()
    # As if a crash had left it: nobody has begun to move it.
    await until(lambda: not store._committer._checkpoints._moving())
    monkeypatch.setattr(checkpoints, "LOG_MOST", 4 * MIB)
    store._committer._checkpoints._moving_of = 0
    for _ in range(50):
        await store.sweep()
        await append(store, "a", b"y")
    await store.close()


async def test_a_log_that_needs_a_file_to_be_moved_waits_for_one(tmp_path, small_log, monkeypatch):
    """Out of descriptors: clients have them all."""
    monkeypatch.setattr(checkpoints, "_FAR", 100)
    store = await opened(tmp_path)
    await put(store, "a", b"")
    reader = room.Reader(tmp_path)
    for _ in range(30):
        await append(store, "a", b"x" * 50_000)
    taken = []
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit[0], 512), limit[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(tmp_path, os.O_RDONLY))
        for _ in range(5):
            await store.sweep()
            await append(store, "a", b"x")
            await trio.sleep(0.05)
    finally:
        for each in taken:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    reader.leave()
    with trio.fail_after(30):
        while store._db.log.size() > MIB:
            await store.sweep()
            await trio.sleep(0.02)
    await store.close()


async def test_a_log_is_cut_when_its_reader_has_left(tmp_path, monkeypatch, small_log):
    monkeypatch.setattr(checkpoints, "LOG_MOST", 1 << 40)
    store = await opened(tmp_path)
    await put(store, "a", b"")
    db = sqlite3.connect(tmp_path / files.FILE, isolation_level=None)
    db.execute("BEGIN")
    db.execute("SELECT count(*) FROM streams").fetchone()
    for _ in range(60):
        await append(store, "a", b"x" * 200_000)
    assert store._db.log.size() > 10 * MIB
    db.close()
    for _ in range(200):
        await store.sweep()
        await trio.sleep(0.01)
        if store._db.log.size() <= MIB:
            break
    assert store._db.log.size() <= MIB and not store._db.log.state().waiting
    assert len(await read(store, "a")) == 60 * 200_000
    await store.close()
    assert not maintenance.check(tmp_path).problems


async def test_free_pages_are_given_back_when_that_takes_no_room(tmp_path, monkeypatch):
    """To give them back others are moved, into the log: as long as a reader holds that, it only grows."""
    monkeypatch.setattr(checkpoints, "_FRAMES", 100)
    store = await opened(tmp_path)
    await put(store, "a", b"")
    await put(store, "b", b"")
    reader = room.Reader(tmp_path)
    for _ in range(12):
        await append(store, "a", b"x" * 250_000)
        await append(store, "b", b"x" * 250_000)
    await delete(store, "a")
    await store.sweep()
    assert not store._sweeper.garbage
    before = store._db.log.state().frames
    monkeypatch.setattr(store._space, "measure", lambda: None)
    store._space.low = True
    for _ in range(3):
        await store.sweep()
    assert store._db.log.state().frames < before + 20
    reader.leave()
    for _ in range(200):
        await store.sweep()
        if (tmp_path / files.FILE).stat().st_size < 4_000_000:
            break
        await trio.sleep(0.02)
    assert (tmp_path / files.FILE).stat().st_size < 4_000_000
    assert await read(store, "b") == b"x" * 3_000_000
    await store.close()
    assert not maintenance.check(tmp_path).problems


async def test_a_long_log_is_moved_beside_commits(tmp_path, monkeypatch):
    """After a crash, say: no append waits for all of it."""
    monkeypatch.setattr(checkpoints, "_FAR", 100)
    moving, go_on = threading.Event(), threading.Event()
    move = checkpoints.Checkpoints._move_far

    def slow(self):
        moving.set()
        assert go_on.wait(60)
        move(self)

    monkeypatch.setattr(checkpoints.Checkpoints, "_move_far", slow)
    store = await opened(tmp_path)
    await put(store, "a", b"")
    with trio.fail_after(60):
        while not moving.is_set():
            await append(store, "a", b"x" * 200_000)
        for _ in range(20):
            await append(store, "a", b"y" * 200_000)
        await store.sweep()
        assert store._db.log.state().waiting > 100, "they did not wait for it"
        go_on.set()
        await until(lambda: store._db.log.state().waiting < 1100)
    await store.close()
    assert not maintenance.check(tmp_path).problems


async def test_a_checkpoint_of_its_own_that_fails_ends_the_store(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_FAR", 100)
    store = await opened(tmp_path)
    await put(store, "a", b"x")
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_IOERR_FSYNC, "SQLITE_IOERR_FSYNC"

    def failing(*arguments, **options):
        raise error

    monkeypatch.setattr(checkpoints.schema, "connect", failing)
    with trio.fail_after(60), pytest.raises(Exception, match="FSYNC"):
        while True:
            await append(store, "a", b"x" * 200_000)
    assert "FSYNC" in str(await store.wait_failed())
    await store.close()
