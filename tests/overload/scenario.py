"""A server under scenario: what those who behave notice of those who don't, and what it costs."""

from __future__ import annotations

import http.client
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ds_trio_server import server as ours
from tests.tools import serve

from .clients import ROOT, Creator, Deaf, Giant, Loop, Peer, SlowBody, SlowHead, SlowReader, Worker

BIG = 1 << 20
STREAMS = 16

Enemies = Callable[[Loop], list[Peer]]


@dataclass
class Phase:
    """What the workers measured: seconds, and every answer that was not right."""

    waits: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    memory: int = 0
    seen: dict[str, int] = field(default_factory=dict)

    def at(self, share: float) -> float:
        return sorted(self.waits)[min(len(self.waits) - 1, int(len(self.waits) * share))]

    @property
    def median(self) -> float:
        return statistics.median(self.waits)


def memory(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Scenario:
    """One server process with its streams, as a context manager; `phase` is one round."""

    def __init__(self, *options: str, workers: int, pause: float, seed: int = 1) -> None:
        ours.raise_file_limit()
        self._folder = tempfile.mkdtemp()
        self._workers = workers
        self._pause = pause
        self._seed = seed
        self._round = 0
        self.acknowledged = 0
        self.server = serve.start("--data", self._folder, "--log-level", "error", *options)
        for name in (*(f"s{number}" for number in range(STREAMS)), "giant"):
            self.ask("PUT", name)
        self.ask("PUT", "big", bytes(BIG))

    def __enter__(self) -> Scenario:
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.__exit__(*exc)
        shutil.rmtree(self._folder, ignore_errors=True)

    def ask(self, method: str, name: str, body: bytes = b"") -> dict[str, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        connection.request(method, ROOT + name, body)
        answer = connection.getresponse()
        answer.read()
        assert answer.status < 300, (method, name, answer.status)
        connection.close()
        return dict(answer.getheaders())

    def phase(self, seconds: float, enemies: Enemies, warm: float = 1.0) -> Phase:
        """Workers and enemies for so long, measured after they had `warm` seconds to come."""
        self._round += 1
        loop = Loop(self.server.port, self._seed + self._round)
        group = enemies(loop)
        workers = [
            Worker(loop, f"{self._round}-{number}", f"s{number % STREAMS}", self._pause)
            for number in range(self._workers)
        ]
        loop.run(warm)
        for worker in workers:
            worker.waits.clear()
        phase = Phase()
        for _ in range(4):
            loop.run(seconds / 4)
            phase.memory = max(phase.memory, memory(self.server.pid))
        for enemy in group:
            enemy.stopped = True
        # Who has asked is still answered.
        for worker in workers:
            worker.stopped = True
        for _ in range(300):
            if not any(worker.waiting for worker in workers):
                break
            loop.run(0.1)
        for worker in workers:
            phase.waits += worker.waits
            phase.failures += worker.failures
            self.acknowledged += worker.acknowledged
        for (kind, status), number in sorted(loop.seen.items()):
            phase.seen[f"{kind} {status}"] = number
        loop.close()
        return phase

    def stored(self) -> int:
        """How many records the workers' streams hold."""
        tails = [self.ask("HEAD", f"s{number}")["stream-next-offset"] for number in range(STREAMS)]
        return sum(int(tail.partition("_")[2]) for tail in tails) // 100


def nobody(loop: Loop) -> list[Peer]:
    return []


def slow(number: int) -> Enemies:
    """So many connections that are slow, a byte a second, in every way there is."""
    kinds = (SlowHead, SlowBody, SlowReader, SlowReader, Deaf)
    return lambda loop: [kinds[index % len(kinds)](loop) for index in range(number)]


def creators(number: int) -> Enemies:
    return lambda loop: [Creator(loop) for _ in range(number)]


def giants(number: int, size: int, pause: float = 0.0) -> Enemies:
    return lambda loop: [Giant(loop, size, pause) for _ in range(number)]


def together(*groups: Enemies) -> Enemies:
    return lambda loop: [peer for group in groups for peer in group(loop)]
