"""Clients that vanish at every point of a request: an append happened or did not, and its retry is no second one."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ds_trio_server.store.sqlite.engine import SQLiteStore
from tests.server.site import ROOT, Client, Site, request, running
from tests.server.test_idle import Gate, held, until

S = ROOT + "s"
LONG_POLL_TIMEOUT = 0.5  # of the fixture `site`
RESET = struct.pack("ii", 1, 0)


def _append(seq: int, how: str, **headers: Any) -> bytes:
    body = b"%04d" % seq
    producer = {"producer_id": "p", "producer_epoch": 0, "producer_seq": seq}
    if how == "chunked":
        whole = request("POST", S, content_type="text/plain", transfer_encoding="chunked", **producer, **headers)
        return whole + b"2\r\n" + body[:2] + b"\r\n2\r\n" + body[2:] + b"\r\n0\r\n\r\n"
    if how == "odd":
        headers["X-A"] = "1\r\nX-A: 2"
    return request("POST", S, body, content_type="text/plain", **producer, **headers)


def _leave(client: Client, how: str) -> None:
    if how == "reset":
        client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()


@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize("how", ["plain", "odd", "chunked"])
async def test_a_client_that_vanishes_after_every_byte_of_an_append(site: Site, how: str, leave: str) -> None:
    size = len(_append(100, how))
    happened = 0
    for seq in range(size + 1):
        whole = _append(seq, how)
        client = await site.connect()
        await client.send(whole[:seq])
        if seq % 3 == 0:
            await wait_all_tasks_blocked(0.0005)  # else it may be gone before it was seen
        _leave(client, leave)
        answer = await site.ask(
            "POST", S, b"%04d" % seq, content_type="text/plain", producer_id="p", producer_epoch=0, producer_seq=seq
        )
        assert answer.status in (200, 204), answer
        happened += answer.status == 204
        assert answer.offset.endswith(f"_{4 * (seq + 1):016}"), "an append is there twice"
    found = (await site.ask("GET", S)).text
    assert found == b"".join(b"%04d" % seq for seq in range(size + 1))
    assert happened <= 1, "what was not sent whole was stored"


@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_a_client_that_vanishes_after_every_byte_of_an_answer(site: Site, leave: str) -> None:
    first = await site.connect()
    await first.send(_append(0, "plain"))
    while not first.buffer.endswith(b"\r\n\r\n"):
        assert await first.more()
    for seq in range(1, len(first.buffer) + 1):
        client = await site.connect()
        await client.send(_append(seq, "plain"))
        if seq > 1:
            await client.exactly(seq - 1)
        _leave(client, leave)
        answer = await site.ask(
            "POST", S, b"%04d" % seq, content_type="text/plain", producer_id="p", producer_epoch=0, producer_seq=seq
        )
        assert answer.status == 204 or seq == 1, "what was answered is stored"
        assert answer.offset.endswith(f"_{4 * (seq + 1):016}")


OTHERS = {
    "create": request("PUT", ROOT + "new", b"body", content_type="text/plain"),
    "fork": request("PUT", ROOT + "fork", stream_forked_from=S, stream_fork_offset="0" * 16 + "_" + "0" * 16),
    "delete": request("DELETE", ROOT + "gone"),
    "close": request("POST", ROOT + "closing", b"end", content_type="text/plain", stream_closed="true"),
    "read": request("GET", S + "?offset=-1", accept_encoding="gzip"),
    "long-poll": request("GET", S + "?offset=now&live=long-poll"),
    "events": request("GET", S + "?offset=-1&live=sse"),
    "head": request("HEAD", S),
    "metrics": request("GET", "/healthz"),
}


@pytest.mark.parametrize("what", OTHERS)
async def test_a_client_that_vanishes_at_any_point_of_anything_else(site: Site, what: str) -> None:
    whole = OTHERS[what]
    await site.append("s", b"x" * 100_000)
    for at in range(1, len(whole) + 1, 2 if what != "events" else 5):
        if what in ("create", "fork"):
            await site.ask("DELETE", ROOT + ("new" if what == "create" else "fork"))
        elif what in ("delete", "close"):
            await site.ask("PUT", ROOT + ("gone" if what == "delete" else "closing"), content_type="text/plain")
        for turns in range(3):
            client = await site.connect()
            await client.send(whole[:at])
            for _ in range(turns):
                await trio.lowlevel.checkpoint()  # the server is at another of its awaits each time
            _leave(client, "close" if turns else "reset")
    for turns in range(12):
        client = await site.connect()
        await client.send(whole)
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        _leave(client, "reset")
        await site.append("s", b"y")
    await wait_all_tasks_blocked(0.01)
    assert (await site.ask("HEAD", S)).offset.endswith(f"_{100_012:016}")
    if what == "close":
        answer = await site.ask("GET", ROOT + "closing")
        assert answer.body == (b"end" if answer.header("stream-closed") else b""), "half of it happened"
    if what == "create":
        answer = await site.ask("GET", ROOT + "new")
        assert answer.status == 404 or answer.body == b"body"


async def test_clients_that_vanish_while_the_disk_works(tmp_path: Path) -> None:
    async with running(SQLiteStore(tmp_path / "data")) as site:
        await site.create("s")
        for round in range(3):
            gate = Gate(site)
            for number in range(12):
                client = await site.connect()
                producer = {"producer_id": f"p{number}", "producer_epoch": 0, "producer_seq": round}
                whole = request("POST", S, b"r", content_type="text/plain", **producer)
                if number % 2:
                    whole = whole.replace(b"Host", b"X-A: 1\r\nX-A: 2\r\nHost")  # by way of h11, in a task
                await client.send(whole)
                await wait_all_tasks_blocked(0.001)
                _leave(client, "reset" if number % 3 else "close")
            await wait_all_tasks_blocked(0.01)
            gate.open()
            for number in range(12):
                producer = {"producer_id": f"p{number}", "producer_epoch": 0, "producer_seq": round}
                assert (await site.append("s", b"r", **producer)).status == 204, "decided is not undone"
            assert (await site.ask("HEAD", S)).offset.endswith(f"_{12 * (round + 1):016}")
        site.disconnect()
        await until(lambda: held(site) == 0)
