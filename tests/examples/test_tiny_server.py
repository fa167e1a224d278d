"""The server in a device's RAM: the public suite on both builds, and its limits on a small heap."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples import device
from tests.tools import ci, node

BUILDS = (64, 32)
AT_LEAST = 332
SECONDS = 200
HEAP = {64: "320k", 32: "168k"}


@contextlib.contextmanager
def tiny(build: int, heap: str, folder: Path, port: int = 0, **configuration: object) -> Iterator[tuple[str, int]]:
    """A running tiny_server: (origin, bytes of heap free at its start)."""
    port = port or device.free_port()
    argv = device.command(build, heap, "tiny_server", port, HOST="127.0.0.1", **configuration)
    with device.started(argv, folder) as program:
        free = re.search(r"\((\d+) bytes free\)", program.until("bytes free)"))
        assert free
        yield f"http://127.0.0.1:{port}", int(free[1])
        assert "Traceback" not in program.output, program.output
        assert program.process.poll() is None, program.output


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("build", BUILDS)
def test_the_public_suite_passes(build: int, tmp_path: Path) -> None:
    try:
        node.modules()
    except node.Unavailable as exc:
        ci.missing(exc)
    # It creates a few hundred streams and deletes few; some of its bodies have a megabyte.
    size = 1 << 21
    room = {"STREAMS": 1000, "STREAM_BYTES": size, "MAX_BODY": size, "CHUNK": size, "DISCARD": size * 8}
    with tiny(build, "16m", tmp_path, CONNECTIONS=64, LONG_POLL=1.5, **room) as (origin, _):
        report = node.vitest(
            "conformance/public.test.mjs", tmp_path / "report.json", env={"DS_TEST_ORIGIN": origin}, seconds=SECONDS
        )
        if report.failed:
            pytest.fail(report.text(), pytrace=False)
        assert len(report.passed) >= AT_LEAST, report.text()


class Client:
    def __init__(self, origin: str) -> None:
        self._http = http.client.HTTPConnection(origin.removeprefix("http://"), timeout=10)

    def __call__(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict, bytes]:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        self._http.request(method, "/v1/stream" + path, body, fields)
        answer = self._http.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


@pytest.mark.parametrize("build", BUILDS)
def test_memory_is_bounded_whatever_its_clients_do(build: int, tmp_path: Path) -> None:
    with tiny(build, HEAP[build], tmp_path) as (origin, _):
        client = Client(origin)
        for i in range(8):
            assert client("PUT", f"/s{i}", Content_Type="text/plain")[0] == 201
        status, _, body = client("PUT", "/one-more")
        assert (status, b"TOO_MANY_STREAMS" in body) == (507, True)
        # Far more than the heap holds, into every stream: the newest stays, the oldest is gone.
        first = client("HEAD", "/s0")[1]["stream-next-offset"]
        for n in range(60):
            for i in range(8):
                status, headers, _ = client("POST", f"/s{i}", b"%08d" % n + b"x" * 992, Content_Type="text/plain")
                assert status == 204
        assert client("GET", f"/s0?offset={first}")[0] == 410
        status, headers, body = client("GET", "/s0?offset=-1")
        assert status == 200 and body.startswith(b"00000057") and len(body) <= 1024
        for n in (58, 59):
            status, headers, body = client("GET", "/s0?offset=" + headers["stream-next-offset"])
            assert status == 200 and body.startswith(b"%08d" % n)
        assert headers["stream-up-to-date"] == "true"
        status, headers, body = client("POST", "/s0", b"x" * 60000, Content_Type="text/plain")
        assert (status, headers["connection"]) == (413, "close")
        for i in range(8):
            fields = {"Producer_Id": f"p{i}", "Producer_Epoch": "0", "Producer_Seq": "0", "Content_Type": "text/plain"}
            assert client("POST", "/s1", b"x", **fields)[0] == 200
        assert client("POST", "/s1", b"x", **{**fields, "Producer_Id": "p8"})[0] == 507
        assert client("POST", "/s1", b"x", **fields)[0] == 204
        assert client("DELETE", "/s7")[0] == 204
        assert client("PUT", "/one-more", Stream_TTL="1")[0] == 201


@pytest.mark.parametrize("build", BUILDS)
def test_it_turns_away_more_connections_than_it_has_room_for_and_recovers(build: int, tmp_path: Path) -> None:
    with tiny(build, HEAP[build], tmp_path, PATIENCE=2) as (origin, _), contextlib.ExitStack() as stack:
        port = int(origin.rpartition(":")[2])
        for _ in range(6):  # who say nothing
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert Client(origin)("PUT", "/a")[0] == 503
        assert Client(origin)("PUT", "/a", b"x" * 3000)[0] == 503
        # Their patience ends, and there is room again.
        deadline = time.monotonic() + 20
        while Client(origin)("PUT", "/a")[0] == 503:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        # A head without end is no way to fill the memory either.
        with socket.create_connection(("127.0.0.1", port)) as rude:
            rude.settimeout(10)
            with contextlib.suppress(ConnectionError):
                while rude.send(b"x-y: " + b"z" * 500 + b"\r\n"):
                    pass
        assert Client(origin)("GET", "/a")[0] == 200


@pytest.mark.parametrize("build", BUILDS)
def test_after_a_reset_an_old_offset_is_gone_and_never_names_other_bytes(build: int, tmp_path: Path) -> None:
    with tiny(build, HEAP[build], tmp_path) as (origin, _):
        client = Client(origin)
        client("PUT", "/a", b"old", Content_Type="text/plain")
        old = client("GET", "/a")[1]["stream-next-offset"]
    with tiny(build, HEAP[build], tmp_path) as (origin, _):
        client = Client(origin)
        assert client("GET", f"/a?offset={old}")[0] == 404
        client("PUT", "/a", b"new things", Content_Type="text/plain")
        assert client("GET", f"/a?offset={old}")[0] == 410


def test_a_token_is_asked_for(tmp_path: Path) -> None:
    with tiny(32, HEAP[32], tmp_path, TOKEN="secret") as (origin, _):
        client = Client(origin)
        status, headers, _ = client("PUT", "/a", Authorization="Bearer secre")
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert client("PUT", "/a", Authorization="Bearer secret")[0] == 201
        assert client("GET", "/a")[0] == 401


@pytest.mark.parametrize("build", BUILDS)
def test_a_device_logs_to_a_device(build: int, tmp_path: Path) -> None:
    with tiny(build, HEAP[build], tmp_path) as (origin, _):
        url = origin + "/v1/stream/greenhouse/7"
        wake = device.command(build, "160k", "sensor_logger", url, tmp_path / "outbox", BATCH=3)
        for _ in range(3):
            output = device.run(wake, tmp_path)
        assert "0 left, 0 dropped" in output
        body = Client(origin)("GET", "/greenhouse/7")[2]
        assert body.count(b"\xf9\x4d\x60") == 3  # 21.5 as a half float
