"""The core embedded elsewhere: asyncio, ASGI and WSGI under the public suite; and in-process, without any HTTP."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
from pathlib import Path

import pytest

from tests.embed import in_process
from tests.tools import ci, node, serve

HERE = Path(__file__).resolve().parent
AT_LEAST = 332
SECONDS = 300
# Below the suite's 5 s patience for an empty long-poll, above the 0.5 s it sleeps before an append.
LONG_POLL = "1.5"


EXAMPLES = ("asyncio_server", "asgi_app", "wsgi_app")


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("example", EXAMPLES)
def test_the_public_suite_passes(example: str, tmp_path: Path) -> None:
    try:
        node.modules()
    except node.Unavailable as exc:
        ci.missing(exc)
    file = [] if example == "asyncio_server" else [str(tmp_path / "streams.db")]
    argv = [sys.executable, str(HERE / f"{example}.py"), *file, "0", LONG_POLL]
    with serve.Server(argv, serve.environment({"PYTHONASYNCIODEBUG": ""}), 20) as server:
        report = node.vitest(
            "conformance/public.test.mjs",
            tmp_path / "report.json",
            env={"DS_TEST_ORIGIN": server.origin},
            seconds=SECONDS,
        )
        if report.failed:
            pytest.fail(f"{report.text()}\n\nserver:\n{server.output[-4000:]}", pytrace=False)
        assert len(report.passed) >= AT_LEAST, report.text()
        assert "Traceback" not in server.output, server.output


def test_requests_come_in_every_plain_framing() -> None:
    argv = [sys.executable, str(HERE / "asyncio_server.py"), "0", LONG_POLL]
    with serve.Server(argv, serve.environment(), 20) as server:

        def talk(*requests: bytes) -> bytes:
            """All that the server answers on one connection until it closes it."""
            with socket.create_connection((server.host, server.port), 10) as connection:
                connection.sendall(b"".join(requests))
                connection.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: connection.recv(65536), b""))

        put = b"PUT /v1/stream/a HTTP/1.1\r\nHost: h\r\n\r\n"
        post = b"POST /v1/stream/a HTTP/1.1\r\nHost: h\r\nContent-Type: application/octet-stream\r\n"
        chunks = post + b"Transfer-Encoding: chunked\r\n\r\n"
        get = b"GET /v1/stream/a HTTP/1.1\r\nHost: h\r\n\r\n"
        pipelined = talk(
            put,
            post + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\none",
            chunks + b"5;x=y\r\n two\n\r\n6\r\nthree\n\r\n0\r\nTrailer: x\r\n\r\n",
            get.replace(b"GET", b"HEAD").replace(b"stream/a", b"stream/b"),
            get,
        )
        statuses = re.findall(rb"^HTTP/1.1 (\d+)", pipelined, re.MULTILINE)
        assert statuses == [b"201", b"100", b"204", b"204", b"404", b"200"]
        assert pipelined.endswith(b"\r\n\r\none two\nthree\n")

        # What is not plain or not whole ends the connection, and nothing of it is stored.
        for request in (
            chunks + b"5\r\nhell",
            chunks + b"x\r\n\r\n" + get,
            chunks + b"1000001\r\n" + b"x" * 0x1000001 + b"\r\n1\r\nx\r\n0\r\n\r\n",
            post + b"Content-Length: 3\r\n\r\nfo",
            post + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nfour" + get,
            post + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + get,
        ):
            with contextlib.suppress(ConnectionError):
                assert talk(request) == b"", request[:200]
        assert talk(get).endswith(b"\r\n\r\none two\nthree\n")
        assert "Traceback" not in server.output, server.output


@pytest.mark.parametrize("example", [*EXAMPLES, "sqlite_store"])
def test_an_example_takes_about_100_lines(example: str) -> None:
    lines = (HERE / f"{example}.py").read_text().splitlines()
    assert len(lines) <= 105
    assert max(map(len, lines)) <= 120, "long lines are no way to have few"


@pytest.mark.parametrize("example", [*EXAMPLES, "sqlite_store"])
def test_a_server_needs_nothing_of_the_gateway(example: str) -> None:
    source = (HERE / f"{example}.py").read_text()
    for name in ("trio", "h11", "ds_trio_server"):
        assert f"import {name}" not in source and f"from {name}" not in source


def test_the_page_about_embedding_does_what_it_says() -> None:
    page = (HERE.parents[1] / "ds_core" / "EMBEDDING.md").read_text()
    program = "\n".join(re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    assert program.count("serve(") >= 4
    told: dict[str, object] = {}
    exec(compile(program, "EMBEDDING.md", "exec"), told)
    for file in re.findall(r"^\| `(\w+\.py)`", page, re.MULTILINE):
        assert (HERE / file).is_file(), file
    # Live reads wait and go on there, too.
    put = told["serve"]("PUT", "/streams/live", {}, b"x")  # type: ignore[operator]
    told["serve"]("POST", "/streams/live", {"STREAM-CLOSED": "true"})  # type: ignore[operator]
    status, headers, parts = told["serve"]("GET", "/streams/live?offset=-1&live=sse", {})  # type: ignore[operator]
    assert (put[0], status) == (201, 200) and ("Content-Type", "text/event-stream") in headers
    assert b"streamClosed" in b"".join(parts)


def test_the_core_serves_an_application_without_http(capsys: pytest.CaptureFixture[str]) -> None:
    in_process.main()
    assert capsys.readouterr().out.splitlines() == [
        "first append: 200",
        "the next: 200",
        "a retry of it: 204",
        'all messages: [{"t": 21.5},{"t": 21.7},{"t": 21.8}]',
        'since then: [{"t": 22.0}]',
    ]
