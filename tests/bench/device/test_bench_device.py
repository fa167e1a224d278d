"""The measurement in small: it works, and what it counts is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.bench.device.proxy import Proxy
from tests.tools import ci, micropython, serve

ROOT = Path(__file__).resolve().parents[3]


def test_it_measures() -> None:
    try:
        micropython.find(32)
    except micropython.Unavailable as exc:
        ci.missing(exc)
    argv = [sys.executable, "-m", "tests.bench.device", "--records", "1000", "--output", "-"]
    done = subprocess.run(argv, cwd=ROOT, env=serve.environment(), capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    for row in ("heap once imported | ", "after 1,000 records | ", "20 to a request | ", "| in all | "):
        assert row in done.stdout
    assert "{" not in done.stdout


def test_the_proxy_counts_every_byte_both_ways() -> None:
    with serve.start("--memory") as server, Proxy(server.port) as proxy:
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
        request = b"GET /v1/stream/a HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.connect()
        connection.sock.sendall(request)
        answer = http.client.HTTPResponse(connection.sock)
        answer.begin()
        body = len(answer.read())
        head = sum(len(name) + len(value) + 4 for name, value in answer.getheaders())
        connection.close()
        assert proxy.sent == len(request)
        assert proxy.received == len("HTTP/1.1 404 Not Found\r\n\r\n") + head + body
        assert proxy.connections == 1
