"""Starts a real server process for a test, a benchmark or a chaos run, and ends it politely or with SIGKILL.

    with serve.start("--data", folder) as server:       # `ds serve` on a free port
        requests.put(server.url + "/a")
        server.kill()                                   # as a power cut does
    server = serve.start("--data", folder, port=server.port)

Only the standard library is used.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tests.tools import node

ROOT = Path(__file__).resolve().parent.parent.parent
LISTENING = re.compile(r"listening on (https?://\S+)")


class Server:
    """A running server process.

    `url` is the root of its streams (`http://127.0.0.1:PORT/v1/stream`), `origin` the same without the path.
    `output` is everything it wrote so far, stdout and stderr together.
    """

    def __init__(self, argv: Sequence[str], env: dict[str, str] | None, timeout: float) -> None:
        self.argv = list(argv)
        self._lines: list[str] = []
        self._listening = threading.Event()
        self.url = ""
        self.process = subprocess.Popen(
            self.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=ROOT,
            env=env,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._listening.wait(timeout) or not self.url:
            self.kill()
            raise RuntimeError(
                f"no 'listening on' line within {timeout} s (status {self.process.returncode})\n"
                f"{' '.join(self.argv)}\n{self.output}"
            )

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line)
            found = LISTENING.search(line)
            if found and not self.url:
                self.url = found[1].rstrip("/")
                self._listening.set()
        self._listening.set()

    @property
    def origin(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 80

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return "".join(self._lines)

    def stop(self, timeout: float = 60) -> int:
        """SIGTERM, wait, return the exit status; SIGKILL and TimeoutError when it does not end in time."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"no end within {timeout} s of SIGTERM\n{self.output}") from None
        self._reader.join(5)
        return self.process.returncode

    def kill(self) -> None:
        """SIGKILL and wait: nothing is flushed, nothing is said to clients."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(5)

    def wait(self, timeout: float = 60) -> int:
        """Wait for an end of its own, return the exit status."""
        status = self.process.wait(timeout)
        self._reader.join(5)
        return status

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        # A test that fails must not be hidden by a server that does not stop, nor leave it running.
        if self.process.poll() is None:
            with contextlib.suppress(TimeoutError) if exc[0] else contextlib.nullcontext():
                self.stop()


def command() -> list[str]:
    """How this checkout's `ds` is started: with this interpreter, whatever is on the PATH."""
    installed = Path(sys.executable).parent / "ds"
    if installed.is_file():
        return [str(installed)]
    return [sys.executable, "-c", "from ds_trio_server.cli.main import main; raise SystemExit(main())"]


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """The environment for a child: this checkout first on its path, and no DS_ options of the developer's."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DS_")}
    path = [str(ROOT), str(ROOT / "micro"), *filter(None, [inherited.get("PYTHONPATH")])]
    return {**inherited, "PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1", **(extra or {})}


def start(
    *args: object,
    host: str = "127.0.0.1",
    port: int = 0,
    timeout: float = 60,
    env: dict[str, str] | None = None,
) -> Server:
    """Start `ds serve` with these arguments and return once it accepts; port 0 takes a free one."""
    argv = [*command(), "serve", "--host", host, "--port", str(port), *map(str, args)]
    return Server(argv, environment(env), timeout)


def start_peer(
    *, data: Path | str | None = None, port: int = 0, long_poll: float = 30, timeout: float = 30
) -> Server:
    """Start the Node reference server, in memory or on files in `data`; raises node.Unavailable."""
    node.modules()
    argv = [node.node(), str(ROOT / "tests" / "tools" / "peer.mjs"), "--port", str(port)]
    argv += ["--long-poll-timeout", str(long_poll), *(["--data", str(data)] if data else [])]
    return Server(argv, dict(os.environ), timeout)


def wait_until_closed(server: Server, timeout: float = 10) -> None:
    """Wait until nothing accepts on the server's port any more."""
    import socket

    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            socket.create_connection((server.host, server.port), 1).close()
        except OSError:
            return
        time.sleep(0.02)
    raise TimeoutError(f"port {server.port} still accepts after {timeout} s")
