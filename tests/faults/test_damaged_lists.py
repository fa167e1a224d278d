"""What says what is to be freed, or how old it is, may be damaged: nothing goes by it that anybody needs, and upkeep
that meets damage ends nothing."""

from __future__ import annotations

import random
import shutil
import sqlite3

import pytest
import trio

from ds_trio_server.store.base import Damaged
from ds_trio_server.store.sqlite import files, maintenance, schema
from ds_trio_server.store.sqlite.committer import Committer

from . import pages
from .stores import Time, opened
from .streams import append, delete, find, put, read

LARGE = b"L" * 700_000


def change(folder, statement, *values):
    db = sqlite3.connect(folder / files.FILE)
    assert db.execute(statement, values).rowcount > 0
    db.commit()
    db.close()


async def trimmed(folder):
    """Stream 1 keeps the last of its appends, 2 all, 3 is a fork of 2 that has lost its source."""
    store = await opened(folder, None, "a=4K")
    for path in ("a", "b"):
        await put(store, path)
    for n in range(200):
        await append(store, "a", b"%04d" % n * 25)
    await append(store, "b", b"hello" * 100)
    await put(store, "fork", b"f", stream_forked_from="b")
    await store.close()
    db = sqlite3.connect(folder / files.FILE)
    (start,) = db.execute("SELECT start FROM streams WHERE id = 1").fetchone()
    db.close()
    assert start > 0
    return start


LISTED = {
    "beyond what is trimmed": "INSERT OR REPLACE INTO removed SELECT 1, start + 4096 FROM streams WHERE id = 1",
    "far beyond": f"INSERT OR REPLACE INTO removed VALUES (1, {1 << 50})",
    "of another stream": "INSERT OR REPLACE INTO removed VALUES (2, 36000)",
    "all of one that is there": "INSERT OR REPLACE INTO removed VALUES (2, NULL)",
    "of another kind": "INSERT OR REPLACE INTO removed VALUES (2, 'all')",
    "of no stream": "INSERT OR REPLACE INTO removed VALUES (77, 36000)",
}


@pytest.mark.parametrize("listed", LISTED)
async def test_nothing_that_is_shown_is_freed_whatever_is_listed(tmp_path, listed):
    await trimmed(tmp_path)
    store = await opened(tmp_path)
    before = {path: await read(store, path) for path in ("a", "b", "fork")}
    await store.close()
    change(tmp_path, LISTED[listed])
    assert any("to be freed" in each for each in maintenance.check(tmp_path).problems)
    for _ in range(2):
        store = await opened(tmp_path)
        for n in range(100):  # what is freed along with commits
            await put(store, "c", b"x")
            await delete(store, "c")
            if n % 50 == 0:
                await store.sweep()
        assert {path: await read(store, path) for path in before} == before
        await store.close()


async def test_what_a_fork_needs_of_a_stream_that_is_lost_stays(tmp_path):
    await trimmed(tmp_path)
    change(tmp_path, "DELETE FROM streams WHERE id = 2")
    change(tmp_path, "INSERT INTO removed VALUES (2, NULL)")
    store = await opened(tmp_path)
    for _ in range(3):
        await store.sweep()
    assert store.upkeep.failures == 1
    assert store._db.reader.execute("SELECT count(*) FROM appends WHERE stream = 2").fetchone() == (1,)
    await store.close()


TIMES = {
    "earlier": (1.0, 500),
    "before all time": (-7000.0, 500),
    "beyond the tail": (1.0, 1 << 40),
    "of another kind": ("then", 500),
}


@pytest.mark.parametrize("row", TIMES)
async def test_nothing_goes_by_a_time_that_was_not_noted(tmp_path, row):
    time = Time()
    store = await opened(tmp_path, time, "*=1h")
    await put(store, "a", b"x" * 500)
    time.seconds += 100
    await store.sweep()
    await store.close()
    at, position = TIMES[row]
    if row == "earlier":
        change(tmp_path, "DELETE FROM times")
    change(tmp_path, "INSERT INTO times VALUES (1, ?, ?, 12345)", at, position)
    assert any("of its age" in each for each in maintenance.check(tmp_path).problems)
    time.seconds += 5000
    store = await opened(tmp_path, time, "*=2h")
    for _ in range(3):
        await store.sweep()
        time.seconds += 600
    assert await read(store, "a") == b"x" * 500
    # And what is noted now is what it goes by.
    await append(store, "a", b"later")
    for _ in range(20):
        time.seconds += 1000
        await store.sweep()
    assert await read(store, "a") == b""
    await store.close()


async def test_one_bad_page_of_times_keeps_no_other_stream_from_aging(tmp_path):
    time = Time()
    store = await opened(tmp_path, time, "*=1h")
    for n in range(400):
        await put(store, f"s{n}", b"x")
    for _ in range(2):
        await store.sweep()
        time.seconds += 100
    await store.close()
    leaves = pages.leaves(tmp_path, "times")
    assert len(leaves) > 1
    pages.harm(tmp_path, leaves[0], random.Random(3), ("zero",))
    store = await opened(tmp_path, time, "*=1h")
    for n in range(400):
        try:
            await append(store, f"s{n}", b"y")
        except Damaged:
            pytest.fail("an append needs no times")
    for _ in range(12):
        time.seconds += 600
        await store.sweep()
    for n in range(400):
        await append(store, f"s{n}", b"z")  # whoever can't be trimmed takes appends all the same
    left = [len(await read(store, f"s{n}")) - 1 for n in range(400)]
    assert left.count(0) >= 20 and store._health.failure is None
    await store.close()


async def test_acknowledged_blobs_are_not_dropped_with_what_was_staged(tmp_path):
    """A page of another table, or of another time, in place of the list of what is staged."""
    store = await opened(tmp_path)
    await put(store, "a")
    await append(store, "a", LARGE)
    await append(store, "a", b"m" * 2000)
    await store.close()
    db = sqlite3.connect(tmp_path / files.FILE)
    blobs = db.execute("SELECT blob, stream, position FROM appends WHERE blob IS NOT NULL").fetchall()
    assert len(blobs) == 4
    rows = [(blobs[0][0], None, None, None), (blobs[1][0], 36000, 5, 7), schema.staged(*blobs[2])]
    rows.append(schema.staged(blobs[3][0], 1, 999))  # none that was written so, but with a right sum it's dropped
    db.executemany("INSERT INTO staged VALUES (?, ?, ?, ?)", rows[:3])
    db.commit()
    db.close()
    assert any("staged" in each for each in maintenance.check(tmp_path).problems)
    store = await opened(tmp_path)
    assert await read(store, "a") == LARGE + b"m" * 2000
    await store.close()
    assert not maintenance.check(tmp_path).problems


async def crash_while_staging(folder, image, monkeypatch):
    store = await opened(folder)
    await put(store, "a", b"before")
    stage = Committer._stage
    steps = []

    def staging(self, batch):
        stage(self, batch)
        steps.append(batch)
        if len(steps) == 1:
            shutil.copytree(folder, image)

    with monkeypatch.context() as patch:
        patch.setattr(Committer, "_stage", staging)
        await append(store, "a", LARGE)
    await store.close()


@pytest.mark.parametrize("kind", ["zero", "noise", "byte"])
async def test_a_damaged_list_of_what_is_staged_ends_neither_starts_nor_large_appends(tmp_path, kind, monkeypatch):
    image = tmp_path / "image"
    await crash_while_staging(tmp_path / "data", image, monkeypatch)
    db = sqlite3.connect(image / files.FILE)
    assert db.execute("SELECT count(*) FROM staged").fetchone()[0] > 0
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    (leaf,) = pages.leaves(image, "staged")
    pages.harm(image, leaf, random.Random(1), (kind,))
    for number in (1, 2):
        store = await opened(image)
        for _ in range(2):
            await append(store, "a", LARGE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(append, store, "a", LARGE)
            nursery.start_soon(put, store, f"b{number}", b"b")
        await store.sweep()
        assert await read(store, "a") == b"before" + 3 * number * LARGE
        await store.close()


@pytest.mark.parametrize("table", ["streams", "removed", "appends", "producers", "times", "producing", "staged"])
@pytest.mark.parametrize("seed", range(6))
async def test_no_page_that_upkeep_reads_ends_the_store(tmp_path, table, seed):
    """Streams that have gone, that are trimmed, that expire, that are too old: with any page of a table damaged."""
    time = Time()
    rng = random.Random(f"{table}{seed}")
    store = await opened(tmp_path, time, "log*=2K", "old*=1h")
    for n in range(150):
        await put(store, f"s{n}", b"x" * 400)
        await put(store, f"old{n}", b"x", stream_ttl="100000" if n % 2 else "500")
    for n in range(20):
        await put(store, f"log{n}")
        for k in range(10):
            await append(store, f"log{n}", b"y" * 300, producer_id="p", producer_epoch="0", producer_seq=str(k))
    await store.sweep()
    store._committer._collector.rests = True  # what is left to be freed stays
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ds_trio_server.store.sqlite.garbage.Collector._free", lambda *arguments: None)
        for n in range(0, 150, 2):
            await delete(store, f"s{n}")
        await store.close()
    pages.harm(tmp_path, rng.choice(pages.leaves(tmp_path, table)), rng)
    for number in range(2):
        store = await opened(tmp_path, time, "log*=2K", "old*=1h")
        for _ in range(4):
            time.seconds += 700
            await store.sweep()
            for n in range(1, 150, 10):
                try:
                    await append(store, f"s{n}", b"z" * 600)
                    await delete(store, f"s{n + 2 * number + 2}")
                except Damaged:
                    pass
                except Exception as error:
                    assert "STREAM_NOT_FOUND" in repr(error) or getattr(error, "status", 0) == 404, repr(error)
            if _ == 2:
                try:
                    await append(store, "s149", LARGE)
                except Damaged:
                    pass
            for n in range(20):
                try:
                    await append(store, f"log{n}", b"y" * 300)
                except Damaged:
                    pass
        assert store._health.failure is None
        assert await find(store, "nothing") is None
        await store.close()


PARTS = {
    "small": ("UPDATE appends SET part = 5 WHERE position = 800", (800, 1000, 1199)),
    "negative": ("UPDATE appends SET part = -400 WHERE position = 800", (800, 1199)),
    "that leads to another's": ("UPDATE appends SET part = 800 WHERE position = 800", (800, 1199)),
    "before all": (f"UPDATE appends SET part = {1 << 20} WHERE position = 800", (800, 1199)),
    "of another kind": ("UPDATE appends SET part = 'x' WHERE position = 800", (800, 1199)),
    "none of a large one": ("UPDATE appends SET part = 0 WHERE part > 500000", (2000, 2000 + 600_000)),
    "other of a large one": ("UPDATE appends SET part = part + 65536 WHERE part > 500000", (2000, 2000 + 600_000)),
}


@pytest.mark.parametrize("kind", PARTS)
async def test_where_an_append_begins_is_never_told_wrong(tmp_path, kind):
    store = await opened(tmp_path)
    await put(store, "a")
    for n in range(5):
        await append(store, "a", b"%04d" % n * 100)
    await append(store, "a", LARGE)
    await append(store, "a", b"end")
    await store.close()
    statement, bad = PARTS[kind]
    change(tmp_path, statement)
    assert any("not whole" in each or "does not begin" in each for each in maintenance.check(tmp_path).problems)
    store = await opened(tmp_path)
    found = await find(store, "a")
    right = [(n * 400, n * 400 + 400) for n in range(5)] + [(2000, 702_000), (702_000, 702_003)]
    for begin, end in right:
        for at in (begin, (begin + end) // 2, end - 1):
            try:
                assert await store.span(found, at) == (begin, end), at
            except Damaged:
                assert any(begin <= each < end for each in bad) or end in bad, at
    for at in bad:
        with pytest.raises(Damaged):
            await store.span(found, at)
    await store.close()
