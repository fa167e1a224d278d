"""Where a server listens: addresses, both families, Unix sockets, sockets from systemd; and what signals do to it."""

from __future__ import annotations

import http.client
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from ds_trio_server.addresses import plain
from ds_trio_server.cli.signals import Obedience
from ds_trio_server.http import listeners
from ds_trio_server.http.listeners import Address
from ds_trio_server.ops.logs import Seldom
from tests.tools import serve

HAS_IPV6 = socket.has_dualstack_ipv6()


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name leaves room for a socket's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(self.path))


def status(connection: http.client.HTTPConnection, method: str = "GET", path: str = "/healthz") -> int:
    connection.request(method, path)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def launch(*args: object) -> serve.Server:
    """A server with no --host and no --port; one of its addresses must be TCP."""
    return serve.Server([*serve.command(), "serve", "--memory", *map(str, args)], serve.environment(), 60)


# Addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:4437", Address("127.0.0.1", 4437)),
        ("gateway.example:0", Address("gateway.example", 0)),
        ("[::1]:80", Address("::1", 80)),
        ("[::]:4437", Address("::", 4437)),
        ("unix:/run/ds.sock", Address(path="/run/ds.sock")),
    ],
)
def test_an_address(text: str, address: Address) -> None:
    assert listeners.address(text) == address


@pytest.mark.parametrize(
    "text", ["", ":80", "localhost", "::1:80", "[localhost]:80", "a:x", "a:65536", "unix:", "unix:" + "x" * 200, "[]:1"]
)
def test_what_is_no_address_is_refused_with_what_would_be(text: str) -> None:
    with pytest.raises(ValueError, match=r"host:port|unix:PATH|a port is"):
        listeners.address(text)


def test_a_server_listens_on_all_that_it_is_told(short: Path) -> None:
    first, second = free_port(), free_port()
    where = (f"127.0.0.1:{first}", f"localhost:{second}", f"unix:{short}/s")
    with launch(*(f"--listen={address}" for address in where)) as server:
        assert status(http.client.HTTPConnection("127.0.0.1", first, timeout=20)) == 200
        assert status(http.client.HTTPConnection("localhost", second, timeout=20)) == 200
        unix = UnixConnection(short / "s")
        assert status(unix, "PUT", "/v1/stream/a") == 201
        assert stat.S_IMODE((short / "s").stat().st_mode) == 0o600
        assert f"listening on unix:{short}/s" in server.output
        assert server.stop() == 0
    assert list(short.iterdir()) == []


@pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6")
@pytest.mark.parametrize("how", ["--listen=[::]:0", "--host=::"])
def test_every_address_of_both_families(how: str) -> None:
    with launch("--insecure-open", how, *(["--port=0"] if "host" in how else [])) as server:
        for host in ("127.0.0.1", "::1"):
            assert status(http.client.HTTPConnection(host, server.port, timeout=20)) == 200


def test_a_client_of_both_families_is_one() -> None:
    assert plain("::ffff:192.0.2.1") == plain("192.0.2.1") == "192.0.2.1"
    assert plain("2001:db8::1") == "2001:db8::1"


def test_listen_and_host_are_not_mixed(capfd: pytest.CaptureFixture[str]) -> None:
    argv = [*serve.command(), "serve", "--memory", "--listen", "127.0.0.1:0"]
    done = subprocess.run([*argv, "--port", "1"], capture_output=True, text=True, timeout=30, env=serve.environment())
    assert done.returncode == 2 and "--port is not allowed with --listen" in done.stderr
    with serve.Server(argv, serve.environment({"DS_HOST": "no such host", "DS_LISTEN": "x:1"}), 60) as server:
        assert server.stop() == 0


def test_all_addresses_or_none(short: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(OSError, match=f"can't listen on 127.0.0.1 port {taken.getsockname()[1]}"):
            listeners.listen_all([Address(path=f"{short}/s"), Address("127.0.0.1", taken.getsockname()[1])])
    assert list(short.iterdir()) == []


# Unix sockets


def test_a_socket_of_a_killed_server_is_replaced_and_of_a_live_one_is_not(short: Path) -> None:
    with launch("--listen=127.0.0.1:0", f"--listen=unix:{short}/s") as server:
        server.kill()
    assert (short / "s").exists()
    with launch("--listen=127.0.0.1:0", f"--listen=unix:{short}/s") as server:
        argv = [*serve.command(), "serve", "--memory", f"--listen=unix:{short}/s"]
        second = subprocess.run(argv, capture_output=True, text=True, timeout=30, env=serve.environment())
        assert second.returncode == 1 and f"can't listen on unix:{short}/s: Address already in use" in second.stderr
        assert status(UnixConnection(short / "s")) == 200
        assert server.stop() == 0
    assert not (short / "s").exists()


def test_a_file_that_is_no_socket_stays(short: Path) -> None:
    (short / "s").write_text("precious")
    with pytest.raises(OSError, match="not a socket"):
        listeners.listen_all([Address(path=f"{short}/s")])
    assert (short / "s").read_text() == "precious"


def test_a_socket_is_taken_away_only_by_the_one_that_made_it(short: Path) -> None:
    first = listeners.UnixListener(str(short / "s"))
    os.unlink(short / "s")
    second = listeners.UnixListener(str(short / "s"))
    first.close()
    assert (short / "s").exists()
    second.close()
    second.close()
    assert not (short / "s").exists()


# systemd

ACTIVATE = """
import fcntl, os, sys
fds = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 20) for number in sys.argv[1].split(",")]
for number, fd in enumerate(fds, 3):
    os.dup2(fd, number)
os.environ.update(LISTEN_FDS=str(len(fds)), LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="x")
os.execv(sys.argv[2], sys.argv[2:])
"""


def activated(sockets: list[socket.socket], *args: str) -> list[str]:
    for sock in sockets:
        os.set_inheritable(sock.fileno(), True)
    numbers = ",".join(str(sock.fileno()) for sock in sockets)
    return [sys.executable, "-c", ACTIVATE, numbers, *serve.command(), "serve", "--memory", *args]


def test_sockets_from_systemd(short: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(f"{short}/s")
        unix.listen()
        argv = activated([tcp, unix])
        process = subprocess.Popen(argv, env=serve.environment(), close_fds=False, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            lines = {process.stdout.readline().strip() for _ in range(2)}
            port = tcp.getsockname()[1]
            assert lines == {f"listening on http://127.0.0.1:{port}/v1/stream", f"listening on unix:{short}/s"}
            assert status(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) == 200
            assert status(UnixConnection(short / "s")) == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]
    assert (short / "s").exists(), "it is systemd's, for the next start"


def test_what_systemd_passes_must_be_listening(short: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wrong:
        argv = activated([wrong])
        done = subprocess.run(
            argv, env=serve.environment(), close_fds=False, capture_output=True, text=True, timeout=30
        )
    assert done.returncode == 1 and "file 3, which systemd gave" in done.stderr and "Traceback" not in done.stderr


def test_sockets_for_another_process_are_left_alone() -> None:
    environment = {"LISTEN_FDS": "1", "LISTEN_PID": "1"}
    assert listeners.passed(environment) == [] and environment == {}


# Signals


def wait_for(server: serve.Server, text: str, count: int = 1) -> None:
    deadline = time.monotonic() + 30
    while server.output.count(text) < count:
        assert time.monotonic() < deadline, server.output
        time.sleep(0.01)


def test_sighup_without_files_does_no_harm() -> None:
    with serve.start("--memory") as server:
        for _ in range(2):
            os.kill(server.pid, signal.SIGHUP)
        wait_for(server, "nothing to reload")
        assert status(http.client.HTTPConnection(server.host, server.port, timeout=20)) == 200
        assert server.stop() == 0


def test_a_reload_that_hangs_does_not_hold_up_anything(tmp_path: Path) -> None:
    file = tmp_path / "access.json"
    made = [*serve.command(), "token", "new", "--access", str(file), "--name", "a", "--read", "a"]
    subprocess.run(made, check=True, capture_output=True, timeout=30, env=serve.environment())
    with serve.start("--memory", "--access", file) as server:
        file.unlink()
        os.mkfifo(file)  # to open it waits for somebody who writes, as a disk may that is gone
        for number in range(1, 4):
            os.kill(server.pid, signal.SIGHUP)
            wait_for(server, "got SIGHUP", number)
        assert status(http.client.HTTPConnection(server.host, server.port, timeout=20)) == 200
        assert server.stop() == 0
        assert "stopped" in server.output


async def test_who_is_told_to_stop_before_it_serves_stops_when_it_does(autojump_clock: MockClock) -> None:
    stops: list[str] = []

    async def reload() -> None:
        await trio.sleep_forever()

    obedience = Obedience(reload)
    send, receive = trio.open_memory_channel[int](9)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(obedience.run, receive)
        await send.send(signal.SIGHUP)
        await send.send(signal.SIGTERM)
        await trio.sleep(1)
        assert obedience.stopping and stops == []
        obedience.serving(lambda: stops.append("now"))
        assert stops == ["now"]
        nursery.cancel_scope.cancel()


async def test_reloads_that_are_asked_for_during_one_are_one(autojump_clock: MockClock) -> None:
    reloads: list[float] = []

    async def reload() -> None:
        reloads.append(trio.current_time())
        await trio.sleep(10)

    send, receive = trio.open_memory_channel[int](9)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Obedience(reload).run, receive)
        for _ in range(4):
            await send.send(signal.SIGHUP)
            await trio.sleep(1)
        await trio.sleep(60)
        assert [round(when - reloads[0]) for when in reloads] == [0, 10]
        nursery.cancel_scope.cancel()


# Logs


def test_no_more_files_is_one_line_and_not_ten_a_second() -> None:
    command = " ".join(serve.command())
    argv = ["sh", "-c", f"ulimit -n 40; exec {command} serve --memory --port 0"]
    with serve.Server(argv, serve.environment(), 60) as server:
        waiting = [socket.create_connection((server.host, server.port), 20) for _ in range(60)]
        wait_for(server, "can't accept connections")
        time.sleep(1.0)
        assert server.output.count("can't accept connections") == 1, server.output
        for sock in waiting:
            sock.close()
        assert status(http.client.HTTPConnection(server.host, server.port, timeout=20)) == 200
        assert server.stop() == 0


def test_a_line_that_comes_again_and_again_comes_seldom(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    seldom = Seldom(logging.getLogger("ds"), 60.0, lambda: now[0])
    for second in range(121):
        now[0] = float(second)
        seldom.warning("no more %s", "files")
    assert caplog.messages == [
        "no more files",
        "no more files (59 more times since the last such line)",
        "no more files (59 more times since the last such line)",
    ]
