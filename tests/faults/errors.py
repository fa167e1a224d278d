"""I/O errors anywhere: the n-th sync, write or read fails, or the disk has no room, or can only be read, now and then.

    python -m tests.faults.errors --cycles 200 --seed 7

After a failed call the server must end by itself, with status 1 and a line that names the file;
after a full disk it must go on. Either way the next start explains itself by the history.
"""

from __future__ import annotations

import argparse
import errno
import random
import sys
import tempfile
from pathlib import Path

import trio

from ds_trio_server.store.sqlite import maintenance
from tests.tools import serve

from . import disk
from .workload import Workload

KINDS = ("fail_sync", "fail_write", "fail_read", "fail_home", "full")


async def _cycle(
    workload: Workload, server: serve.Server, control: disk.Control, kind: str, rng: random.Random
) -> None:
    await workload.verify(server.port)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(workload.run, server.port, 60.0)
        if kind == "full":
            for _ in range(rng.randint(1, 6)):
                await trio.sleep(rng.uniform(0, 0.2))
                control["error"] = rng.choice((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
                control[rng.choice(("full", "full", "full", "read_only"))] = rng.choice((1, 2))
                await trio.sleep(rng.uniform(0, 0.2))
                control["full"] = control["read_only"] = 0
            await trio.sleep(0.1)
            assert server.process.poll() is None, f"a full disk has ended it\n{server.output}"
            server.kill()
            return
        await trio.sleep(rng.uniform(0, 0.3))
        control[kind] = rng.choice((1, 1, 2, 3, 5, 10, 30, 100))
        with trio.move_on_after(3.0):
            while server.process.poll() is None:
                await trio.sleep(0.02)
        if control["failed"] == 0:
            server.kill()  # it never came to that call
            return
        with trio.move_on_after(12.0):
            while server.process.poll() is None:
                await trio.sleep(0.02)
        if kind == "fail_read" and server.process.poll() is None and "is passed over" in server.output:
            # Where SQLite takes a page that it could not read for a damaged one, in what is to be freed, that has been
            # undone and stays: nobody has asked for it.
            server.kill()
            return
        assert server.process.poll() == 1, f"{kind}: status {server.process.poll()}\n{server.output}"
        assert control["after"] == 0, f"{kind}: it wrote or synced behind a failed sync"


def run(folder: Path, cycles: int, seed: int, say: bool = False) -> dict[str, int]:
    """Run the cycles; raises Violation or AssertionError. Returns how often each kind struck."""
    rng = random.Random(seed)
    shim = disk.library(folder)
    data = folder / "data"
    data.mkdir()
    workload = Workload(rng.randrange(1 << 30), size=2)
    struck = dict.fromkeys(KINDS, 0)
    for cycle in range(cycles):
        kind = KINDS[cycle % len(KINDS)]
        control = disk.Control(folder / "control")
        env = disk.preload(shim, data, folder / "control")
        args = ("--data", data, "--min-free", "0", "--log-level", "warning")
        with serve.start(*args, env=env, timeout=60) as server:
            try:
                trio.run(_cycle, workload, server, control, kind, rng)
                if server.process.poll() == 1:
                    assert "streams.db" in server.output, server.output
            finally:
                server.kill()
        struck[kind] += control["failed"] > 0
        if say and cycle % 10 == 9:
            print(f"{cycle + 1}/{cycles}: {struck}, {workload.history.counts()[0]} records", flush=True)
    with serve.start("--data", data, "--log-level", "warning", timeout=60) as server:
        trio.run(workload.verify, server.port)
    assert not maintenance.check(data).problems
    return struck


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = parser.parse_args()
    print(f"CYCLES={options.cycles} SEED={options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        struck = run(Path(folder), options.cycles, options.seed, say=True)
    print(f"{sum(struck.values())} faults struck: nothing acknowledged was lost, nothing is there twice")
    return 0


if __name__ == "__main__":
    sys.exit(main())
