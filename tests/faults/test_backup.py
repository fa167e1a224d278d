"""A backup beside a server that goes on: one state, whole, and no long read that would hold up the log."""

from __future__ import annotations

import random
import subprocess
import threading

import pytest
import trio

from ds_core.server import stream
from ds_core.server.decide import Needs
from ds_trio_server.store.sqlite import copying, files, maintenance, schema
from tests.tools import serve

from . import room
from .stores import opened
from .streams import append, delete, find, put, read

MIB = 1 << 20


async def changed(store, rng, number):
    """One change of any kind."""
    alive = await store.paths()
    what = rng.random()
    if what < 0.2 or len(alive) < 3:
        source = {"stream_forked_from": rng.choice(alive)} if alive and rng.random() < 0.5 else {}
        await put(store, f"new{number}", b"x" * rng.choice((0, 10, 5000)), **source)
        return
    path = rng.choice(alive)
    if what < 0.3:
        await delete(store, path)
    elif what < 0.45:
        found = await find(store, path)
        at = (await store.span(found, found.visible_tail - 1))[0] if found.visible_tail > found.start else 0
        await store.transact(Needs(path), lambda view: stream.trim(view, found.id, at))
    elif what < 0.55:
        await store.sweep()
    else:
        producer = {"producer_id": f"p{number}", "producer_epoch": "0", "producer_seq": "0"}
        await append(store, path, rng.randbytes(rng.choice((1, 100, 3000, 400_000))), **producer)


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_changes_between_its_steps_a_copy_is_one_state(tmp_path, monkeypatch, seed):
    rng = random.Random(seed)
    monkeypatch.setattr(copying, "_STEP_BYTES", 3000)
    monkeypatch.setattr(copying, "_LITTLE", 100_000)
    data, target = tmp_path / "data", tmp_path / "copy"
    store = await opened(data)
    for number in range(60):
        await changed(store, rng, number)
    numbers = iter(range(1000, 10_000))
    waited = []

    def between(self):
        if len(waited) < 150:
            for _ in range(rng.randrange(3)):
                trio.from_thread.run(changed, store, rng, next(numbers))
            trio.from_thread.run_sync(lambda: waited.append(store._db.log.state()))

    states = []
    rest = copying._Copy._take_the_rest

    def last(self):
        # What happens behind the last read's back is no part of it.
        states.append(trio.from_thread.run(contents, store))
        for _ in range(5):
            trio.from_thread.run(changed, store, rng, next(numbers))
        rest(self)

    monkeypatch.setattr(copying._Copy, "_sync", between)
    monkeypatch.setattr(copying._Copy, "_take_the_rest", last)
    report = await trio.to_thread.run_sync(maintenance.backup, data, target)
    assert not report.problems
    await store.close()
    copied = await opened(target)
    assert await contents(copied) == states[0]
    for _ in range(5):
        await copied.sweep()
    for path in await copied.paths():
        await append(copied, path, b"goes on")
    await copied.close()
    assert not maintenance.check(target).problems


async def contents(store):
    return {path: await read(store, path) for path in await store.paths()}


def test_a_backup_lets_the_log_begin_again(tmp_path):
    """However long it takes: nothing that is appended meanwhile is held up."""
    data, target = tmp_path / "data", tmp_path / "copy"
    log = data / (files.FILE + "-wal")
    longest = 0
    with serve.start("--data", data, "--min-free", "0", "--retain", "load*=24M") as server:
        trio.run(room.load, server.port, 3, 4, 256 * 1024)
        done = threading.Event()
        seen = []

        def go_on():
            async def load():
                while not done.is_set():
                    seen.append(await room.load(server.port, 0.5, 2, 256 * 1024))

            trio.run(load)

        thread = threading.Thread(target=go_on)
        thread.start()
        copies = 0
        try:
            process = subprocess.Popen([*serve.command(), "backup", str(data), str(target)])
            while process.poll() is None:
                longest = max(longest, log.stat().st_size)
                copies += 1
        finally:
            done.set()
            thread.join()
        assert process.returncode == 0 and copies
    assert longest < 48 * MIB, f"the log took {longest / MIB:.0f} MiB"
    assert set().union(*seen) == {204}
    assert not maintenance.check(target).problems


def test_a_copy_has_the_settings_of_the_original(tmp_path):
    with serve.start("--data", tmp_path / "data") as server:
        trio.run(room.comes_back, server.port, 10)
    maintenance.backup(tmp_path / "data", tmp_path / "copy")
    found = []
    for name in ("data", "copy"):
        db = schema.connect(tmp_path / name, cache_kib=100)
        names = ("auto_vacuum", "application_id", "user_version", "page_size", "encoding")
        found.append([schema.one(db, f"PRAGMA {each}") for each in names])
        found[-1].append(db.execute("SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2").fetchall())
        db.close()
    assert found[0] == found[1]
