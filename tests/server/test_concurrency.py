"""Under concurrent appends: what is acknowledged is seen by everyone, and every reader gets every byte once."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
import trio

from ds_trio_server.store.base import Store
from ds_trio_server.store.memory import MemoryStore
from ds_trio_server.store.sqlite.engine import SQLiteStore
from tests.server.site import ROOT, Site, running

S = ROOT + "s"
WRITERS = 6
APPENDS = 60
START = "0" * 16 + "_" + "0" * 16


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path)


async def _write(site: Site, number: int, forks: dict[str, int]) -> None:
    """Append, and after every answer look from elsewhere for what was acknowledged; now and then fork there."""
    rng = random.Random(number)
    writer, reader = await site.connect(), await site.connect()
    for count in range(APPENDS):
        # Now and then more than a live reader is sent in one frame.
        body = b"%d.%d;" % (number, count) + b"-" * (70_000 if count % 20 == 19 else rng.randrange(60)) + b"\n"
        answer = await writer.ask("POST", S, body, content_type="text/plain")
        assert answer.status == 204
        if rng.random() < 0.5:
            head = await reader.ask("HEAD", S)
            assert head.offset >= answer.offset
        else:
            incarnation, _, end = answer.offset.partition("_")
            at = f"{incarnation}_{int(end) - len(body):016}"
            live = rng.choice(["", "&live=long-poll"])
            found = await reader.ask("GET", f"{S}?offset={at}&max-bytes={len(body)}{live}")
            assert (found.status, found.body, found.offset) == (200, body, answer.offset)
        if rng.random() < 0.1:
            path = f"{number}-{count}"
            forked = {"stream_forked_from": S, "stream_fork_offset": answer.offset}
            fork = await reader.ask("PUT", ROOT + path, b"", **forked)
            assert (fork.status, fork.offset) == (201, answer.offset)
            forks[path] = int(answer.offset[17:])
        if rng.random() < 0.3:
            await trio.sleep(rng.random() / 100)


async def _catch_up(site: Site, rng: random.Random) -> bytes:
    client = await site.connect()
    found, at = b"", START
    while True:
        limit = rng.choice(["", "", f"&max-bytes={rng.randrange(1, 5000)}"])
        answer = await client.ask("GET", f"{S}?offset={at}{limit}")
        assert answer.status == 200 and int(answer.offset[17:]) == int(at[17:]) + len(answer.body)
        found, at = found + answer.body, answer.offset
        if answer.header("stream-closed"):
            return found
        if answer.header("stream-up-to-date"):
            await trio.sleep(rng.random() / 100)


async def _poll(site: Site, rng: random.Random) -> bytes:
    client = await site.connect()
    found, at = b"", START
    while True:
        answer = await client.ask("GET", f"{S}?offset={at}&live=long-poll{rng.choice(['', '&max-bytes=300'])}")
        assert answer.status in (200, 204) and int(answer.offset[17:]) == int(at[17:]) + len(answer.body)
        found, at = found + answer.body, answer.offset
        if answer.header("stream-closed"):
            return found
        if rng.random() < 0.1:
            client.close()
            client = await site.connect()


async def _listen(site: Site, rng: random.Random) -> bytes:
    """Server-sent events, left and resumed again and again, in the middle of a batch too."""
    found, at = b"", START
    while True:
        client = await site.connect()
        await client.send(f"GET {S}?offset={at}&live=sse HTTP/1.1\r\nHost: test\r\n\r\n")
        events = await client.events()
        batch = b""
        for _ in range(rng.randrange(1, 40)):
            event = await events.next()
            assert event is not None
            name, data = event
            if name == "data":
                assert batch == b""
                batch = data
                continue
            control = json.loads(data)
            assert int(control["streamNextOffset"][17:]) == int(at[17:]) + len(batch)
            found, at, batch = found + batch, control["streamNextOffset"], b""
            if control.get("streamClosed"):
                await events.finished()
                return found
        client.close()


@pytest.mark.parametrize("seed", range(2))
async def test_everyone_sees_every_byte_once_and_at_once(store: Store, seed: int) -> None:
    async with running(store, long_poll_timeout=0.02, chunk=1 << 22) as site:
        await site.create("s")
        read: list[bytes] = []
        forks: dict[str, int] = {}
        with trio.fail_after(60):
            async with trio.open_nursery() as readers:

                async def follow(kind: object, number: int) -> None:
                    rng = random.Random(f"{seed} {number}")
                    await trio.sleep(rng.random() / 2)
                    read.append(await kind(site, rng))  # type: ignore[operator]

                for number in range(12):
                    readers.start_soon(follow, (_catch_up, _poll, _listen)[number % 3], number)
                async with trio.open_nursery() as writers:
                    for number in range(WRITERS):
                        writers.start_soon(_write, site, 10 * seed + number, forks)
                await site.append("s", b"the end\n", stream_closed="true")
        assert len(read) == 12 and len(set(read)) == 1
        for path, end in forks.items():
            assert (await site.ask("GET", ROOT + path)).body == read[0][:end]
        lines = [line.split(b";")[0].split(b".") for line in read[0].splitlines()]
        assert lines.pop() == [b"the end"]
        order = [(int(number), int(count)) for number, count in lines]
        assert Counter(number for number, _ in order) == {10 * seed + n: APPENDS for n in range(WRITERS)}
        for number in range(10 * seed, 10 * seed + WRITERS):
            assert [count for other, count in order if other == number] == list(range(APPENDS))
