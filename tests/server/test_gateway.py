"""A gateway in a trio program of one's own: the same decisions without HTTP as with it, and an end in good order."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import ds_trio_server
from ds_core.server.errors import ProtocolError
from ds_trio_server import Config, Gateway, MemoryStore, Result, SQLiteStore, StorageFailed, Store, StoreClosed


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "data")


@asynccontextmanager
async def running(store: Store, **settings: Any) -> AsyncIterator[Gateway]:
    with trio.fail_after(60):
        async with Gateway(store, Config(grace=1.0, **settings)) as gateway:
            yield gateway


async def over_http(gateway: Gateway, method: str, target: str, body: bytes | None = None, **headers: str) -> Result:
    """As a client elsewhere sees it."""

    def ask() -> Any:
        request = urllib.request.Request(
            f"{gateway.url}/{target}", body, {name.replace("_", "-"): value for name, value in headers.items()},
            method=method,
        )  # fmt: skip
        try:
            return urllib.request.urlopen(request, timeout=20)
        except urllib.error.HTTPError as error:
            return error

    with await trio.to_thread.run_sync(ask) as answer:
        from ds_core.server.responses import Response

        return Result(Response(answer.status, list(answer.headers.items())), answer.read())


async def refused(awaitable: Any) -> tuple[int, str]:
    with pytest.raises(ProtocolError) as caught:
        await awaitable
    return caught.value.status, caught.value.code


def every_operation(gateway: Gateway) -> list[Any]:
    return [gateway.head("s"), gateway.create("s"), gateway.append("s", b"x"), gateway.delete("s"), gateway.read("s")]


async def test_what_one_does_in_process_the_other_sees_over_http(store: Store) -> None:
    async with running(store) as gateway:
        assert gateway.url.startswith("http://127.0.0.1:")
        assert (await gateway.create("sensors/1", "application/json")).status == 201
        assert (await gateway.create("sensors/1", "application/json")).status == 200
        appended = await gateway.append("sensors/1", b'{"t":1}')
        assert appended.status == 204
        sent = await over_http(gateway, "POST", "sensors/1", b'[{"t":2}]', content_type="application/json")
        assert sent.status == 204
        result = await gateway.read("sensors/1")
        seen = await over_http(gateway, "GET", "sensors/1?offset=-1")
        assert (result.status, result.body, result.offset) == (200, b'[{"t":1},{"t":2}]', seen.offset)
        assert (seen.body, seen.headers["etag"]) == (result.body, result.headers["etag"])
        assert result.up_to_date and not result.closed and result.content_type == "application/json"
        assert (await gateway.read("sensors/1", appended.offset)).body == b'[{"t":2}]'
        assert (await gateway.append("sensors/1", close=True)).closed
        assert (await over_http(gateway, "HEAD", "sensors/1")).closed
        assert (await gateway.head("/v1/stream/sensors/1")).closed
        assert (await gateway.delete("sensors/1")).status == 204
        assert (await over_http(gateway, "GET", "sensors/1")).status == 404


async def test_exactly_once_forks_limits_and_times(store: Store) -> None:
    async with running(store) as gateway:
        await gateway.create("a", "text/plain", b"first ", ttl=3600)
        assert (await gateway.head("a")).headers["stream-ttl"] == "3600"
        for status in (200, 204):
            result = await gateway.append("a", b"second", producer=("p", 0, 0))
            assert (result.status, result.headers["producer-seq"]) == (status, "0")
        assert await refused(gateway.append("a", b"x", producer=("p", 0, 7))) == (409, "SEQUENCE_GAP")
        assert (await gateway.append("a", b"!", sequence="2")).status == 204
        assert (await refused(gateway.append("a", b"!", sequence="1")))[0] == 409
        part = await gateway.read("a", max_bytes=6)
        assert (part.body, part.up_to_date) == (b"first ", False)
        fork = await gateway.create("b", "text/plain", source="a", fork_offset=part.offset, fork_skip=3)
        assert fork.status == 201
        assert (await gateway.read("b")).body == b"first sec"
        other = gateway.append("a", b"[", content_type="application/json")
        assert await refused(other) == (409, "CONTENT_TYPE_MISMATCH")
        assert (await refused(gateway.create("c", "text/plain", ttl=-1)))[0] == 400
        for path in ("", "a//b", "../x", "__ds/x", "/v1/stream/"):
            assert (await refused(gateway.head(path)))[0] in (400, 404), path
        assert (await refused(gateway.read("a", "nonsense")))[0] == 400
        assert (await refused(gateway.read("nobody")))[0] == 404


@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
async def test_a_follower_has_every_message_once_and_in_order_and_the_end(store: Store, content_type: str) -> None:
    got: list[int] = []
    last: list[Result] = []

    async def follow(gateway: Gateway) -> None:
        async for result in gateway.follow("s", max_bytes=700):
            assert len(result.body) <= 710
            json_body = content_type == "application/json"
            got.extend(json.loads(result.body) if json_body else map(int, result.body.split()))
            last[:] = [result]

    async with running(store) as gateway:
        await gateway.create("s", content_type)
        for number in range(300):
            await gateway.append("s", b"%d" % number if content_type == "application/json" else b"%d " % number)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, gateway)
            for number in range(300, 600):
                await gateway.append("s", b"%d" % number if content_type == "application/json" else b"%d " % number)
            await gateway.append("s", close=True)
        assert got == list(range(600))
        assert last[0].closed and last[0].offset == (await gateway.head("s")).offset


async def test_now_is_where_the_tail_was_when_the_follower_came(store: Store) -> None:
    async with running(store) as gateway:
        await gateway.create("s", "text/plain", b"before")
        async with aclosing(gateway.follow("s", "now")) as results, trio.open_nursery() as nursery:
            found: list[Result] = []

            async def first() -> None:
                found.append(await anext(results))

            nursery.start_soon(first)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert gateway.server.app.fanout.count() == 1
            await gateway.append("s", b"after")
        assert found[0].body == b"after"
        assert gateway.server.app.fanout.count() == 0


async def test_a_follower_of_what_is_deleted_or_trimmed_away_is_told(store: Store) -> None:
    async with running(store) as gateway:
        await gateway.create("s", "text/plain", b"x")
        results = gateway.follow("s")
        assert (await anext(results)).body == b"x"
        await gateway.delete("s")
        assert await refused(anext(results)) == (404, "STREAM_NOT_FOUND")
        assert (await refused(anext(gateway.follow("s"))))[0] == 404


async def test_followers_end_when_the_gateway_stops_and_late_calls_are_refused(store: Store) -> None:
    gateway = Gateway(store, Config(grace=1.0))
    for early in every_operation(gateway):
        with pytest.raises(StoreClosed):
            await early
    with pytest.raises(StoreClosed):
        await anext(gateway.follow("s"))
    ended: list[int] = []

    async def follow() -> None:
        ended.append(len([result async for result in gateway.follow("s")]))

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            async with gateway:
                await gateway.create("s", "text/plain", b"x")
                nursery.start_soon(follow)
                nursery.start_soon(follow)
                await trio.testing.wait_all_tasks_blocked(0.05)
    assert ended == [1, 1]
    for late in every_operation(gateway):
        with pytest.raises(StoreClosed):
            await late
    with pytest.raises(StoreClosed):
        await anext(gateway.follow("s"))
    with pytest.raises(RuntimeError, match="runs once"):
        await gateway.__aenter__()


BAD_TEXT = ["\ud800", "text/plain;x=\ud800", "a\r\nX-Evil: 1", "a\0b", "\u2028", "a\x7f", " a", "a ", "\x85"]


async def test_what_no_request_could_bring_is_refused_and_harms_nobody(store: Store) -> None:
    async with running(store) as gateway:
        await gateway.create("s", "text/plain", b"1")
        for text in BAD_TEXT:
            assert await refused(gateway.create("n", text)) == (400, "INVALID_REQUEST")
            assert await refused(gateway.append("s", b"x", sequence=text)) == (400, "INVALID_REQUEST")
            assert await refused(gateway.append("s", b"x", content_type=text)) == (400, "INVALID_REQUEST")
            assert await refused(gateway.append("s", b"x", producer=(text, 0, 0))) == (400, "INVALID_REQUEST")
            assert await refused(gateway.create("n", expires_at=text)) == (400, "INVALID_REQUEST")
            assert (await refused(gateway.create("n", source="s", fork_offset=text)))[0] == 400
            assert (await refused(gateway.read("s", text)))[0] == 400
        assert (await refused(gateway.create("n\ud800")))[0] == 400
        assert await refused(gateway.create("n", "text/plain;" + "x" * 70_000)) == (431, "HEAD_TOO_LARGE")
        for body in ("text", ["list"], 5, None, {"a": 1}, object()):
            for path in ("s", "json"):
                with pytest.raises(TypeError, match="a body is bytes, not"):
                    await gateway.append(path, body, content_type="text/plain")  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="a body is bytes, not"):
                await gateway.create("n", "application/json", body)  # type: ignore[arg-type]
        wrong: list[Any] = [b"text/plain", 1.5, ["text/plain"]]
        for value in wrong:
            with pytest.raises(TypeError):
                await gateway.create("n", value)
            with pytest.raises(TypeError):
                await gateway.read("s", value)
            with pytest.raises(TypeError):
                await gateway.create(value)
            with pytest.raises(TypeError):
                await gateway.append("s", b"x", producer=value)
        assert (await gateway.append("s", b"2")).status == 204
        for end in (gateway.read("s"), over_http(gateway, "GET", "s")):
            assert (await end).body == b"12"
        assert (await over_http(gateway, "GET", "n")).status == 404


async def test_a_body_is_kept_as_it_was_when_it_was_given(store: Store) -> None:
    async with running(store) as gateway:
        buffer = bytearray(b"first")
        await gateway.create("s", "application/octet-stream", buffer)
        await gateway.append("s", buffer)
        await gateway.append("s", memoryview(b"abcdef")[::2])
        buffer[:] = b"OTHER"
        assert (await gateway.read("s")).body == b"firstfirstace"
        assert (await over_http(gateway, "GET", "s")).body == b"firstfirstace"
        assert (await gateway.create("j", "application/json", memoryview(b"[1]"))).status == 201
        assert (await gateway.read("j")).body == b"[1]"


async def test_several_gateways_live_in_one_program(tmp_path: Path) -> None:
    async with running(SQLiteStore(tmp_path / "a")) as one, running(SQLiteStore(tmp_path / "b")) as two:
        assert one.url != two.url
        for gateway, word in ((one, b"one"), (two, b"two")):
            await gateway.create("s", "text/plain", word)
        assert [(await over_http(gateway, "GET", "s?offset=-1")).body for gateway in (one, two)] == [b"one", b"two"]
        with pytest.raises(StorageFailed):  # the folder has an owner
            async with running(SQLiteStore(tmp_path / "a")):
                raise AssertionError
        assert (await one.append("s", b"!")).status == 204


async def test_without_listeners_it_is_this_programs_alone(tmp_path: Path) -> None:
    async with Gateway(SQLiteStore(tmp_path), listeners=()) as gateway:
        assert gateway.url == ""
        await gateway.create("s", "text/plain", b"here")
        assert (await gateway.read("s")).body == b"here"


async def test_an_error_of_the_program_comes_out_as_it_is(store: Store) -> None:
    class Mine(Exception):
        pass

    with pytest.raises(Mine):
        async with running(store) as gateway:
            await gateway.create("s", "text/plain")
            raise Mine
    assert not store.is_open


async def test_a_disk_that_fails_ends_the_block(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path)
    with pytest.raises(StorageFailed, match="no more"):
        async with running(store):
            store._health.fail(StorageFailed("no more"))
            await trio.sleep_forever()
    assert not store.is_open


async def test_an_address_in_use_leaves_nothing_open(store: Store) -> None:
    async with running(MemoryStore()) as gateway:
        port = int(gateway.url.partition("://")[2].partition("/")[0].rpartition(":")[2])
        with pytest.raises(OSError):
            async with Gateway(store, port=port):
                raise AssertionError
    assert not store.is_open


async def test_a_long_answer_comes_whole(store: Store) -> None:
    whole = bytes(range(256)) * 4000
    async with running(store) as gateway:
        await gateway.create("s", body=whole)
        assert (await gateway.read("s")).body == whole
        assert b"".join([result.body async for result in _until_now(gateway)]) == whole


async def _until_now(gateway: Gateway) -> AsyncIterator[Result]:
    async with aclosing(gateway.follow("s")) as results:
        async for result in results:
            yield result
            if result.up_to_date:
                return


def test_the_program_on_the_page_runs(tmp_path: Path) -> None:
    page = (Path(ds_trio_server.__file__).parent / "README.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    address, first, end = done.stdout.splitlines()
    assert address.startswith("others find it at http://127.0.0.1:")
    assert first.startswith("b'[{\"t\": 21.5}]' ") and end.startswith("b'[]' ")
