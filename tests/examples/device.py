"""The examples as programs on real MicroPython: started, watched, killed."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools import ci, micropython, serve

RUNNER = Path(__file__).with_name("run.py")
FOLDERS = (serve.ROOT, serve.ROOT / "micro", serve.ROOT / "micro" / "examples", RUNNER.parent, ".frozen")
PATH = os.pathsep.join(map(str, FOLDERS))


def command(build: int, heap: str, example: str, *arguments: object, **configuration: object) -> list[str]:
    """How an example is started on a heap of this size; `configuration` replaces what stands at its top."""
    try:
        argv = micropython.find(build)
    except micropython.Unavailable as exc:
        ci.missing(exc)
    changed = [f"{name}={value!r}" for name, value in configuration.items()]
    return [*argv, "-X", f"heapsize={heap}", str(RUNNER), example, *changed, *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "MICROPYPATH": PATH}


def run(argv: list[str], folder: Path, seconds: float = 60) -> str:
    """Run a program to its end in this folder; its output. Fails on another status than 0."""
    done = subprocess.run(
        argv,
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
    )
    if done.returncode or "Traceback" in done.stdout:
        pytest.fail(f"status {done.returncode}\n{done.stdout}", pytrace=False)
    return done.stdout


class Program:
    """A running example; `output` is everything it printed so far."""

    def __init__(self, argv: list[str], folder: Path) -> None:
        self._log = folder / f"{time.monotonic_ns()}.log"
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                argv, cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def until(self, text: str, seconds: float = 20) -> str:
        """Wait until this was printed; all that was."""
        deadline = time.monotonic() + seconds
        while text not in self.output:
            if self.process.poll() is not None or time.monotonic() > deadline:
                if text in self.output:
                    break
                pytest.fail(f"no {text!r} (status {self.process.poll()}) in\n{self.output}", pytrace=False)
            time.sleep(0.02)
        return self.output

    def kill(self) -> None:
        """As a power cut does."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def started(argv: list[str], folder: Path) -> Iterator[Program]:
    program = Program(argv, folder)
    try:
        yield program
    finally:
        program.kill()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
