"""What a gateway's memory does under hours of everything at once: a line a minute, and the slope.

    python -m tests.overload.traffic                # 1,000 operations a second for 30 minutes
    python -m tests.overload.traffic --minutes 5 --rate 500 --serve "--max-streams 100000"

Of the operations half are appends, each by a producer that is never heard of again, to logs that retention trims; a
tenth reads a log whole, compressed; a fifth makes a stream with a TTL of 1, 2 or 60 s and a fork of it, deletes the
first and mostly the second; a tenth are live readers that vanish; a tenth asks for what there is not. Each client has
a schedule of its own and catches up when it was held up, so the rate that is reached says whether the server keeps up.

The slope is the least-squares line through the second half of the samples: what still grows once everything is warm.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import random
import shlex
import shutil
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.tools import serve

from .scenario import memory

CLIENTS = 16
SAMPLE_SECONDS = 5.0
LOGS = "64K"  # what retention leaves of each log
SIZES = (20, 200, 3000)
TTLS = ("1", "2", "60")
_RESET = struct.pack("ii", 1, 0)
_EXPECTED = frozenset({200, 201, 204, 404, 410})  # 404: what expired meanwhile


class Sample(NamedTuple):
    """Seconds since the start; operations so far; KiB of resident memory, open files, MiB of the data folder."""

    at: float
    operations: int
    resident: int
    files: int
    disk: float


class Client(threading.Thread):
    """One kept-alive connection that does an operation every `pause` seconds until `end` (monotonic)."""

    def __init__(self, server: serve.Server, number: int, pause: float, end: float) -> None:
        super().__init__(daemon=True)
        self._host, self._port = server.host, server.port
        self._log = f"/v1/stream/log{number}"
        self._name = f"/v1/stream/brief{number}."
        self._random = random.Random(number)
        self._pause, self._end = pause, end
        self._producer = f"p{number}."
        self._turn = 0
        self._connection = http.client.HTTPConnection(self._host, self._port, timeout=60)
        self.operations = 0
        self.answers: Counter[str] = Counter()
        self.kinds = (
            (0.5, self._append), (0.6, self._read), (0.8, self._pass_by), (0.9, self._vanish), (1.0, self._miss),
        )  # fmt: skip

    def run(self) -> None:
        self._request("PUT", self._log, b"", {"Content-Type": "text/plain"})
        due = time.monotonic()
        while (now := time.monotonic()) < self._end:
            if due > now:
                time.sleep(due - now)
            due += self._pause
            self._turn += 1
            luck = self._random.random()
            try:
                next(act for share, act in self.kinds if luck < share)()
            except (OSError, http.client.HTTPException) as reason:
                self.answers[type(reason).__name__] += 1
                self._connection.close()
            self.operations += 1
        self._connection.close()

    def _request(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> int:
        self._connection.request(method, path, body, headers or {})
        answer = self._connection.getresponse()
        answer.read()
        self.answers[str(answer.status)] += 1
        return answer.status

    def _append(self) -> None:
        producer = {"Producer-Id": f"{self._producer}{self._turn}", "Producer-Epoch": "0", "Producer-Seq": "0"}
        body = b"x" * self._random.choice(SIZES)
        self._request("POST", self._log, body, {"Content-Type": "text/plain", **producer})

    def _read(self) -> None:
        headers = {"Accept-Encoding": "gzip"}
        if self._request("GET", self._log + "?offset=-1", None, headers) == 410:
            self._request("GET", self._log + "?offset=now", None, headers)

    def _pass_by(self) -> None:
        name = f"{self._name}{self._turn}"
        ttl = {"Content-Type": "text/plain", "Stream-TTL": self._random.choice(TTLS)}
        self._request("PUT", name, b"z" * 100, ttl)
        self._request("PUT", name + "f", None, {"Stream-Forked-From": name})
        self._request("DELETE", name)
        if self._random.random() < 0.7:
            self._request("DELETE", name + "f")

    def _vanish(self) -> None:
        live = self._random.choice(("sse", "long-poll"))
        with socket.create_connection((self._host, self._port), 60) as sock:
            target = f"{self._log}?offset=now&live={live}"
            sock.sendall(f"GET {target} HTTP/1.1\r\nHost: {self._host}\r\nX-Turn: {self._turn}\r\n\r\n".encode())
            sock.settimeout(0.02)
            with contextlib.suppress(TimeoutError):
                sock.recv(4096)
            if self._random.random() < 0.5:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def _miss(self) -> None:
        self._request("GET", f"{self._name}none?offset=-1&cursor={self._turn}")


def look(server: serve.Server, folder: Path, began: float, clients: list[Client]) -> Sample:
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            size += path.stat().st_blocks * 512
    files = len(os.listdir(f"/proc/{server.pid}/fd"))
    operations = sum(client.operations for client in clients)
    return Sample(time.monotonic() - began, operations, memory(server.pid) >> 10, files, size / (1 << 20))


def slope(samples: list[Sample]) -> float:
    """KiB a minute by which memory grows over the second half of the samples; 0.0 for fewer than two."""
    half = samples[len(samples) // 2 :]
    if len(half) < 2:
        return 0.0
    middle = sum(each.at for each in half) / len(half)
    level = sum(each.resident for each in half) / len(half)
    spread = sum((each.at - middle) ** 2 for each in half)
    return 60 * sum((each.at - middle) * (each.resident - level) for each in half) / spread


def run(
    folder: Path, seconds: float, rate: float, arguments: list[str], show: Callable[[Sample], None]
) -> tuple[list[Sample], Counter[str]]:
    """Samples, one every five seconds and `show`n every minute; and how often there was each answer."""
    shutil.rmtree(folder, ignore_errors=True)
    options = ("--data", folder, "--retain", f"log*={LOGS}", "--log-level", "warning", *arguments)
    with serve.start(*options) as server:
        began = time.monotonic()
        clients = [Client(server, number, CLIENTS / rate, began + seconds) for number in range(CLIENTS)]
        samples = [look(server, folder, began, clients)]
        show(samples[0])
        for client in clients:
            client.start()
        minute = 60.0
        while (left := began + seconds - time.monotonic()) > 0:
            time.sleep(min(SAMPLE_SECONDS, left))
            samples.append(look(server, folder, began, clients))
            if samples[-1].at >= minute:
                show(samples[-1])
                minute += 60
        for client in clients:
            client.join(60)
        samples.append(look(server, folder, began, clients))
        answers: Counter[str] = Counter()
        for client in clients:
            answers += client.answers
    return samples, answers


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.overload.traffic", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--minutes", type=float, default=30.0)
    add("--rate", type=float, default=1000.0, help="operations a second (default: %(default)g)")
    add("--serve", default="", metavar="OPTIONS", help="more options of `ds serve`, in one string")
    add("--dir", type=Path, default=serve.ROOT / "build" / "traffic", help="where the data is (default: build/traffic)")
    options = parser.parse_args()
    print("   minute  operations/s   resident   files     disk")
    last = [Sample(0, 0, 0, 0, 0)]

    def show(sample: Sample) -> None:
        before = last.pop()
        last.append(sample)
        rate = (sample.operations - before.operations) / max(sample.at - before.at, 1e-9)
        size = f"{sample.resident / 1024:6.1f} MiB {sample.files:7} {sample.disk:5.0f} MiB"
        print(f"{sample.at / 60:9.1f} {rate:13.0f} {size}", flush=True)

    try:
        arguments = shlex.split(options.serve)
        samples, answers = run(options.dir, options.minutes * 60, options.rate, arguments, show)
    finally:
        shutil.rmtree(options.dir, ignore_errors=True)
    end = samples[-1]
    print(f"{end.operations} operations, {end.operations / end.at:.0f}/s; ", end="")
    print(", ".join(f"{name}: {count}" for name, count in answers.most_common()))
    print(f"slope of the second half: {slope(samples):+.0f} KiB/min")
    unexpected = {name: count for name, count in answers.items() if not name.isdigit() or int(name) not in _EXPECTED}
    if unexpected:
        print(f"answers that should not be: {unexpected}", file=sys.stderr)
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
