"""How many producers a stream knows, for how long, and what one is told that is not known any more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ds_core.server.errors import ProtocolError
from ds_trio_server.store import base
from ds_trio_server.store.sqlite import engine, maintenance, producers
from tests.store.rig import Rig, Time, full, header, make_older
from tests.store.test_sqlite import opened

DAY = 86400


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MOST_PRODUCERS", 3)
    monkeypatch.setattr(producers, "_WALK_ROWS", 2)


async def refused(rig: Rig, path: str, producer: tuple[str, int, int], status: int) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        await rig.append(path, b"x", producer=producer)
    assert caught.value.status == status
    return caught.value


async def test_a_new_producer_beyond_the_bound_is_refused_and_those_that_are_known_go_on(rig: Rig) -> None:
    for path in ("a", "b"):
        await rig.create(path)
        for name in ("p", "q", "r"):
            assert (await rig.append(path, b"x", producer=(name, 0, 0))).status == 200
    error = await refused(rig, "a", ("s", 0, 0), 429)
    assert error.code == "TOO_MANY_PRODUCERS" and "90 days" in error.message
    assert (await rig.append("a", b"x", producer=("p", 0, 0))).status == 204, "a retry"
    assert (await rig.append("a", b"x", producer=("p", 0, 1))).status == 200
    assert (await rig.append("a", b"x", producer=("p", 1, 0))).status == 200, "an epoch is no other producer"
    assert (await rig.append("a", b"x")).status == 204
    await refused(rig, "a", ("s", 0, 5), 409)
    await rig.delete("a")
    await rig.create("a")
    assert (await rig.append("a", b"x", producer=("s", 0, 0))).status == 200, "another stream"


async def test_what_a_stream_knows_is_counted_after_a_restart_too(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        await rig.create("a")
        for name in ("p", "q"):
            await rig.append("a", b"x", producer=(name, 0, 0))
    async with opened(tmp_path) as rig:
        assert (await rig.append("a", b"x", producer=("r", 0, 0))).status == 200
        await refused(rig, "a", ("s", 0, 0), 429)
        await rig.delete("a")
        await rig.sweep()
    assert not maintenance.check(tmp_path).problems


async def days(rig: Rig, count: int) -> None:
    """Let days pass, with the sweeps of the last hours."""
    await rig.pass_time(count * DAY)
    for _ in range(10):
        await rig.pass_time(10)
        await rig.store.sweep()


async def test_a_producer_that_is_idle_for_long_is_forgotten_and_told_so(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        await rig.create("a")
        for name in ("p", "q", "r"):
            await rig.append("a", b"x", producer=(name, 0, 0))
        await days(rig, 60)
        assert (await rig.append("a", b"x", producer=("p", 0, 1))).status == 200
        await days(rig, 29)
        await refused(rig, "a", ("s", 0, 0), 429)
        await days(rig, 2)  # all of them are still in memory: that is taken for use, once
        await days(rig, 91)
        error = await refused(rig, "a", ("q", 0, 1), 409)
        assert {name.lower(): value for name, value in error.headers}["producer-expected-seq"] == "0"
        assert (await rig.append("a", b"x", producer=("p", 0, 1))).status == 204, "it was there meanwhile"
        assert (await rig.append("a", b"x", producer=("p", 0, 2))).status == 200
        assert (await rig.append("a", b"x", producer=("s", 0, 0))).status == 200, "there is room for another"
        assert (await rig.append("a", b"x", producer=("q", 0, 0))).status == 200, "and for one that begins anew"
        await refused(rig, "a", ("r", 0, 0), 429)
    assert not maintenance.check(tmp_path).problems


async def test_who_only_retries_is_not_forgotten(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        await rig.create("a")
        await rig.append("a", b"x", producer=("p", 0, 0))
        for _ in range(5):
            await days(rig, 80)
            assert (await rig.append("a", b"x", producer=("p", 0, 0))).status == 204
        await days(rig, 80)
        assert (await rig.append("a", b"x", producer=("p", 0, 1))).status == 200


async def test_who_appends_while_it_is_about_to_be_forgotten_is_not(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        await rig.create("a")
        await rig.append("a", b"x", producer=("p", 0, 0))
        store = rig.store
        await rig.pass_time(91 * DAY)
        list(store._producers.walk(store.now().steady))  # type: ignore[attr-defined]
        await rig.pass_time(DAY)
        statements = list(store._producers.walk(store.now().steady))  # type: ignore[attr-defined]
        assert len(statements) == 1
        assert (await rig.append("a", b"x", producer=("p", 0, 1))).status == 200
        store._decider.add(statements)  # type: ignore[attr-defined]
        assert (await rig.append("a", b"x", producer=("p", 0, 1))).status == 204
        assert (await rig.append("a", b"x", producer=("p", 0, 2))).status == 200
    async with opened(tmp_path) as rig:
        assert (await rig.append("a", b"x", producer=("p", 0, 2))).status == 204


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """What the clock reads that a store makes for itself from what the last one kept."""
    made = Time()
    monkeypatch.setattr(engine, "Clock", made.clock)
    return made


@asynccontextmanager
async def started(folder: Path, time: Time) -> AsyncIterator[Rig]:
    store = engine.SQLiteStore(folder)
    await store.open()
    try:
        yield Rig(store, time)
    finally:
        await store.close()


async def test_the_age_goes_on_behind_a_restart(tmp_path: Path, time: Time) -> None:
    async with started(tmp_path, time) as rig:
        await rig.create("a")
        await rig.append("a", b"x", producer=("p", 0, 0))
        await days(rig, 50)
    time.tick = 0
    async with started(tmp_path, time) as rig:
        await days(rig, 39)
    async with started(tmp_path, time) as rig:
        await days(rig, 2)
        await refused(rig, "a", ("p", 0, 1), 409)


async def test_producers_of_an_older_file_are_known_from_when_they_are_first_seen(tmp_path: Path, time: Time) -> None:
    async with started(tmp_path, time) as rig:
        await rig.create("a")
        for name in ("p", "q", "r"):
            await rig.append("a", b"x", producer=(name, 0, 0))
        await days(rig, 60)
    make_older(tmp_path, 4)
    async with started(tmp_path, time) as rig:
        await refused(rig, "a", ("s", 0, 0), 429)
        await days(rig, 1)
        await days(rig, 88)
        await refused(rig, "a", ("s", 0, 0), 429)
        await days(rig, 3)
        await refused(rig, "a", ("q", 0, 1), 409)


async def test_a_refused_batch_counts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as rig:
        await rig.create("a")
        write = rig.store._committer._write  # type: ignore[attr-defined]
        broken = [True]

        def failing(batch: object) -> None:
            if broken[0]:
                raise full()
            write(batch)

        monkeypatch.setattr(rig.store._committer, "_write", failing)  # type: ignore[attr-defined]
        for _ in range(5):
            await refused(rig, "a", ("p", 0, 0), 507)
        broken[0] = False
        for name in ("p", "q", "r"):
            assert (await rig.append("a", b"x", producer=(name, 0, 0))).status == 200
        await refused(rig, "a", ("s", 0, 0), 429)
        assert header(await rig.append("a", b"x", producer=("r", 0, 0)), "Producer-Seq") == "0"
