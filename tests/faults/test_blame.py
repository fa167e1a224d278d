"""A batch that meets damage: whoever is to blame is found, whatever the mix of changes and wherever the damage is."""

from __future__ import annotations

import os
import random
import shutil

import pytest
import trio

from ds_core.server.errors import ProtocolError
from ds_trio_server.store.base import Damaged, StorageFailed
from ds_trio_server.store.sqlite import blame, maintenance
from ds_trio_server.store.sqlite.committer import Committer

from . import pages
from .stores import opened
from .streams import append, delete, put, read

STREAMS = [f"s{n:02}" for n in range(60)]
TRIALS = int(os.environ.get("TRIALS", "120"))


async def made(folder):
    store = await opened(folder)
    rng = random.Random(5)
    for path in STREAMS:
        await put(store, path)
    for _ in range(10):
        for path in STREAMS:
            await append(store, path, rng.randbytes(rng.choice((1, 10, 100, 899, 901, 3000))))
    await put(store, "fork", stream_forked_from="s00")
    await store.close()


async def all_at_once(store, rng, number):
    """A mix of changes of all streams in a few batches; what was acknowledged."""
    kept = {}

    async def one(path):
        body = rng.randbytes(rng.choice((1, 50, 950)))
        by = {"producer_id": f"p{number}", "producer_epoch": "0", "producer_seq": "0"} if path[-1] in "37" else {}
        try:
            await append(store, path, body, **by)
            kept[path] = body
        except ProtocolError as error:
            assert isinstance(error, Damaged) or (path > "s49" and error.status == 404), error

    async def other(step, *args):
        try:
            await step(store, *args)
        except ProtocolError as error:
            assert isinstance(error, Damaged), error

    async with trio.open_nursery() as nursery:
        for path in STREAMS:
            nursery.start_soon(one, path)
        nursery.start_soon(other, put, f"new{number}", b"n" * 200)
        nursery.start_soon(other, delete, f"s{50 + number}")
    kept.pop(f"s{50 + number}", None)
    return kept


async def test_no_damaged_page_of_appends_ends_the_store(tmp_path):
    await made(tmp_path / "whole")
    leaves = pages.leaves(tmp_path / "whole", "appends")
    assert len(leaves) > 20
    refused = trials = 0
    for seed in range(TRIALS):
        rng = random.Random(seed)
        folder = tmp_path / "harmed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "whole", folder)
        kind = pages.harm(folder, rng.choice(leaves[:-1]), rng)
        store = await opened(folder)
        kept = {}
        for number in range(3):
            for path, body in (await all_at_once(store, rng, number)).items():
                kept.setdefault(path, []).append(body)
            await store.sweep()
        assert store._health.failure is None, (seed, kind)
        for path in STREAMS[:50]:
            try:
                found = await read(store, path)
            except Damaged:
                continue
            assert found.endswith(b"".join(kept.get(path, []))), (seed, kind, path)
        refused += bool(store.upkeep.damage)
        trials += 1
        await store.close()
    assert trials == TRIALS and refused > TRIALS // 3, "and most of them were met"


def unexplained(monkeypatch, times, least=1):
    """Batches meet damage that no rehearsal meets."""
    write = Committer._write
    met = []

    def failing(self, batch):
        if len(batch.appends) >= least and len(met) < times:
            met.append(batch)
            raise Damaged("what nobody finds", "what nobody finds is damaged")
        write(self, batch)

    monkeypatch.setattr(Committer, "_write", failing)
    return met


async def test_what_nobody_meets_again_is_written_again(tmp_path, monkeypatch):
    """SQLite takes some pages that it could not read for damaged ones."""
    store = await opened(tmp_path)
    await put(store, "a")
    met = unexplained(monkeypatch, 1)
    await append(store, "a", b"x")
    assert len(met) == 1 and await read(store, "a") == b"x"
    unexplained(monkeypatch, 2)
    with pytest.raises(StorageFailed, match="ds check"):
        await append(store, "a", b"y")
    await store.close()
    assert not maintenance.check(tmp_path).problems


async def test_what_meets_damage_only_alone_is_found_alone(tmp_path, monkeypatch):
    store = await opened(tmp_path)
    for path in ("a", "b", "c"):
        await put(store, path)
    met = unexplained(monkeypatch, 1, least=2)
    first = blame._first
    culprit = []

    def only_alone(db, items, is_damage):
        items = list(items)
        owners = {owner.stream for _, owner in items}
        if len(owners) > 1:
            culprit[:] = culprit or [max(owners)]
            return first(db, items, is_damage)
        return items[0][1] if owners == set(culprit) else None

    monkeypatch.setattr(blame, "_first", only_alone)
    answers = {}

    async def one(path):
        try:
            await append(store, path, b"x")
            answers[path] = True
        except Damaged:
            answers[path] = False

    async with trio.open_nursery() as nursery:
        for path in ("a", "b", "c"):
            nursery.start_soon(one, path)
    assert len(met) == 1 and len(culprit) == 1
    assert answers == {path: n + 1 not in culprit for n, path in enumerate(("a", "b", "c"))}
    await store.close()
