"""Damage that nobody asks for ends nothing: upkeep counts it, tells it, and passes it over; a check finds it."""

from __future__ import annotations

import sqlite3

import pytest

from ds_trio_server.store.sqlite import files, maintenance
from tests.faults.stores import Time, opened
from tests.faults.streams import append, put, read


def damage_page(folder, mark: bytes) -> None:
    """Make nonsense of the page of the file that holds some bytes."""
    path = folder / files.FILE
    data = bytearray(path.read_bytes())
    at = data.find(mark)
    assert at > 4096
    data[at // 4096 * 4096] = 0x77
    path.write_bytes(data)


async def sweeps(store, count: int = 4) -> None:
    for _ in range(count):
        await store.sweep()


def change(folder, statement: str) -> None:
    db = sqlite3.connect(folder / files.FILE)
    assert db.execute(statement).rowcount
    db.commit()
    db.close()


@pytest.mark.parametrize("how", ["ended", "deleted", "trimmed"])
async def test_a_damaged_page_of_what_is_to_be_freed_is_passed_over(tmp_path, how):
    time = Time()
    folder = tmp_path / "data"
    store = await opened(folder, time, "kept=100K")
    for n in range(5):
        await put(store, f"s{n}", b"%d" % n * 2000, stream_ttl="60")
    await put(store, "kept", b"first" * 400)
    await put(store, "other", b"o" * 2000)
    await store.close()
    damage_page(folder, b"first" * 100 if how == "trimmed" else b"3" * 1000)
    for _ in range(3):  # every start meets it
        store = await opened(folder, time, "kept=100K")
        if how == "ended":
            time.seconds += 100
        elif how == "deleted" and "s3" in await store.paths():
            await rig(store).delete("s3")
        elif how == "trimmed":
            for _ in range(40):
                await append(store, "kept", b"x" * 10_000)
        await sweeps(store)
        assert store.upkeep.failures > 0
        await append(store, "other", b"y")
        assert (await read(store, "other"))[:2000] == b"o" * 2000
        await sweeps(store)
        await store.close()
    assert maintenance.check(folder).problems


def rig(store):
    from tests.store import rig

    return rig.Rig(store, rig.Time())


@pytest.mark.parametrize(
    "column", ["id = CAST(x'ff41' AS TEXT)", "used = 'abc'", "seq = 'abc'", "epoch = -1", "epoch = x'00'"]
)
async def test_a_damaged_producer_is_passed_over_and_a_check_finds_it(tmp_path, column):
    store = await opened(tmp_path)
    for n in range(3):
        await put(store, f"s{n}", b"")
        await rig(store).append(f"s{n}", b"x", producer=("p", 0, 0))
    await store.close()
    assert not maintenance.check(tmp_path).problems
    change(tmp_path, f"UPDATE producers SET {column} WHERE stream = 2")
    assert any("stream 2" in problem for problem in maintenance.check(tmp_path).problems)
    store = await opened(tmp_path)
    await sweeps(store)
    assert (await rig(store).append("s0", b"x", producer=("p", 0, 0))).status == 204, "a duplicate still is one"
    await append(store, "s1", b"y")
    await store.close()


@pytest.mark.parametrize("name", ["newest", "steady", "wall"])
@pytest.mark.parametrize("value", ["'abc'", "x'00ff'", "-3", "1e300", "9e999", "NULL", "CAST(x'ff' AS TEXT)"])
async def test_what_the_file_says_of_the_store_ends_no_start_and_no_stream(tmp_path, name, value):
    time = Time()
    store = await opened(tmp_path, time)
    await put(store, "mortal", b"x", stream_ttl="60")
    await put(store, "s", b"x")
    await rig(store).append("s", b"y", producer=("p", 0, 0))
    await store.close()
    change(tmp_path, f"INSERT OR REPLACE INTO meta VALUES ('{name}', {value})")
    assert maintenance.check(tmp_path).problems
    store = await opened(tmp_path)
    await sweeps(store)
    assert await read(store, "s") == b"xy" and await read(store, "mortal") == b"x"
    await put(store, "new", b"z")
    await store.close()
    store = await opened(tmp_path)
    await put(store, "newer", b"z")
    assert await read(store, "new") == b"z"
    await store.close()
    assert not maintenance.check(tmp_path).problems, "and it is put right"


async def test_a_number_that_was_given_is_not_given_again_though_the_file_has_forgotten(tmp_path):
    store = await opened(tmp_path)
    for n in range(5):
        await put(store, f"s{n}", b"x")
    await store.close()
    for statement in ("UPDATE meta SET value = 2 WHERE name = 'newest'", "DELETE FROM meta"):
        change(tmp_path, statement)
        store = await opened(tmp_path)
        await put(store, f"after {len(statement)}".replace(" ", "-"), b"z")
        for n in range(5):
            assert await read(store, f"s{n}") == b"x"
        await store.close()


async def test_what_a_live_stream_has_is_freed_by_no_row(tmp_path):
    store = await opened(tmp_path)
    await put(store, "s", b"x" * 3000)
    await put(store, "gone", b"y")
    await rig(store).delete("gone")
    await store.close()
    change(tmp_path, "INSERT OR REPLACE INTO removed VALUES (1, NULL)")
    assert any("is to be freed" in problem for problem in maintenance.check(tmp_path).problems)
    store = await opened(tmp_path)
    await sweeps(store)
    store._tails.forget(1)
    assert await read(store, "s") == b"x" * 3000
    await store.close()
