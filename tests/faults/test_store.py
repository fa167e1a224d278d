"""What the store got wrong once, each with its name."""

from __future__ import annotations

import sqlite3
import threading

import pytest
import trio
import trio.testing

from ds_core.server import stream
from ds_core.server.decide import Needs
from ds_core.server.errors import ProtocolError
from ds_trio_server.store.base import Damaged, StorageFailed, StorageFull, Vanished
from ds_trio_server.store.retention import Retention, parse
from ds_trio_server.store.sqlite import committer, engine, errors, maintenance, producers, queries, schema
from ds_trio_server.store.sqlite.engine import SQLiteStore
from ds_trio_server.store.sqlite.space import MinFree
from tests.store.rig import full

from .stores import Time
from .streams import append, delete, find, put, read


@pytest.fixture
async def store(tmp_path):
    made = SQLiteStore(tmp_path, min_free=MinFree())
    await made.open()
    yield made
    await made.close()


def hold(monkeypatch, store):
    """Let the next commits wait until the returned event is set."""
    gate = threading.Event()
    write = store._committer._write

    def slow(batch):
        gate.wait(60)
        write(batch)

    monkeypatch.setattr(store._committer, "_write", slow)
    return gate


def fail(monkeypatch, store, error, times=1):
    """Let the next commits fail."""
    left = [times]
    write = store._committer._write

    def failing(batch):
        if left[0]:
            left[0] -= 1
            raise error
        write(batch)

    monkeypatch.setattr(store._committer, "_write", failing)


async def test_a_new_stream_has_nothing_of_the_deadline_of_the_one_before(tmp_path):
    time = Time()
    store = SQLiteStore(tmp_path, time.clock())
    await store.open()
    await put(store, "a", stream_ttl="1000000")
    await delete(store, "a")
    await put(store, "a", stream_ttl="5")
    rows = store._db.reader.execute("SELECT deadline FROM streams").fetchall()
    assert rows[0][0] < store.now().steady + 10
    await store.close()


async def test_both_in_one_batch_too(tmp_path, monkeypatch):
    time = Time()
    store = SQLiteStore(tmp_path, time.clock())
    await store.open()
    gate = hold(monkeypatch, store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put, store, "other")
        nursery.start_soon(_one_after_the_other, store)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    rows = store._db.reader.execute("SELECT deadline FROM streams WHERE path = 'a'").fetchall()
    assert rows[0][0] < store.now().steady + 10
    await store.close()


async def _one_after_the_other(store):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: put(store, "a", stream_ttl="1000000"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(delete, store, "a")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(lambda: put(store, "a", stream_ttl="5"))


async def test_a_renewal_counts_only_when_it_is_on_disk(tmp_path, monkeypatch):
    time = Time()
    store = SQLiteStore(tmp_path, time.clock())
    await store.open()
    await put(store, "a", b"x", stream_ttl="100")
    time.seconds += 90
    gate = hold(monkeypatch, store)
    renew = lambda view: (None, stream.Renewed(view.now.steady + 100))  # noqa: E731
    done = []

    async def look():
        await store.look("a", renew)
        done.append(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(append, store, "a", b"y")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(look)
        await trio.testing.wait_all_tasks_blocked()
        assert not done, "the append's renewal isn't durable yet, so the read's can't rest on it"
        gate.set()
    assert done
    await store.close()


async def test_an_expiry_that_was_told_stands_after_a_crash(tmp_path):
    time = Time()
    store = SQLiteStore(tmp_path, time.clock())
    await store.open()
    await put(store, "a", b"x", stream_ttl="10")
    time.seconds += 11
    assert await find(store, "a") is None
    # The crash: the next process finds the file as it is now and an older clock.
    again = sqlite3.connect(tmp_path / schema.FILE)
    assert again.execute("SELECT count(*) FROM streams").fetchone() == (0,)
    again.close()
    await store.close()


async def test_a_read_of_a_ttl_stream_goes_on_when_its_renewal_finds_the_disk_full(tmp_path, monkeypatch):
    time = Time()
    store = SQLiteStore(tmp_path, time.clock())
    await store.open()
    await put(store, "a", b"x", stream_ttl="100")
    time.seconds += 50
    fail(monkeypatch, store, full())
    renew = lambda view: (view.stream, stream.Renewed(view.now.steady + 100))  # noqa: E731
    found = await store.look("a", renew)
    assert found.deadline == pytest.approx(store.now().steady + 100)
    await store.close()


async def test_a_full_disk_undoes_a_batch_and_what_was_decided_on_top_of_it(store, monkeypatch):
    first = await put(store, "a", b"one")
    fail(monkeypatch, store, full())
    gate = hold(monkeypatch, store)
    failed = []

    async def tries(operation, *args):
        try:
            await operation(store, *args)
        except StorageFull:
            failed.append(args[0])

    async with trio.open_nursery() as nursery:
        for args in ((append, "a", b"two"), (append, "a", b"three"), (put, "b", b"x"), (delete, "a")):
            nursery.start_soon(tries, *args)
            await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert sorted(failed) == ["a", "a", "a", "b"]
    assert await read(store, "a") == b"one"
    assert await find(store, "b") is None
    again = await put(store, "c", b"x")
    assert again.split("_")[0] > first.split("_")[0]


async def test_numbers_are_not_reused_after_a_rollback(store, monkeypatch):
    fail(monkeypatch, store, full(), 3)
    for _ in range(3):
        with pytest.raises(StorageFull):
            await put(store, "a", b"x")
    assert (await put(store, "a", b"x")).startswith("0000000000000004_")
    assert not maintenance.check(store._folder).problems


async def test_a_vacuum_that_finds_the_disk_full_fails_no_append(store, monkeypatch):
    await put(store, "a", b"one")

    def shrink():
        raise full()

    monkeypatch.setattr(store._committer, "_shrink", shrink)
    store._committer.shrinking = True
    await store.sweep()
    await append(store, "a", b"two")
    assert await read(store, "a") == b"onetwo"


async def test_a_sweep_lives_through_a_full_disk(tmp_path, monkeypatch):
    time = Time()
    store = SQLiteStore(tmp_path, time.clock())
    await store.open()
    for n in range(5):
        await put(store, f"a{n}", b"x", stream_ttl="1")
    time.seconds += 5
    fail(monkeypatch, store, full())
    await store.sweep()
    await store.sweep()
    assert await store.paths() == []
    await store.close()


async def test_a_state_that_cannot_be_loaded_stops_the_store_before_anything_is_decided(tmp_path):
    store = SQLiteStore(tmp_path)
    await store.open()
    await put(store, "a", b"x")
    await append(store, "a", b"x", producer_id="p", producer_epoch="0", producer_seq="0")
    store._db.reader.set_authorizer(
        lambda action, table, *others: sqlite3.SQLITE_DENY if table == "producers" else sqlite3.SQLITE_OK
    )
    # One that is in memory is not asked for in the file.
    await append(store, "a", b"x", producer_id="p", producer_epoch="0", producer_seq="1")
    with pytest.raises(StorageFailed):
        await store.transact(Needs("a", "q"), lambda view: pytest.fail("decided"))
    with pytest.raises(StorageFailed):
        await append(store, "a", b"y")
    assert "ds check" in str(await store.wait_failed())
    await store.close()


async def test_who_waits_behind_a_batch_is_told_when_a_read_fails_the_store(tmp_path, monkeypatch):
    store = SQLiteStore(tmp_path)
    await store.open()
    await put(store, "a", b"x")
    gate = hold(monkeypatch, store)
    outcome = []

    async def tries(body):
        try:
            await append(store, "a", body)
            outcome.append("stored")
        except StorageFailed:
            outcome.append("failed")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tries, b"1")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(tries, b"2")
        await trio.testing.wait_all_tasks_blocked()
        store._health.fail(errors.failed(tmp_path, sqlite3.DatabaseError("disk I/O error")))
        gate.set()
    assert sorted(outcome) == ["failed", "stored"], "what was on its way is stored, the rest is told; nobody hangs"
    await store.close()


async def test_an_error_of_another_kind_in_the_committer_stops_the_store(tmp_path, monkeypatch):
    store = SQLiteStore(tmp_path)
    await store.open()
    fail(monkeypatch, store, OverflowError("Python int too large to convert to SQLite INTEGER"))
    with trio.fail_after(60), pytest.raises(StorageFailed):
        await put(store, "a", b"x")
    await store.close()


async def test_a_cancelled_append_has_happened_and_its_retry_is_a_duplicate(store, monkeypatch):
    await put(store, "a", b"")
    gate = hold(monkeypatch, store)
    producer = {"producer_id": "p", "producer_epoch": "0", "producer_seq": "0"}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: append(store, "a", b"one", **producer))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    gate.set()
    await append(store, "a", b"one", **producer)
    assert await read(store, "a") == b"one"


async def test_a_range_is_never_read_around_what_is_freed_meanwhile(store):
    """Rows that went in the middle of a read left a hole, and what followed was served in its place."""
    await put(store, "a", b"")
    for n in range(40):
        await append(store, "a", b"%06d" % n + b"." * 20_000)
    found = await find(store, "a")
    store._tails.forget(found.id)
    db = sqlite3.connect(store._folder / schema.FILE, isolation_level=None)
    found.start = 20 * 20_006  # as it is from the decision to trim it on
    db.execute("DELETE FROM appends WHERE stream = ? AND position < ?", (found.id, found.start))
    with pytest.raises(Vanished):
        await store.read(found, 0, found.tail)
    db.execute("DELETE FROM appends WHERE stream = ? AND position = ?", (found.id, 30 * 20_006))
    with pytest.raises(Damaged, match="damaged"):
        await store.read(found, 25 * 20_006, found.tail)
    db.close()


async def test_bytes_that_should_be_there_and_are_not_are_damage_and_not_a_deleted_stream(store):
    await put(store, "a", b"one")
    await append(store, "a", b"x" * 5000)
    found = await find(store, "a")
    store._tails.forget(found.id)
    db = sqlite3.connect(store._folder / schema.FILE, isolation_level=None)
    db.execute("DELETE FROM appends WHERE stream = ?", (found.id,))
    db.close()
    with pytest.raises(Damaged, match="damaged"):
        await store.read(found, 0, found.tail)
    with pytest.raises(Damaged, match="damaged"):
        await store.span(found, 0)


async def test_a_reader_of_an_evicted_stream_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "_CACHED_STREAMS", 4)
    store = SQLiteStore(tmp_path)
    await store.open()
    await put(store, "a", b"one")
    before = await find(store, "a")
    for n in range(50):
        await put(store, f"b{n}", b"x")
    seen = []
    store.watch(before, lambda stream, at, data: seen.append((stream.visible_tail, at, data)))
    await append(store, "a", b"two")
    assert seen == [(6, 3, b"two")]
    assert b"".join(await store.read(before, 0, 3)) == b"one"
    assert await read(store, "a") == b"onetwo"
    assert len(store._cache._by_path) < 30
    await store.close()


async def test_many_large_readers_share_few_connections(store):
    await put(store, "a", b"x" * 1_000_000)
    found = await find(store, "a")
    store._tails.forget(found.id)
    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(store.read, found, 0, 1_000_000)
    assert len(store._queries._idle) <= queries.READERS


async def test_what_is_removed_is_freed_in_small_steps_and_the_file_shrinks(store, monkeypatch):
    monkeypatch.setattr(committer, "_SPARE_PAGES", 64)
    await put(store, "big", b"")
    for _ in range(10):
        await append(store, "big", b"x" * 1_000_000)
    await delete(store, "big")
    pages = lambda: store._db.reader.execute("PRAGMA page_count").fetchone()[0]  # noqa: E731
    before = pages()
    for _ in range(200):
        await store.sweep()
        if not store._sweeper.garbage and not store._committer.shrinking:
            break
    assert before > 2200 and pages() < 600
    assert store._db.reader.execute("SELECT count(*) FROM appends").fetchone() == (0,)
    assert not maintenance.check(store._folder).problems


async def test_what_is_removed_while_something_is_freed_is_freed_too(store, monkeypatch):
    """The batch that freed the last of it said so after the next removal had been decided."""
    await put(store, "a", b"x" * 1000)
    gate = hold(monkeypatch, store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.sweep)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(delete, store, "a")
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    await store.sweep()
    assert store._db.reader.execute("SELECT count(*) FROM appends").fetchone() == (0,)


class Keeping(sqlite3.Connection):
    """Keeps every cursor, as an interpreter without reference counts does until it collects them."""

    def execute(self, *args):
        cursor = super().execute(*args)
        self.__dict__.setdefault("kept", []).append(cursor)
        return cursor


async def test_no_cursor_is_left_open(tmp_path, monkeypatch):
    """On PyPy the first commit failed, and what was open held up every checkpoint."""
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=Keeping, **options))
    monkeypatch.setattr(engine, "_CACHED_STREAMS", 2)
    store = SQLiteStore(tmp_path, retain=Retention(map(parse, ("1K", "b/**=forever", "b/**=1h"))), min_free=MinFree())
    await store.open()
    for path in ("a", "b/c", "d", "e"):
        await put(store, path, b"x", stream_ttl="1000")
        for seq in range(3):
            await append(store, path, b"y" * 5000, producer_id="p", producer_epoch="0", producer_seq=str(seq))
    await delete(store, "e")
    for _ in range(3):
        await store.sweep()
    found = await find(store, "b/c")
    store._tails.forget(found.id)
    assert await store.span(found, 3) == (1, 5001)
    assert b"".join(await store.read(found, 0, 6000)) == b"x" + b"y" * 5999
    assert await store.paths() == ["a", "b/c", "d"] and (await store.usage()).streams == 3
    other = connect(tmp_path / schema.FILE, timeout=0, isolation_level=None)
    assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0, "someone still reads"
    other.close()
    await store.close()
    assert not list(tmp_path.glob("*-wal"))


async def test_a_second_server_on_the_directory_is_refused(store):
    with pytest.raises(StorageFailed, match="in use"):
        await SQLiteStore(store._folder).open()
    with pytest.raises(ProtocolError):
        await append(store, "nothing", b"x")


async def test_producers_are_forgotten_and_known_again(store, monkeypatch):
    monkeypatch.setattr(producers, "_GENERATION", 100)
    await put(store, "a")
    most = 0

    async def produce(worker):
        nonlocal most
        for n in range(300):
            await append(store, "a", b"x", producer_id=f"{worker}.{n}", producer_epoch="0", producer_seq="0")
            most = max(most, len(store._producers))

    async with trio.open_nursery() as nursery:
        for worker in range(20):
            nursery.start_soon(produce, worker)
    assert 100 <= most <= 220, "two generations, and the commit that made the younger one full"
    for worker in range(20):
        for n in range(0, 300, 50):
            await append(store, "a", b"y", producer_id=f"{worker}.{n}", producer_epoch="0", producer_seq="0")
    assert await read(store, "a") == b"x" * 6000, "every one of them is a duplicate"


async def test_a_watcher_that_fails_harms_nobody_else(store, caplog):
    await put(store, "a")
    found = await find(store, "a")
    seen = []

    def bad(stream, at, data):
        raise ValueError("bad")

    store.watch(found, bad)
    store.watch(found, lambda stream, at, data: seen.append(data))
    await append(store, "a", b"x")
    assert seen == [b"x"] and "watcher failed" in caplog.text


async def test_a_batch_handed_over_behind_a_failed_checkpoint_is_told(tmp_path, monkeypatch):
    """Its clients waited for good, and the server never ended."""
    store = SQLiteStore(tmp_path)
    await store.open()
    let_fail = threading.Event()
    kept_up = []

    def keep_up(batch):
        kept_up.append(batch)
        if len(kept_up) > 1:
            let_fail.wait(60)
            raise sqlite3.DatabaseError("disk I/O error")

    monkeypatch.setattr(store._committer, "_keep_up", keep_up)
    await put(store, "a")
    gate = hold(monkeypatch, store)
    outcome = []

    async def tries(body):
        try:
            await append(store, "a", body)
            outcome.append("stored")
        except StorageFailed:
            outcome.append("failed")

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tries, b"1")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(tries, b"2")  # starts with the end of the first
            await trio.testing.wait_all_tasks_blocked()
            gate.set()
            while not outcome:
                await trio.sleep(0.01)
            let_fail.set()
        assert outcome == ["stored", "failed"]
        await store.close()
