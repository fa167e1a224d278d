"""Damage that nobody asks for ends nothing: upkeep counts it, tells it, and passes it over; a check finds it."""

from __future__ import annotations

import sqlite3
import struct
import subprocess

import pytest
import trio

from ds_trio_server.store.base import Damaged
from ds_trio_server.store.sqlite import files, maintenance
from tests.faults import pages
from tests.faults.servers import ask
from tests.faults.stores import Time, opened
from tests.faults.streams import append, find, put, read
from tests.tools import serve


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


def test_a_schema_that_is_no_text_is_one_line(tmp_path):
    data = tmp_path / "data"
    with serve.start("--data", data, "--min-free", "0") as server:
        assert ask(server, "PUT", "a", b"x")[0] == 201
        server.process.terminate()
        assert server.wait(30) == 0
    path = data / files.FILE
    found = bytearray(path.read_bytes())
    found[found.index(b"CREATE TABLE staged") + 7] = 0xBA
    path.write_bytes(found)
    for command, status in (("check", 2), ("backup", 2), ("salvage", 2), ("serve", 1)):
        more = {"backup": [str(data), str(tmp_path / "copy")], "serve": ["--data", str(data), "--port", "0"]}
        arguments = more.get(command, [str(data)])
        done = subprocess.run([*serve.command(), command, *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == status and "Traceback" not in done.stderr, (command, done)
        assert done.stderr.count("schema is no UTF-8") == 1, (command, done)


async def test_nothing_is_made_where_an_index_has_lost_a_stream(tmp_path):
    """A device that comes back creates its stream first of all."""
    store = await opened(tmp_path)
    for n in range(300):
        await put(store, f"a/device/of/some/length/s{n:03}", b"kept")
    await store.close()
    leaves = pages.leaves(tmp_path, "sqlite_autoindex_streams_1")
    path = tmp_path / files.FILE
    found = bytearray(path.read_bytes())
    at = (leaves[1] - 1) * pages.PAGE
    (cells,) = struct.unpack_from(">H", found, at + 3)
    struct.pack_into(">H", found, at + 3, cells - 3)  # its last three are lost
    path.write_bytes(found)
    db = sqlite3.connect(path)
    lost = [
        name
        for (name,) in db.execute("SELECT path FROM streams NOT INDEXED").fetchall()
        if db.execute("SELECT 1 FROM streams WHERE path = ?", (name,)).fetchone() is None
    ]
    db.close()
    assert len(lost) == 3
    for _ in range(2):
        store = await opened(tmp_path)
        answers = {}

        async def create(name, store=store, answers=answers):
            try:
                await put(store, name, b"fresh")
                answers[name] = True
            except Damaged:
                answers[name] = False

        async with trio.open_nursery() as nursery:
            for name in lost:
                nursery.start_soon(create, name)
            nursery.start_soon(create, f"new{_}")
        # Nor elsewhere: SQLite might write a page of the index anew, without what it can't read there.
        assert answers == {**dict.fromkeys(lost, False), f"new{_}": False}
        for name in lost:
            with pytest.raises(Damaged):
                await find(store, name)
        for n in range(300):
            name = f"a/device/of/some/length/s{n:03}"
            if name not in lost:  # everybody else goes on
                await append(store, name, b"more")
                assert (await read(store, name)).endswith(b"more")
        await store.close()
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM streams NOT INDEXED").fetchone() == (300,)
    db.close()


async def test_nothing_is_made_where_nobody_knows_what_is_there(tmp_path):
    """Neither the table of streams nor the index of their paths is sound: what isn't found may be there."""
    store = await opened(tmp_path)
    names = [f"a/device/of/some/length/s{n:03}" for n in range(300)]
    for name in names:
        await put(store, name, b"kept")
    await store.close()
    path = tmp_path / files.FILE
    found = bytearray(path.read_bytes())
    for tree in ("sqlite_autoindex_streams_1", "streams"):
        at = (pages.leaves(tmp_path, tree)[1] - 1) * pages.PAGE
        found[at : at + pages.PAGE] = bytes(pages.PAGE)
    path.write_bytes(found)
    store = await opened(tmp_path)
    await store.verify()
    kept = 0
    for name in [*names, "new"]:
        try:
            assert await find(store, name) is not None, "a 404 for a stream that is there"
            kept += 1
        except Damaged:
            with pytest.raises(Damaged):
                await put(store, name, b"fresh")
    assert 100 < kept < 300
    await store.close()
