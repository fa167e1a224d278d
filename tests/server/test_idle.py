"""The path without tasks answers what the path with tasks answers, and keeps nobody waiting, lost or alive in vain."""

from __future__ import annotations

import gc
import logging
import re
import socket
import struct
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ds_core.server.decide import Needs
from ds_core.server.stream import trim
from ds_trio_server import server
from ds_trio_server.access.file import Access
from ds_trio_server.http import idle
from ds_trio_server.http.exchange import Exchange
from ds_trio_server.reads import catchup
from ds_trio_server.store.base import StorageFailed, StorageFull, Store
from ds_trio_server.store.memory import MemoryStore
from ds_trio_server.store.sqlite.engine import SQLiteStore
from tests.access.conftest import Keys
from tests.server.site import ROOT, Answer, Client, Site, request, running, small_send_buffers
from tests.store.rig import Time

pytestmark = pytest.mark.skipif(not hasattr(idle.select, "epoll"), reason="there is no epoll here")

S = ROOT + "s"
Ask = tuple[str, str, bytes | None, dict[str, object]]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "data")


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "access.json")


class Tasks:
    """Counts the connections that were given a task."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given = 0
        give = server.Server._give_task

        def counting(self_: server.Server, *args: Any) -> None:
            self.given += 1
            give(self_, *args)

        monkeypatch.setattr(server.Server, "_give_task", counting)


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Tasks:
    return Tasks(monkeypatch)


class Gate:
    """Holds back what a SQLite store would commit; made while its server runs."""

    def __init__(self, site: Site) -> None:
        assert isinstance(site.store, SQLiteStore)
        self.store = site.store
        self.held: list[Any] = []
        self._commit = self.store._committer.commit
        self.store._committer.commit = self.held.append  # type: ignore[method-assign]

    def open(self) -> None:
        self.store._committer.commit = self._commit  # type: ignore[method-assign]
        for batch in self.held:
            self._commit(batch)
        self.held.clear()

    def fail(self, error: Exception) -> None:
        """As the writer thread reports a commit that failed."""
        self.store._committer.commit = self._commit  # type: ignore[method-assign]
        (batch,) = self.held
        self.held.clear()
        batch.error = error
        self.store._pipeline.written(batch)


@asynccontextmanager
async def gated(folder: Path, **settings: Any) -> AsyncIterator[tuple[Site, Gate]]:
    """A server on SQLite with an empty text stream `s`, whose commits wait for the gate."""
    async with running(SQLiteStore(folder / "data"), **settings) as site:
        await site.create("s")
        gate = Gate(site)
        try:
            yield site, gate
        finally:
            gate.open()


async def pending(site: Site, count: int = 1, body: bytes = b"x") -> list[Client]:
    """Connections that have sent an append each and wait for its commit."""
    clients = [await site.connect() for _ in range(count)]
    for client in clients:
        await client.send(request("POST", S, body, content_type="text/plain"))
    assert site.server._idle is not None
    while len(site.server._idle._answering) < count:
        await wait_all_tasks_blocked(0.001)
    return clients


async def silent(client: Client) -> None:
    """Nothing comes."""
    with trio.move_on_after(0.05) as scope:
        await client.more()
    assert scope.cancelled_caught, client.buffer


def held(site: Site) -> int:
    return len(site.server._connections)


async def until(condition: Any) -> None:
    with trio.fail_after(60):
        while not condition():
            await trio.sleep(0.005)


async def _steps(clock: MockClock, seconds: int) -> None:
    for _ in range(seconds):
        await wait_all_tasks_blocked(0.001)
        clock.jump(1)
    await wait_all_tasks_blocked(0.001)


# The same answers


def script() -> Iterator[Ask]:
    """Requests of all kinds, in an order in which every answer is determined."""
    kinds = {
        "text": ("text/plain", [b"one", b"two\n", b"x" * 3000]),
        "json": ("application/json", [b'[1, {"a": 2},"three"]', b"[4]", b'"five"']),
        "cbor": ("application/cbor-seq", [b"\x01\x82\x02\x03\x63abc", b"\x18\x2a", b"\x81\x80"]),
        "bytes": ("application/octet-stream", [bytes(range(256)), b"\x00"]),
    }
    for name, (kind, bodies) in kinds.items():
        path = ROOT + name
        yield "GET", path, None, {}
        yield "POST", path, bodies[0], {"content_type": kind}
        yield "PUT", path, None, {"content_type": kind}
        yield "GET", path, None, {}
        for body in bodies:
            yield "POST", path, body, {"content_type": kind}
            yield "POST", path, body, {"content_type": kind, "origin": "http://somewhere"}
        for body in (b"", b"[", b"\x61", b"{}", b"[]", b"\xff"):
            yield "POST", path, body, {"content_type": kind}
        yield "POST", path, b"1", {}
        yield "POST", path, b"1", {"content_type": "text/html"}
        yield "POST", path, b"1", {"content_type": kind.upper() + "; charset=x"}
        yield "POST", path, b"1", {"content_type": kind, "content_encoding": "gzip"}
    for number, name in enumerate(kinds, 1):
        path = ROOT + name
        # At every byte: of JSON and CBOR, most are inside of a message.
        for position in (*range(44), 3000, 10**15):
            yield "GET", f"{path}?offset={number:016}_{position:016}", None, {}
            yield "GET", f"{path}?offset={number:016}_{position:016}&max-bytes=5", None, {}
        for query in ("offset=-1", "offset=now", f"offset={'0' * 16}_{'0' * 16}", f"offset={9:016}_{0:016}", "offset=",
                      "offset=-1&offset=-1", "live=sse", "live=no&offset=-1", "x=%zz", "max-bytes=0", "max-bytes=x",
                      "offset=-1&max-bytes=1", "offset=-1&max-bytes=9", "offset=-1&max-bytes=99999999"):  # fmt: skip
            yield "GET", f"{path}?{query}", None, {}
        for accepted in ("gzip", "gzip;q=0", "*", "identity", "br, gzip;q=0.5"):
            yield "GET", path, None, {"accept_encoding": accepted}
        for tag in ('"1:0:6014"', '"1:0:7"', "*", "W/x"):
            yield "GET", path, None, {"if_none_match": tag}
        for connection in ("keep-alive", "Keep-Alive"):
            yield "GET", path, None, {"connection": connection}
            yield "POST", path, b"1", {"content_type": kinds[name][0], "connection": connection}
        yield "GET", path, b"a body that means nothing", {}
        yield "HEAD", path, None, {}
        yield "OPTIONS", path, None, {}
        yield "BREW", path, b"1", {}
    for producer in ((0, 0), (0, 0), (0, 1), (0, 3), (2, 1), (2, 0), (1, 0), ("x", 0), (0, None)):
        headers = {"producer_id": "p", "producer_epoch": producer[0], "producer_seq": producer[1]}
        yield "POST", ROOT + "text", b"once", {"content_type": "text/plain", **headers}
    for seq in ("2", "1", "2", "3"):
        yield "POST", ROOT + "text", b"seq", {"content_type": "text/plain", "stream_seq": seq}
    yield "PUT", ROOT + "fork", None, {"stream_forked_from": ROOT + "text", "stream_fork_offset": f"{1:016}_{4:016}"}
    yield "POST", ROOT + "fork", b"forked", {"content_type": "text/plain"}
    for position in range(12):
        yield "GET", f"{ROOT}fork?offset={1:016}_{position:016}", None, {}
        yield "GET", f"{ROOT}fork?offset={1:016}_{position:016}&max-bytes=3", None, {}
    yield "DELETE", ROOT + "text", None, {}
    yield "GET", ROOT + "text", None, {}
    yield "POST", ROOT + "text", b"1", {"content_type": "text/plain"}
    yield "POST", ROOT + "json", b"[6]", {"content_type": "application/json", "stream_closed": "true"}
    for _ in range(2):
        yield "POST", ROOT + "json", None, {"stream_closed": "true"}
        yield "POST", ROOT + "json", b"7", {"content_type": "application/json"}
        yield "GET", ROOT + "json", None, {}
        yield "GET", ROOT + "json?offset=now", None, {}
    yield "DELETE", ROOT + "json", None, {}
    yield "PUT", ROOT + "json", None, {"content_type": "application/json"}
    yield "GET", f"{ROOT}json?offset={2:016}_{0:016}", None, {}
    yield "PUT", ROOT + "brief", b"a", {"content_type": "text/plain", "stream_ttl": 60}
    for _ in range(3):
        yield "GET", ROOT + "brief", None, {}
        yield "POST", ROOT + "brief", b"b", {"content_type": "text/plain"}
    odd = [ROOT + path for path in ("", "__ds/x", "a//b", "caf%C3%A9", "a%00", "a#z")]
    for target in ("/", "/healthz", *odd, "/v1/x"):
        yield "GET", target, None, {}
        yield "POST", target, b"1", {"content_type": "text/plain"}


class Recorder(Client):
    """Keeps every byte of every answer, the date apart."""

    async def record(self, ask: Ask) -> bytes:
        method, target, body, headers = ask
        self.raw = b""
        await self.send(request(method, target, body, **headers))
        await self.answer(method)
        return re.sub(rb"date: [^\r]*", b"date: then", self.raw)

    async def more(self) -> bool:
        before = len(self.buffer)
        found = await super().more()
        self.raw += self.buffer[before:]
        return found


async def _record(store: Store, asks: list[Ask], access: Access | None = None) -> list[bytes]:
    async with running(store, access) as site:
        client = Recorder(await trio.open_tcp_stream("127.0.0.1", site.port))
        answers = [await client.record(ask) for ask in asks]
        client.close()
        return answers


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_both_paths_answer_alike(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: Tasks
) -> None:
    stores = [SQLiteStore(tmp_path / str(number)) if kind == "sqlite" else MemoryStore() for number in range(2)]
    asks = list(script())
    hot = await _record(stores[0], asks)
    taken = len(asks) - tasks.given
    assert taken > 100, "the hot path took next to nothing"
    monkeypatch.setattr(server, "select", SimpleNamespace())
    plain = await _record(stores[1], asks)
    for ask, one, other in zip(asks, hot, plain, strict=True):
        assert one == other, ask


async def test_both_paths_let_in_alike(keys: Keys, monkeypatch: pytest.MonkeyPatch, tasks: Tasks) -> None:
    admin = keys.token("admin", read=["**"], write=["**"], create=["**"])
    reader = keys.token("reader", read=["text"])
    writer = keys.token("writer", write=["text", "none"])
    asks: list[Ask] = [("PUT", ROOT + "text", b"secret", {"authorization": f"Bearer {admin}"})]
    for token in (None, f"Bearer {admin}", f"Bearer {reader}", f"Bearer {writer}", "Bearer ds_nobody", "Basic YTpi"):
        for path in ("text", "none", "other"):
            asks.append(("GET", ROOT + path, None, {"authorization": token}))
            headers: dict[str, object] = {"authorization": token, "content_type": "application/octet-stream"}
            asks.append(("POST", ROOT + path, b"x", headers))
    hot = await _record(MemoryStore(), asks, Access(keys.file))
    assert tasks.given < len(asks), "nothing went the hot path"
    monkeypatch.setattr(server, "select", SimpleNamespace())
    plain = await _record(MemoryStore(), asks, Access(keys.file))
    assert hot == plain
    statuses = [int(answer.split(b" ", 2)[1]) for answer in hot]
    assert {200, 204, 401, 403, 404} <= set(statuses)
    for (method, _, _, headers), status, answer in zip(asks, statuses, hot, strict=True):
        token = headers["authorization"]
        if token == f"Bearer {reader}" and method == "POST" or token == f"Bearer {writer}" and method == "GET":
            assert status == 403 and b"secret" not in answer
        if token is None:
            assert status == 401 and b"secret" not in answer


async def test_a_token_that_is_revoked_opens_nothing_more(keys: Keys) -> None:
    token = {"authorization": "Bearer " + keys.token("t", read=["**"], write=["**"], create=["**"])}
    control = Access(keys.file)
    async with running(access=control) as site:
        await site.create("s", **token)
        client = await site.connect()
        assert (await client.ask("GET", S, **token)).status == 200
        keys.revoke("t")
        control.reload()
        for method in ("GET", "POST"):
            answer = await client.ask(method, S, b"" if method == "POST" else None, content_type="text/plain", **token)
            assert answer.status == 401


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_ttls_are_renewed_and_end_by_either_path(kind: str, tmp_path: Path) -> None:
    time = Time()
    store: Store = MemoryStore(time.clock()) if kind == "memory" else SQLiteStore(tmp_path / "data", time.clock())
    async with running(store) as site:
        await site.create("s", body=b"a", stream_ttl=10)
        client = await site.connect()
        for number in range(6):
            time.tick += 9
            answer = await client.ask("GET", S)
            assert (answer.status, answer.body) == (200, b"a" + b"b" * number)
            time.tick += 9
            assert (await client.ask("POST", S, b"b", content_type="text/plain")).status == 204
        time.tick += 10
        assert (await client.ask("GET", S)).status == 404
        assert (await client.ask("POST", S, b"b", content_type="text/plain")).status == 404


# Answers that are kept: what one reader was told, another is told as well


async def test_an_answer_that_is_kept_ends_with_what_it_says(store: Store) -> None:
    async with running(store) as site:
        await site.create("s", body=b"old")
        client, other = await site.connect(), await site.connect()
        for _ in range(3):
            assert (await client.ask("GET", S)).body == (await other.ask("GET", S)).body == b"old"
        await site.append("s", b"new")
        assert (await client.ask("GET", S)).body == (await other.ask("GET", S)).body == b"oldnew"
        assert (await client.ask("GET", S)).header("stream-closed") is None
        await site.append("s", b"", stream_closed="true")
        assert (await client.ask("GET", S)).header("stream-closed") == "true"
        await store.transact(Needs("s"), lambda view: trim(view, 1, 3))
        assert (await client.ask("GET", S)).body == b"new"
        await site.ask("DELETE", S)
        assert (await client.ask("GET", S)).status == 404
        await site.create("s", body=b"another")
        assert (await client.ask("GET", S)).body == (await other.ask("GET", S)).body == b"another"


async def test_an_answer_that_is_kept_is_as_each_reader_wants_it(store: Store) -> None:
    async with running(store) as site:
        await site.create("s", "application/json", body=b"1")
        await site.create("large", body=b"x" * 3000)
        client = await site.connect()
        etag = (await client.ask("GET", S)).header("etag")
        for _ in range(2):
            assert (await client.ask("GET", S)).body == b"[1]"
            assert (await client.ask("GET", S, if_none_match=etag)).status == 304
            assert (await client.ask("GET", S + "?offset=now")).header("cache-control") == "no-store"
            assert (await client.ask("GET", ROOT + "large")).body == b"x" * 3000
            packed = await client.ask("GET", ROOT + "large", accept_encoding="gzip")
            assert packed.header("content-encoding") == "gzip"
            assert (await client.ask("GET", S, origin="http://localhost")).header("access-control-allow-origin") == "*"


async def test_answers_are_kept_within_a_bound(store: Store) -> None:
    async with running(store) as site:
        await site.create("s")
        client = await site.connect()
        for number in range(catchup._MOST_KEPT + 50):
            await site.append("s", b"x")
            assert len((await client.ask("GET", S)).body) == number + 1
        assert len(site.server.app._streams_route._live.catchup._kept) == catchup._MOST_KEPT


# No task, little memory


@pytest.mark.parametrize("used", [False, True])
async def test_a_connection_at_rest_has_no_task_and_little_memory(store: Store, used: bool) -> None:
    count = 300
    async with running(store) as site:
        await site.create("s")
        await until(lambda: held(site) == 0)
        whole = request("POST", S, b"x", content_type="text/plain")
        before = trio.lowlevel.current_statistics().tasks_living
        sockets = [socket.socket() for _ in range(count)]
        gc.collect()
        tracemalloc.start()
        for sock in sockets:
            sock.connect(("127.0.0.1", site.port))
            if used:
                sock.sendall(whole)
        await until(lambda: held(site) == count)
        if used:
            for sock in sockets:
                await trio.lowlevel.wait_readable(sock)
                assert sock.recv(4096).startswith(b"HTTP/1.1 204")
            await until(lambda: site.server._idle is not None and len(site.server._idle._watched) == count)
        gc.collect()
        memory = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert trio.lowlevel.current_statistics().tasks_living <= before + 1
        assert memory / count < 3000
        for sock in sockets:
            sock.close()
        await until(lambda: held(site) == 0)


async def test_a_connection_comes_back_to_rest_from_its_task(store: Store, tasks: Tasks) -> None:
    async with running(store) as site:
        await site.create("s")
        client = await site.connect()
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(3):
            given = tasks.given
            assert (await client.ask("HEAD", S)).status == 200
            assert tasks.given == given + 1
            await until(lambda: trio.lowlevel.current_statistics().tasks_living == before)
            assert (await client.ask("POST", S, b"x", content_type="text/plain")).status == 204
            assert (await client.ask("GET", S)).status == 200
            assert tasks.given == given + 1


async def test_one_who_floods_is_served_in_turn(store: Store) -> None:
    async with running(store) as site:
        await site.create("s", body=b"abc")
        flooder, polite = await site.connect(), await site.connect()
        stats = site.server.app.stats

        async def flood() -> None:
            while True:
                await flooder.send(request("GET", S + "?offset=now") * 500)

        async def swallow() -> None:
            while await flooder.stream.receive_some(1 << 20):
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            nursery.start_soon(swallow)
            await until(lambda: stats.requests > 1000)
            for _ in range(20):
                before = stats.requests
                assert (await polite.ask("GET", S)).status == 200
                assert stats.requests - before < 50, "the flood went first"
            nursery.cancel_scope.cancel()


# While a commit is pending


@pytest.mark.parametrize("piece", [1, 7, 1000])
async def test_what_comes_while_an_append_is_pending_is_answered_after_it(tmp_path: Path, piece: int) -> None:
    async with gated(tmp_path) as (site, gate):
        (client,) = await pending(site)
        more = request("POST", S, b"y", content_type="text/plain") + request("GET", S) + request("HEAD", S)
        for at in range(0, len(more), piece):
            await client.send(more[at : at + piece])
            if at < 10 * piece:
                await wait_all_tasks_blocked(0.0001)
        await silent(client)
        gate.open()
        answers = [await client.answer(method) for method in ("POST", "POST", "GET", "HEAD")]
        assert [answer.status for answer in answers] == [204, 204, 200, 200]
        assert answers[2].body == b"xy"


async def test_what_comes_while_an_append_is_pending_costs_no_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = 0
    receive = idle.IdleConnections._receive

    def counting(self: idle.IdleConnections, connection: Any) -> None:
        nonlocal turns
        turns += 1
        receive(self, connection)

    monkeypatch.setattr(idle.IdleConnections, "_receive", counting)
    async with gated(tmp_path) as (site, gate):
        clients = await pending(site, 3)
        turns = 0
        await clients[0].send("more")
        await clients[1].stream.send_eof()
        clients[2].close()
        await trio.sleep(0.1)
        assert turns <= 3
        gate.open()
        assert (await clients[0].answer()).status == (await clients[1].answer()).status == 204


@pytest.mark.parametrize("how", ["close", "reset", "half"])
async def test_a_peer_that_leaves_while_its_append_is_pending(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with gated(tmp_path) as (site, gate):
        clients = await pending(site, 4)
        for client in clients:
            if how == "half":
                await client.stream.send_eof()
                continue
            if how == "reset":
                client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        await wait_all_tasks_blocked(0.01)
        gate.open()
        if how == "half":
            for client in clients:
                assert (await client.answer()).status == 204
                await client.ended()
        await until(lambda: held(site) == 0)
        assert (await site.ask("GET", S)).body == b"xxxx"
    assert not caplog.records


@pytest.mark.parametrize("extra", [b"", request("GET", S)], ids=["nothing more", "another request"])
async def test_a_stop_while_appends_are_pending_answers_them_then_closes(tmp_path: Path, extra: bytes) -> None:
    async with gated(tmp_path) as (site, gate):
        idle = await site.connect()
        clients = await pending(site, 5)
        for client in clients:
            if extra:
                await client.send(extra)
        site.server.stop()
        await idle.ended()
        for client in clients:
            await silent(client)
        gate.open()
        for client in clients:
            answer = await client.answer()
            assert (answer.status, answer.header("connection")) == (204, "close")
            await client.ended()
        with trio.fail_after(60):
            await site.stopped.wait()
    again = SQLiteStore(tmp_path / "data")
    async with running(again) as site:
        assert (await site.ask("GET", S)).body == b"x" * 5


async def test_a_stop_waits_for_a_stuck_disk_only_so_long(tmp_path: Path, mock_clock: MockClock) -> None:
    async with gated(tmp_path, grace=10) as (site, gate):
        (client,) = await pending(site)
        site.server.stop()
        await wait_all_tasks_blocked(0.01)
        mock_clock.jump(11)
        await client.ended()
        gate.open()
        await site.stopped.wait()
        assert held(site) == 0


async def test_a_full_disk_is_507_to_all_whose_appends_failed_and_then_it_works_again(
    tmp_path: Path, tasks: Tasks
) -> None:
    async with gated(tmp_path) as (site, gate):
        clients = await pending(site, 3, b"lost")
        given = tasks.given
        gate.fail(StorageFull())
        for client in clients:
            answer = await client.answer()
            assert (answer.status, answer.code) == (507, "NO_SPACE")
            assert answer.header("connection") is None
        for client in clients:
            assert (await client.ask("POST", S, b"kept", content_type="text/plain")).status == 204
        assert tasks.given == given
        assert (await site.ask("GET", S)).body == b"kept" * 3
        rejected = await site.ask("GET", "/metrics")
        assert b'status="507"' in rejected.body or rejected.status == 501


async def test_a_failed_disk_is_503_to_all_who_wait_and_the_end(tmp_path: Path) -> None:
    with pytest.raises(BaseExceptionGroup) as failure:
        async with gated(tmp_path) as (site, gate):
            clients = await pending(site, 3)
            gate.fail(StorageFailed("the disk is gone"))
            for client in clients:
                answer = await client.answer()
                assert (answer.status, answer.code) == (503, "STORAGE_FAILED")
                assert (answer.header("connection"), answer.header("retry-after")) == ("close", "30")
                await client.ended()
            await trio.sleep_forever()
    found: BaseException = failure.value
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, StorageFailed)


@pytest.mark.parametrize("durable", [True, False])
async def test_a_refusal_waits_for_what_it_rests_on(tmp_path: Path, durable: bool) -> None:
    async with gated(tmp_path) as (site, gate):
        closing, late, retry = [await site.connect() for _ in range(3)]
        await closing.send(request("POST", S, b"end", content_type="text/plain", stream_closed="true"))
        await wait_all_tasks_blocked(0.01)
        await late.send(request("POST", S, b"late", content_type="text/plain"))
        await retry.send(request("POST", S, b"", stream_closed="true"))
        await silent(late)
        await silent(retry)
        if durable:
            gate.open()
            statuses = [(await client.answer()).status for client in (closing, late, retry)]
            assert statuses == [204, 409, 204]
        else:
            gate.fail(StorageFull())
            statuses = [(await client.answer()).status for client in (closing, late, retry)]
            assert statuses == [507, 507, 507], "nobody may be told of an end that never came"
            assert (await site.append("s", b"on")).status == 204


async def test_a_read_waits_for_a_creation_or_removal_and_not_for_an_append(tmp_path: Path) -> None:
    async with gated(tmp_path) as (site, gate):
        await pending(site)
        answer = await site.ask("GET", S)
        assert (answer.status, answer.body) == (200, b""), "what is not durable is not shown"
        deleter, creator, reader, other = [await site.connect() for _ in range(4)]
        await deleter.send(request("DELETE", S))
        await creator.send(request("PUT", ROOT + "new", b"new", content_type="text/plain"))
        await wait_all_tasks_blocked(0.01)
        await reader.send(request("GET", S))
        await other.send(request("GET", ROOT + "new"))
        await silent(reader)
        await silent(other)
        gate.open()
        assert (await deleter.answer()).status == 204
        assert (await creator.answer()).status == 201
        assert (await reader.answer()).status == 404
        assert (await other.answer()).body == b"new"


async def test_an_internal_error_ends_its_connection_only(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(store) as site:
        await site.create("s")
        client = await site.connect()
        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR, "ds"):
            patch.setattr(Exchange, "encode", lambda *args: 1 / 0)
            await client.send(request("POST", S, b"x", content_type="text/plain"))
            await client.ended()
        assert len(caplog.records) == 1
        await until(lambda: held(site) == 0)
        assert (await site.ask("GET", S)).body == b"x", "and nothing is done twice"


# Many requests in a packet


async def answers(client: Client, count: int) -> list[Any]:
    return [await client.answer() for _ in range(count)]


async def test_requests_that_come_at_once_are_answered_in_order_without_a_task(store: Store, tasks: Tasks) -> None:
    async with running(store) as site:
        await site.create("s")
        client = await site.connect()
        before = tasks.given
        posts = [request("POST", S, b"%02d" % number, content_type="text/plain") for number in range(80)]
        await client.send(b"".join([*posts, request("GET", S), request("GET", ROOT + "none"), posts[0]]))
        found = await answers(client, 83)
        assert [answer.status for answer in found] == [204] * 80 + [200, 404, 204]
        ends = [answer.offset for answer in found[:80]]
        assert ends == sorted(set(ends)), "in order"
        assert found[80].body == b"".join(b"%02d" % number for number in range(80)), "a read sees the appends before it"
        assert tasks.given == before
        assert (await site.ask("GET", S)).body == found[80].body + b"00"


async def test_appends_that_come_at_once_share_commits(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path)
    async with running(store) as site:
        await site.create("s")
        before = sum(store.commits.sizes.counts)
        client = await site.connect()
        await client.send(request("POST", S, b"x", content_type="text/plain") * 60)
        assert all(answer.status == 204 for answer in await answers(client, 60))
        assert sum(store.commits.sizes.counts) - before <= 10


async def test_what_comes_behind_the_last_whole_request_is_not_lost(store: Store) -> None:
    async with running(store) as site:
        await site.create("s")
        whole = b"".join(request("POST", S, b"%d." % number, content_type="text/plain") for number in range(5))
        for cut in range(1, len(whole), 7):
            client = await site.connect()
            start = (await client.ask("GET", S + "?offset=now")).offset
            await client.send(whole[:cut])
            await wait_all_tasks_blocked(0.0005)
            await client.send(whole[cut:] + b"\r\n" + request("GET", f"{S}?offset={start}"))
            assert [answer.status for answer in await answers(client, 5)] == [204] * 5
            assert (await client.answer()).body == b"0.1.2.3.4."
            client.close()


@pytest.mark.parametrize("middle", [
    request("GET", S, connection="close"),
    request("POST", S, b"bad", content_type="image/png"),
    request("HEAD", S),
    request("GET", S + "?offset=now&live=long-poll"),
    request("POST", S, b"hello", content_type="text/plain", expect="100-continue"),
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
])  # fmt: skip
async def test_whatever_is_in_the_middle_the_rest_is_answered_as_if_it_had_come_alone(
    store: Store, middle: bytes
) -> None:
    async with running(store, long_poll_timeout=0.05) as site:
        await site.create("s")
        append, read = request("POST", S, b"x", content_type="text/plain"), request("GET", S)
        alone = await site.connect()
        expected: list[bytes] = []
        for one in (append, read, middle, append, read):
            await alone.send(one)
            if b"100-continue" in one:
                assert (await alone.answer()).status == 100
            answer = await alone.answer("HEAD" if one.startswith(b"HEAD") else "GET")
            expected.append(b"%d %s" % (answer.status, answer.body))
            if answer.headers.get("connection") == "close":
                break
        await site.ask("DELETE", S)
        await site.create("s")
        together = await site.connect()
        await together.send(append + read + middle + append + read)
        found = []
        for one in (append, read, middle, append, read)[: len(expected)]:
            answer = await together.answer("HEAD" if one.startswith(b"HEAD") else "GET")
            if answer.status == 100:
                answer = await together.answer()
            found.append(b"%d %s" % (answer.status, answer.body))
        assert found == expected
        if len(expected) < 5:
            await together.ended()


async def test_a_flood_of_requests_keeps_nobody_waiting(store: Store) -> None:
    """However many connections send many requests at once, between two turns of others there is a bounded number."""
    async with running(store) as site:
        await site.create("s", body=b"abc")
        flooders = [await site.connect() for _ in range(60)]
        polite = await site.connect()
        stats = site.server.app.stats
        kinds = [
            request("GET", S + "?offset=now"),
            request("POST", ROOT + "none", b"x", content_type="text/plain"),
            request("POST", S, b"x", content_type="text/plain"),
        ]

        async def flood(client: Client, one: bytes) -> None:
            while True:
                await client.send(one * 100)

        async def swallow(client: Client) -> None:
            while await client.stream.receive_some(1 << 20):
                pass

        async with trio.open_nursery() as nursery:
            for number, client in enumerate(flooders):
                nursery.start_soon(flood, client, kinds[number % 3])
                nursery.start_soon(swallow, client)
            await until(lambda: stats.requests > 3000)
            for _ in range(10):
                before = stats.requests
                assert (await polite.ask("GET", S + "?offset=now")).status == 200
                assert stats.requests - before < 1000, "the flood went first"
            nursery.cancel_scope.cancel()


# Answers that do not fit


@asynccontextmanager
async def cramped(
    monkeypatch: pytest.MonkeyPatch, store: Store, **settings: Any
) -> AsyncIterator[tuple[Site, Client]]:
    """A server and a client whose sockets hold next to nothing."""
    small_send_buffers(monkeypatch)
    async with running(store, **settings) as site:
        await site.create("s", body=b"".join(b"%07d " % number for number in range(7500)))
        sock = trio.socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        await sock.connect(("127.0.0.1", site.port))
        client = Client(trio.SocketStream(sock))
        yield site, client
        client.close()


async def test_an_answer_that_does_not_fit_goes_on_in_a_task(
    store: Store, monkeypatch: pytest.MonkeyPatch, tasks: Tasks
) -> None:
    async with cramped(monkeypatch, store) as (site, client):
        hot = site.server._idle
        assert hot is not None
        for given in range(tasks.given, tasks.given + 3):
            await client.send(request("GET", S))
            await until(lambda given=given: tasks.given == given + 1)
            answer = await client.answer()
            assert len(answer.body) == 60000 and answer.body.endswith(b"0007499 ")
            await until(lambda: len(hot._watched) == 1)
        given = tasks.given
        assert (await client.ask("GET", S + "?offset=now")).status == 200
        assert tasks.given == given, "what fits needs none"


async def test_requests_behind_an_answer_that_does_not_fit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async with cramped(monkeypatch, store) as (_, client):
        await client.send(request("GET", S))
        await wait_all_tasks_blocked(0.01)
        await client.send(request("HEAD", S) + request("GET", S + "?offset=now"))
        await wait_all_tasks_blocked(0.01)
        assert len((await client.answer()).body) == 60000
        assert (await client.answer("HEAD")).status == 200
        assert (await client.answer()).body == b""


async def test_a_stop_lets_an_answer_that_does_not_fit_arrive(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async with cramped(monkeypatch, store) as (site, client):
        await client.send(request("GET", S))
        await wait_all_tasks_blocked(0.01)
        site.server.stop()
        await wait_all_tasks_blocked(0.01)
        assert len((await client.answer()).body) == 60000
        await client.ended()
        await site.stopped.wait()


async def test_a_reader_who_takes_nothing_is_cut_off(
    store: Store, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    async with cramped(monkeypatch, store, send_timeout=30) as (site, client):
        await client.send(request("GET", S))
        await wait_all_tasks_blocked(0.3)  # the kernels have taken what they take
        await _steps(mock_clock, 27)
        assert held(site) == 1
        await _steps(mock_clock, 6)
        assert held(site) == 0


# Times


async def test_a_connection_at_rest_is_closed_after_its_time(store: Store, mock_clock: MockClock) -> None:
    async with running(store, idle_timeout=20) as site:
        await site.create("s")
        fresh, used = await site.connect(), await site.connect()
        await _steps(mock_clock, 15)
        assert (await used.ask("GET", S)).status == 200
        await _steps(mock_clock, 7)
        await fresh.ended()
        assert (await used.ask("POST", S, b"x", content_type="text/plain")).status == 204
        await _steps(mock_clock, 18)
        assert held(site) == 1
        await _steps(mock_clock, 4)
        await used.ended()
        assert held(site) == 0


async def test_no_deadline_counts_while_an_append_waits_for_its_disk(tmp_path: Path, mock_clock: MockClock) -> None:
    async with gated(tmp_path, idle_timeout=20, head_timeout=10, body_timeout=10, send_timeout=10) as (site, gate):
        (client,) = await pending(site)
        await _steps(mock_clock, 60)
        gate.open()
        with trio.move_on_after(1e9):
            assert (await client.answer()).status == 204
        await _steps(mock_clock, 15)
        assert (await client.ask("GET", S)).body == b"x", "and its rest begins with the answer"


async def test_empty_lines_gain_no_time(store: Store, mock_clock: MockClock) -> None:
    async with running(store, idle_timeout=20, head_timeout=10) as site:
        client = await site.connect()
        with suppress(trio.BrokenResourceError):
            for _ in range(13):
                await client.send(b"\r\n")
                await _steps(mock_clock, 2)
        await client.ended()


async def test_half_a_head_has_the_time_of_a_head(store: Store, mock_clock: MockClock) -> None:
    async with running(store, idle_timeout=100, head_timeout=10) as site:
        await site.create("s")
        client = await site.connect()
        assert (await client.ask("GET", S)).status == 200
        whole = request("GET", S)
        await _steps(mock_clock, 50)
        await client.send(whole[:20])
        await _steps(mock_clock, 8)
        await client.send(whole[20:])
        assert (await client.answer()).status == 200
        await client.send(whole[:20])
        await _steps(mock_clock, 13)
        answer: Answer = await client.answer()
        assert (answer.status, answer.code) == (408, "TOO_SLOW")
        await client.ended()
