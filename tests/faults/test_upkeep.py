"""One bad stream keeps nobody else waiting: long chains of forks, damaged rows, faults of ours in upkeep."""

from __future__ import annotations

import logging
import sqlite3

import pytest
import trio

from ds_core.server import create
from ds_core.server.stream import expire
from ds_trio_server.store.base import Damaged, StorageFailed
from ds_trio_server.store.memory import MemoryStore
from ds_trio_server.store.sqlite import files, maintenance, schema, sweeper
from ds_trio_server.store.sqlite.engine import SQLiteStore
from tests.server.site import running

from .stores import Time, opened
from .streams import append, delete, find, put, read

DEEP = 700


async def chain(folder, depth=DEEP, last_ttl=None):
    """A chain of forks that is longer than one may become now, as an older server let it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(create, "MOST_ANCESTORS", 1 << 30)
        store = await opened(folder)
        await put(store, "f0", b"x")
        for n in range(1, depth + 1):
            ttl = {"stream_ttl": str(last_ttl)} if n == depth and last_ttl else {}
            await put(store, f"f{n}", b"%d," % (n % 10), stream_forked_from=f"f{n - 1}", **ttl)
        await put(store, "other", b"important")
        await store.close()


def counted(store):
    """The statements that the store's own connection runs from now on."""
    asked = []
    store._db.reader.set_trace_callback(asked.append)
    return asked


async def test_a_long_chain_is_loaded_row_by_row(tmp_path):
    await chain(tmp_path)
    store = await opened(tmp_path)
    asked = counted(store)
    found = await find(store, f"f{DEEP}")
    assert len(found.lineage) == DEEP and len(asked) <= DEEP + 10
    assert await read(store, f"f{DEEP}") == b"x" + b"".join(b"%d," % (n % 10) for n in range(1, DEEP + 1))
    await append(store, f"f{DEEP}", b"more")
    assert (await read(store, f"f{DEEP}"))[-4:] == b"more"
    await store.close()
    report = maintenance.check(tmp_path)
    assert not report.problems and report.streams == DEEP + 2
    copy = tmp_path / "copy"
    assert not maintenance.backup(tmp_path, copy).problems


async def test_a_long_chain_is_deleted_whole(tmp_path):
    await chain(tmp_path)
    store = await opened(tmp_path)
    for n in range(DEEP):
        await delete(store, f"f{n}")
    await store.close()
    assert not maintenance.check(tmp_path).problems
    store = await opened(tmp_path)
    asked = counted(store)
    await delete(store, f"f{DEEP}")
    assert len(asked) <= 3 * DEEP, "one look at each, however long the chain is"
    assert await store.paths() == ["other"]
    assert store._db.reader.execute("SELECT count(*) FROM streams").fetchone() == (1,)
    for _ in range(100):
        if not store._sweeper.garbage:
            break
        await store.sweep()
    assert store._db.reader.execute("SELECT count(*) FROM appends").fetchone() == (1,)
    await store.close()
    assert not maintenance.check(tmp_path).problems


async def test_a_long_chain_whose_end_expires_ends_no_sweep(tmp_path):
    await chain(tmp_path, last_ttl=1)
    time = Time()
    store = await opened(tmp_path, time)
    time.seconds += 1e6
    assert await store.sweep() == 1 and store.upkeep.failures == 0
    assert f"f{DEEP}" not in await store.paths() and await read(store, "other") == b"important"
    await store.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_chain_of_forks_has_a_bound(tmp_path, kind):
    async with running(MemoryStore() if kind == "memory" else SQLiteStore(tmp_path)) as site:
        await site.create("f0")
        for n in range(1, create.MOST_ANCESTORS + 1):
            headers = {"Stream-Forked-From": f"/v1/stream/f{n - 1}"}
            assert (await site.ask("PUT", f"/v1/stream/f{n}", **headers)).status == 201
        headers = {"Stream-Forked-From": f"/v1/stream/f{create.MOST_ANCESTORS}"}
        answer = await site.ask("PUT", "/v1/stream/beyond", **headers)
        assert answer.status == 409 and b"FORK_TOO_DEEP" in answer.body and b"at most 64 ancestors" in answer.body
        assert (await site.ask("GET", "/v1/stream/beyond")).status == 404
        # What is there as asked is there, and one level up there is room.
        again = {"Stream-Forked-From": f"/v1/stream/f{create.MOST_ANCESTORS - 1}"}
        assert (await site.ask("PUT", f"/v1/stream/f{create.MOST_ANCESTORS}", **again)).status == 200
        assert (await site.ask("PUT", "/v1/stream/beside", **again)).status == 201


DAMAGES = {
    "tail": "UPDATE streams SET tail = tail + 1 WHERE path LIKE 'bad%'",
    "type": "UPDATE streams SET closed_by = 7, forks = 'x' WHERE path LIKE 'bad%'",
    "text": "UPDATE streams SET path = CAST(x'ff' || path AS TEXT) WHERE path LIKE 'bad%'",
    "content type": "UPDATE streams SET content_type = CAST(x'fffe' AS TEXT) WHERE path LIKE 'bad%'",
    "source": "UPDATE streams SET source = id, fork_at = 0 WHERE path LIKE 'bad%'",
}


@pytest.mark.parametrize("how", DAMAGES)
async def test_damaged_rows_keep_no_other_stream_from_ending(tmp_path, how, monkeypatch, caplog):
    """However many of them are first in line."""
    monkeypatch.setattr(sweeper, "_AT_ONCE", 0.0)
    time = Time()
    store = await opened(tmp_path, time)
    for n in range(300):
        await put(store, f"bad{n}", b"x", stream_ttl="1")
    await put(store, "good", b"x", stream_ttl="50")
    await put(store, "lives", b"x")
    await store.close()
    db = sqlite3.connect(tmp_path / files.FILE)
    db.execute(DAMAGES[how])
    db.commit()
    db.close()
    store = await opened(tmp_path, time)
    time.seconds += 1000
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await store.sweep()
    assert store.upkeep.failures == 900 and caplog.text.count("can't be looked after") == 1
    assert store._db.reader.execute("SELECT count(*) FROM streams").fetchone() == (301,), "what can't be read stays"
    assert await find(store, "good") is None
    await append(store, "lives", b"y")
    assert await read(store, "lives") == b"xy"
    await store.close()
    assert len(maintenance.check(tmp_path).problems) >= 20


async def test_who_asks_for_a_damaged_stream_is_told_and_nobody_else(tmp_path):
    """It was acknowledged and is not there any more: that ends what is asked of that stream, and no other."""
    store = await opened(tmp_path)
    await put(store, "bad1", b"x")
    await put(store, "good", b"x")
    await store.close()
    db = sqlite3.connect(tmp_path / files.FILE)
    db.execute(DAMAGES["content type"])
    db.commit()
    db.close()
    store = await opened(tmp_path)
    for _ in range(3):
        with pytest.raises(Damaged, match="stream 1 is damaged"):
            await append(store, "bad1", b"x")
    await append(store, "good", b"y")
    assert await read(store, "good") == b"xy"
    assert store.upkeep.damage == 3 and store.upkeep.damaged == 1
    await store.close()


async def test_a_damaged_ancestor_ends_no_sweep_either(tmp_path):
    time = Time()
    store = await opened(tmp_path, time)
    await put(store, "a", b"x")
    await put(store, "b", b"y", stream_forked_from="a")
    await put(store, "c", b"z", stream_forked_from="b", stream_ttl="1")
    await put(store, "d", b"z", stream_ttl="1")
    await delete(store, "b")
    await store.close()
    db = sqlite3.connect(tmp_path / files.FILE)
    db.execute("UPDATE streams SET tail = 99 WHERE path = 'a'")
    db.commit()
    db.close()
    store = await opened(tmp_path, time)
    time.seconds += 10
    await store.sweep()
    assert store.upkeep.failures == 1
    assert await store.paths() == ["a", "c"]
    await store.close()


async def test_a_fault_of_ours_in_one_stream_ends_no_sweep(tmp_path, monkeypatch):
    time = Time()
    store = await opened(tmp_path, time)
    for path in ("a", "b", "c"):
        await put(store, path, b"x", stream_ttl="1")

    def faulty(view):
        if view.stream is not None and view.stream.path == "b":
            raise RecursionError
        return expire(view)

    monkeypatch.setattr(sweeper, "expire", faulty)
    monkeypatch.setattr("ds_trio_server.store.sqlite.decider.expire", lambda view: (None, None))
    time.seconds += 10
    await store.sweep()
    assert await store.paths() == ["b"] and store.upkeep.failures == 1
    await store.close()


async def test_a_change_that_fails_halfway_ends_the_store(tmp_path, monkeypatch):
    """What is in memory then is no state that anybody decided."""
    store = await opened(tmp_path)
    await put(store, "a", b"x")
    await put(store, "b", b"x")
    monkeypatch.setattr(schema, "release", None)
    monkeypatch.setattr("ds_trio_server.store.sqlite.lifecycle._end", lambda *arguments: 1 / 0)
    with pytest.raises(StorageFailed, match="division"):
        await delete(store, "a")
    with pytest.raises(StorageFailed):
        await append(store, "b", b"y")
    await store.close()
    monkeypatch.undo()
    assert not maintenance.check(tmp_path).problems


@pytest.mark.parametrize("where", ["sweep", "verify"])
async def test_a_server_lives_through_faults_of_its_upkeep(where, monkeypatch, caplog):
    monkeypatch.setattr("ds_trio_server.server._SWEEP_EVERY", 0.01)
    store = MemoryStore()
    calls = []

    async def faulty():
        calls.append(where)
        raise RuntimeError("of upkeep")

    monkeypatch.setattr(store, where, faulty)
    async with running(store) as site:
        with trio.fail_after(20):
            while len(calls) < (5 if where == "sweep" else 1):
                await trio.sleep(0.01)
        assert (await site.ask("PUT", "/v1/stream/a")).status == 201
    assert store.upkeep.failures == len(calls) and caplog.text.count("fault of ours") == 1


async def test_a_backup_and_a_check_name_what_else_is_wrong(tmp_path):
    """A row that can't be understood hides nothing behind it."""
    store = await opened(tmp_path)
    for path in ("a", "b"):
        await put(store, path, b"x")
        await append(store, path, b"y")
    await store.close()
    db = sqlite3.connect(tmp_path / files.FILE)
    db.execute("UPDATE streams SET tail = 'x' WHERE path = 'a'")
    db.execute("INSERT INTO producers (stream, id, epoch, seq) VALUES (77, 'p', 0, 0)")
    db.commit()
    db.close()
    problems = "\n".join(maintenance.check(tmp_path).problems)
    assert "stream 1" in problems and "producers were left behind" in problems
