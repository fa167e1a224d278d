"""`ds` as an operator runs it: real processes against a real server."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.tools import serve


class Shell:
    """Runs `ds` with STREAM_URL set to a server's; keeps what it started, to end it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._started: list[subprocess.Popen[bytes]] = []

    def environment(self, **more: str) -> dict[str, str]:
        env = serve.environment({"STREAM_URL": self.url, **more})
        env.pop("STREAM_AUTH", None) if "STREAM_AUTH" not in more else None
        return env

    def __call__(
        self, *words: object, input: bytes | str = b"", status: int = 0, timeout: float = 100, **env: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run to its end; fails unless it has this exit status."""
        data = input.encode() if isinstance(input, str) else input
        argv = [*serve.command(), *map(str, words)]
        done = subprocess.run(argv, input=data, capture_output=True, env=self.environment(**env), timeout=timeout)
        assert done.returncode == status, (words, done.returncode, done.stdout[-2000:], done.stderr[-2000:])
        return done

    def start(self, *words: object, **options: object) -> subprocess.Popen[bytes]:
        argv = [*serve.command(), *map(str, words)]
        standard = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process = subprocess.Popen(argv, env=self.environment(), **{**standard, **options})  # type: ignore[call-overload]
        self._started.append(process)
        return process

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[serve.Server]:
    folder = tmp_path_factory.mktemp("cli") / "data"
    with serve.start("--data", folder, "--long-poll-timeout", 2) as running:
        yield running


@pytest.fixture
def ds(server: serve.Server) -> Iterator[Shell]:
    shell = Shell(server.url)
    yield shell
    shell.end()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A stream's path of this test's own."""
    return "cli/" + "".join(char if char.isalnum() else "-" for char in request.node.name)


class Recorder:
    """A server that answers everything alike and keeps the requests."""

    def __init__(self, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                recorder.requests.append((self.command, self.path, dict(self.headers), body))
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/stream"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@pytest.fixture
def recorder() -> Iterator[Callable[..., Recorder]]:
    made: list[Recorder] = []

    def make(status: int = 200, headers: dict[str, str] | None = None) -> Recorder:
        made.append(Recorder(status, headers))
        return made[-1]

    yield make
    for one in made:
        one.close()


def lines(path: Path) -> list[bytes]:
    """The whole lines of a file that may still be written."""
    data = path.read_bytes() if os.path.exists(path) else b""
    return data.split(b"\n")[:-1]
