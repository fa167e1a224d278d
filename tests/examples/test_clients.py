"""The sensor and the listener of micro/examples, on real MicroPython, against a real gateway that comes and goes."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import time
import urllib.request
from pathlib import Path

import cbor2
import pytest

from tests.examples import device
from tests.tools import serve

BUILDS = (64, 32)
HEAP = {64: "160k", 32: "96k"}


def request(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> bytes:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    asked = urllib.request.Request(url, body, fields, method=method)
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return answer.read()


def records(url: str) -> list[dict]:
    data = io.BytesIO(request(url))
    found = []
    while data.tell() < len(data.getvalue()):
        found.append(cbor2.load(data))
    return found


def changed(path: Path, since: str = "", seconds: float = 20) -> str:
    """Wait until a file is there and holds something else than before; what it holds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            text = path.read_text()
            if text != since:
                return text
        time.sleep(0.02)
    pytest.fail(f"{path} did not change in {seconds} s", pytrace=False)


@pytest.mark.parametrize("build", BUILDS)
def test_a_sensor_logs_each_wake_once_though_the_gateway_is_often_away(build: int, tmp_path: Path) -> None:
    store = str(tmp_path / "data")
    server = serve.start("--data", store)
    url = server.url + "/greenhouse/7"
    wake = device.command(build, HEAP[build], "sensor_logger", url, tmp_path / "outbox", BATCH=4, DEADLINE=2)
    started = int(time.time())
    for _ in range(4):
        device.run(wake, tmp_path)
    assert len(records(url)) == 4
    server.kill()
    for i in range(8):
        output = device.run(wake, tmp_path)
        assert "dropped so far" in output if i % 4 == 3 else output == ""
    with serve.start("--data", store, port=server.port):
        for _ in range(4):
            output = device.run(wake, tmp_path)
        assert "0 left, 0 dropped" in output
        found = records(url)
    assert len(found) == 16
    assert all(record["t"] == 21.5 and record["at"] >= started for record in found)


@pytest.mark.parametrize("build", BUILDS)
def test_a_sensor_that_loses_power_while_sending_sends_nothing_twice(build: int, tmp_path: Path) -> None:
    with serve.start("--data", str(tmp_path / "data")) as server:
        url = server.url + "/greenhouse/7"
        wake = device.command(build, HEAP[build], "sensor_logger", url, tmp_path / "outbox", BATCH=1)
        sure = 0
        for i in range(16):
            with device.started(wake, tmp_path) as program:
                if i % 4 == 3:
                    program.until("left")
                    sure += 1
                else:
                    time.sleep(0.01 * i)  # somewhere between its start and its end
        output = device.run(wake, tmp_path)
        assert "0 left, 0 dropped" in output
        found = records(url)
        assert sure + 1 <= len(found) <= 17
        before = len(found)
        device.run(wake, tmp_path)
        assert len(records(url)) == before + 1


@pytest.mark.parametrize("build", BUILDS)
def test_a_listener_does_each_command_once_across_power_cuts_of_both_sides(build: int, tmp_path: Path) -> None:
    store = str(tmp_path / "data")
    cursor = tmp_path / "cursor"
    server = serve.start("--data", store, "--long-poll-timeout", "2")
    url = server.url + "/greenhouse/7/commands"

    def order(*commands: object) -> None:
        request(url, "POST", json.dumps(commands).encode(), Content_Type="application/json")

    listen = device.command(build, HEAP[build], "command_listener", url, cursor, PAUSE=0.2)
    with device.started(listen, tmp_path) as listener:
        saved = changed(cursor)  # it has created the stream, and settled where it begins
        for command in ({"led": True}, {"n": 1}, "not a map"):
            order(command)
            saved = changed(cursor, saved)
        assert listener.output.splitlines() == ["command {'led': True}", "command {'n': 1}", "command not a map"]
        listener.kill()
    order({"n": 2}, {"n": 3})
    server.kill()
    server = serve.start("--data", store, "--long-poll-timeout", "2", port=server.port)
    with device.started(listen, tmp_path) as listener:
        output = listener.until("{'n': 3}")
        assert output.splitlines() == ["command {'n': 2}", "command {'n': 3}"]
        server.kill()
        with serve.start("--data", store, "--long-poll-timeout", "2", port=server.port):
            order({"n": 4})
            listener.until("{'n': 4}")
            request(url, "DELETE")
            request(url, "PUT", Content_Type="application/json")
            order({"n": 5})
            # It takes the new stream from where it finds it; what was ordered before that is void.
            time.sleep(0.5)
            request(url, "POST", Stream_Closed="true")
            output = listener.until("no more commands")
    assert output.count("command {'n': 4}") == 1
    assert listener.process.wait(5) == 0


@pytest.mark.parametrize("build", BUILDS)
def test_a_new_listener_does_not_do_old_commands(build: int, tmp_path: Path) -> None:
    with serve.start("--memory", "--long-poll-timeout", "2") as server:
        url = server.url + "/old"
        request(url, "PUT", b'[{"n": 1}]', Content_Type="application/json")
        listen = device.command(build, HEAP[build], "command_listener", url, tmp_path / "cursor")
        with device.started(listen, tmp_path) as listener:
            changed(tmp_path / "cursor")
            request(url, "POST", b'{"n": 2}', Content_Type="application/json")
            assert listener.until("{'n': 2}") == "command {'n': 2}\n"


@pytest.mark.parametrize("build", BUILDS)
def test_a_listener_goes_on_when_the_server_has_lost_everything_or_refuses(build: int, tmp_path: Path) -> None:
    cursor = tmp_path / "cursor"
    server = serve.start("--memory", "--long-poll-timeout", "2")
    url = server.url + "/greenhouse/7/commands"
    listen = device.command(build, HEAP[build], "command_listener", url, cursor, PAUSE=0.2)
    with device.started(listen, tmp_path) as listener:
        saved = changed(cursor)
        for n in range(3):
            request(url, "POST", json.dumps({"n": n}).encode(), Content_Type="application/json")
            saved = changed(cursor, saved)
        listener.kill()
        server.kill()
        cursor.write_text("0000000000000099_0000000000000007 0\n")  # far beyond what the new server has issued
        with serve.start("--memory", "--long-poll-timeout", "2", port=server.port):
            request(url, "PUT", b'["old"]', Content_Type="application/json")
            with device.started(listen, tmp_path) as again:
                changed(cursor, cursor.read_text())
                request(url, "POST", b'"new"', Content_Type="application/json")
                assert again.until("new") == "command new\n"
    # A token that may read and not create: it says so, and goes on.
    access = tmp_path / "access.json"
    argv = [*serve.command(), "token", "new", "--access", str(access), "--name", "d", "--read", "**"]
    token = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20).stdout.split()[-1]
    with serve.start("--memory", "--access", str(access), port=server.port):
        listen = device.command(build, HEAP[build], "command_listener", url, cursor, PAUSE=0.2, TOKEN=token)
        with device.started(listen, tmp_path) as listener:
            listener.until("no commands: 403", 10)
            assert listener.process.poll() is None


@pytest.mark.parametrize("build", BUILDS)
def test_a_sensor_sends_what_it_has_when_nothing_more_fits(build: int, tmp_path: Path) -> None:
    with serve.start("--memory") as server:
        url = server.url + "/greenhouse/7"
        folder = tmp_path / "outbox"
        wake = device.command(build, HEAP[build], "sensor_logger", url, folder)
        device.run(wake, tmp_path)
        device.run(wake, tmp_path)
        output = device.run(device.command(build, HEAP[build], "full_sensor", url, folder), tmp_path)
        assert "not kept, OSError 28" in output and "0 left" in output
        assert len(records(url)) == 2
