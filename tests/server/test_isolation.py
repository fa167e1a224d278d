"""One bad item stops nothing: whatever breaks inside of one connection, reader or sweep, everybody else goes on."""

from __future__ import annotations

import logging
import select
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ds_trio_server.http.exchange import Exchange
from ds_trio_server.http.transport import Transport
from ds_trio_server.live.subscribers import EventStream
from tests.server.site import ROOT, Events, Site, request, running

S = ROOT + "s"


def broken(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("a bug")


async def listen(site: Site) -> Events:
    client = await site.connect()
    await client.send(request("GET", S + "?offset=now&live=sse"))
    events = await client.events()
    await events.control()
    return events


@pytest.mark.parametrize("what", ["verify", "sweep"])
async def test_upkeep_that_fails_is_tried_again(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    calls = []

    async def fail(*_: Any) -> int:
        calls.append(trio.current_time())
        raise ZeroDivisionError("a bug")

    from ds_trio_server.store.memory import MemoryStore

    store = MemoryStore()
    monkeypatch.setattr(store, what, fail)
    async with running(store) as site:
        for _ in range(5):
            await wait_all_tasks_blocked(0.001)
            mock_clock.jump(1.1)
        await wait_all_tasks_blocked(0.001)
        assert (await site.ask("PUT", S)).status == 201
        assert len(calls) == (5 if what == "sweep" else 6)  # what looks at a start looks at once
    assert caplog.text.count("ZeroDivisionError: a bug") == 1, "said once, not every second"


async def test_a_reader_that_fails_is_the_only_one_that_notices(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as site:
        await site.create("s")
        first, bad, last = [await listen(site) for _ in range(3)]
        encode, seen = EventStream.encode, []

        def sometimes(self: EventStream, *args: Any) -> bytes | None:
            self.key = None
            seen.append(self)
            return broken() if len(seen) == 2 else encode(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(EventStream, "encode", sometimes)
            await site.append("s", b"one")
            assert await first.data() == b"one" and await last.data() == b"one"
        assert await bad.data() == b"one", "it finds its own way"
        assert "a bug" in caplog.text


async def test_a_sign_of_life_that_fails_ends_nothing(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(sse_max=600) as site:
        await site.create("s")
        events = await listen(site)
        with monkeypatch.context() as patch:
            patch.setattr(EventStream, "sign_of_life", property(broken))
            for _ in range(4):
                mock_clock.jump(6)
                await wait_all_tasks_blocked(0.001)
        await site.append("s", b"one")
        assert await events.data() == b"one"
        assert caplog.text.count("a bug") >= 1


@pytest.mark.parametrize("method", ["receive_nowait", "send_nowait", "receive", "send_all", "close"])
async def test_a_connection_that_breaks_is_the_only_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    caplog.set_level(logging.CRITICAL, "ds")
    async with running() as site:
        await site.create("s")
        other = await site.connect()
        assert (await other.ask("GET", S)).status == 200
        with monkeypatch.context() as patch:
            patch.setattr(Transport, method, broken)
            bad = await site.connect()
            verb = "HEAD" if method in ("receive", "send_all", "close") else "GET"
            await bad.send(request(verb, S, connection="close"))
            await wait_all_tasks_blocked(0.01)
        assert (await other.ask("GET", S)).status == 200
        assert (await site.ask("POST", S, b"x", content_type="text/plain")).status == 204


async def test_an_answer_that_cannot_be_written_ends_its_connection_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as site:
        await site.create("s")
        with monkeypatch.context() as patch:
            patch.setattr(Exchange, "encode", broken)
            for method in ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS"):
                client = await site.connect()
                await client.send(request(method, ROOT + "x", b"" if method in ("PUT", "POST") else None))
                await client.ended()
        assert (await site.ask("GET", S)).status == 200


async def test_connections_that_find_no_room_in_the_poll_set_are_served_by_tasks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not hasattr(select, "epoll"):
        pytest.skip("this system has no epoll")
    async with running() as site:
        idle = site.server._idle
        assert idle is not None

        class Full:
            def register(self, *_: object) -> None:
                raise OSError(28, "No space left on device")

            def __getattr__(self, name: str) -> Any:
                return getattr(epoll, name)

        epoll = idle._epoll
        monkeypatch.setattr(idle, "_epoll", Full())
        await site.create("s")
        client = await site.connect()
        for _ in range(3):
            assert (await client.ask("POST", S, b"x", content_type="text/plain")).status == 204
        assert (await client.ask("GET", S)).body == b"xxx"
