"""Clients that vanish, and servers that stop, at every await of a request: it happened once, or not at all.

An instrument counts the steps that the server's tasks take. At the n-th something happens; then n grows until the
whole request had fewer.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ds_trio_server.store.sqlite.engine import SQLiteStore
from tests.server.site import ROOT, Site, request, running

S = ROOT + "s"
LONG_POLL_TIMEOUT = 5  # of the fixture `site`
MOST = 400


class AtStep(trio.abc.Instrument):
    """Does something when a task of the server is about to take the n-th step from now on."""

    def __init__(self, step: int, act: Callable[[], object]) -> None:
        self.left = step
        self._act = act

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.left > 0 and "ds_trio_server" in task.coro.cr_code.co_filename:
            self.left -= 1
            if self.left == 0:
                self._act()


class Raw:
    """A client that no task waits for, so that it can go at any moment."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), 10)
        self.got = b""
        self.ended = False

    def vanish(self) -> None:
        self.ended = True
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    async def send(self, whole: bytes) -> None:
        """In pieces that end within the line, the head and the body: there is more to wait for so."""
        head = whole.index(b"\r\n\r\n") + 4
        for begin, end in pairwise((0, 5, head - 1, head, (head + len(whole)) // 2, len(whole))):
            if self.ended or begin == end:
                continue
            try:
                self.sock.sendall(whole[begin:end])
            except ConnectionError:
                return  # answered and closed, before all was there
            await wait_all_tasks_blocked(0.001)

    async def answered(self, enough: bytes = b"\r\n\r\n") -> None:
        """Wait until it has its answer, or is gone."""
        if not self.ended:
            self.sock.setblocking(False)
        with trio.fail_after(10):
            while not self.ended and enough not in self.got:
                try:
                    received = self.sock.recv(65536)
                except BlockingIOError:
                    await trio.sleep(0.001)
                    continue
                except (ConnectionError, OSError):
                    received = b""
                self.ended = not received
                self.got += received


def append(seq: int, how: str) -> bytes:
    body = b"%04d" % seq
    headers = {"content_type": "text/plain", "producer_id": "p", "producer_epoch": 0, "producer_seq": seq}
    if how == "chunked":
        return request("POST", S, transfer_encoding="chunked", **headers) + b"4\r\n" + body + b"\r\n0\r\n\r\n"
    if how == "odd":
        headers["X-A"] = "1\r\nX-A: 2"  # by way of h11, in a task of its own
    return request("POST", S, body, **headers)


async def retried(site: Site, seq: int) -> int:
    """The status of the append's retry, after which it is there once."""
    answer = await site.ask(
        "POST", S, b"%04d" % seq, content_type="text/plain", producer_id="p", producer_epoch=0, producer_seq=seq
    )
    assert answer.status in (200, 204), answer
    assert answer.offset.endswith(f"_{4 * (seq + 1):016}"), "it is there twice"
    return answer.status


async def vanishing(site: Site, whole: bytes, step: int, enough: bytes = b"\r\n\r\n", push: bool = False) -> bool:
    """A client that vanishes at the n-th step of its request; False when that had fewer."""
    client = Raw(site.port)
    instrument = AtStep(step, client.vanish)
    trio.lowlevel.add_instrument(instrument)
    try:
        await client.send(whole)
        if push:
            # A live reader waits: what it waits for comes, and finds it gone or not.
            await wait_all_tasks_blocked(0.002)
            await site.append("s", b"y")
        await client.answered(enough)
    finally:
        trio.lowlevel.remove_instrument(instrument)
        if not client.ended:
            client.vanish()
    return instrument.left == 0


@pytest.mark.parametrize("how", ["plain", "odd", "chunked"])
async def test_a_client_that_vanishes_at_every_await_of_an_append(site: Site, how: str) -> None:
    statuses = []
    for seq in range(MOST):
        vanished = await vanishing(site, append(seq, how), seq + 1)
        statuses.append(await retried(site, seq))
        if not vanished:
            break
    assert not vanished and statuses[-1] == 204, "the last client had its answer"
    assert (await site.ask("GET", S)).text == b"".join(b"%04d" % seq for seq in range(len(statuses)))
    assert len(statuses) >= 8, "that were not all of its awaits"
    print(f"{how}: {len(statuses) - 1} awaits, {statuses.count(204)} appends had happened")


LARGE = b"[" + b"1," * 200_000 + b"1]"  # which is taken apart in a thread
OTHERS = {
    "large": (request("PUT", ROOT + "new", LARGE, content_type="application/json"), b"\r\n\r\n"),
    "create": (request("PUT", ROOT + "new", b"body", content_type="text/plain"), b"\r\n\r\n"),
    "fork": (request("PUT", ROOT + "new", stream_forked_from=S), b"\r\n\r\n"),
    "delete": (request("DELETE", ROOT + "old"), b"\r\n\r\n"),
    "close": (request("POST", ROOT + "old", b"end", content_type="text/plain", stream_closed="true"), b"\r\n\r\n"),
    "head": (request("HEAD", S), b"\r\n\r\n"),
    "read": (request("GET", S + "?offset=-1"), b"x\r\n\r\n"),
    "packed": (request("GET", S + "?offset=-1", accept_encoding="gzip"), b"\r\n0\r\n\r\n"),
    "long-poll": (request("GET", S + "?offset=now&live=long-poll"), b"\r\n\r\n"),
    "events": (request("GET", S + "?offset=now&live=sse"), b"data:y\n"),
    "metrics": (request("GET", "/metrics"), b"\r\n\r\n"),
}


@pytest.mark.parametrize("what", OTHERS)
async def test_a_client_that_vanishes_at_every_await_of_anything_else(site: Site, what: str) -> None:
    whole, enough = OTHERS[what]
    if what in ("read", "packed"):
        await site.append("s", b"x" * 300_000)
        enough = b"x" * 100 if what == "read" else b"\r\n\r\n"
    live = what in ("long-poll", "events")
    for step in range(1, MOST):
        before = (await site.ask("HEAD", S)).offset
        if what in ("delete", "close"):
            await site.create("old", body=b"old")
        vanished = await vanishing(site, whole, step, enough, push=live)
        if what in ("create", "large"):
            answer = await site.ask("GET", ROOT + "new")
            expected = b"body" if what == "create" else LARGE
            assert answer.status == 404 or (answer.status, answer.body) == (200, expected), "half of it happened"
            await site.ask("DELETE", ROOT + "new")
        elif what == "fork":
            answer = await site.ask("DELETE", ROOT + "new")
            assert answer.status in (204, 404)
        elif what == "delete":
            assert (await site.ask("DELETE", ROOT + "old")).status in (204, 404)
        elif what == "close":
            answer = await site.ask("GET", ROOT + "old")
            assert answer.body == (b"oldend" if answer.header("stream-closed") else b"old"), "half of it happened"
            await site.ask("DELETE", ROOT + "old")
        else:
            after = (await site.ask("HEAD", S)).offset
            assert int(after.rpartition("_")[2]) - int(before.rpartition("_")[2]) == live
        if not vanished:
            break
    assert not vanished
    print(f"{what}: {step - 1} awaits")


@pytest.mark.parametrize("how", ["plain", "odd", "chunked"])
async def test_a_server_that_stops_at_every_await_of_an_append(tmp_path: Path, how: str) -> None:
    """With no time for what is in flight, so that each of its tasks is cancelled where it is."""
    seq = told = 0
    stopped = True
    while stopped and seq < MOST:
        async with running(SQLiteStore(tmp_path), grace=0.0) as site:
            if seq == 0:
                await site.create("s")
            client = Raw(site.port)
            instrument = AtStep(seq + 1, site.server.stop)
            trio.lowlevel.add_instrument(instrument)
            await client.send(append(seq, how))
            await client.answered()
            trio.lowlevel.remove_instrument(instrument)
            stopped = instrument.left == 0
            site.server.stop()
            await site.stopped.wait()
            client.vanish()
        async with running(SQLiteStore(tmp_path)) as site:
            status = await retried(site, seq)
            assert status == 204 or not client.got.startswith(b"HTTP/1.1 2"), "what was told is gone"
            told += client.got.startswith(b"HTTP/1.1 2")
        seq += 1
    assert not stopped and told >= 1
    async with running(SQLiteStore(tmp_path)) as site:
        assert (await site.ask("GET", S)).text == b"".join(b"%04d" % number for number in range(seq))
    print(f"{how}: {seq - 1} awaits, {told} appends were acknowledged")
