"""Random commands mean the same to every store, in bursts that wait for the disk together, and over restarts."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ds_core.server.errors import ProtocolError
from ds_trio_server.store.memory import MemoryStore
from ds_trio_server.store.sqlite import engine
from ds_trio_server.store.sqlite.engine import SQLiteStore
from tests.store.rig import Rig, Soon, Time, narrow
from tests.store.test_sqlite import disk_held

PATHS = ["a", "b", "c", "d/e", "f"]
Command = Callable[[Rig], Any]


def _command(rng: random.Random) -> Command:
    """One change, the same for whichever store it is given to."""
    path, other = rng.choice(PATHS), rng.choice(PATHS)
    kind = rng.choice(["create", "create", "append", "append", "append", "append", "fork", "fork", "close", "delete"])
    body = rng.choice([b"", b"x", b"y" * 500, b"z" * 40_000, b"[1]", b"[1,[2],3]"])
    json = rng.random() < 0.4
    content_type = "application/json" if json else "text/plain"
    life = rng.choice([{}, {}, {}, {"stream_ttl": 8}])
    if kind == "create":
        return lambda rig: rig.create(path, b"[1,2,3]" if json else body, content_type, **life)
    if kind == "fork":
        at = rng.choice([None, None, None, 0, 0, 1, 2, 3, 6, 500, 501])
        skip = rng.choice([0, 0, 1, 2]) if at is not None else 0
        # The source's incarnation is guessed, as a client with an old offset would.
        guess = rng.randrange(1, 12) if at else 0
        headers = {"stream_fork_offset": f"{guess:016d}_{at:016d}"} if at is not None else {}
        return lambda rig: rig.fork(path, other, skip=skip, **headers, **life)
    if kind == "append":
        producer = rng.choice([None, (rng.choice("pq"), rng.randrange(2), rng.randrange(4))])
        seq = rng.choice([None, None, rng.choice("klmn")])
        close = "true" if rng.random() < 0.05 else None
        return lambda rig: rig.append(path, body, content_type, producer, stream_seq=seq, stream_closed=close)
    if kind == "close":
        return lambda rig: rig.close(path)
    return lambda rig: rig.delete(path)


async def _outcome(command: Command, rig: Rig) -> Any:
    try:
        response = await command(rig)
    except ProtocolError as error:
        return error.status, error.code, error.headers
    return response.status, response.headers, response.body


async def _state(rig: Rig) -> dict[str, Any]:
    """All that a client could find out."""
    seen: dict[str, Any] = {}
    for path in PATHS:
        head = await _outcome(lambda rig, path=path: rig.head(path), rig)  # type: ignore[misc]
        seen[path] = [head]
        if head[0] == 200:
            seen[path] += [await rig.read(path), await rig.spans(path)]
    seen["paths"] = await rig.store.paths()
    return seen


@pytest.mark.parametrize("seed", range(18))
async def test_both_stores_agree(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_CACHED_STREAMS", 2)
    if seed % 3 == 2:
        narrow(monkeypatch, row=9_000, step=20_000, small=1_000)
    rng = random.Random(seed)
    time = Time()
    plain = Rig(MemoryStore(time.clock()), time)
    clock = time.clock()
    # Half of the seeds by the doors that never wait.
    soon = Soon if seed % 2 else lambda store: store
    durable = Rig(soon(SQLiteStore(tmp_path, clock)), time)
    await durable.store.open()
    await plain.store.open()
    done = 0
    for _ in range(60):
        what = rng.random()
        if what < 0.08:
            await durable.store.close()
            durable = Rig(soon(SQLiteStore(tmp_path, clock)), time)
            await durable.store.open()
            await durable.store.verify()  # the first creation waits for it, and others would be decided before
        elif what < 0.16:
            time.tick += 20
            await plain.sweep()
            await durable.sweep()
        elif what < 0.24:
            path, start = rng.choice(PATHS), rng.choice([1, 2, 3, 500, 1000])
            try:
                starts = [first for first, _ in await plain.spans(path)]
            except ProtocolError:
                continue
            if start in starts:
                await plain.trim(path, start)
                await durable.trim(path, start)
        else:
            commands = [_command(rng) for _ in range(rng.choice([1, 1, 2, 5, 9]))]
            expected = [await _outcome(command, plain) for command in commands]
            found: list[Any] = [None] * len(commands)

            async def run(number: int, command: Command, found: list[Any] = found, rig: Rig = durable) -> None:
                found[number] = await _outcome(command, rig)

            forks = [number for number, command in enumerate(commands) if "other" in command.__code__.co_freevars]
            async with trio.open_nursery() as nursery:
                if forks:
                    # A fork looks at its source first, and waits for that: one after the other.
                    for number, command in enumerate(commands):
                        await run(number, command)
                else:
                    with disk_held(monkeypatch):
                        for number, command in enumerate(commands):
                            nursery.start_soon(run, number, command)
                            await wait_all_tasks_blocked()
            assert found == expected
            done += sum(outcome[0] < 300 for outcome in found)
        assert await _state(durable) == await _state(plain)
    await durable.store.close()
    assert done > 20
