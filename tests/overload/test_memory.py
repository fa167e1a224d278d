"""What slow clients make the server hold, and what it does when the disk is the slow one: all of it is bounded."""

from __future__ import annotations

import contextlib
import gc
import json
import random
import socket
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ds_trio_server.reads import reading
from ds_trio_server.store.memory import MemoryStore
from ds_trio_server.store.sqlite import queues
from ds_trio_server.store.sqlite.engine import SQLiteStore
from tests.server.site import ROOT, Client, Site, request, running, small_send_buffers
from tests.server.test_idle import Gate, until

S = ROOT + "s"


@pytest.fixture
async def cramped(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """A server whose sockets hold next to nothing, with half a megabyte to read."""
    small_send_buffers(monkeypatch)
    async with running(MemoryStore()) as site:
        messages = [b'"%05d%s"' % (number, b"m" * 93) for number in range(5_000)]
        await site.create("s", "application/json", b"[" + b",".join(messages) + b"]")
        yield site


async def _slow(site: Site) -> Client:
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    await sock.connect(("127.0.0.1", site.port))
    client = Client(trio.SocketStream(sock))
    site._clients.append(client)
    return client


@pytest.mark.parametrize("query", ["", "?offset=-1&live=sse"])
async def test_many_slow_readers_hold_a_little_each(
    cramped: Site, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    monkeypatch.setattr(reading, "_AMPLE", 1 << 19)
    clients = []
    for _ in range(25):
        client = await _slow(cramped)
        await client.send(request("GET", S + query))
        clients.append(client)
        await wait_all_tasks_blocked(0.001)
    held = cramped.server.app.reading._held
    assert 1 << 19 <= held < (1 << 19) + reading.WINDOW + 25 * reading._NARROW
    # What they get is right nevertheless, whether it began when there was room or not.
    for client in (clients[0], clients[-1]):
        if query:
            events = await client.events()
            found: list[str] = []
            while len(found) < 5_000:
                name, data = await events.next() or ("", b"")
                if name == "data":
                    found += json.loads(data)
        else:
            found = json.loads((await client.answer()).body)
        assert [int(message[:5]) for message in found] == list(range(5_000))
    cramped.disconnect()
    await until(lambda: cramped.server.app.reading._held == 0)


@contextlib.asynccontextmanager
async def _stuck(folder: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> AsyncIterator[tuple[Site, Gate]]:
    monkeypatch.setattr(queues, "_WAITING_BYTES", room)
    async with running(SQLiteStore(folder / "data")) as site:
        await site.create("s")
        gate = Gate(site)
        try:
            yield site, gate
        finally:
            gate.open()


async def test_when_the_disk_cannot_keep_up_appends_are_503_and_reads_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _stuck(tmp_path, monkeypatch, 50_000) as (site, gate):
        body = b"x" * 10_000
        clients = [await site.connect() for _ in range(40)]

        def append(number: int) -> bytes:
            producer: dict[str, Any] = {"producer_id": f"p{number}", "producer_epoch": 0, "producer_seq": 0}
            return request("POST", S, body, content_type="text/plain", **producer)

        for number, client in enumerate(clients):
            await client.send(append(number))
        await wait_all_tasks_blocked(0.05)
        # The batch that is being written, and one that waits, which takes what is begun.
        waiting = sum(batch.size for batch in (*gate.held, gate.store._queues.small))
        assert waiting < 50_000 + 3 * 11_000
        assert (await site.ask("GET", S)).status == 200
        create = await site.ask("PUT", ROOT + "other", body, content_type="text/plain")
        assert (create.status, create.code, create.header("retry-after")) == (503, "OVERLOADED", "1")
        refused = []
        for number, client in enumerate(clients):
            with trio.move_on_after(0.02):
                answer = await client.answer()
                assert (answer.status, answer.code, answer.header("retry-after")) == (503, "OVERLOADED", "1")
                assert answer.header("connection") is None
                refused.append(number)
        assert 30 <= len(refused) < 40
        gate.open()
        for number, client in enumerate(clients):
            if number in refused:
                await client.send(append(number))
            status = (await client.answer()).status
            assert status == 200
        for number, client in enumerate(clients):
            await client.send(append(number))
            assert (await client.answer()).status == 204, "and each of them is there once"
        assert (await site.ask("HEAD", S)).offset.endswith(f"_{40 * 10_000:016}")


@pytest.mark.parametrize("size", [400, 600, 15_000])
async def test_what_strangers_ask_for_is_not_kept(size: int) -> None:
    """Targets, each another one, with as many parameters as fit: what is remembered of them is little."""
    names = [f"{number:x}" for number in range(size)]
    query = "&".join(names)[:size]
    async with running(MemoryStore()) as site:
        client = await site.connect()

        async def ask(count: int) -> None:
            for number in range(count):
                assert (await client.ask("GET", f"{ROOT}{number}?{query}")).status == 404

        await ask(3)
        gc.collect()
        tracemalloc.start()
        try:
            await ask(600)
            gc.collect()
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert kept < 8 << 20


@pytest.mark.parametrize("coding", [None, "gzip"])
async def test_readers_that_wait_for_their_next_window_hold_nothing_of_the_last(
    monkeypatch: pytest.MonkeyPatch, coding: str | None
) -> None:
    """Their sockets have taken all of it: what they hold then is in nobody's count."""
    monkeypatch.setattr(reading, "_AMPLE", 1 << 20)
    monkeypatch.setattr(reading, "_COMPRESSORS", 5)
    async with running(MemoryStore()) as site:
        body = random.Random(1).randbytes(1 << 20)
        await site.create("s", "application/octet-stream")
        for _ in range(12):
            await site.append("s", body, "application/octet-stream")
        clients = [await _slow(site) for _ in range(80)]
        gc.collect()
        tracemalloc.start()
        try:
            for client in clients:
                await client.send(request("GET", S, accept_encoding=coding))
            most = 0
            for _ in range(150):
                await trio.sleep(0.01)
                most = max(most, tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
        assert site.server.app.reading._compressing == (5 if coding else 0)
        assert most < 8 << 20
        site.disconnect()
        await until(lambda: site.server.app.reading._compressing == 0)
