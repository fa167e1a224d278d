"""However a request is written and sent, it means the same: random sequences of requests in several shapes.

A shape decides which path answers (without a task, with one, by way of h11) and how many requests are under way at
once. What may differ is framing alone: chunks, and whether the connection lives on.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from ds_trio_server.store.base import Store
from ds_trio_server.store.memory import MemoryStore
from ds_trio_server.store.sqlite.engine import SQLiteStore
from tests.server.site import ROOT, SECURITY, Answer, Client, Site, request, running
from tests.store.rig import Time

COUNT = 500
TYPES = ("text/plain", "application/json", "application/cbor-seq", "application/octet-stream")
BODIES = {
    "text/plain": (b"one\n", "zw\u00f6lf".encode(), b"x" * 700),
    "application/json": (b"[1, 2]", b'{"a": [ ]}', b'[[3],"vier" , 5.0]', b"[" + b"6," * 600 + b"7]"),
    "application/cbor-seq": (b"\x01\x02", b"\x82\x01\x63abc", b"\x58\xc8" + bytes(200)),
    "application/octet-stream": (bytes(range(256)), b"\x00", b"\r\n\r\n"),
}
ODD_BODIES = (b"", b"[]", b"[", b"\x61", b"\xff", b"{}", b"1")


class Ask:
    """A request, before it is written down."""

    def __init__(self, method: str, target: str, body: bytes | None = None, **headers: object) -> None:
        self.method = method
        self.target = target
        self.body = body
        self.headers = headers

    def __repr__(self) -> str:
        return f"{self.method} {self.target} {self.headers} {self.body!r}"


def asks(rng: random.Random) -> list[Ask]:
    """Requests about a few paths; every answer is determined by what came before."""
    return [_ask(rng) for _ in range(COUNT)] + [Ask("GET", ROOT + path) for path in "abcd"]


def _ask(rng: random.Random) -> Ask:
    name = rng.choice("abcd")
    path = ROOT + name
    # Mostly the type that the path mostly has.
    kind = TYPES["abcd".index(name)] if rng.random() < 0.9 else rng.choice(TYPES)
    body = rng.choice(BODIES[kind] if rng.random() < 0.85 else ODD_BODIES)
    given = kind if rng.random() < 0.95 else rng.choice(["", None, "x", "a/b; c"])
    headers: dict[str, object] = {"content_type": given}
    what = rng.random()
    if what < 0.38:
        if rng.random() < 0.4:
            headers |= {"producer_id": rng.choice("pq"), "producer_epoch": rng.choice([0, 0, 0, 1, 2]),
                        "producer_seq": rng.choice([0, 1, 2, 3, 4])}  # fmt: skip
        if rng.random() < 0.1:
            headers["stream_seq"] = rng.randrange(100)
        if rng.random() < 0.04:
            headers["stream_closed"] = rng.choice(["true", "TRUE", "1"])
        return Ask("POST", path, body, **headers)
    if what < 0.78:
        query = rng.choice(["", "", "?offset=-1", "?offset=now", "?offset=", "?x=y", "?offset=-1&live=no"])
        if rng.random() < 0.6:
            query = f"?offset={rng.randrange(20):016}_{rng.choice([0, 1, 2, 4, 5, 6, 12, 20, 204, 256, 700]):016}"
            query += rng.choice(["", "", "&live=long-poll", "&max-bytes=3", "&max-bytes=300", "&max-bytes=0"])
        accept = rng.choice([None, None, None, "gzip", "identity", "*;q=0"])
        tag = rng.choice([None, None, None, "*", f'"{rng.randrange(9)}:0:{rng.choice([4, 5, 6, 256])}"'])
        return Ask("GET", path + query, accept_encoding=accept, if_none_match=tag)
    if what < 0.83:
        return Ask(rng.choice(["HEAD", "OPTIONS", "PATCH"]), path)
    if what < 0.85:
        return Ask("DELETE", path)
    if what < 0.9:
        source = ROOT + rng.choice("abcd")
        offset = rng.choice([None, "-1", "now", f"{rng.randrange(9):016}_{rng.choice([0, 4, 5, 6, 256]):016}"])
        return Ask("PUT", path, b"", stream_forked_from=source, stream_fork_offset=offset,
                   stream_fork_sub_offset=rng.choice([None, None, 0, 1, 2]))  # fmt: skip
    if rng.random() < 0.3:
        headers |= {"stream_ttl": rng.choice([0, 5, 60, "x"])}
    return Ask("PUT", path, body if rng.random() < 0.5 else None, **headers)


Write = Callable[[random.Random, Ask], bytes]


def plain(rng: random.Random, ask: Ask) -> bytes:
    return request(ask.method, ask.target, ask.body, **ask.headers)


def chunked(rng: random.Random, ask: Ask) -> bytes:
    """A body in chunks with extensions and a trailer, and a head that only h11 takes."""
    whole = request(ask.method, ask.target, **ask.headers)[:-2]
    if ask.body is None:
        return whole + b"TE: trailers\r\n\r\n"
    whole += b"Transfer-Encoding: chunked\r\n\r\n"
    at = 0
    while at < len(ask.body):
        piece = ask.body[at : at + rng.randrange(1, 300)]
        whole += b"%X;a=b\r\n%b\r\n" % (len(piece), piece)
        at += len(piece)
    return whole + b"0\r\nChecksum: none\r\n\r\n"


def odd(rng: random.Random, ask: Ask) -> bytes:
    return plain(rng, ask).replace(b"Host:", b"x-twice: 1\r\nX-Twice:\t2\r\nhOST:\t")


def upgrading(rng: random.Random, ask: Ask) -> bytes:
    """As clients write it that would rather speak HTTP/2."""
    return plain(rng, ask).replace(b"\r\n", b"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n", 1)


def absolute(rng: random.Random, ask: Ask) -> bytes:
    return plain(rng, ask).replace(b" /", b" http://test/", 1)


def any_of_them(rng: random.Random, ask: Ask) -> bytes:
    return rng.choice([plain, plain, chunked, odd, upgrading, absolute])(rng, ask)


def _settle(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    """All of an answer but its framing and what the time of day and chance have to do with it."""
    assert SECURITY.items() <= answer.headers.items()
    skip = ("date", "connection", "transfer-encoding", "stream-cursor")
    return answer.status, {name: value for name, value in answer.headers.items() if name not in skip}, answer.text


async def _one_by_one(site: Site, todo: list[Ask], write: Write, rng: random.Random, pieces: bool) -> list[Answer]:
    answers = []
    client = await site.connect()
    for ask in todo:
        whole = write(rng, ask)
        cut = rng.randrange(len(whole)) if pieces else 0
        if cut:
            await client.send(whole[:cut])
            await trio.sleep(0)
        await client.send(whole[cut:])
        answers.append(await client.answer(ask.method))
        if answers[-1].header("connection") == "close":
            await client.ended()
            client = await site.connect()
    return answers


async def _pipelined(site: Site, todo: list[Ask], write: Write, rng: random.Random) -> list[Answer]:
    """In bursts; what a closed connection left unanswered is asked again, for it was not done."""
    answers: list[Answer] = []
    client: Client | None = None
    while len(answers) < len(todo):
        client = client or await site.connect()
        burst = todo[len(answers) : len(answers) + rng.randrange(1, 20)]
        await client.send(b"".join([write(rng, ask) for ask in burst]))
        for ask in burst:
            answers.append(await client.answer(ask.method))
            if answers[-1].header("connection") == "close":
                await client.ended()
                client = None
                break
    return answers


async def _run(store: Store, todo: list[Ask], shape: str, seed: int) -> list[Answer]:
    rng = random.Random(seed)
    write = {"plain": plain, "chunked": chunked, "odd": odd, "upgrading": upgrading}.get(shape, any_of_them)
    async with running(store, long_poll_timeout=0.001) as site:
        if shape == "pipelined":
            return await _pipelined(site, todo, write, rng)
        return await _one_by_one(site, todo, write, rng, shape == "pieces")


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("seed", range(3))
async def test_every_shape_of_a_request_is_answered_alike(seed: int, kind: str, tmp_path: Path) -> None:
    todo = asks(random.Random(seed))
    found: list[list[Answer]] = []
    for shape in ("plain", "chunked", "odd", "upgrading", "pieces", "pipelined"):
        clock = Time().clock()
        store = SQLiteStore(tmp_path / shape, clock) if kind == "sqlite" else MemoryStore(clock)
        found.append(await _run(store, todo, shape, seed))
        for ask, one, other in zip(todo, found[0], found[-1], strict=True):
            assert _settle(one) == _settle(other), (shape, ask)
    statuses = {answer.status for answer in found[0]}
    assert {200, 201, 204, 304, 400, 404, 405, 409, 410} <= statuses, statuses
