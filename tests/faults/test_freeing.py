"""Retention is a bound and freeing follows the backlog, however quickly streams grow, are made and end."""

from __future__ import annotations

import sqlite3
import threading

import pytest
import trio

from ds_trio_server.store.base import StorageFull
from ds_trio_server.store.sqlite import files, garbage, maintenance, sweeper, trimmer
from tests.tools import serve

from . import room
from .stores import Time, opened
from .streams import append, delete, find, put, read
from .test_store import fail, full

MIB = 1 << 20


def stored(store):
    """How many rows of appends there are, and their bytes."""
    return store._db.reader.execute("SELECT count(*), ifnull(sum(size), 0) FROM stored").fetchone()


@pytest.mark.parametrize("size", [1, 300, 5000, 100_000, 400_000])
async def test_what_is_kept_is_bounded_without_any_sweep(tmp_path, size):
    """Rows that nobody may read any more go with the commits behind them."""
    keep = 64 * 1024
    store = await opened(tmp_path, None, f"one={keep}", "other=forever")
    await put(store, "one")
    await put(store, "other", b"stays")
    count = max(20, 6 * keep // size) if size > 1 else 0
    if not count:
        # One-byte appends, thousands to a commit, as many clients make them.
        for _ in range(30):
            async with trio.open_nursery() as nursery:
                for _ in range(5000):
                    nursery.start_soon(append, store, "one", b"x")
    for _ in range(count):
        await append(store, "one", b"x" * size)
    found = await find(store, "one")
    in_flight = 5000 if size == 1 else 0
    assert keep <= found.tail - found.start <= keep + keep // 16 + size + in_flight
    rows, kept = stored(store)
    assert kept <= 2 * (keep + size) + 64 * 1024 + in_flight
    assert rows <= 2 * keep // size + 600 + in_flight
    await store.sweep()
    assert stored(store)[1] <= keep + keep // 16 + size + 5
    assert await read(store, "other") == b"stays"
    await store.close()
    assert not maintenance.check(tmp_path).problems


def test_a_server_holds_the_bound_that_is_stated(tmp_path):
    """In SECURITY.md."""
    ends = threading.Event()
    largest = 0

    def look():
        nonlocal largest
        while not ends.wait(0.01):
            largest = max(largest, sum(file.stat().st_size for file in tmp_path.iterdir()))

    with serve.start("--data", tmp_path, "--min-free", "0", "--retain", "2M") as server:
        thread = threading.Thread(target=look)
        thread.start()
        try:
            seen = trio.run(room.load, server.port, 4, 4, 256 * 1024)
        finally:
            ends.set()
            thread.join()
    assert set(seen) == {204} and seen[204] > 100
    kept = 4 * (2 * MIB + MIB // 8 + MIB // 4)
    assert largest <= kept + kept // 8 + 40 * MIB
    print(f"{seen[204] / 4:.0f} MiB were appended, and took {largest / MIB:.0f} MiB at most")


async def test_streams_that_end_are_freed_many_to_a_commit(tmp_path):
    store = await opened(tmp_path)
    await put(store, "stays", b"x")
    async with trio.open_nursery() as nursery:
        for n in range(2000):
            nursery.start_soon(put, store, f"s{n}", b"x" * 50)
    async with trio.open_nursery() as nursery:
        for n in range(2000):
            nursery.start_soon(delete, store, f"s{n}")
    before = sum(store.commits.seconds.counts)
    for _ in range(50):
        await store.sweep()
        if not store._sweeper.garbage:
            break
    commits = sum(store.commits.seconds.counts) - before
    assert stored(store) == (1, 1) and store.upkeep.freed == 2000
    assert commits <= 30, f"{commits} commits"
    await store.close()
    assert not maintenance.check(tmp_path).problems


async def test_streams_that_come_and_go_leave_no_backlog(tmp_path):
    """Without a sweep at all: what ends is freed by the commits that make more."""
    store = await opened(tmp_path)

    async def come_and_go(worker):
        for n in range(60):
            await put(store, f"{worker}/{n}", b"x" * 100)
            await delete(store, f"{worker}/{n}")

    async with trio.open_nursery() as nursery:
        for worker in range(20):
            nursery.start_soon(come_and_go, worker)
    left = store._db.reader.execute("SELECT count(*) FROM removed").fetchone()[0]
    assert left < 200, f"{left} of 1200 are not freed"
    await store.close()


async def test_many_that_expire_at_once_share_commits_and_the_time(tmp_path, monkeypatch):
    time = Time()
    store = await opened(tmp_path, time=time)
    async with trio.open_nursery() as nursery:
        for n in range(1500):
            nursery.start_soon(lambda n=n: put(store, f"s{n}", b"x", stream_ttl="5"))
    await put(store, "stays", b"x")
    time.seconds += 100
    before = sum(store.commits.seconds.counts)
    waits = []
    sleep = trio.sleep

    async def noting(seconds):
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr(sweeper.trio, "sleep", noting)
    monkeypatch.setattr(sweeper, "_AT_ONCE", 0.0002)
    assert await store.sweep() == 1500
    assert sum(store.commits.seconds.counts) - before <= 60
    assert waits and max(waits) < 1.0, "others have their turn in between"
    assert await store.paths() == ["stays"]
    await store.close()


@pytest.mark.parametrize("query", [*sweeper._ENDED, *sweeper._MORTAL, garbage._NEXT])
async def test_no_query_of_a_sweep_reads_more_than_it_needs(tmp_path, query):
    store = await opened(tmp_path)
    values = (0,) * (3 if "?3" in query else query.count("?"))
    plan = store._db.reader.execute(f"EXPLAIN QUERY PLAN {query}", values).fetchall()
    text = "\n".join(row[-1] for row in plan)
    assert "TEMP B-TREE" not in text and ("INDEX" in text or "PRIMARY KEY" in text) and "SCAN streams\n" not in text
    await store.close()


async def test_a_cut_that_found_no_room_is_made_later(tmp_path, monkeypatch):
    store = await opened(tmp_path, None, "1000")
    await put(store, "a")
    for _ in range(50):
        await append(store, "a", b"x" * 100)
    held = store._sweeper.trim
    monkeypatch.setattr(store._sweeper, "trim", lambda cuts: None)
    await append(store, "a", b"x" * 9000)
    fail(monkeypatch, store, full())
    with pytest.raises(StorageFull):
        await append(store, "a", b"x")
    monkeypatch.setattr(store._sweeper, "trim", held)
    monkeypatch.setattr(store._trimmer, "_next", 0.0)
    await store.sweep()
    found = await find(store, "a")
    assert found.tail - found.start == 9000
    await store.close()


async def test_streams_that_were_too_large_at_the_start_are_found_page_by_page(tmp_path, monkeypatch):
    monkeypatch.setattr(trimmer, "_SCANNED_AT_ONCE", 3)
    store = await opened(tmp_path)
    for n in range(10):
        await put(store, f"s{n}")
        for _ in range(5):
            await append(store, f"s{n}", b"x" * 100)
    await store.close()
    db = sqlite3.connect(tmp_path / files.FILE)
    db.execute("UPDATE streams SET path = CAST(x'ff' || path AS TEXT) WHERE path = 's4'")
    db.commit()
    db.close()
    store = await opened(tmp_path, None, "200")
    for _ in range(6):
        store._trimmer._next = 0.0
        await store.sweep()
    for n in (0, 3, 5, 9):
        found = await find(store, f"s{n}")
        assert found.tail - found.start == 200, n
    assert store._trimmer._scanned is None, "and once is enough"
    await store.close()


async def brief(store, count):
    """Streams that come, take an append and go."""
    for n in range(count):
        await put(store, f"brief{n}")
        await append(store, f"brief{n}", b"x")
        await delete(store, f"brief{n}")


async def test_streams_that_come_and_go_leave_nothing_in_memory(tmp_path, monkeypatch):
    """However seldom a rule by age is looked at, and where there are rules by size alone."""
    monkeypatch.setattr(trimmer, "_NOTED", 20)
    time = Time()
    for number, rules in enumerate((["log*=1000"], ["log*=1000", "log*=30d"], ["30d"])):
        store = await opened(tmp_path / str(number), time, *rules)
        await put(store, "log")
        for _ in range(10):
            await append(store, "log", b"x")
            await brief(store, 30)
            time.seconds += 2
            await store.sweep()
            assert len(store._trimmer.active) <= 50, rules
        await store.close()
        assert not maintenance.check(tmp_path / str(number)).problems


async def test_what_stays_is_not_looked_at_again_and_again(tmp_path, monkeypatch):
    monkeypatch.setattr(trimmer, "_NOTED", 20)
    time = Time()
    store = await opened(tmp_path, time, "30d")
    it = store._trimmer
    for n in range(60):
        await put(store, f"s{n}")
    looks = []
    for _ in range(40):
        for n in range(60):
            await append(store, f"s{n}", b"x")
        time.seconds += 2
        noted = it._noted
        await store.sweep()
        looks.append(it._noted != noted)
    assert sum(looks) <= 3, looks
    await store.close()


async def test_a_plan_changes_nothing_that_others_use(tmp_path):
    """It is made in a thread."""
    store = await opened(tmp_path, None, "64s", "1000")
    await put(store, "a")
    for _ in range(30):
        await append(store, "a", b"x" * 100)
    it = store._trimmer
    before = (it._next, it._noted, it._scanned, dict(it.large))
    look = it.planner(store.now().steady + 1000)
    after_taking = (it._next, it._scanned, dict(it.large), set(it.active))
    plan = await store._queries.run(look)
    assert (it._next, it._scanned, dict(it.large), set(it.active)) == after_taking and before[0] == it._next
    assert plan.times
    it.planned(5.0, plan)
    assert it._next >= 5.5
    await store.close()


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM blobs",
        "INSERT INTO removed VALUES (-5, 'x')",
        "UPDATE removed SET below = 'x' WHERE stream = 1",
        "INSERT INTO removed VALUES (4242, 3)",
    ],
)
async def test_damage_in_what_is_to_be_freed_ends_no_cleaning(tmp_path, damage):
    """Nobody was promised any of it."""
    store = await opened(tmp_path)
    for n in range(5):
        await put(store, f"s{n}", b"x" * 5000)
    for n in range(4):
        await delete(store, f"s{n}")
    await store.close()
    db = sqlite3.connect(tmp_path / files.FILE)
    db.execute("INSERT OR IGNORE INTO removed VALUES (1, NULL)")
    db.execute(damage)
    db.commit()
    db.close()
    store = await opened(tmp_path)
    for _ in range(5):
        await store.sweep()
    await append(store, "s4", b"y")
    left = [id for (id,) in store._db.reader.execute("SELECT DISTINCT stream FROM appends")]
    assert set(left) <= {1, 5}, "what can't be understood stays, and everything else goes"
    await store.close()


async def test_what_an_append_takes_in_the_file_beside_its_bytes_is_little(tmp_path):
    """SECURITY.md says how much; with a limit in bytes, that is what many small ones take."""
    store = await opened(tmp_path)
    for name in "ab":
        await put(store, name)

    async def some(name):
        for _ in range(100):
            await append(store, name, b"x")

    async with trio.open_nursery() as nursery:
        for n in range(200):
            nursery.start_soon(some, "ab"[n % 2])
    await store.close()
    assert (tmp_path / files.FILE).stat().st_size < 20_000 * 33 + 20 * 4096
