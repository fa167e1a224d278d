"""Request load: wrk, a C program that a server under test doesn't outrun."""

from __future__ import annotations

import resource
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from .subjects import Server

SCRIPT = Path(__file__).with_name("requests.lua")
HELP = "wrk was not found. Debian, Ubuntu, Raspberry Pi OS: sudo apt install wrk; macOS: brew install wrk"


class Unavailable(Exception):
    """There is no wrk on this machine."""


class Load(NamedTuple):
    """What wrk saw: requests a second, latencies in seconds, and how much of one core it used itself (percent)."""

    rate: float
    p50: float
    p99: float
    share: float


def find() -> str:
    program = shutil.which("wrk")
    if program is None:
        raise Unavailable(HELP)
    return program


def run(
    server: Server,
    method: str,
    path: str,
    *,
    body: bytes | None = None,
    content_type: str = "application/octet-stream",
    connections: int = 64,
    seconds: float = 3,
    streams: int = 0,
    order: str = "cycle",
) -> Load:
    """Send this request on `connections` kept-alive connections for `seconds`; see requests.lua for `streams`.

    Raises RuntimeError when any answer was not 2xx or 3xx: a rate of refusals is not a result.
    """
    with tempfile.NamedTemporaryFile() as file:
        file.write(body or b"")
        file.flush()
        argv = [find(), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s"]
        argv += ["-s", str(SCRIPT), server.origin, "--", method, server.root + path, str(streams), order]
        argv += ["-", "-"] if body is None else [content_type, file.name]
        before = _cpu_of_children()
        done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 60)
        cpu = _cpu_of_children() - before
    result = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("RESULT")]
    if not result:
        raise RuntimeError(f"wrk failed: {done.stdout}{done.stderr}")
    requests, micros, refused, broken, p50, p99 = map(int, result[0])
    if refused or broken or not requests:
        raise RuntimeError(f"{requests} requests, {refused} refused, {broken} broken: {method} {path}\n{done.stdout}")
    return Load(requests * 1e6 / micros, p50 / 1e6, p99 / 1e6, cpu * 1e8 / micros)


def _cpu_of_children() -> float:
    """Processor seconds of the children that have ended; the servers have not."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
