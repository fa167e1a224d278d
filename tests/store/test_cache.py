"""States in memory: bounded beside what is in use, whatever that is, and at the same price however much it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from ds_trio_server.store.sqlite import engine
from tests.store.rig import Rig, Watch
from tests.store.test_sqlite import opened

BOUND = 10


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_CACHED_STREAMS", BOUND)


def held(rig: Rig) -> int:
    return len(rig.store._cache)  # type: ignore[attr-defined]


async def make(rig: Rig, prefix: str, count: int) -> list[str]:
    paths = [f"{prefix}{n}" for n in range(count)]
    for path in paths:
        await rig.create(path, b"x")
    return paths


async def test_idle_streams_take_no_more_than_the_bound(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        for path in await make(rig, "s", 50):
            assert await rig.read(path) == b"x"
            assert held(rig) <= BOUND + 1
        assert len({id(await rig.stream("s49")) for _ in range(3)}) == 1, "one that was used lately is found again"


async def test_watched_streams_stay_and_take_no_place_of_others(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        watched = [await rig.stream(path) for path in await make(rig, "w", 50)]
        watches = []
        for found in watched:
            watches.append(Watch(rig, await rig.stream(found.path)))
        idle = await make(rig, "i", 50)
        assert held(rig) <= 50 + BOUND + 1
        states = {path: id(await rig.stream(path)) for path in idle[-5:]}
        assert {path: id(await rig.stream(path)) for path in idle[-5:]} == states, "idle ones are still cached"
        for watch in watches:
            await rig.append(watch.found.path, b"y")
            assert watch.bytes() == b"y"
        for watch in watches:
            rig.store.unwatch(watch.found, watch)
        await make(rig, "z", BOUND + 1)
        assert held(rig) <= BOUND + 1, "they are as idle as others when nobody watches them any more"


async def test_a_miss_costs_the_same_however_many_are_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as rig:
        paths = await make(rig, "s", 300)
        store = rig.store
        asked = [0]
        watched = store._cache._watched  # type: ignore[attr-defined]

        def counting(stream: object) -> bool:
            asked[0] += 1
            return bool(watched(stream))

        monkeypatch.setattr(store._cache, "_watched", counting)  # type: ignore[attr-defined]
        watches = [Watch(rig, await rig.stream(path)) for path in paths[:200]]
        costs = []
        for _ in range(3):
            before = asked[0]
            for path in paths[200:]:
                await rig.stream(path)
            costs.append(asked[0] - before)
        assert max(costs[1:]) <= 100, "a miss looks at the one that it drops"
        assert len(watches) == 200


async def test_a_stream_with_a_change_under_way_stays_until_that_is_durable(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        await rig.create("a")
        for n in range(20):
            await rig.append("a", b"%d" % n)
            await make(rig, f"{n}-", BOUND + 5)
        assert await rig.read("a") == b"".join(b"%d" % n for n in range(20))
