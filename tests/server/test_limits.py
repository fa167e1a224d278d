"""What one client can't do to the others: sizes, times and numbers are bounded, and each bound is an answer."""

from __future__ import annotations

import threading
import tracemalloc

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ds_trio_server.parsers import Parsed
from tests.server.site import ROOT, Client, Site, request, running

S = ROOT + "s"


async def _pass(clock: MockClock, seconds: float) -> None:
    """Let time go by in steps, as the server's sweep would see it."""
    for _ in range(int(seconds * 2)):
        await wait_all_tasks_blocked(0.001)
        clock.jump(0.5)
    await wait_all_tasks_blocked(0.001)


# Sizes


@pytest.mark.parametrize("size", [101, 5_000_000])
async def test_a_body_over_the_limit_is_413_and_its_sender_reads_why(size: int) -> None:
    async with running(max_body=100) as site:
        await site.create("s")
        client = await site.connect()
        body = b"x" * size

        async def send() -> None:
            try:
                await client.send(request("POST", S, body, content_type="text/plain"))
            except trio.BrokenResourceError:
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            answer = await client.answer()
            assert (answer.status, answer.code) == (413, "BODY_TOO_LARGE")
        assert (await site.ask("GET", S)).body == b""
        assert (await site.ask("POST", S, b"x" * 100, content_type="text/plain")).status == 204


async def test_a_chunked_body_over_the_limit_is_413_too() -> None:
    async with running(max_body=100_000) as site:
        await site.create("s")
        client = await site.connect()

        async def send() -> None:
            try:
                for _ in range(400):
                    await client.send(b"2710\r\n" + b"x" * 10000 + b"\r\n")
            except trio.BrokenResourceError:
                pass

        await client.send(
            "POST /v1/stream/s HTTP/1.1\r\nHost: t\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            answer = await client.answer()
            assert (answer.status, answer.code) == (413, "BODY_TOO_LARGE")
            assert answer.header("connection") == "close"
        assert (await site.ask("GET", S)).body == b""


@pytest.mark.parametrize("split", [False, True])
async def test_a_head_over_the_limit_is_431(site: Site, split: bool) -> None:
    client = await site.connect()
    head = request("GET", S, x="y" * 17000)
    for piece in (head[:9000], head[9000:]) if split else (head,):
        await client.send(piece)
        await wait_all_tasks_blocked(0.001)
    answer = await client.answer()
    assert (answer.status, answer.code) == (431, "HEAD_TOO_LARGE")
    await client.ended()


async def test_a_head_without_an_end_is_431(site: Site) -> None:
    client = await site.connect()
    await client.send("GET /v1/stream/s HTTP/1.1\r\nX: " + "y" * 20000)
    assert (await client.answer()).status == 431
    await client.ended()


async def test_a_head_up_to_the_limit_is_fine(site: Site) -> None:
    await site.create("s")
    rest = 16384 - len(request("GET", S, x=""))
    assert (await site.ask("GET", S, x="y" * rest)).status == 200
    assert (await site.ask("GET", S, x="y" * (rest + 1))).status == 431


async def test_producer_ids_have_a_limit(site: Site) -> None:
    await site.create("s")
    for id, status in (("p" * 256, 200), ("p" * 257, 400), ("", 400)):
        answer = await site.ask(
            "POST", S, b"x", content_type="text/plain", producer_id=id, producer_epoch=0, producer_seq=0
        )
        assert answer.status == status


# Times


async def test_a_slow_head_is_408(mock_clock: MockClock) -> None:
    async with running(head_timeout=10) as site:
        client = await site.connect()
        await client.send("GET /v1/stream/s HTTP/1.1\r\n")
        await _pass(mock_clock, 9)
        await client.send("X: progress does not help\r\n")
        await _pass(mock_clock, 2)
        answer = await client.answer()
        assert (answer.status, answer.code) == (408, "TOO_SLOW")
        await client.ended()


async def test_a_head_may_take_its_time(mock_clock: MockClock) -> None:
    async with running(head_timeout=10) as site:
        client = await site.connect()
        for piece in ("GET /v1/stream/s HTT", "P/1.1\r\nHo", "st: x\r\n\r", "\n"):
            await client.send(piece)
            await _pass(mock_clock, 2)
        assert (await client.answer()).status == 404


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_stalled_body_is_408(mock_clock: MockClock, chunked: bool) -> None:
    async with running(body_timeout=30) as site:
        await site.create("s")
        client = await site.connect()
        framing = "Transfer-Encoding: chunked" if chunked else "Content-Length: 4"
        await client.send(f"POST /v1/stream/s HTTP/1.1\r\nHost: t\r\nContent-Type: text/plain\r\n{framing}\r\n\r\n")
        await client.send("4\r\nab" if chunked else "ab")
        await _pass(mock_clock, 32)
        answer = await client.answer()
        assert (answer.status, answer.code) == (408, "TOO_SLOW")
        await client.ended()
        assert (await site.ask("GET", S)).body == b""


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_slow_body_that_keeps_coming_is_fine(mock_clock: MockClock, chunked: bool) -> None:
    # 20 kB in 36 seconds: longer than the time for a body, but faster than the slowest link.
    async with running(body_timeout=30, slowest_body=512) as site:
        await site.create("s")
        client = await site.connect()
        framing = "Transfer-Encoding: chunked" if chunked else "Content-Length: 20000"
        await client.send(f"POST /v1/stream/s HTTP/1.1\r\nHost: t\r\nContent-Type: text/plain\r\n{framing}\r\n\r\n")
        for _ in range(20):
            await client.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n" if chunked else b"x" * 1000)
            await _pass(mock_clock, 1.8)
        await client.send("0\r\n\r\n" if chunked else "")
        assert (await client.answer()).status == 204


async def test_an_idle_connection_is_closed_without_a_word(mock_clock: MockClock) -> None:
    async with running(idle_timeout=75) as site:
        client = await site.connect()
        assert (await client.ask("GET", S)).status == 404
        await _pass(mock_clock, 70)
        assert (await client.ask("GET", S)).status == 404
        await _pass(mock_clock, 77)
        await client.ended()
        silent = await site.connect()
        await _pass(mock_clock, 77)
        await silent.ended()


@pytest.mark.parametrize("query", ["", "?offset=-1&live=sse"])
async def test_a_reader_that_takes_nothing_is_cut_off(mock_clock: MockClock, query: str) -> None:
    async with running(send_timeout=30, chunk=1 << 24, idle_timeout=300) as site:
        await site.create("s")
        client = await site.connect()
        for _ in range(12):
            assert (await client.ask("POST", S, bytes(1_000_000), content_type="text/plain")).status == 204
        reader = await site.connect()
        await reader.send(request("GET", S + query))
        await _pass(mock_clock, 32)
        while await _more(reader):
            pass
        assert len(reader.buffer) < 11_000_000
        assert (await client.ask("HEAD", S)).status == 200


async def _more(client: Client) -> bool:
    try:
        return await client.more()
    except trio.BrokenResourceError:
        return False


async def test_a_reader_may_be_slow_as_long_as_it_reads(mock_clock: MockClock) -> None:
    async with running(send_timeout=30, chunk=1 << 24, idle_timeout=300) as site:
        await site.create("s")
        client = await site.connect()
        for _ in range(8):
            assert (await client.ask("POST", S, bytes(1_000_000), content_type="text/plain")).status == 204
        reader = await site.connect()
        await reader.send(request("GET", S))
        while len(reader.buffer) < 8_000_000:
            before = len(reader.buffer)
            while len(reader.buffer) < min(before + 1_500_000, 8_000_000):
                assert await reader.more()
            await _pass(mock_clock, 10)
        assert len((await reader.answer()).body) == 8_000_000


# Numbers


async def test_connections_over_the_limit_read_503() -> None:
    async with running(max_connections=3) as site:
        served = [await site.connect() for _ in range(3)]
        for client in served:
            assert (await client.ask("GET", S)).status == 404
        for _ in range(5):
            turned_away = await site.connect()
            answer = await turned_away.ask("GET", S)
            assert (answer.status, answer.code) == (503, "OVERLOADED")
            assert answer.header("retry-after") and answer.header("connection") == "close"
            await turned_away.ended()
        served.pop().close()
        await wait_all_tasks_blocked(0.01)
        assert (await (await site.connect()).ask("GET", S)).status == 404
        assert (await served[0].ask("GET", S)).status == 404


async def test_what_comes_at_once_is_counted_too() -> None:
    async with running(max_connections=3) as site:
        clients: list[Client] = []
        statuses: list[int] = []

        async def come() -> None:
            client = await site.connect()
            clients.append(client)
            statuses.append((await client.ask("GET", S)).status)

        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(come)
        assert sorted(statuses) == [404] * 3 + [503] * 37


async def test_large_bodies_share_a_budget() -> None:
    async with running(max_body=150_000, body_memory=200_000) as site:
        await site.create("s")
        whole = request("POST", S, b"x" * 150_000, content_type="text/plain")
        first, second, small = [await site.connect() for _ in range(3)]
        await first.send(whole[:100_000])
        await wait_all_tasks_blocked(0.01)
        answer = await second.ask("POST", S, b"y" * 150_000, content_type="text/plain")
        assert (answer.status, answer.code) == (503, "OVERLOADED")
        assert answer.header("retry-after")
        assert (await small.ask("POST", S, b"z" * 1000, content_type="text/plain")).status == 204
        await first.send(whole[100_000:])
        assert (await first.answer()).status == 204
        assert (await site.ask("POST", S, b"y" * 150_000, content_type="text/plain")).status == 204


async def test_a_large_body_counts_until_it_is_done_with(monkeypatch: pytest.MonkeyPatch) -> None:
    began, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(Parsed, "parse", lambda *_: (began.set(), go_on.wait(10)))
    async with running(max_body=150_000, body_memory=200_000) as site:
        await site.create("s", "application/json")
        whole = request("POST", S, b"[" + b" " * 149_998 + b"]", content_type="application/json")
        first, second = await site.connect(), await site.connect()
        await first.send(whole)
        while not began.is_set():
            await trio.sleep(0.001)
        try:
            # The first has come, but is still looked at.
            await second.send(whole)
            answer = await second.answer()
            assert (answer.status, answer.code) == (503, "OVERLOADED")
        finally:
            go_on.set()
        assert (await first.answer()).status == 400
        assert site.server._budget._left == 200_000
        # A body that nobody wants is let go of before its answer is sent.
        await first.send(request("GET", S + "?offset=now&live=sse", b"x" * 150_000))
        await first.events()
        assert site.server._budget._left == 200_000


async def test_the_budget_comes_back_when_senders_leave() -> None:
    async with running(max_body=150_000, body_memory=200_000) as site:
        await site.create("s")
        whole = request("POST", S, b"x" * 150_000, content_type="text/plain")
        for _ in range(5):
            client = await site.connect()
            await client.send(whole[:100_000])
            await wait_all_tasks_blocked(0.01)
            client.close()
            await wait_all_tasks_blocked(0.01)
        assert (await site.ask("POST", S, b"y" * 150_000, content_type="text/plain")).status == 204


# Bombs: what is small on the wire and large in memory

DEEP = 100_000
BOMBS = {
    "JSON arrays": ("application/json", b"[" * DEEP + b"]" * DEEP),
    "JSON objects": ("application/json", b'{"a":' * DEEP + b"1" + b"}" * DEEP),
    "JSON never closed": ("application/json", b"[" * DEEP),
    "commas": ("application/json", b"[" + b"," * 1_000_000 + b"]"),
    "a million numbers": ("application/json", b"[" + b"1," * 1_000_000 + b"1]"),
    "CBOR arrays": ("application/cbor-seq", b"\x81" * DEEP + b"\x00"),
    "CBOR tags": ("application/cbor-seq", b"\xc1" * DEEP + b"\x00"),
    "CBOR open arrays": ("application/cbor-seq", b"\x9f" * DEEP + b"\xff" * DEEP),
    "a huge CBOR string": ("application/cbor-seq", b"\x5b" + b"\xff" * 8 + b"abc"),
    "a huge CBOR array": ("application/cbor-seq", b"\x9b" + b"\x00\x00\x00\xff" * 2 + b"\x00"),
    "a huge CBOR map": ("application/cbor-seq", b"\xbb" + b"\x7f" + b"\xff" * 7 + b"\x00"),
    "a stray break": ("application/cbor-seq", b"\x01\xff\x01"),
    "a cut item": ("application/cbor-seq", b"\x01\x19\x01"),
}


@pytest.mark.parametrize("case", BOMBS)
async def test_bombs_are_400_and_store_nothing(site: Site, case: str) -> None:
    content_type, body = BOMBS[case]
    await site.create("s", content_type=content_type)
    answer = await site.ask("POST", S, body, content_type=content_type)
    assert answer.status == 400, answer
    assert answer.code in ("INVALID_JSON", "INVALID_CBOR")
    tail = (await site.ask("HEAD", S)).offset
    assert tail.endswith("_0000000000000000")


async def test_many_empty_containers_cost_no_more_than_their_bytes(site: Site) -> None:
    await site.create("s", content_type="application/cbor-seq")
    body = b"\x80\xa0" * 1_500_000
    assert (await site.ask("POST", S, body, content_type="application/cbor-seq")).status == 204


CHUNKED = request("POST", S, content_type="text/plain", transfer_encoding="chunked")


async def test_a_body_in_tiny_chunks_holds_little_more_than_its_bytes(site: Site) -> None:
    await site.create("s")
    client = await site.connect()
    await client.send(CHUNKED)
    tracemalloc.start()
    try:
        for _ in range(20):
            await client.send(b"2\r\nab\r\n" * 2000)
        await wait_all_tasks_blocked(0.01)
        assert tracemalloc.get_traced_memory()[1] < 80_000 * 5 + 400_000
    finally:
        tracemalloc.stop()
    await client.send(b"0\r\n\r\n")
    assert (await client.answer()).status == 204
    assert (await client.ask("GET", S)).body == b"ab" * 40_000


async def test_a_body_in_tiny_chunks_is_read_in_turn_with_everybody_else(site: Site) -> None:
    await site.create("s")
    client, polite = await site.connect(), await site.connect()
    answered = 0

    async def upload() -> None:
        await client.send(CHUNKED + b"1\r\na\r\n" * 20_000 + b"0\r\n\r\n")
        assert (await client.answer()).status == 204
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(upload)
        while True:
            await polite.ask("GET", S + "?offset=now")
            answered += 1
    assert answered > 20


async def test_a_live_reader_that_takes_nothing_is_cut_off_and_delays_nobody(mock_clock: MockClock) -> None:
    async with running(send_timeout=30, idle_timeout=300, sse_max=3000) as site:
        await site.create("s")
        readers = [await site.connect() for _ in range(2)]
        for reader in readers:
            await reader.send(request("GET", S + "?offset=now&live=sse"))
        stuck, quick = [await reader.events() for reader in readers]
        await stuck.control()
        await quick.control()
        writer = await site.connect()
        for _ in range(200):
            assert (await writer.ask("POST", S, b"x" * 60_000, content_type="text/plain")).status == 204
            assert len(await quick.data()) == 60_000
            await quick.control()
        await _pass(mock_clock, 32)
        while await _more(stuck.client):
            pass
        assert len(stuck.client.buffer) < 200 * 60_000
        await writer.ask("POST", S, b"after", content_type="text/plain")
        assert await quick.data() == b"after"


# What is no request yet


async def test_what_came_ahead_is_bounded_and_who_makes_no_progress_longest_is_cut_off() -> None:
    """32 MiB of all connections together in real life; here they share 300 KB."""
    async with running() as site:
        await site.create("s")
        backlog = site.server._backlog
        backlog._limit = 300_000
        polls = request("GET", S + "?offset=now&live=long-poll") + request("GET", S) * 1400
        assert 40_000 < len(polls) < 65_536
        strangers = [await site.connect() for _ in range(12)]
        for stranger in strangers:
            await stranger.send(polls)
            await wait_all_tasks_blocked(0.005)
        assert backlog._size <= 300_000
        # What it counts is what there is.
        assert sum(len(each.ahead) for each in site.server._connections) == backlog._size > 200_000
        # The oldest are gone, the newest are served when there is something to say.
        assert await strangers[0].stream.receive_some() == b""
        assert (await site.ask("POST", S, b"x" * 60_000, content_type="text/plain")).status == 204
        assert (await strangers[-1].answer()).body == b"x" * 60_000
        # Who begins a head and stands still is held against the same bound.
        for _ in range(40):
            slow = await site.connect()
            await slow.send(b"GET / HTTP/1.1\r\nHost: test\r\nX: " + b"x" * 15_000)
            await wait_all_tasks_blocked(0.002)
            assert backlog._size <= 300_000
        assert (await site.ask("GET", S)).status == 200
        site.disconnect()
        for _ in range(2000):
            if not backlog._held:
                break
            await trio.sleep(0.005)
        assert (backlog._held, backlog._size) == ({}, 0)


async def test_empty_lines_before_a_request_are_passed_over_however_they_come() -> None:
    async with running() as site:
        await site.create("s")
        for count in range(5):
            whole = b"\r\n" * count + request("HEAD", S)
            for cut in range(len(b"\r\n" * count) + 4):
                client = await site.connect()
                await client.send(whole[:cut])
                await wait_all_tasks_blocked(0.001)
                await client.send(whole[cut:])
                assert (await client.answer("HEAD")).status == 200, (count, cut)
                # And between two requests.
                await client.send(whole[:cut])
                await wait_all_tasks_blocked(0.001)
                await client.send(whole[cut:])
                assert (await client.answer("HEAD")).status == 200, (count, cut)
                client.close()


@pytest.mark.parametrize("name", ["same", "x%d"])
async def test_a_head_has_at_most_100_fields(name: str) -> None:
    async with running() as site:
        await site.create("s")
        for count, status in ((97, 200), (98, 200), (99, 431), (3000, 431)):
            lines = "".join((name % n if "%" in name else name) + ":\r\n" for n in range(count))
            head = f"HEAD {S} HTTP/1.1\r\nHost: test\r\nconnection: keep-alive\r\n{lines}\r\n".encode()
            for cut in (len(head), 40):
                client = await site.connect()
                await client.send(head[:cut])
                await wait_all_tasks_blocked(0.001)
                await client.send(head[cut:])
                assert (await client.answer("HEAD" if status == 200 else "GET")).status == status, count
                client.close()


async def test_chunks_that_are_not_decoded_yet_are_bounded_with_the_rest() -> None:
    async with running() as site:
        await site.create("s")
        backlog = site.server._backlog
        backlog._limit = 200_000
        chunked = request("POST", S, content_type="text/plain", transfer_encoding="chunked")
        clients = [await site.connect() for _ in range(20)]
        for client in clients:
            await client.send(chunked + b"1\r\na\r\n" * 10_000)
            await trio.sleep(0)
            assert backlog._size <= 200_000
        held = sum(len(each.ahead) for each in site.server._connections)
        assert held == backlog._size
        await wait_all_tasks_blocked(0.01)
        answers = 0
        for client in clients:
            try:
                await client.send(b"0\r\n\r\n")
                answers += (await client.answer()).status == 204
            except (trio.BrokenResourceError, AssertionError):
                pass
            client.close()
        assert answers >= 1
        body = (await site.ask("GET", S)).body
        assert body == b"a" * (10_000 * answers), "a part of a body was stored"
        for _ in range(2000):
            if not backlog._size:
                break
            await trio.sleep(0.005)
        assert backlog._size == 0


async def test_hosts_of_strangers_change_nothing_for_those_that_send_none() -> None:
    async with running() as site:
        for number in range(300):
            head = f"GET /healthz HTTP/1.1\r\nHost: h{number}.example\r\n\r\n".encode()
            client = await site.connect()
            await client.send(head)
            assert (await client.answer()).status == 200
            client.close()
        for head in (b"GET /healthz HTTP/1.0\r\n\r\n", b"GET /healthz HTTP/1.1\r\nHost:\r\n\r\n"):
            client = await site.connect()
            await client.send(head)
            assert (await client.answer()).status == 200


@pytest.mark.parametrize("size", [4097, 9_000, 65_536])
async def test_a_body_that_finds_no_room_is_passed_over_and_the_next_request_is_read(size: int) -> None:
    async with running(max_body=150_000, body_memory=150_000) as site:
        await site.create("s")
        whole = request("POST", S, b"x" * 149_000, content_type="text/plain")
        first, second = await site.connect(), await site.connect()
        await first.send(whole[:100_000])
        await wait_all_tasks_blocked(0.01)
        refused = request("POST", S, b"y" * size, content_type="text/plain")
        await second.send(refused[:2000])
        await wait_all_tasks_blocked(0.01)
        await second.send(refused[2000:] + request("HEAD", S))
        answer = await second.answer()
        assert (answer.status, answer.code) == (503, "OVERLOADED")
        assert (await second.answer("HEAD")).status == 200
        await first.send(whole[100_000:])
        assert (await first.answer()).status == 204
        assert (await site.ask("GET", S)).body == b"x" * 149_000


async def test_nothing_is_kept_of_a_body_that_means_nothing_or_of_empty_lines() -> None:
    async with running() as site:
        clients = [await site.connect() for _ in range(100)]
        body = request("GET", ROOT + "missing", b"x" * 65_000)[:-100]
        tracemalloc.start()
        try:
            for client in clients[:50]:
                await client.send(body[:30_000])
                await wait_all_tasks_blocked(0.001)
                await client.send(body[30_000:])
            for client in clients[50:]:
                await client.send(b"\r\n" * 30_000)
            await wait_all_tasks_blocked(0.01)
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < 100 * 10_000
