"""Where the server's processor time goes while a row runs: py-spy, native frames included."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

SHOWN = 14
IDLE = ("epoll_wait", "_queue_SimpleQueue_get_impl", "lock_PyThread_acquire_lock")


class Unavailable(Exception):
    """There is nothing to profile with."""


def tool() -> str:
    """py-spy's path. Raises Unavailable."""
    found = shutil.which("py-spy")
    if found is None:
        raise Unavailable("--profile needs py-spy: pip install py-spy (and root, or ptrace_scope 0)")
    return found


def record(pid: int, work: Callable[[], object]) -> str:
    """Do some work while a process is sampled; a table of what took its time."""
    with tempfile.NamedTemporaryFile("r") as raw:
        spy = subprocess.Popen(
            [tool(), "record", "--pid", str(pid), "--native", "--rate", "400", "--format", "raw",
             "--output", raw.name, "--duration", "600"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            work()
        finally:
            spy.send_signal(signal.SIGINT)
            spy.wait(60)
        return table(Path(raw.name).read_text().splitlines())


def table(stacks: list[str]) -> str:
    """Shares of the samples in which a thread did something, of collapsed stacks: of a function
    itself, and of ours with all they call."""
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for stack in stacks:
        path, _, count = stack.rpartition(" ")
        frames = path.split(";")
        if not any(frame.startswith(IDLE) for frame in frames):
            own[leaf(frames)] += int(count)
            within.update({short(frame): int(count) for frame in frames if "/ds_" in frame or frame.count("(ds_")})
    total = own.total() or 1
    left = [f"{100 * n / total:5.1f} %  {name}" for name, n in own.most_common(SHOWN)]
    right = [f"{100 * n / total:5.1f} %  {name}" for name, n in within.most_common(len(left))]
    right += [""] * (len(left) - len(right))
    head = [f"{total} samples that were not idle\n", f"{'itself':60} with all it calls"]
    return "\n".join(head + [f"{a[:58]:60} {b}".rstrip() for a, b in zip(left, right, strict=True)])


def leaf(frames: list[str]) -> str:
    """What a stack was doing: its last frame, with its caller where it has no name of its own."""
    unnamed = ""
    for frame in reversed(frames):
        if not frame.startswith("0x"):
            break
        unnamed = unnamed or frame.partition("(")[2].rstrip(")").partition(".so")[0]
    return f"{unnamed} in {short(frame)}" if unnamed else short(frame)


def short(frame: str) -> str:
    """A frame without its line, as room/module: function."""
    name, _, where = frame.partition(" (")
    file = where.rstrip(")").rsplit(":", 1)[0]
    for room in ("ds_core/", "ds_trio_server/"):
        if room in file:
            return f"{room}{file.rpartition(room)[2].removesuffix('.py')}: {name}"
    return f"{name} ({file.rpartition('/')[2].partition('.so')[0]})" if file else name
