"""Catch-up reads: chunks, message boundaries, validators, content coding."""

from __future__ import annotations

import itertools
import json
import random
import zlib
from collections.abc import Iterator
from pathlib import Path

import cbor2
import pytest

from ds_core.server import messages
from ds_core.server.decide import Needs
from ds_core.server.stream import Stream, trim
from ds_core.wire import media
from ds_trio_server.reads import message_index
from ds_trio_server.reads.reading import Reading
from ds_trio_server.store.base import Store
from ds_trio_server.store.memory import MemoryStore
from ds_trio_server.store.sqlite.engine import SQLiteStore
from tests.server.site import ROOT, Answer, Site, request, running

S = ROOT + "s"


def token(position: int, incarnation: int = 1) -> str:
    return f"{incarnation:016d}_{position:016d}"


async def read_all(site: Site, path: str, limit: int | None = None, **headers: str) -> list[Answer]:
    """Every chunk from the start to the tail, following the offsets."""
    client = await site.connect()
    answers: list[Answer] = []
    offset = "-1"
    while True:
        limited = "" if limit is None else f"&max-bytes={limit}"
        answer = await client.ask("GET", f"{ROOT}{path}?offset={offset}{limited}", **headers)
        assert answer.status == 200, answer
        answers.append(answer)
        assert len(answers) < 10_000
        assert answer.offset != offset or answer.header("stream-up-to-date")
        offset = answer.offset
        if answer.header("stream-up-to-date"):
            return answers


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path)


@pytest.mark.parametrize("content_type", ["application/json", "application/cbor-seq", "text/plain"])
@pytest.mark.parametrize("count", [1023, 1024, 1025, 1040, 3000])
@pytest.mark.parametrize("engine", ["memory", "sqlite"])
async def test_an_answer_has_all_bytes_that_its_offset_names_however_small_the_appends(
    engine: str, content_type: str, count: int, tmp_path: Path
) -> None:
    numbers = range(1000, 1000 + count)
    each = [cbor2.dumps(n) if "cbor" in content_type else b"%d" % n for n in numbers]
    whole = b"[" + b",".join(each) + b"]" if "json" in content_type else b"".join(each)

    async def check(site: Site) -> None:
        for limit in (None, 500, 10**6):
            answers = await read_all(site, "s", limit)
            if "json" in content_type:
                assert [n for answer in answers for n in json.loads(answer.body)] == list(numbers)
            else:
                assert b"".join(answer.body for answer in answers) == whole
            for answer, after in itertools.pairwise(answers):
                assert answer.offset < after.offset
        assert (await site.ask("GET", S)).body == whole

    async with running(MemoryStore() if engine == "memory" else SQLiteStore(tmp_path)) as site:
        await site.create("s", content_type)
        client = await site.connect()
        for at in range(0, count, 100):
            await client.send(b"".join(request("POST", S, data, content_type=content_type) for data in each[at:][:100]))
            for _ in each[at:][:100]:
                assert (await client.answer()).status == 204
        await check(site)
    if engine == "sqlite":  # and from the file, when nothing is in memory
        async with running(SQLiteStore(tmp_path)) as site:
            await check(site)


@pytest.mark.parametrize("limit", [1, 7, 100, 1000, 10**6])
async def test_chunks_of_bytes_hold_whole_appends_that_fit(store: Store, limit: int) -> None:
    sizes = [1, 6, 7, 8, 50, 93, 300, 2, 1]
    appends = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    async with running(store) as site:
        await site.create("s")
        for data in appends:
            await site.append("s", data)
        answers = await read_all(site, "s", limit)
        assert b"".join(answer.body for answer in answers) == b"".join(appends)
        ends = {sum(sizes[:count]) for count in range(len(sizes) + 1)}
        at = 0
        for answer in answers:
            assert 0 < len(answer.body) <= limit
            at += len(answer.body)
            assert answer.offset == token(at)
            # An append is only cut when it is larger than a chunk.
            if at not in ends:
                begin = max(end for end in ends if end < at)
                assert at - len(answer.body) >= begin, "the chunk began in an earlier append and cut this one"
                assert min(end for end in ends if end > at) - begin > limit


@pytest.mark.parametrize("limit", [1, 9, 25, 10**6])
async def test_chunks_of_json_hold_whole_messages(store: Store, limit: int) -> None:
    bodies = [b'{"a": [1,  2]}', b'["x", "y,]", {"z": "[,"}]', b"[[1,2],[3]]", b'"\\u0041"', b"[ 1 ,\t2 , 3 ]", b"null"]
    messages = [
        b'{"a": [1,  2]}', b'"x"', b'"y,]"', b'{"z": "[,"}', b"[1,2]", b"[3]", b'"\\u0041"', b"1", b"2", b"3", b"null",
    ]  # fmt: skip
    async with running(store) as site:
        await site.create("s", "application/json")
        for body in bodies:
            await site.append("s", body, "application/json")
        answers = await read_all(site, "s", limit)
        assert b",".join(answer.body[1:-1] for answer in answers) == b",".join(messages)
        for answer in answers:
            assert isinstance(json.loads(answer.body), list)
            assert len(answer.body) <= limit + 1 or len(json.loads(answer.body)) == 1
        if limit == 1:
            assert len(answers) == len(messages)


@pytest.mark.parametrize("limit", [1, 6, 30, 10**6])
async def test_chunks_of_cbor_hold_whole_items(store: Store, limit: int) -> None:
    items = [1, "text", b"bytes", [1, [2, [3]]], {"k": 1.5}, cbor2.CBORTag(1, 0), None, list(range(100)), True]
    async with running(store) as site:
        await site.create("s", "application/cbor-seq")
        for count in (1, 3, 2, 3):
            taken, items = items[:count], items[count:] + items[:count]
            await site.append("s", b"".join(map(cbor2.dumps, taken)), "application/cbor-seq")
        whole = (await site.ask("GET", S)).body
        answers = await read_all(site, "s", limit)
        assert b"".join(answer.body for answer in answers) == whole
        for answer in answers:
            assert cbor2.loads(b"\x9f" + answer.body + b"\xff") and len(answer.body) <= max(limit, 178)
        if limit == 1:
            assert len(answers) == 9


@pytest.mark.parametrize(
    ("content_type", "body", "inside"),
    [("application/json", b'["ab", 1]', 2), ("application/cbor-seq", b"\x62ab\x01", 2)],
)
async def test_an_offset_inside_a_message_is_400(store: Store, content_type: str, body: bytes, inside: int) -> None:
    async with running(store) as site:
        await site.create("s", content_type)
        await site.append("s", body, content_type)
        for live in ("", "&live=long-poll", "&live=sse"):
            answer = await site.ask("GET", f"{S}?offset={token(inside)}{live}")
            assert (answer.status, answer.code) == (400, "INVALID_OFFSET")
        tail = (await site.ask("HEAD", S)).offset
        assert (await site.ask("GET", f"{S}?offset={tail}")).status == 200


LARGE = {
    "application/json": [b'"%s"' % (b"," * 40), b'{"a":[%s7]}' % (b"7," * 29), b"[1,2]", *[b"1"] * 9],
    "application/cbor-seq": [b"\x58\x28" + bytes(40), b"\x98\x1e" + bytes(30), b"\x82\x01\x02", *[b"\x0a"] * 9],
}


@pytest.mark.parametrize("content_type", LARGE)
@pytest.mark.parametrize("order", range(3))
async def test_in_large_appends_messages_meet_where_they_do_in_small_ones(
    store: Store, content_type: str, order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_index, "STEP", 10)
    kind = media.kind_of(content_type)
    parts = random.Random(order).sample(LARGE[content_type], len(LARGE[content_type]))
    body = b"[" + b",".join(parts) + b"]" if kind == media.JSON else b"".join(parts)
    stored = messages.stored_form(kind, body, messages.Parsers())
    async with running(store) as site:
        await site.create("s", content_type, b"[0]" if kind == media.JSON else b"\x00")
        before = int((await site.append("s", body, content_type)).offset[17:]) - len(stored)
        client = await site.connect()
        for at in range(len(stored)):
            for limit in (1, 2, 5, 11, 30, 60, len(stored) - 1):
                answer = await client.ask("GET", f"{S}?offset={token(before + at)}&max-bytes={limit}")
                if not messages.is_boundary(kind, stored, at):
                    assert (answer.status, answer.code) == (400, "INVALID_OFFSET")
                    break
                end = len(stored) if len(stored) - at <= limit else messages.cut(kind, stored, at, limit)
                assert answer.offset == token(before + end), (at, limit)
                assert answer.body == messages.body(kind, stored[at:end])


async def test_a_large_append_is_parsed_once_however_it_is_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = 0
    ends = messages.ends

    def counting(kind: int, data: bytes) -> Iterator[int]:
        nonlocal parsed
        parsed += len(data)
        return ends(kind, data)

    body = json.dumps([{"n": n, "text": "x" * (n % 50)} for n in range(20_000)]).encode()
    await site.create("s", "application/json")
    size = int((await site.append("s", body, "application/json")).offset[17:])
    monkeypatch.setattr(messages, "ends", counting)
    for limit in (30_000, 200_000, None):
        answers = await read_all(site, "s", limit)
        assert [message for answer in answers for message in json.loads(answer.body)] == json.loads(body)
    assert size <= parsed < 3 * size


async def test_an_offset_inside_text_is_fine(site: Site) -> None:
    await site.create("s", body=b"hello")
    assert (await site.ask("GET", f"{S}?offset={token(2)}")).body == b"llo"


async def test_offsets_of_a_deleted_stream_are_gone_for_good(store: Store) -> None:
    async with running(store) as site:
        old = (await site.create("s", body=b"secret")).offset
        await site.ask("DELETE", S)
        await site.create("s", body=b"another")
        for live in ("", "&live=long-poll", "&live=sse"):
            answer = await site.ask("GET", f"{S}?offset={old}{live}")
            assert (answer.status, answer.code) == (410, "OFFSET_GONE")


async def test_what_was_trimmed_is_gone_and_says_where_to_go_on(store: Store) -> None:
    async with running(store) as site:
        await site.create("s", body=b"old")
        await site.append("s", b"new")
        await store.transact(Needs("s"), lambda view: trim(view, 1, 3))
        for live in ("", "&live=long-poll", "&live=sse"):
            answer = await site.ask("GET", f"{S}?offset={token(1)}{live}")
            assert (answer.status, answer.code) == (410, "OFFSET_TRIMMED")
            assert answer.header("stream-earliest-offset") == token(3)
        answer = await site.ask("GET", f"{S}?offset={token(3)}")
        assert answer.body == (await site.ask("GET", S)).body == b"new"


# Validators


async def test_if_none_match(site: Site) -> None:
    await site.create("s", body=b"hello")
    etag = (await site.ask("GET", S)).header("etag")
    assert etag is not None and etag.startswith('"')
    for given in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        answer = await site.ask("GET", S, if_none_match=given)
        assert answer.status == 304 and answer.header("etag") == etag and answer.header("stream-next-offset"), given
    for given in ('"x"', etag.strip('"'), ""):
        assert (await site.ask("GET", S, if_none_match=given)).status == 200
    await site.append("s", b"!")
    assert (await site.ask("GET", S, if_none_match=etag)).status == 200
    etag = (await site.ask("GET", S)).header("etag")
    await site.ask("POST", S, stream_closed="true")
    answer = await site.ask("GET", S, if_none_match=etag)
    assert answer.status == 200 and answer.header("stream-closed") == "true"


async def test_offset_now_is_never_cached(site: Site) -> None:
    await site.create("s", "application/json", b"[1]")
    answer = await site.ask("GET", S + "?offset=now", if_none_match="*")
    assert (answer.status, answer.body) == (200, b"[]")
    assert answer.header("etag") is None and answer.header("cache-control") == "no-store"
    assert answer.header("stream-up-to-date") == "true"


# Content coding


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", "application/cbor-seq"])
async def test_a_compressed_read_is_the_identity_read(store: Store, content_type: str) -> None:
    async with running(store, chunk=1_000_000) as site:
        await site.create("s", content_type)
        for number in range(8):
            body = {
                "text/plain": b"line %d\n" % number * 10_000,
                "application/json": json.dumps([number] * 30_000).encode(),
                "application/cbor-seq": cbor2.dumps(number) * 60_000,
            }[content_type]
            await site.append("s", body, content_type)
        plain = await site.ask("GET", S)
        packed = await site.ask("GET", S, accept_encoding="gzip, deflate, br")
        assert plain.header("content-encoding") is None and packed.header("content-encoding") == "gzip"
        assert packed.text == plain.body and len(packed.body) * 5 < len(plain.body)
        assert packed.header("etag") == f"W/{plain.header('etag')}" and packed.header("vary") == "Accept-Encoding"
        assert plain.header("vary") == "Accept-Encoding", "a shared cache must not give it to everybody"
        assert packed.offset == plain.offset
        again = await site.ask("GET", S, accept_encoding="gzip", if_none_match=packed.header("etag"))
        assert again.status == 304


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [("gzip", True), ("GZIP;q=0.5", True), ("*", True), ("br;q=1, *;q=0.1", True), ("*;q=0, gzip", True),
     ("gzip;q=0", False), ("gzip; q=0.000", False), ("gzip;q=0, *", False), ("br", False), ("identity", False),
     ("", False), ("*;q=0", False), ("gzip;Q=0", False), ("gzip;\tq=0", False), ("gzip;q=0.0000", False),
     ("gzip;q=00", False), ("gzip;q=0.", False), ("gzip\t;q=0.001", True), ("gzip;q=1", True)],
)  # fmt: skip
async def test_compression_is_for_who_asks(site: Site, accepted: str, packed: bool) -> None:
    await site.create("s", body=b"x" * 5000)
    answer = await site.ask("GET", S, accept_encoding=accepted)
    assert answer.text == b"x" * 5000
    assert (answer.header("content-encoding") == "gzip") is packed


async def test_what_is_small_or_compressed_already_is_left_alone(site: Site) -> None:
    await site.create("s", body=b"x" * 100)
    await site.create("image", "image/png", b"x" * 5000)
    for path in ("s", "image"):
        assert (await site.ask("GET", ROOT + path, accept_encoding="gzip")).header("content-encoding") is None


async def test_event_streams_are_not_compressed(site: Site) -> None:
    await site.create("s", body=b"x" * 5000)
    client = await site.connect()
    await client.send(request("GET", S + "?offset=-1&live=sse", accept_encoding="gzip"))
    events = await client.events()
    assert "content-encoding" not in events.headers
    assert await events.data() == b"x" * 5000


async def test_compressed_long_polls_are_complete(site: Site) -> None:
    await site.create("s", body=b"x" * 5000)
    answer = await site.ask("GET", S + "?offset=-1&live=long-poll", accept_encoding="gzip")
    assert answer.status == 200 and answer.header("stream-cursor")
    assert zlib.decompress(answer.body, 31) == b"x" * 5000


# Round trips


async def test_large_appends_come_back_whole(store: Store) -> None:
    body = bytes(range(256)) * 8192
    async with running(store, chunk=1 << 24) as site:
        await site.create("s", "application/octet-stream")
        await site.append("s", b"before", "application/octet-stream")
        await site.append("s", body, "application/octet-stream")
        await site.append("s", b"after", "application/octet-stream")
        answer = await site.ask("GET", S)
        assert answer.body == b"before" + body + b"after"
        assert (await site.ask("GET", f"{S}?offset={token(1_000_006)}")).body == (body + b"after")[1_000_000:]


async def test_json_comes_back_byte_for_byte(site: Site) -> None:
    await site.create("s", "application/json")
    await site.append("s", b' {"a" :1.0,\n"a":1e2, "\\u00e9":"\xc3\xa9"} ', "application/json; charset=utf-8")
    await site.append("s", b"[9007199254740993,[ ],-0]", "APPLICATION/JSON")
    answer = await site.ask("GET", S)
    assert answer.body == b'[{"a" :1.0,\n"a":1e2, "\\u00e9":"\xc3\xa9"},9007199254740993,[ ],-0]'


async def test_a_fork_reads_as_its_source_up_to_where_it_left(store: Store) -> None:
    async with running(store) as site:
        await site.create("s", "application/json", b"[1,2,3]")
        at = (await site.append("s", b"[4,5,6]", "application/json")).offset
        await site.append("s", b"[7]", "application/json")
        made = await site.create("fork", "application/json", stream_forked_from=S, stream_fork_offset=at)
        assert made.offset == at
        await site.append("fork", b'["own"]', "application/json")
        assert (await site.ask("GET", ROOT + "fork")).body == b'[1,2,3,4,5,6,"own"]'
        part = await site.create(
            "part", "application/json", stream_forked_from=S, stream_fork_offset=token(6), stream_fork_sub_offset="2"
        )
        assert part.offset == token(10)
        await site.append("part", b"[0]", "application/json")
        assert b"".join(answer.body[1:-1] for answer in await read_all(site, "part", 1)) == b"123450"
        assert (await site.ask("GET", S)).body == b"[1,2,3,4,5,6,7]"


async def test_a_fork_is_never_cut_by_what_another_stream_was(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.create("s", "application/json", b"[1,2]")
    look = Reading.messages_at

    async def replaced(self: Reading, stream: Stream, position: int, rest: bool) -> object:
        piece = await look(self, stream, position, rest)
        await site.ask("DELETE", S)
        await site.create("s", "application/json", b"[10,20]")
        return piece

    forked = {"stream_forked_from": S, "stream_fork_offset": "-1", "stream_fork_sub_offset": "1"}
    monkeypatch.setattr(Reading, "messages_at", replaced)
    assert (await site.ask("PUT", ROOT + "fork", b"", **forked)).status == 410
    monkeypatch.undo()
    assert (await site.ask("PUT", ROOT + "fork", b"", **forked)).status == 201
    assert (await site.ask("GET", ROOT + "fork")).body == b"[10]"
