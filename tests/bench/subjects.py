"""What is measured: our server, the Node reference server, and any other that speaks the protocol.

All get the same: an own process, a fresh folder on the same disk, default settings.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from tests.tools import node, serve


class Process(Protocol):
    """What `tests.tools.serve` starts, or a peer's command."""

    @property
    def pid(self) -> int: ...

    def stop(self) -> object: ...


class Server(NamedTuple):
    """A server that accepts connections; `root` is the path of the streams' root."""

    process: Process
    host: str
    port: int
    root: str

    @property
    def origin(self) -> str:
        return f"http://{self.host}:{self.port}"

    def rss(self) -> int:
        """Bytes of memory that the process holds now; kernel sockets are not in it."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("the server has ended")

    def settled_rss(self, seconds: float = 1) -> int:
        """The same once it has not grown for a while."""
        before, now = 0, self.rss()
        while now > before:
            time.sleep(seconds)
            before, now = max(now, before), self.rss()
        return now


class Subject:
    """One server program with one kind of store; `start` may be called again, also on what was stored before.

    `running` is the server that was started last, as long as it runs.
    """

    def __init__(self, name: str, store: str, folder: Path, command: str = "") -> None:
        self.name = name
        self.store = store
        self.folder = folder
        self.running: Server | None = None
        self._command = command

    @contextmanager
    def start(self, *, keep: bool = False) -> Iterator[Server]:
        """Run the server, on an empty folder unless `keep`."""
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        server = self.running = self._launch()
        try:
            yield server
        finally:
            self.running = None
            server.process.stop()

    def _launch(self) -> Server:
        if self._command:
            return _run_command(self._command, self.folder)
        disk = self.store == "disk"
        if self.name == "node":
            started = serve.start_peer(data=self.folder if disk else None)
        else:
            started = serve.start(*(("--data", self.folder) if disk else ("--memory",)), "--log-level", "warning")
        return Server(started, started.host, started.port, urlsplit(started.url).path + "/")


def node_missing() -> str:
    """Why the Node reference server can't be run here, or nothing."""
    try:
        node.modules()
    except node.Unavailable as reason:
        return str(reason)
    return ""


class _Command:
    """A peer's own command."""

    def __init__(self, argv: list[str]) -> None:
        self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.pid = self._process.pid

    def ended(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _run_command(command: str, folder: Path) -> Server:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = command.replace("{port}", str(port)).replace("{data}", shlex.quote(os.fspath(folder)))
    argv = shlex.split(command)
    process = _Command(argv)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not process.ended():
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return Server(process, "127.0.0.1", port, "/v1/stream/")
        except OSError:
            time.sleep(0.02)
    process.stop()
    raise RuntimeError(f"nothing listens on port {port}: {' '.join(argv)}")
