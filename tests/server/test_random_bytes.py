"""Whatever bytes come, the server answers or closes, and goes on."""

from __future__ import annotations

import logging
import random

import pytest
import trio

from ds_trio_server.config import Config
from tests.server.site import ROOT, Client, Site, request
from tests.server.test_http import REQUESTS

PIECES = [
    b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\x00", b"\xff", b"HTTP/1.1", b"HTTP/1.0", b"GET ", b"POST ", b"PUT ",
    b"Content-Length: 5\r\n", b"Content-Length: 99999999999\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"Host: x\r\n",
    b"Stream-TTL: 1\r\n", b"Producer-Id: p\r\n", b"Producer-Epoch: 0\r\n", b"Producer-Seq: 0\r\n",
    b"Stream-Closed: true\r\n", b"Stream-Forked-From: /v1/stream/s\r\n", b"Stream-Fork-Offset: -1\r\n",
    b"Stream-Fork-Sub-Offset: 2\r\n", b"Stream-Expires-At: 2030-01-01T00:00:00Z\r\n", b"Accept-Encoding: gzip\r\n",
    b"?offset=-1", b"&live=sse", b"&live=long-poll", b"&max-bytes=0", b"&cursor=9", b"%", b"%C3", b"/", b"__ds/",
]  # fmt: skip


def _spoil(rng: random.Random, data: bytes) -> bytes:
    spoilt = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(spoilt) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            del spoilt[at : at + rng.randrange(1, 20)]
        elif kind == 1 and at < len(spoilt):
            spoilt[at] = rng.randrange(256)
        else:
            spoilt[at:at] = rng.choice(PIECES)
    return bytes(spoilt)


async def _drain(client: Client) -> bytes:
    """Everything up to the end that the server makes, or silence."""
    with trio.move_on_after(10):
        try:
            while await client.more():
                pass
        except trio.BrokenResourceError:
            pass
        return client.buffer
    raise AssertionError(f"the connection did not end; got {client.buffer[-500:]!r}")


@pytest.mark.parametrize("seed", range(6))
async def test_noise_is_answered_or_ends_the_connection(
    site: Site, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(seed)
    with caplog.at_level(logging.WARNING, "ds"):
        for _ in range(60):
            client = await site.connect()
            await client.send(_spoil(rng, REQUESTS))
            await client.stream.send_eof()
            answered = await _drain(client)
            assert answered == b"" or answered.startswith(b"HTTP/1.1 "), answered[:100]
            client.close()
        assert caplog.records == []
    assert (await site.ask("GET", ROOT + "another")).status == 404
    assert site.server._budget._left == Config().body_memory, "a reservation has leaked"


@pytest.mark.parametrize("seed", range(3))
async def test_noise_in_headers_and_queries_is_never_a_500(
    site: Site, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(seed)
    await site.create("s", "application/json", b"[1,2,3]")
    lines = [piece for piece in PIECES if piece.startswith((b"Stream", b"Producer", b"Accept", b"Connection"))]
    types = ["application/json", "text/plain", "x", ""]
    queries = [
        "", "?offset=-1", "?offset=now", "?offset=", "?offset=0000000000000001_0000000000000002", "?live=sse",
        "?offset=-1&max-bytes=1", "?offset=-1&max-bytes=x", "?offset=%FF", "?offset=-1&live=long-poll",
    ]  # fmt: skip
    with caplog.at_level(logging.WARNING, "ds"):
        for _ in range(150):
            method = rng.choice(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
            path = rng.choice(["s", "t", "u/v", "%C3%A9", "__ds/x", "", "a//b"])
            body = rng.choice([None, b"", b"1", b"[1,2]", b"[", b"\xff"])
            query = rng.choice(queries)
            whole = request(method, ROOT + path + query, body, content_type=rng.choice(types))
            extra = b"".join(rng.sample(lines, 3))
            whole = whole.replace(b"Host:", extra + b"Host:")
            client = await site.connect()
            await client.send(whole)
            status, headers = await client.head()
            assert status < 500, (status, whole)
            assert status < 400 or "content-length" in headers or method == "HEAD"
            client.close()
        assert caplog.records == []


async def test_plain_heads_and_odd_ones_mean_the_same(site: Site) -> None:
    # The same request by way of the one-pass parser and by way of h11.
    await site.create("s", body=b"abc")
    client = await site.connect()
    for method, target, body in (
        ("GET", ROOT + "s", None), ("GET", ROOT + "s?offset=-1", None), ("HEAD", ROOT + "s", None),
        ("GET", ROOT + "none", None), ("POST", ROOT + "s", b""), ("POST", ROOT + "s", b"x"), ("PUT", ROOT + "s", b""),
        ("PUT", ROOT + "s", None), ("OPTIONS", ROOT + "s", None), ("BREW", ROOT + "s", b"x"), ("GET", "/", None),
    ):  # fmt: skip
        plain = request(method, target, body, content_type="text/html")
        odd = plain.replace(b"Host:", b"X-Twice: 1\r\nx-twice: 2\r\nhOST:")
        answers = []
        for whole in (plain, odd):
            await client.send(whole)
            answer = await client.answer(method)
            answer.headers.pop("date")
            answers.append((answer.status, answer.headers, answer.body))
        assert answers[0] == answers[1]
