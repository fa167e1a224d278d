"""`kill -9` in the middle of everything, again and again, with a history that is checked every time.

    python -m tests.faults.kill --cycles 500 --seed 7     # what `make soak` runs

Each cycle starts the server on the same directory, looks at every path and explains what is there,
keeps the server busy for a random while, and kills it.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

import trio

from ds_trio_server.store.sqlite import maintenance
from tests.tools import serve

from .workload import Workload


async def _cycle(workload: Workload, server: serve.Server, seconds: float) -> None:
    await workload.verify(server.port)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(workload.run, server.port, 60.0)
        await trio.sleep(seconds)
        server.kill()


def run(folder: Path, cycles: int, seed: int, say: bool = False) -> Workload:
    """Run the cycles and a last look; raises Violation. Returns what was done."""
    rng = random.Random(seed)
    workload = Workload(rng.randrange(1 << 30))
    begun = time.monotonic()
    for cycle in range(cycles + 1):
        with serve.start("--data", folder, "--log-level", "warning", timeout=60) as server:
            if cycle == cycles:
                trio.run(workload.verify, server.port)
                server.stop()
            else:
                trio.run(_cycle, workload, server, rng.uniform(0.05, 1.0))
        if say and (cycle % 10 == 0 or cycle == cycles):
            records, streams = workload.history.counts()
            print(
                f"{cycle}/{cycles} cycles, {time.monotonic() - begun:.0f} s: {streams} streams, "
                f"{records} records acknowledged, {workload.refusals} refused",
                flush=True,
            )
    report = maintenance.check(folder)
    assert not report.problems, report.problems
    return workload


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cycles", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = parser.parse_args()
    print(f"CYCLES={options.cycles} SEED={options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder) / "data", options.cycles, options.seed, say=True)
    print("nothing acknowledged was lost, nothing is there twice")
    return 0


if __name__ == "__main__":
    sys.exit(main())
