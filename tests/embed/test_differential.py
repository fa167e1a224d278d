"""Random requests mean to an embedded core what they mean to the gateway: status, headers of the protocol, bodies."""

from __future__ import annotations

import http.client
import random
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tools import serve

HERE = Path(__file__).resolve().parent
ROOT = "/v1/stream/"
CHUNK = 600
LONG_POLL = 0.2
# What an answer's headers say about streams; the rest is each server's own.
HEADERS = re.compile(r"stream-.*|producer-.*|etag|location|content-type|cache-control|allow|x-accel-buffering", re.I)
TYPES = ["text/plain", "text/plain; charset=utf-8", "TEXT/plain", "application/json", "application/cbor",
         "application/octet-stream", "image/svg+xml", "nonsense", None]  # fmt: skip
BODIES = {
    "application/json": [b"[1,2,3]", b'{"a": [1, "x,y"]}', b"[[1],[2]]", b"[]", b"{",
                         b"[%s]" % b",".join([b"12345"] * 90),
                         b"[%s]" % b",".join(b'"%s"' % (b"x" * n) for n in (3, 700, 20, 20_000, 9, 40))],
    "application/cbor": [b"\x01\x02", b"\x83\x01\x02\x03", b"\x18", b"\x44abcd" * 60],
}  # fmt: skip
PLAIN = [b"", b"x", b"hello ", "zwölf €\r\n".encode(), b"y" * 500, b"z" * 1500, b"\x00\xff" * 20]
PATHS = ["a", "b", "c", "d/e", "f%20g", "%C3%A9", "h", "i", "j"]
ODD = ["a%2Fb", "a//b", "a/../b", "a/", "", "%zz", "%ff", "a?offset=-1&offset=now", "__ds/x", "a?live=ssse",
       "a?live=sse", "a?offset=-1&live=nothing", "a?max-bytes=x", "../../a"]  # fmt: skip


class Client:
    """One server that is asked; `root` is where its streams are."""

    def __init__(self, server: serve.Server) -> None:
        self.root = server.url.removeprefix(server.origin) + "/"
        self._connection = http.client.HTTPConnection(server.host, server.port, timeout=20)
        self._server = server

    def ask(self, method: str, target: str, headers: dict[str, str], body: bytes | None) -> Any:
        headers = {name: value.replace(ROOT, self.root) for name, value in headers.items()}
        self._connection.request(method, target.replace(ROOT, self.root), body, headers)
        response = self._connection.getresponse()
        data = response.read()
        found = {name.lower(): value for name, value in response.getheaders() if HEADERS.fullmatch(name)}
        if "location" in found:
            found["location"] = found["location"].removeprefix(self._server.origin)
        if "stream-cursor" in found:
            found["stream-cursor"] = "a number"
        data = re.sub(rb'"streamCursor":"\d+"', b'"streamCursor":"a number"', data)
        found = {name: value.replace(self.root, ROOT) for name, value in found.items()}
        return response.status, found, data.replace(self.root.encode(), ROOT.encode())


class Requests:
    """Makes them up. It remembers what there is, so that most of them come to something."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.types: dict[str, str] = {}  # by path
        self.offsets: dict[str, list[str]] = {path: ["-1"] for path in PATHS}
        self.closed: set[str] = set()
        self.gone: set[str] = set()  # soft-deleted

    def maybe(self, chance: float, *values: str) -> str | None:
        return self.rng.choice(values) if self.rng.random() < chance else None

    def next(self) -> tuple[str, str, dict[str, str], bytes | None]:
        rng = self.rng
        path = rng.choice(PATHS)
        if path not in self.types and rng.random() < 0.5:
            path = rng.choice(PATHS)
        kind = rng.choice(["PUT"] * 3 + ["fork"] * 3 + ["POST"] * 8 + ["GET"] * 8 + ["HEAD", "DELETE", "odd"])
        made: dict[str, str | None] = {}
        body = None
        target = ROOT + path
        method = kind
        if kind == "odd":
            method = rng.choice(["GET", "PUT", "POST", "PATCH", "OPTIONS", "HEAD", "DELETE"])
            target = rng.choice([ROOT + rng.choice(ODD), "/elsewhere", "/", ROOT.rstrip("/")])
        elif kind in ("PUT", "POST"):
            type = self.types.get(path, "text/plain") if rng.random() < 0.9 else rng.choice(TYPES)
            if kind == "PUT" and path not in self.types:
                type = rng.choice(TYPES[:6])
            body = self.body(type)
            made = {
                "Content-Type": type, "Stream-Closed": self.maybe(0.05, "true", "TRUE", "no"),
                "Stream-Seq": self.maybe(0.1, "a", "b", "c"), "Content-Encoding": self.maybe(0.02, "gzip"),
            }  # fmt: skip
            if kind == "PUT":
                made["Stream-TTL"] = self.maybe(0.1, "1000", "01", "x")
                made["Stream-Expires-At"] = self.maybe(0.05, "2999-01-01T00:00:00Z", "x")
            elif rng.random() < 0.3:
                names = ["Producer-Id", "Producer-Epoch", "Producer-Seq"][: rng.choice([3] * 9 + [2])]
                made |= zip(names, [rng.choice("pq"), str(rng.randrange(2)), str(rng.randrange(4))], strict=False)
        elif kind == "fork":
            method = "PUT"
            if free := [each for each in PATHS if each not in self.types and each not in self.gone]:
                target = ROOT + rng.choice(free)
            source = rng.choice([*self.types, *PATHS[:2]])
            at = self.maybe(0.6, self.offset(source))
            made = {
                "Stream-Forked-From": ROOT + source, "Stream-Fork-Offset": at,
                "Stream-Fork-Sub-Offset": self.maybe(0.5 if at else 0.02, "0", "1", "2", "3", "500", "x"),
                "Content-Type": self.maybe(0.2, self.types.get(source, "text/plain"), "application/json"),
                "Stream-TTL": self.maybe(0.1, "1000"), "Stream-Closed": self.maybe(0.05, "true"),
            }  # fmt: skip
            body = self.body(self.types.get(source)) if rng.random() < 0.3 else None
        elif kind == "GET":
            query = {"offset": self.offset(path), "max-bytes": self.maybe(0.5, "0", "1", "10", "700")}
            if path in self.closed and rng.random() < 0.5:
                query["live"] = "sse"  # which ends by itself
            else:
                query["live"] = self.maybe(0.1, "long-poll")
            target += "?" + "&".join(f"{name}={value}" for name, value in query.items() if value is not None)
            made = {"If-None-Match": self.maybe(0.1, '"1:0:6"', "*")}
        spelt = rng.choice([str, str.lower, str.upper])
        return method, target, {spelt(name): value for name, value in made.items() if value is not None}, body

    def body(self, type: str | None) -> bytes:
        known = BODIES.get(type or "", PLAIN)
        return self.rng.choice(known if self.rng.random() < 0.9 else PLAIN)

    def offset(self, path: str) -> str:
        rng = self.rng
        offset = rng.choice(self.offsets[path][-6:])
        if "_" in offset and rng.random() < 0.3:  # beside one that was given out
            offset = f"{offset[:17]}{max(0, int(offset[17:]) + rng.choice([-5, -3, -2, -1, 1, 2])):016d}"
        chance = rng.random()
        if chance < 0.15:
            return rng.choice(["-1", "now", "0000000000000000_0000000000000000"])
        return offset if chance < 0.98 else rng.choice(["nonsense", *self.offsets[rng.choice(PATHS)]])

    def learn(self, method: str, target: str, answer: Any) -> None:
        status, headers, body = answer
        path = target.removeprefix(ROOT).partition("?")[0]
        if path not in PATHS:
            return
        if "stream-next-offset" in headers:
            self.offsets[path].append(headers["stream-next-offset"])
        if status == 201:
            self.types[path] = headers["content-type"]
            self.offsets[path] = ["-1", headers["stream-next-offset"]]
        elif method == "DELETE":
            self.types.pop(path, None)
        if b"STREAM_GONE" in body or b"PATH_IN_USE" in body:
            self.gone.add(path)
        elif status != 400:
            self.gone.discard(path)
        if "stream-closed" in headers:
            self.closed.add(path)
        elif method in ("DELETE", "PUT"):
            self.closed.discard(path)


@pytest.mark.parametrize(
    "example, root, seed",
    [*(("asyncio_server", "/logs/", seed) for seed in range(6)), ("asgi_app", ROOT, 6), ("wsgi_app", "/a/b/", 7)],
)
def test_the_same_requests_get_the_same_answers(example: str, root: str, seed: int, tmp_path: Path) -> None:
    file = [] if example == "asyncio_server" else [str(tmp_path / "streams.db")]
    argv = [sys.executable, str(HERE / f"{example}.py"), *file, "0", str(LONG_POLL), str(CHUNK), root]
    told = ["--memory", "--long-poll-timeout", str(LONG_POLL), "--chunk", str(CHUNK)]
    with serve.Server(argv, serve.environment(), 20) as embedded, serve.start(*told) as gateway:
        clients = [Client(gateway), Client(embedded)]
        made = Requests(seed)
        statuses: dict[int, int] = {}
        for number in range(700):
            request = made.next()
            expected, answer = (client.ask(*request) for client in clients)
            assert answer == expected, f"request {number}: {request}"
            made.learn(*request[:2], expected)
            statuses[expected[0]] = statuses.get(expected[0], 0) + 1
        assert {200, 201, 204, 400, 404, 409, 410} <= set(statuses), statuses
        assert "Traceback" not in embedded.output, embedded.output
