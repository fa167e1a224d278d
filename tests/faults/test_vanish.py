"""Clients that vanish, at every point of a request: what they asked happened once or not at all."""

from __future__ import annotations

import socket
import struct

import pytest
import trio
import trio.testing

from ds_core.server.decide import Needs
from ds_trio_server.store.base import Vanished
from ds_trio_server.store.sqlite.engine import SQLiteStore
from ds_trio_server.store.sqlite.ranges import fetch
from tests.tools import serve

from .servers import ask
from .streams import append, find, put, read


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serve.start("--data", tmp_path_factory.mktemp("vanish")) as running:
        yield running


def cut(server, sent: bytes, abruptly: bool, wait: bool = False) -> None:
    """Send so much and go: with a reset, or with a close as polite clients do."""
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(sent)
        if wait:
            sock.settimeout(5)
            sock.recv(1)
        if abruptly:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def request(seq: int, body: bytes, chunked: bool, path: str) -> bytes:
    head = (
        f"POST /v1/stream/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
        f"Producer-Id: p\r\nProducer-Epoch: 0\r\nProducer-Seq: {seq}\r\n"
    )
    if chunked:
        half = len(body) // 2
        parts = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:]))
        return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + parts + b"0\r\n\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize("abruptly", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
def test_an_append_cut_after_every_byte_is_stored_once_by_its_retry(server, chunked, abruptly):
    path = f"a{chunked:d}{abruptly:d}"
    assert ask(server, "PUT", path, Content_Type="text/plain")[0] == 201
    seq = 0
    expected = b""
    length = len(request(0, b"000;", chunked, path))
    for size in (*range(1, length, 3), *range(-8, 1)):
        body = b"%03d;" % seq
        whole = request(seq, body, chunked, path)
        cut(server, whole[: size if size > 0 else len(whole) + size], abruptly)
        status, _, _ = ask(
            server, "POST", path, body, Producer_Id="p", Producer_Epoch="0", Producer_Seq=str(seq)
        )
        assert status in (200, 204)
        expected += body
        seq += 1
    # Whole, but nobody waits for the answer.
    for wait in (False, True):
        body = b"%03d;" % seq
        cut(server, request(seq, body, chunked, path), abruptly, wait)
        assert ask(server, "POST", path, body, Producer_Id="p", Producer_Epoch="0", Producer_Seq=str(seq))[0] in (
            (204,) if wait else (200, 204)
        )
        expected += body
        seq += 1
    assert ask(server, "GET", path)[2] == expected


@pytest.mark.parametrize("live", ["long-poll", "sse"])
def test_live_readers_that_vanish_leave_nothing_behind(server, live):
    path = f"live-{live}"
    assert ask(server, "PUT", path, b"x")[0] == 201
    head = f"GET /v1/stream/{path}?live={live}&offset=now HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    for size in range(0, len(head) + 1, 2):
        cut(server, head[:size], size % 4 == 0)
    for n in range(30):
        cut(server, head, n % 2 == 0, wait=live == "sse")
    assert ask(server, "POST", path, b"y")[0] == 204
    assert ask(server, "GET", path)[2] == b"xy"
    assert "Traceback" not in server.output and "failed inside" not in server.output


class CancelAt(trio.abc.Instrument):
    """Cancels a scope when its task is about to take its n-th step."""

    def __init__(self, scope: trio.CancelScope, task: trio.lowlevel.Task, step: int) -> None:
        self._scope = scope
        self._task = task
        self.left = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self.left -= 1
            if self.left == 0:
                self._scope.cancel()


async def cancelled_at(step, operation) -> bool:
    """Run an operation that is cancelled at its n-th step; whether it had so many."""
    with trio.CancelScope() as scope:
        instrument = CancelAt(scope, trio.lowlevel.current_task(), step)
        trio.lowlevel.add_instrument(instrument)
        try:
            await operation()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return instrument.left <= 0


async def test_a_store_operation_cancelled_at_every_step_happens_once(tmp_path):
    store = SQLiteStore(tmp_path)
    await store.open()
    await put(store, "a")
    expected = b""
    for step in range(1, 8):
        for again in range(3):
            seq = len(expected) // 4
            body = b"%03d;" % seq
            producer = {"producer_id": "p", "producer_epoch": "0", "producer_seq": str(seq)}

            async def once(body=body, producer=producer):
                await append(store, "a", body, **producer)

            await cancelled_at(step, once)
            await append(store, "a", body, **producer)
            expected += body
            path = f"b{step}-{again}"
            await cancelled_at(step, lambda path=path: put(store, path, b"x"))
            await put(store, path, b"x")
            assert await read(store, path) == b"x"
            await cancelled_at(step, store.sweep)
            await cancelled_at(step, lambda: read(store, "a"))
    assert await read(store, "a") == expected
    large = await find(store, "a")
    store._tails.forget(large.id)
    for step in range(1, 6):
        await cancelled_at(step, lambda: store._queries.run(fetch, large.id, 0, large.tail))
    await store.close()
    assert store._queries._running.borrowed_tokens == 0


async def test_a_read_that_trimming_overtakes_is_told_where_the_stream_begins(tmp_path, monkeypatch):
    from ds_core.server import stream
    from ds_trio_server import gateway
    from ds_trio_server.config import Config
    from ds_trio_server.http.listeners import listen

    from .client import Client

    store = SQLiteStore(tmp_path)
    overtaken = []
    real = store.read

    async def overtake(found, start, end):
        if not overtaken:
            overtaken.append(1)
            await store.transact(Needs("a"), lambda view: stream.trim(view, found.id, 200_000))
            raise Vanished
        return await real(found, start, end)

    monkeypatch.setattr(store, "read", overtake)
    listeners = listen("127.0.0.1", 0)
    async with trio.open_nursery() as nursery:
        running = await nursery.start(_serve, gateway.serve, store, Config(), listeners)
        client = Client(listeners[0].getsockname()[1])
        assert (await client("PUT", "a", b"x" * 100_000))[0] == 201
        assert (await client("POST", "a", b"y" * 100_000))[0] == 204
        assert (await client("POST", "a", b"z" * 100_000))[0] == 204
        store._tails.forget(1)
        status, headers, _ = await client("GET", "a?offset=0000000000000001_0000000000100000")
        assert status == 410 and headers["stream-earliest-offset"].endswith("_0000000000200000")
        overtaken.clear()
        status, _, body = await client("GET", "a?offset=-1")
        assert status == 200 and body == b"z" * 100_000
        await client.close()
        running.stop()


async def _serve(serve_, store, config, listeners, task_status=trio.TASK_STATUS_IGNORED):
    await serve_(store, config, listeners, task_status.started)
