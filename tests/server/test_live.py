"""Long-poll and server-sent events: every reader gets every byte once, and every wait ends."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ds_trio_server.clock import BUILT, Clock
from ds_trio_server.store.base import Store
from ds_trio_server.store.memory import MemoryStore
from ds_trio_server.store.sqlite.engine import SQLiteStore
from tests.server.site import ROOT, Answer, Client, Events, Site, request, running

S = ROOT + "s"
WALL = BUILT + 86400.0
CURSOR = str(int(WALL - 1728432000) // 20)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path)


@pytest.fixture
async def site() -> Any:
    """A server whose wall clock stands still, so that cursors are known."""
    async with running(MemoryStore(Clock(0.0, WALL, lambda: 0.0, lambda: WALL))) as site:
        yield site


async def settled() -> None:
    await wait_all_tasks_blocked(0.002)


async def waiting(site: Site, count: int) -> None:
    """Return when that many readers are asleep at the tail."""
    while site.server.app.fanout.count() != count:
        await trio.sleep(0)


async def poll(site: Site, query: str = "offset=now", **headers: Any) -> Client:
    """A long-poll that waits."""
    client = await site.connect()
    before = site.server.app.fanout.count()
    await client.send(request("GET", f"{S}?{query}&live=long-poll", **headers))
    await waiting(site, before + 1)
    return client


async def listen(site: Site, query: str = "offset=-1", **headers: Any) -> Events:
    client = await site.connect()
    await client.send(request("GET", f"{S}?{query}&live=sse", **headers))
    return await client.events()


# Long-poll


async def test_a_long_poll_gets_what_is_there_at_once(site: Site) -> None:
    await site.create("s", body=b"abc")
    answer = await site.ask("GET", S + "?offset=-1&live=long-poll")
    assert (answer.status, answer.body) == (200, b"abc")
    assert answer.header("stream-up-to-date") == "true" and answer.header("stream-cursor") == CURSOR
    assert answer.header("etag") and answer.header("content-type") == "text/plain"


@pytest.mark.parametrize("query", ["offset=now", "offset=-1"])
async def test_a_long_poll_waits_for_data(store: Store, query: str) -> None:
    async with running(store) as site:
        await site.create("s")
        client = await poll(site, query)
        at = (await site.append("s", b"abc")).offset
        answer = await client.answer()
        assert (answer.status, answer.body, answer.offset) == (200, b"abc", at)
        assert answer.header("stream-up-to-date") == "true" and answer.header("stream-cursor")
        assert answer.header("connection") is None
        assert (await client.ask("GET", f"{S}?offset=-1")).body == b"abc"


async def test_a_long_poll_ends_without_data(mock_clock: MockClock) -> None:
    async with running(long_poll_timeout=30) as site:
        at = (await site.create("s", body=b"abc")).offset
        client = await poll(site)
        mock_clock.jump(29)
        await settled()
        assert client.buffer == b""
        mock_clock.jump(2)
        answer = await client.answer()
        assert (answer.status, answer.offset) == (204, at)
        assert answer.header("stream-up-to-date") == "true" and answer.header("stream-cursor")
        assert answer.header("cache-control") == "no-store"
        assert (await client.ask("GET", S)).body == b"abc"


@pytest.mark.parametrize("last", [b"", b"bye"])
async def test_a_long_poll_sees_the_end(store: Store, last: bytes) -> None:
    async with running(store) as site:
        await site.create("s", body=b"abc")
        client = await poll(site)
        closed = await site.ask("POST", S, last, content_type="text/plain", stream_closed="true")
        answer = await client.answer()
        assert (answer.status, answer.body) == ((200, last) if last else (204, b""))
        assert answer.header("stream-closed") == "true" and answer.offset == closed.offset
        again = await client.ask("GET", f"{S}?offset={closed.offset}&live=long-poll")
        assert again.status == 204 and again.header("stream-closed") == "true"


async def test_a_long_poll_hears_of_a_deletion(store: Store) -> None:
    async with running(store) as site:
        await site.create("s", body=b"abc")
        client = await poll(site)
        await site.ask("DELETE", S)
        answer = await client.answer()
        assert (answer.status, answer.code) == (404, "STREAM_NOT_FOUND")


async def test_a_long_poll_never_sees_a_successor(store: Store) -> None:
    async with running(store) as site:
        await site.create("s", body=b"abc")
        client = await poll(site)
        both = await site.connect()
        await both.send(request("DELETE", S) + request("PUT", S, b"another", content_type="text/plain"))
        assert [(await both.answer()).status, (await both.answer()).status] == [204, 201]
        answer = await client.answer()
        assert answer.status in (404, 410)


async def test_a_reader_that_left_costs_nothing(site: Site) -> None:
    await site.create("s")
    leaver, stayer = await poll(site), await poll(site)
    leaver.close()
    await waiting(site, 1)
    await site.append("s", b"abc")
    assert (await stayer.answer()).body == b"abc"
    await waiting(site, 0)


async def test_requests_pipelined_behind_a_long_poll_wait_their_turn(store: Store) -> None:
    async with running(store) as site:
        await site.create("s")
        client = await poll(site)
        following = request("GET", S) + request("HEAD", S)
        for at in range(0, len(following), 5):
            await client.send(following[at : at + 5])
            await settled()
        assert client.buffer == b""
        await site.append("s", b"abc")
        assert (await client.answer()).body == b"abc"
        assert (await client.answer()).body == b"abc"
        assert (await client.answer("HEAD")).status == 200


async def test_a_flood_behind_a_long_poll_ends_it(site: Site) -> None:
    await site.create("s")
    client = await poll(site)
    following = request("GET", S) * 2000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, following)
        assert (await client.answer()).status == 204
        for _ in range(2000):
            assert (await client.answer()).status == 200


async def test_data_and_noise_at_the_same_moment(site: Site) -> None:
    # Both wake the reader's task: neither may be lost.
    await site.create("s")
    for number in range(30):
        client, writer = await poll(site), await site.connect()
        size = 100 if number % 2 else 100_000
        await writer.send(request("POST", S, b"x" * size, content_type="text/plain"))
        await client.send(request("HEAD", S))
        assert len((await client.answer()).body) == size
        assert (await client.answer("HEAD")).status == 200
        client.close()
        writer.close()
        await waiting(site, 0)


async def test_a_live_answer_respects_max_bytes(store: Store) -> None:
    async with running(store) as site:
        await site.create("s", "application/json")
        client = await poll(site, "offset=-1&max-bytes=6")
        await site.append("s", b'["aa","bb","cc"]', "application/json")
        answer = await client.answer()
        assert answer.body == b'["aa"]' and answer.header("stream-up-to-date") is None
        answer = await client.ask("GET", f"{S}?offset={answer.offset}&live=long-poll&max-bytes=6")
        assert answer.body == b'["bb"]'


async def test_a_live_answer_respects_the_chunk_size(store: Store) -> None:
    async with running(store, chunk=1000) as site:
        await site.create("s")
        client = await poll(site)
        await site.append("s", b"x" * 2500)
        answer = await client.answer()
        assert len(answer.body) == 1000 and answer.header("stream-up-to-date") is None


async def test_a_long_poll_gets_all_of_a_large_append(store: Store) -> None:
    """What is too long to be encoded for all that wait is read by each, in windows."""
    async with running(store, max_body=1 << 23) as site:
        await site.create("s")
        clients = [await poll(site) for _ in range(3)]
        body = bytes(range(256)) * (5 << 12)
        await site.append("s", body)
        for client in clients:
            answer = await client.answer()
            assert answer.body == body and answer.header("stream-up-to-date") == "true"


async def test_cursors(site: Site) -> None:
    await site.create("s", body=b"abc")
    for given, expected in (("", CURSOR), ("5", CURSOR), ("nonsense", CURSOR), (str(int(CURSOR) - 1), CURSOR)):
        answer = await site.ask("GET", f"{S}?offset=-1&live=long-poll&cursor={given}")
        assert answer.header("stream-cursor") == expected
    for given in (CURSOR, str(int(CURSOR) + 100)):
        waiter = await poll(site, f"offset=now&cursor={given}")
        await site.append("s", b"!")
        for answer in (await waiter.answer(), await site.ask("GET", f"{S}?offset=-1&live=long-poll&cursor={given}")):
            assert int(given) < int(str(answer.header("stream-cursor"))) <= int(given) + 180


async def test_cursors_of_one_event_stream_never_go_back(site: Site) -> None:
    await site.create("s", body=b"abc")
    for given in ("5", CURSOR, str(int(CURSOR) + 1000)):
        events = await listen(site, f"offset=now&cursor={given}")
        cursors = [(await events.control())["streamCursor"]]
        for _ in range(8):
            await site.append("s", b"!")
            await events.data()
            cursors.append((await events.control())["streamCursor"])
        assert cursors == sorted(cursors, key=int) and int(cursors[0]) > int(given)
        assert int(cursors[-1]) <= max(int(given) + 180, int(CURSOR))


async def test_a_long_poll_says_what_it_varies_with_whenever_it_is_answered(site: Site) -> None:
    body = b"x" * 2000
    await site.create("s")
    waiter = await poll(site)
    await site.append("s", body)
    woken, there = await waiter.answer(), await site.ask("GET", f"{S}?offset=-1&live=long-poll")
    assert woken.body == there.body == body
    assert woken.header("vary") == there.header("vary") == "Accept-Encoding"


async def test_readers_with_different_cursors_get_the_same_data(site: Site) -> None:
    await site.create("s")
    clients = [await poll(site, f"offset=now&cursor={CURSOR}") for _ in range(3)]
    clients += [await poll(site) for _ in range(3)]
    await site.append("s", b"abc")
    answers = [await client.answer() for client in clients]
    assert {answer.body for answer in answers} == {b"abc"}
    assert all(int(str(answer.header("stream-cursor"))) > int(CURSOR) for answer in answers[:3])
    assert {answer.header("stream-cursor") for answer in answers[3:]} == {CURSOR}


async def test_readers_on_closing_connections_are_told(site: Site) -> None:
    await site.create("s")
    keeping, closing = await poll(site), await poll(site, connection="close")
    await site.append("s", b"abc")
    assert (await keeping.answer()).header("connection") is None
    answer = await closing.answer()
    assert answer.header("connection") == "close" and answer.body == b"abc"
    await closing.ended()


# Server-sent events


async def test_sse_catches_up_and_goes_on_live(store: Store) -> None:
    async with running(store) as site:
        at = (await site.create("s", body=b"one")).offset
        events = await listen(site)
        assert await events.data() == b"one"
        control = await events.control()
        assert control["streamNextOffset"] == at and control["upToDate"] is True and control["streamCursor"]
        for data in (b"two", b"three", b"x" * 100_000, b"four"):
            at = (await site.append("s", data)).offset
            assert await events.data() == data
            control = await events.control()
            assert control["streamNextOffset"] == at and control["upToDate"] is True


async def test_sse_at_the_tail_begins_with_a_control_event(site: Site) -> None:
    at = (await site.create("s", body=b"one")).offset
    events = await listen(site, "offset=now")
    assert await events.control() == {"streamNextOffset": at, "streamCursor": CURSOR, "upToDate": True}


@pytest.mark.parametrize("last", [b"", b"bye"])
async def test_sse_ends_with_its_stream(store: Store, last: bytes) -> None:
    async with running(store) as site:
        await site.create("s", body=b"one")
        events = await listen(site, "offset=now")
        await events.control()
        at = (await site.ask("POST", S, last, content_type="text/plain", stream_closed="true")).offset
        if last:
            assert await events.data() == last
        assert await events.control() == {"streamNextOffset": at, "upToDate": True, "streamClosed": True}
        await events.finished()
        await events.client.ended()
        late = await listen(site, "offset=" + at)
        assert (await late.control())["streamClosed"] is True
        await late.finished()


async def test_sse_ends_properly_when_its_stream_is_deleted(store: Store) -> None:
    async with running(store) as site:
        await site.create("s", body=b"one")
        events = await listen(site, "offset=now")
        await events.control()
        await site.ask("DELETE", S)
        await events.finished()
        await events.client.ended()
        client = await site.connect()
        assert (await client.ask("GET", S + "?offset=-1&live=sse")).status == 404


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_silence_is_broken_before_a_proxy_takes_it_for_death(mock_clock: MockClock, version: str) -> None:
    async with running(sse_max=600) as site:
        await site.create("s", body=b"abc")
        client = await site.connect()
        await client.send(f"GET {S}?offset=-1&live=sse HTTP/{version}\r\nHost: t\r\n\r\n")
        events = await client.events()
        assert events.headers["x-accel-buffering"] == "no"
        assert await events.data() == b"abc"
        await events.control()
        for _ in range(3):
            mock_clock.jump(14)
            await settled()
            assert events.raw.count(b"\n:\n") == 0 and client.buffer == b""
            mock_clock.jump(2)
            comment = await client.part() if version == "1.1" else await client.exactly(3)
            assert comment == b":\n\n"
        await site.append("s", b"and on")
        assert await events.data() == b"and on"


async def test_a_sign_of_life_is_for_those_who_hear_nothing(mock_clock: MockClock) -> None:
    async with running(sse_max=600) as site:
        await site.create("s")
        events = await listen(site)
        await events.control()
        for number in range(6):
            mock_clock.jump(8)
            await settled()
            await site.append("s", b"%d" % number)
            assert await events.data() == b"%d" % number
            await events.control()
        assert b"\n\n:" not in events.raw


async def test_before_the_answer_to_a_long_poll_nothing_is_sent(mock_clock: MockClock) -> None:
    async with running(long_poll_timeout=600) as site:
        await site.create("s")
        client = await poll(site)
        mock_clock.jump(40)
        await settled()
        await site.append("s", b"x")
        assert (await client.answer()).body == b"x"


@pytest.mark.parametrize("lead", range(262141, 262146))
async def test_a_line_end_stays_one_wherever_a_batch_is_cut(store: Store, lead: int) -> None:
    async with running(store) as site:
        await site.create("s", body=b"x" * lead + b"\r\ny\r", stream_closed="true")
        events = await listen(site)
        text = b""
        while (found := await events.next()) is not None:
            if found[0] == "data":
                text += found[1]
        assert text == b"x" * lead + b"\ny\n"


async def test_sse_ends_properly_after_its_time(mock_clock: MockClock) -> None:
    async with running(sse_max=60) as site:
        await site.create("s")
        events = await listen(site)
        at = (await events.control())["streamNextOffset"]
        mock_clock.jump(59)
        await settled()
        await site.append("s", b"late")
        assert await events.data() == b"late"
        at = (await events.control())["streamNextOffset"]
        mock_clock.jump(2)
        await events.finished()
        await events.client.ended()
        again = await listen(site, f"offset={at}")
        assert (await again.control())["streamNextOffset"] == at


async def test_sse_in_base64(site: Site) -> None:
    await site.create("s", "application/cbor-seq", b"\x01\x02")
    events = await listen(site)
    assert events.headers["stream-sse-data-encoding"] == "base64"
    assert base64.b64decode(await events.data(), validate=True) == b"\x01\x02"
    await events.control()
    await site.append("s", b"\x43\r\n\x00", "application/cbor-seq")
    assert base64.b64decode(await events.data(), validate=True) == b"\x43\r\n\x00"


async def test_sse_in_json_batches_are_arrays(site: Site) -> None:
    await site.create("s", "application/json", b'[1,"a\\nb"]')
    events = await listen(site)
    assert json.loads(await events.data()) == [1, "a\nb"]
    await events.control()
    await site.append("s", b'{"a":\n1}', "application/json")
    assert json.loads(await events.data()) == [{"a": 1}]


FORGERY = b"x\n\nevent: control\ndata: {}\n\nid: 7\r\rretry: 1\r\n\r\n: y"


@pytest.mark.parametrize("live", [False, True])
async def test_no_payload_can_forge_an_event(site: Site, live: bool) -> None:
    await site.create("s", body=b"" if live else FORGERY)
    events = await listen(site)
    if live:
        await events.control()
        await site.append("s", FORGERY)
    assert await events.data() == FORGERY.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    await events.control()
    for line in events.raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
        assert line == b"" or line.startswith((b"data:", b"event: data", b"event: control"))


@pytest.mark.parametrize("limits", [["", 1000, 1001, 1002, 1003], [1, 2, 3, 4]])
async def test_sse_never_cuts_a_character(site: Site, limits: list[object]) -> None:
    text = "aé€🎉" * (40 if 1 in limits else 40_000)  # more than one batch of 256 KiB
    await site.create("s", body=b"")
    await site.append("s", text.encode())
    for limit in [f"&max-bytes={limit}" if limit else "" for limit in limits]:
        events = await listen(site, "offset=-1" + limit)
        found = []
        while True:
            found.append((await events.data()).decode())
            if "upToDate" in await events.control():
                break
        assert "".join(found) == text
        events.client.close()


@pytest.mark.parametrize("limit", [None, 1, 4, 5, 7])
@pytest.mark.parametrize(
    "seam", [(b"\xe2", b"\x82\xac"), (b"\xf0\x9f", b"\x8e\x89"), (b"\r", b"\n"), (b"\xe2", b"\x82")]
)
async def test_who_catches_up_gets_characters_whole_where_appends_meet(
    site: Site, seam: tuple[bytes, bytes], limit: int | None
) -> None:
    """Whatever the second append's size, so that it fits the batch of the first or does not."""
    for size in (3, 262_140, 262_144, 300_000):
        if limit and size > 3:
            continue
        path = f"s{size}"
        await site.create(path)
        parts = [b"abc" + seam[0], seam[1] + b"x" * size + seam[0], seam[1] + b"y" + seam[0], seam[1]]
        for part in parts:
            await site.append(path, part)
        client = await site.connect()
        most = f"&max-bytes={limit}" if limit else ""
        await client.send(request("GET", f"{ROOT}{path}?offset=-1&live=sse{most}"))
        events = await client.events()
        found = []
        while True:
            found.append(await events.data())
            if seam[1] != b"\x82":  # what is no text anyway
                assert found[-1].decode() is not None
            if "upToDate" in await events.control():
                break
        assert b"".join(found) == b"".join(parts).replace(b"\r\n", b"\n")
        client.close()


async def test_sse_over_http_1_0_ends_with_its_connection(site: Site) -> None:
    await site.create("s", body=b"one")
    client = await site.connect()
    await client.send("GET /v1/stream/s?offset=-1&live=sse HTTP/1.0\r\n\r\n")
    events = await client.events()
    assert await events.data() == b"one"
    await events.control()
    await site.append("s", b"two")
    assert await events.data() == b"two"
    await events.control()
    await site.ask("POST", S, stream_closed="true")
    await events.control()
    await events.finished()


async def test_noise_from_an_sse_reader_changes_nothing(site: Site) -> None:
    await site.create("s")
    events = await listen(site)
    await events.control()
    for number in range(20):
        await events.client.send("noise\r\n\r\n" * 10)
        await site.append("s", b"%d" % number)
        assert await events.data() == b"%d" % number
        await events.control()


async def test_an_sse_reader_that_falls_behind_loses_nothing(store: Store) -> None:
    async with running(store, chunk=1 << 20) as site:
        await site.create("s", "application/json")
        events, quick = await listen(site), await listen(site)
        await events.control()
        await quick.control()
        writer = await site.connect()
        for number in range(300):
            body = json.dumps([number, "x" * 50_000]).encode()
            assert (await writer.ask("POST", S, b"[" + body + b"]", content_type="application/json")).status == 204
            assert [found[0] for found in json.loads(await quick.data())] == [number]
            await quick.control()
        seen: list[int] = []
        while len(seen) < 300:
            found = await events.next()
            assert found is not None
            if found[0] == "data":
                seen += [message[0] for message in json.loads(found[1])]
        assert seen == list(range(300))


async def test_two_hundred_readers_get_the_same_bytes(store: Store) -> None:
    async with running(store) as site:
        await site.create("s")
        got: list[bytes] = []

        async def follow() -> None:
            events = await listen(site, "offset=now")
            data = b""
            while (found := await events.next()) is not None:
                if found[0] == "data":
                    data += found[1]
            got.append(data)
            await events.client.ended()

        async def poll_on(offset: str) -> None:
            client = await site.connect()
            data = b""
            while True:
                answer = await client.ask("GET", f"{S}?offset={offset}&live=long-poll")
                assert answer.status in (200, 204), answer
                data += answer.body
                offset = answer.offset
                if answer.header("stream-closed"):
                    got.append(data)
                    return

        async with trio.open_nursery() as nursery:
            start = (await site.ask("HEAD", S)).offset
            for _ in range(100):
                nursery.start_soon(follow)
                nursery.start_soon(poll_on, start)
            await waiting(site, 200)
            writer = await site.connect()
            for number in range(40):
                size = 70_000 if number == 20 else 20
                answer = await writer.ask("POST", S, b"%d," % number * size, content_type="text/plain")
                assert answer.status == 204
            await writer.ask("POST", S, b"end", content_type="text/plain", stream_closed="true")
        expected = (await site.ask("GET", S)).body
        rest: Answer = await site.ask("GET", S + "?offset=-1")
        while not rest.header("stream-closed"):
            rest = await site.ask("GET", f"{S}?offset={rest.offset}")
            expected += rest.body
        assert len(got) == 200 and set(got) == {expected}


# Forks, expiry


async def test_a_source_never_wakes_its_forks_readers(mock_clock: MockClock) -> None:
    async with running(long_poll_timeout=30) as site:
        await site.create("source", body=b"abc")
        await site.create("s", stream_forked_from=ROOT + "source")
        client = await poll(site)
        await site.append("source", b"more")
        await settled()
        mock_clock.jump(31)
        assert (await client.answer()).status == 204
        assert (await client.ask("GET", S)).body == b"abc"


async def test_a_waiting_reader_hears_that_its_stream_expired(mock_clock: MockClock) -> None:
    ticks = [0.0]
    async with running(MemoryStore(Clock(0.0, WALL, lambda: ticks[0], lambda: WALL))) as site:
        await site.create("s", stream_ttl="10")
        client, events = await poll(site), await listen(site)
        await events.control()
        ticks[0] += 11
        mock_clock.jump(2)
        answer = await client.answer()
        assert (answer.status, answer.code) == (404, "STREAM_NOT_FOUND")
        await events.finished()


# The orderly end


async def test_stopping_ends_every_kind_of_reader_properly(store: Store) -> None:
    async with running(store) as site:
        at = (await site.create("s", body=b"abc")).offset
        client, events = await poll(site), await listen(site)
        assert await events.data() == b"abc"
        assert (await events.control())["streamNextOffset"] == at
        idle = await site.connect()
        assert (await idle.ask("HEAD", S)).status == 200
        late = await site.connect()
        whole = request("POST", S, b"in flight", content_type="text/plain")
        await late.send(whole[:-4])
        await settled()
        site.server.stop()
        answer = await client.answer()
        assert (answer.status, answer.offset, answer.header("connection")) == (204, at, "close")
        await client.ended()
        assert (await events.control())["streamNextOffset"] == at
        await events.finished()
        await events.client.ended()
        await idle.ended()
        await late.send(whole[-4:])
        answer = await late.answer()
        assert answer.status == 204 and answer.header("connection") == "close"
        await late.ended()
        await site.stopped.wait()
        with pytest.raises(OSError):
            await site.connect()


async def test_stopping_does_not_wait_for_ever(mock_clock: MockClock) -> None:
    async with running(grace=10) as site:
        await site.create("s")
        stuck = await site.connect()
        await stuck.send(request("POST", S, b"abc", content_type="text/plain")[:-1])
        await settled()
        site.server.stop()
        await settled()
        mock_clock.jump(11)
        await site.stopped.wait()
        await stuck.ended()


async def asleep(site: Site, count: int = 1) -> None:
    with trio.fail_after(10):
        while site.server.app.fanout.count() != count:
            await trio.sleep(0.005)


@pytest.mark.parametrize("live", ["long-poll", "sse"])
async def test_a_ttl_that_others_renew_wakes_nobody(store: Store, live: str) -> None:
    """Who waits is answered when there is something to see, not when somebody else has read."""
    async with running(store, long_poll_timeout=30) as site:
        await site.create("s", stream_ttl="2")
        waiting = await site.connect()
        await waiting.send(request("GET", f"{S}?offset=now&live={live}"))
        if live == "sse":
            await waiting.until(b"streamNextOffset")
        await asleep(site)
        looks = site.server.app.stats.requests
        for _ in range(25):
            assert (await site.ask("GET", S)).status == 200
            await trio.sleep(0.1)
        assert site.server.app.fanout.count() == 1 and site.server.app.stats.requests == looks + 25
        waiting.buffer = b""
        with trio.move_on_after(0.2):
            await waiting.more()
        assert waiting.buffer == b""
        await site.append("s", b"news")
        await waiting.until(b"news")


async def test_a_long_poll_that_is_woken_for_nothing_sleeps_on(store: Store) -> None:
    async with running(store, long_poll_timeout=30) as site:
        await site.create("s")
        waiting = await site.connect()
        await waiting.send(request("GET", f"{S}?offset=now&live=long-poll"))
        await asleep(site)
        for _ in range(3):
            for feed in list(site.server.app.fanout._feeds.values()):
                feed.wake_all()
            await asleep(site)
        await site.append("s", b"news")
        assert (await waiting.answer()).body == b"news"
