"""Power cuts: every state that a disk may be left in must explain itself by the history.

A server works on a disk that logs its writes and syncs. Afterwards the log is gone through: at
sync points the power fails, unsynced writes are lost, torn or swapped, and the store is opened on
what is left. What was acknowledged before that point must be there.

    python -m tests.faults.power --seconds 3 --images 3 --seed 7
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path

import trio

from ds_core.server import stream
from ds_trio_server.store.sqlite import maintenance
from ds_trio_server.store.sqlite.engine import SQLiteStore
from tests.tools import serve

from . import disk
from .history import Found, History, Violation
from .workload import Workload

_CHANCES = (0.0, 0.3, 0.7, 1.0)


def work(shim: Path, folder: Path, seconds: float, seed: int) -> tuple[History, list[str], Path]:
    """Let a server work on a logged disk; its history is marked with positions in the log."""
    data, log = folder / "data", folder / "log"
    data.mkdir(parents=True)
    workload = Workload(seed, size=2, mark=lambda: float(os.path.getsize(log)))
    env = disk.preload(shim, data, log=log)
    with serve.start("--data", data, "--log-level", "warning", env=env) as server:
        trio.run(workload.run, server.port, seconds)
        server.kill()
    return workload.history, workload.paths, log


async def look(folder: Path, history: History, paths: list[str], at: float) -> None:
    """Open the store on what is left, and explain all of it."""
    store = SQLiteStore(folder)
    await store.open()
    try:
        for path in paths:
            found = await store.look(path, lambda view: (view.stream, None))
            if found is None or stream.condition(found, store.now()) not in (stream.OPEN, stream.CLOSED):
                history.check(path, Found(None), at, float("inf"))
                continue
            body = b""
            while len(body) < found.visible_tail:
                body += b"".join(await store.read(found, len(body), found.visible_tail))
            history.check(path, Found(body, found.visible_closed), at, float("inf"))
        fresh = await store.look("fresh", lambda view: (view.fresh, None))
        if fresh <= history.newest(at):
            raise Violation(f"incarnation {fresh} would be given out again, {history.newest(at)} was")
    finally:
        await store.close()


def replay(
    log: Path,
    history: History,
    paths: list[str],
    folder: Path,
    rng: random.Random,
    images: int,
    most: int,
    first: bool = False,
) -> tuple[int, int]:
    """Cut the power at up to `most` sync points (the `first` ones, or any), `images` times
    each; returns how many of both."""
    points = list(disk.Log(log).syncs())
    chosen = set(points[:most] if first or len(points) <= most else rng.sample(points, most))
    disk_log = disk.Log(log)
    tried = 0
    for at in disk_log.syncs():
        if at not in chosen:
            continue
        for _ in range(images):
            seed = rng.randrange(1 << 30)
            chance = rng.choice(_CHANCES)
            disk_log.build(folder, random.Random(seed), chance)
            tried += 1
            try:
                trio.run(look, folder, history, paths, at)
                report = maintenance.check(folder)
            except BaseException as error:
                error.add_note(f"power cut at {at} of the log, image seed {seed}, chance {chance}; left in {folder}")
                raise
            if report.problems:
                raise Violation(f"power cut at {at}, image seed {seed}, chance {chance}: {report.problems}")
    return len(chosen), tried


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--points", type=int, default=1 << 30)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = parser.parse_args()
    print(f"SEED={options.seed}", flush=True)
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        history, paths, log = work(disk.library(folder), folder / "work", options.seconds, rng.randrange(1 << 30))
        records, streams = history.counts()
        print(f"{streams} streams, {records} records acknowledged, {log.stat().st_size} bytes of log", flush=True)
        points, images = replay(log, history, paths, folder / "left", rng, options.images, options.points)
    print(f"{points} power cuts, {images} states of the disk: each explained by the history")
    return 0


if __name__ == "__main__":
    sys.exit(main())
