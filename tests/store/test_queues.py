"""Large appends go down a queue of their own: what small ones, failures and crashes make of that."""

from __future__ import annotations

import random
import shutil
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ds_core.server.errors import ProtocolError
from ds_trio_server.store.base import StorageFull
from ds_trio_server.store.sqlite import committer, maintenance, producers, schema
from ds_trio_server.store.sqlite.batches import Batch, Entry
from ds_trio_server.store.sqlite.committer import Committer
from ds_trio_server.store.sqlite.queues import Queues
from tests.store.rig import Rig, Time, full, narrow
from tests.store.test_sqlite import disk_held, opened

LARGE = b"l" * 1000


@pytest.fixture(autouse=True)
def narrowed(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow(monkeypatch, row=100, step=250)


def staged(folder: Path) -> tuple[int, int]:
    """How many blobs are staged, and how many blobs there are."""
    db = sqlite3.connect(folder / schema.FILE)
    try:
        return tuple(db.execute("SELECT (SELECT count(*) FROM staged), count(*) FROM blobs").fetchone())
    finally:
        db.close()


class Steps:
    """Lets the writer go on one transaction at a time, and notes what each was."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        self._may = threading.Semaphore(0)
        for name in ("_stage", "_write"):
            monkeypatch.setattr(Committer, name, self._wrap(name, getattr(Committer, name)))

    def _wrap(self, name: str, write: Any) -> Any:
        def step(committer: Committer, batch: Any) -> None:
            assert self._may.acquire(timeout=60)
            write(committer, batch)
            self.seen.append(name[1:] if name == "_stage" else "bulk" if batch.bulk else "small")

        return step

    async def go(self, count: int = 1) -> None:
        for _ in range(count):
            before = len(self.seen)
            self._may.release()
            while len(self.seen) == before:
                await trio.sleep(0.001)
            await wait_all_tasks_blocked(0.002)

    def free(self) -> None:
        for _ in range(1000):
            self._may.release()


async def test_small_appends_wait_for_a_step_of_a_large_one_and_not_for_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as rig, trio.open_nursery() as nursery:
        for path in "ab":
            await rig.create(path)
        steps = Steps(monkeypatch)
        answered: list[str] = []

        async def append(path: str, data: bytes, name: str) -> None:
            await rig.append(path, data)
            answered.append(name)

        nursery.start_soon(append, "a", LARGE, "large")
        await wait_all_tasks_blocked()
        nursery.start_soon(append, "b", b"1", "first")
        await wait_all_tasks_blocked()
        await steps.go(2)
        assert answered == ["first"]
        nursery.start_soon(append, "b", b"2", "second")
        nursery.start_soon(append, "a", b"!", "behind the large one")
        await wait_all_tasks_blocked()
        await steps.go(2)
        assert answered == ["first", "second"]
        assert await rig.read("b") == b"12"
        assert await rig.read("a") == b"", "nothing of it is seen before all of it is"
        steps.free()
    # Four steps of three rows each (the last of one), and the commit.
    assert steps.seen == ["stage", "small", "stage", "small", "stage", "stage", "bulk", "bulk"]
    assert sorted(answered) == ["behind the large one", "first", "large", "second"]
    async with opened(tmp_path) as rig:
        assert await rig.read("a") == LARGE + b"!"
        assert await rig.spans("a") == [(0, 1000), (1000, 1001)]
    assert staged(tmp_path)[0] == 0


async def test_a_slow_disk_takes_smaller_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow(monkeypatch, row=100, step=400)
    async with opened(tmp_path) as rig:
        await rig.create("s")
        monkeypatch.setattr(committer, "_STEP_SECONDS", 0.0)
        steps = Steps(monkeypatch)
        steps.free()
        await rig.append("s", LARGE)
        assert steps.seen == ["stage"] * 6 + ["bulk"], "of 4, 2 and then 1 row"
        monkeypatch.setattr(committer, "_STEP_SECONDS", 60.0)
        del steps.seen[:]
        await rig.append("s", LARGE)
        assert steps.seen == ["stage"] * 4 + ["bulk"], "of 1, 2, 4 and 3 rows"
        assert await rig.read("s") == LARGE * 2


async def test_a_stream_keeps_its_order_whatever_lane_its_appends_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as rig:
        await rig.create("a")
        await rig.create("b")
        async with trio.open_nursery() as nursery:
            with disk_held(monkeypatch):
                nursery.start_soon(rig.append, "b", b"the disk is busy with this")
                await wait_all_tasks_blocked()
                for seq, data in enumerate((b"1", LARGE, b"2", LARGE, b"3")):
                    nursery.start_soon(rig.append, "a", data, "text/plain", ("p", 0, seq))
                    await wait_all_tasks_blocked()
                nursery.start_soon(rig.create, "fork", b"of b's stream")
        assert await rig.read("a") == b"1" + LARGE + b"2" + LARGE + b"3"
    assert not maintenance.check(tmp_path).problems


async def test_what_a_crash_leaves_staged_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path / "a") as rig, trio.open_nursery() as nursery:
        await rig.create("s", b"before")
        steps = Steps(monkeypatch)
        nursery.start_soon(rig.append, "s", LARGE)
        await wait_all_tasks_blocked()
        await steps.go(2)
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        steps.free()
    assert staged(tmp_path / "b") == (6, 6)
    assert not maintenance.check(tmp_path / "b").problems, "what is staged belongs there"
    async with opened(tmp_path / "b") as rig:
        assert await rig.read("s") == b"before"
        assert staged(tmp_path / "b") == (0, 0)
        await rig.append("s", LARGE)
        assert await rig.read("s") == b"before" + LARGE


@pytest.mark.parametrize("at", [1, 2, 4, 5])
async def test_a_disk_that_is_full_for_a_large_append_loses_nothing_else(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as rig:
        await rig.create("a", b"a")
        await rig.create("b", b"b")
        calls = [0]

        def failing(write: Any) -> Any:
            def step(self: Committer, batch: Any) -> None:
                calls[0] += 1
                if calls[0] == at:
                    self._db.execute("BEGIN IMMEDIATE")
                    raise full()
                write(self, batch)

            return step

        with monkeypatch.context() as patch:
            patch.setattr(Committer, "_write", failing(Committer._write))
            patch.setattr(Committer, "_stage", failing(Committer._stage))
            with pytest.raises(StorageFull):
                await rig.append("a", LARGE, producer=("p", 0, 0))
        assert await rig.read("a") == b"a"
        assert (await rig.append("b", b"!")).status == 204
        await rig.sweep()
        assert staged(tmp_path) == (0, 0), "what was staged of it is freed"
        assert (await rig.append("a", LARGE, producer=("p", 0, 0))).status == 200
        assert (await rig.append("a", LARGE, producer=("p", 0, 0))).status == 204
        assert await rig.read("a") == b"a" + LARGE
    assert not maintenance.check(tmp_path).problems


def test_a_bulk_batch_comes_after_the_light_one_with_earlier_changes() -> None:
    queues = Queues()
    both, large = Entry("both", None), Entry("large", None)
    queues.small.collects_garbage = True
    first = queues.next()
    queues.small.entries[both] = None
    both.batch = earlier = queues.small
    large.batch = Batch(bulk=True)
    later = queues.of([both, large], 0, False)
    assert later.bulk and later is not large.batch
    later.entries[both] = None
    assert first is not None
    queues.written(first)
    assert queues.next() is earlier
    queues.written(earlier)
    assert queues.next() is later


class Author:
    """Appends records exactly once to one stream after the other, some large, whatever fails."""

    def __init__(self, name: str, rig: Rig, rng: random.Random) -> None:
        self.name = name
        self.rig = rig
        self.rng = rng
        self.sent: dict[str, list[bytes]] = {}
        self.refused = 0

    async def run(self, paths: list[str], count: int) -> None:
        for _ in range(count):
            path = self.rng.choice(paths)
            mine = self.sent.setdefault(path, [])
            size = self.rng.choice([0, 0, 0, 0, 60, 400, 900])
            record = b"%s.%d%s;" % (self.name.encode(), len(mine), b"-" * size)
            first: list[int] = []
            async with trio.open_nursery() as nursery:
                for _ in range(self.rng.choice([1, 1, 1, 2, 3])):
                    nursery.start_soon(self._append, path, record, len(mine), first)
                    for _ in range(self.rng.choice([0, 5, 50])):
                        await trio.sleep(0)
            assert first.count(200) == 1, "one that was refused is no duplicate"
            mine.append(record)
            if self.rng.random() < 0.3:
                await trio.sleep(0)

    async def _append(self, path: str, record: bytes, seq: int, answers: list[int]) -> None:
        while True:
            try:
                answers.append((await self.rig.append(path, record, producer=(self.name, 0, seq))).status)
                return
            except ProtocolError as error:
                # A duplicate may rest on what is not durable yet, and then fails with it.
                assert error.status == 507, (error.status, error.code)
                self.refused += 1


@pytest.mark.parametrize("seed", range(8))
async def test_every_record_once_under_concurrency_and_full_disks(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    flaws = random.Random(seed + 1)  # the writer's thread has its own
    narrow(monkeypatch, row=100, step=250, small=2_000)
    monkeypatch.setattr(producers, "_GENERATION", 2)

    def failing(write: Any) -> Any:
        def step(self: Committer, batch: Any) -> None:
            if flaws.random() < 0.08:
                self._db.execute("BEGIN IMMEDIATE")
                raise full()
            write(self, batch)

        return step

    paths = ["a", "b", "c", "d"]
    async with opened(tmp_path, Time()) as rig:
        for path in paths:
            await rig.create(path)
        authors = [Author(f"p{number}", rig, random.Random(rng.random())) for number in range(10)]
        with monkeypatch.context() as patch:
            patch.setattr(Committer, "_write", failing(Committer._write))
            patch.setattr(Committer, "_stage", failing(Committer._stage))
            async with trio.open_nursery() as nursery:
                for author in authors:
                    nursery.start_soon(author.run, paths, 40)
        assert sum(author.refused for author in authors) > 10
        await rig.sweep()
        await hold_true(rig, paths, authors)
    assert staged(tmp_path)[0] == 0
    assert not maintenance.check(tmp_path).problems
    async with opened(tmp_path) as rig:
        await hold_true(rig, paths, authors)


async def hold_true(rig: Rig, paths: list[str], authors: list[Author]) -> None:
    """Every record is there once, each author's in order, and nothing else is."""
    for path in paths:
        found = [record + b";" for record in (await rig.read(path)).split(b";")[:-1]]
        for author in authors:
            mine = [record for record in found if record.startswith(author.name.encode() + b".")]
            assert mine == author.sent.get(path, [])
        assert len(found) == sum(len(author.sent.get(path, [])) for author in authors)
        assert [end - first for first, end in await rig.spans(path)] == [len(record) for record in found]
