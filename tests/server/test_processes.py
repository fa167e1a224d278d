"""A real server process on real files: power cuts, signals, restarts."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from ds_core.wire import sse
from tests.tools import serve

pytestmark = pytest.mark.timeout(60)


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def offset(self) -> str:
        return self.headers["Stream-Next-Offset"]


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None, **headers: object
) -> Answer:
    fields = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    connection.request(method, f"/v1/stream/{path}", body, fields)
    return Answer(connection.getresponse())


def connect(server: serve.Server) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(server.host, server.port, timeout=60)


class Producer(threading.Thread):
    """Appends numbered records exactly once, over any number of deaths of the server.

    A record whose answer is lost is sent again, with the same number, to the next server.
    """

    def __init__(self, name: str) -> None:
        super().__init__(daemon=True)
        self.id = name
        self.seq = 0
        self.acknowledged = 0
        self.port = 0
        self.host = ""
        self.stopping = threading.Event()
        self.error: BaseException | None = None

    def begin(self, server: serve.Server) -> None:
        self.host, self.port = server.host, server.port
        super().__init__(daemon=True)
        self.stopping.clear()
        self.start()

    def run(self) -> None:
        try:
            while not self.stopping.is_set():
                with contextlib.suppress(OSError, http.client.HTTPException):
                    self._send(http.client.HTTPConnection(self.host, self.port, timeout=60))
                time.sleep(0.01)
        except BaseException as error:
            self.error = error

    def _send(self, connection: http.client.HTTPConnection) -> None:
        with contextlib.closing(connection):
            while not self.stopping.is_set():
                record = json.dumps([self.id, self.seq, "x" * (self.seq * 37 % 500)]).encode()
                answer = ask(
                    connection, "POST", "s", b"[" + record + b"]", Content_Type="application/json",
                    Producer_Id=self.id, Producer_Epoch=0, Producer_Seq=self.seq,
                )  # fmt: skip
                assert answer.status in (200, 204), (answer.status, answer.body)
                self.acknowledged = self.seq
                self.seq += 1


def read_all(server: serve.Server, path: str) -> list[list[object]]:
    connection = connect(server)
    offset, messages = "-1", []
    while True:
        answer = ask(connection, "GET", f"{path}?offset={offset}")
        assert answer.status == 200
        messages += json.loads(answer.body)
        offset = answer.offset
        if answer.headers["Stream-Up-To-Date"]:
            connection.close()
            return messages


def test_no_acknowledged_byte_is_lost_and_no_retry_is_accepted_twice(tmp_path: Path) -> None:
    producers = [Producer(f"p{number}") for number in range(8)]
    rng = random.Random(11)
    kept: list[list[object]] = []
    for cycle in range(4):
        with serve.start("--data", tmp_path / "data", "--log-level", "warning") as server:
            if cycle == 0:
                assert ask(connect(server), "PUT", "s", Content_Type="application/json").status == 201
            before = [producer.acknowledged for producer in producers]
            found = read_all(server, "s")
            assert found[: len(kept)] == kept, "what was there before is there as it was"
            kept = found
            for producer in producers:
                mine = [record[1] for record in kept if record[0] == producer.id]
                assert mine == list(range(len(mine))), "a record is missing, twice, or out of order"
                assert len(mine) >= producer.acknowledged, "an acknowledged record is lost"
            if cycle == 3:
                break
            for producer in producers:
                producer.begin(server)
            deadline = time.monotonic() + 60
            while sum(producer.acknowledged for producer in producers) < sum(before) + 200:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(rng.random() * 0.05)
            server.kill()
            for producer in producers:
                producer.stopping.set()
            for producer in producers:
                producer.join(10)
                assert producer.error is None, producer.error
    assert len(kept) >= 600


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_from_the_first_connection_on_a_signal_means_what_it_does(tmp_path: Path, number: signal.Signals) -> None:
    path = str(tmp_path / "s")
    argv = [*serve.command(), "serve", "--memory", "--listen", f"unix:{path}"]
    for _ in range(3):
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=serve.environment())
        client = socket.socket(socket.AF_UNIX)
        while True:
            try:
                client.connect(path)
                break
            except OSError:
                assert process.poll() is None
        process.send_signal(number)  # before it has said that it listens
        if number == signal.SIGHUP:
            client.settimeout(20)
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(20).startswith(b"HTTP/1.1 200")
            process.terminate()
        _, err = process.communicate(timeout=20)
        assert process.returncode == 0 and b"stopped" in err, err
        client.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("where", ["sqlite", "memory"])
def test_a_signal_ends_everything_properly(tmp_path: Path, number: signal.Signals, where: str) -> None:
    options = ["--memory"] if where == "memory" else ["--data", str(tmp_path / "data")]
    with serve.start(*options) as server:
        writer = connect(server)
        assert ask(writer, "PUT", "s", b"abc", Content_Type="text/plain").status == 201
        tail = ask(writer, "HEAD", "s").offset
        poll, events = connect(server), connect(server)
        poll.request("GET", "/v1/stream/s?offset=now&live=long-poll")
        events.request("GET", "/v1/stream/s?offset=-1&live=sse")
        stream = events.getresponse()
        idle = connect(server)
        assert ask(idle, "HEAD", "s").status == 200
        slow = socket.create_connection((server.host, server.port), 20)
        slow.sendall(b"POST /v1/stream/s HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n")
        slow.sendall(b"Content-Length: 4\r\n\r\nde")
        for _ in range(3):  # what was sent before has been read when these are answered
            assert ask(idle, "HEAD", "s").status == 200
        server.process.send_signal(number)
        answer = Answer(poll.getresponse())
        assert answer.status == 204 and answer.offset == tail
        assert answer.headers["Stream-Up-To-Date"] == "true" and answer.headers["Connection"] == "close"
        parser = sse.Parser()
        parser.feed(stream.read())  # raises when the response was cut instead of ended
        found = []
        while (event := parser.next()) is not sse.NEED_DATA:
            name, data = event  # type: ignore[misc]
            found.append((name, bytes(data)))
        assert found[0] == ("data", b"abc")
        assert found[-1][0] == "control" and json.loads(found[-1][1])["streamNextOffset"] == tail
        serve.wait_until_closed(server)
        slow.sendall(b"fg")
        assert slow.recv(1000).startswith(b"HTTP/1.1 204 ")
        slow.close()
        assert server.wait() == 0, server.output
        assert f"got {number.name}" in server.output and server.output.rstrip().endswith("stopped")
    if where == "sqlite":
        assert sorted(path.name for path in (tmp_path / "data").iterdir() if "-wal" in path.name) == []
        with serve.start(*options) as server:
            answer = ask(connect(server), "GET", "s")
            assert answer.body == b"abcdefg"


def test_a_second_server_on_the_same_directory_refuses(tmp_path: Path) -> None:
    with serve.start("--data", tmp_path / "data") as server:
        ask(connect(server), "PUT", "s", b"abc", Content_Type="text/plain")
        with pytest.raises(RuntimeError) as caught:
            serve.start("--data", tmp_path / "data")
        message = str(caught.value)
        assert "status 1" in message and f"in use by another server (process {server.pid})" in message
        assert "Traceback" not in message
        assert ask(connect(server), "GET", "s").body == b"abc"
    with serve.start("--data", tmp_path / "data") as server:
        assert ask(connect(server), "GET", "s").body == b"abc"


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    with serve.start("--data", tmp_path / "data") as server:
        server.kill()
    with serve.start("--data", tmp_path / "data") as server:
        assert ask(connect(server), "GET", "none").status == 404


def test_memory_is_forgotten_and_offsets_of_before_are_not_believed() -> None:
    with serve.start("--memory") as server:
        answer = ask(connect(server), "PUT", "s", b"abc", Content_Type="text/plain")
        port = server.port
    with serve.start("--memory", port=port) as server:
        connection = connect(server)
        assert ask(connection, "GET", f"s?offset={answer.offset}").status == 404


def test_a_hangup_while_it_starts_ends_no_server(tmp_path: Path) -> None:
    for wait in (0.12, 0.2, 0.3):
        child = subprocess.Popen(
            [*serve.command(), "serve", "--memory", "--port", "0"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=serve.environment(),
        )  # fmt: skip
        try:
            time.sleep(wait)
            child.send_signal(signal.SIGHUP)
            assert child.stdout is not None
            assert child.stdout.readline().startswith(b"listening on")
            child.terminate()
            assert child.wait(20) == 0
        finally:
            child.kill()
            child.wait()


def test_a_start_line_that_nobody_can_read_is_no_reason_not_to_serve(tmp_path: Path) -> None:
    log = tmp_path / "log"
    sock = tmp_path / "socket"
    with open("/dev/full", "wb") as full, log.open("wb") as errors:
        child = subprocess.Popen(
            [*serve.command(), "serve", "--memory", "--listen", f"unix:{sock}"],
            stdout=full, stderr=errors, env=serve.environment(),
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while not sock.exists():
            assert time.monotonic() < deadline and child.poll() is None, log.read_text()
            time.sleep(0.02)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(sock))
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        child.terminate()
        assert child.wait(20) == 0
        assert "can't be written" in log.read_text()
    finally:
        child.kill()
        child.wait()
