"""How a stream's bytes come out of the file: many small rows at once, each against its checksum."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from ds_trio_server.store.base import Damaged
from ds_trio_server.store.sqlite import schema
from tests.store.rig import Rig, Soon
from tests.store.test_sqlite import opened


def cold(rig: Rig) -> None:
    """Forget what is in memory: all of it comes from the file now."""
    for run in list(rig.store._tails._runs):  # type: ignore[attr-defined]
        rig.store._tails.forget(run)  # type: ignore[attr-defined]


async def filled(rig: Rig, sizes: list[int]) -> bytes:
    """A stream of appends of these sizes, of any bytes."""
    await rig.create("s")
    rng = random.Random(sum(sizes))
    whole = [rng.randbytes(size) for size in sizes]
    whole[-1] = b"\0" * sizes[-1]
    for data in whole:
        await rig.append("s", data)
    cold(rig)
    return b"".join(whole)


@pytest.mark.parametrize(
    "sizes",
    [
        [1] * 1500,
        [6] * 1023 + [7],
        [6] * 1024 + [7],
        [6] * 1025 + [7],
        [1, 2, 3, 899, 900, 901] * 60,
        [1] * 40 + [300_000] + [1] * 40,
        [4096] * 100,
        [300_000, 1] * 3,
        [20] * 17,
        [20] * 16,
    ],
    ids=lambda sizes: f"{len(sizes)} of {min(sizes)} to {max(sizes)}",
)
@pytest.mark.parametrize("waiting", [True, False])
async def test_any_range_of_any_appends_is_what_was_written(sizes: list[int], waiting: bool, tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        whole = await filled(rig, sizes)
        if not waiting:
            rig.store = Soon(rig.store)
        assert await rig.read("s") == whole
        rng = random.Random(1)
        for _ in range(60):
            start = rng.randrange(len(whole))
            end = rng.randint(start + 1, min(len(whole), start + rng.choice((1, 10, 500, 50_000, 1_000_000))))
            assert await rig.read("s", start, end) == whole[start:end], (start, end)


async def test_small_rows_come_in_few_slices(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        whole = await filled(rig, [1] * 1000)
        slices = await rig.store.read(await rig.stream("s"), 0, len(whole))
        assert b"".join(slices) == whole and len(slices) < 30


@pytest.mark.parametrize("at", [3, 100, 199])
@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE appends SET data = x'21' WHERE position = ?",
        "UPDATE appends SET sum = sum + 1 WHERE position = ?",
        "UPDATE appends SET data = NULL WHERE position = ?",
        "UPDATE appends SET data = x'2121' WHERE position = ?",
        "UPDATE appends SET data = x'' WHERE position = ?",
    ],
)
async def test_one_of_many_small_rows_that_is_damaged_is_found_and_named(at: int, harm: str, tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        await filled(rig, [1] * 200)
    db = sqlite3.connect(tmp_path / schema.FILE)
    db.execute(harm, (at,))
    db.commit()
    db.close()
    async with opened(tmp_path) as rig:
        with pytest.raises(Damaged, match=f"position {at} is damaged"):
            await rig.read("s")
        await rig.create("more")  # it goes on


async def test_a_row_that_is_missing_among_small_ones_is_damage(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        await filled(rig, [1] * 200)
    db = sqlite3.connect(tmp_path / schema.FILE)
    db.execute("DELETE FROM appends WHERE position = 100")
    db.commit()
    db.close()
    async with opened(tmp_path) as rig:
        with pytest.raises(Damaged, match="position 100 is damaged"):
            await rig.read("s")
        await rig.create("more")
