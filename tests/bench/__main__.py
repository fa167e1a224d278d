"""Runs the table in interleaved rounds: ours, peer, ours, peer."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import shutil
import signal
import sys
import traceback
from http.client import HTTPException
from pathlib import Path

from . import load, machine, profile, report
from .fanout import allow_files
from .rows import FULL, QUICK, ROWS, SMOKE, Row, Sizes
from .subjects import Subject, node_missing

RESULTS = Path(__file__).with_name("results")
SCRATCH = machine.ROOT / "build" / "bench"
FAULTS = (RuntimeError, OSError, HTTPException)  # what a server that is wrong or gone raises here


def main() -> int:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server outlives this
    try:
        load.find()
        rows = choose(options.only)
        peers = dict(peer.partition("=")[::2] for peer in options.peer)
        if not all(peers.values()):
            raise ValueError("a peer is given as name=command")
        if options.profile:
            profile.tool()
    except (load.Unavailable, profile.Unavailable, ValueError) as reason:
        print(reason, file=sys.stderr)
        return 2
    missing = "" if options.no_node else node_missing()
    if missing:
        print(f"without the Node reference server: {missing}", file=sys.stderr)
    if not options.no_node and not missing:
        peers = {"node": "", **peers}
    with contextlib.suppress(RuntimeError):
        allow_files(16_384)
    if machine.file_system(options.dir) == "tmpfs":
        print(f"{options.dir} is in memory, so no append is durable; --dir chooses another place", file=sys.stderr)
    sizes = SMOKE if options.smoke else QUICK if options.quick else FULL
    rounds = options.rounds or (3 if sizes is FULL else 2)
    named = f"{datetime.date.today()}.json"
    target = options.out or (RESULTS if sizes is FULL else SCRATCH) / named
    if sizes is not FULL:
        print("smaller than the titles say: " + ", ".join(f"{name} {size}" for name, size in sizes._asdict().items()))
    failed = False
    for row in rows:
        print(f"\n{row.name}: {row.title}", flush=True)
        try:
            samples, profiled = measure(row, sizes, rounds, peers, options.dir, options.profile)
        except FAULTS as reason:
            failed = True
            print(f"  failed: {reason}", flush=True)
            if options.verbose:
                traceback.print_exc()
            continue
        result = report.summarize(row, samples, profiled)
        report.show(result)
        report.save(target, result, machine.describe(options.dir), sizes._asdict())
    if target.exists():
        print(f"\n{target} and {target.with_suffix('.svg').name}")
    return 1 if failed else 0


def choose(only: str) -> list[Row]:
    """The rows of these comma-separated names, all when there are none; raises ValueError."""
    names = [name for name in only.split(",") if name]
    unknown = set(names) - {row.name for row in ROWS}
    if unknown:
        raise ValueError(f"no such row: {', '.join(unknown)}; there are {', '.join(row.name for row in ROWS)}")
    return [row for row in ROWS if not names or row.name in names]


def measure(
    row: Row, sizes: Sizes, rounds: int, peers: dict[str, str], folder: Path, profiles: bool = False
) -> tuple[dict[str, list[dict[str, float]]], str]:
    """What each subject ("ours", "node memory") yielded in each round; a peer that fails drops out.

    And the profile of one more round of ours, if its server stays up between rounds.
    """
    subjects = {"ours": Subject("ours", row.store, folder / "ours")}
    for name, command in peers.items():
        for store in row.peers[:1] if command else row.peers:
            label = name if command else f"{name} {store}"
            subjects[label] = Subject(name, store, folder / label.replace(" ", "-"), command)
    samples: dict[str, list[dict[str, float]]] = {label: [] for label in subjects}
    with contextlib.ExitStack() as stack:
        running = {}
        for label, subject in subjects.items():
            stack.callback(shutil.rmtree, subject.folder, ignore_errors=True)
            running[label] = stack.enter_context(contextlib.closing(row.rounds(subject, sizes)))
        for _ in range(rounds):
            for label, generator in list(running.items()):
                try:
                    samples[label].append(next(generator))
                except FAULTS as reason:
                    if label == "ours":
                        raise
                    print(f"  {label} failed: {reason}", flush=True)
                    del running[label]
        profiled = ""
        server = subjects["ours"].running
        if profiles and server is not None:
            profiled = profile.record(server.process.pid, lambda: next(running["ours"]))
    return samples, profiled


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    add = parser.add_argument
    add("--only", default="", metavar="ROW,...", help=", ".join(row.name for row in ROWS))
    add("--rounds", type=int, default=0, help="rounds per row (default: 3; 2 with --quick)")
    add("--quick", action="store_true", help="smaller sizes; results go to build/bench/")
    add("--smoke", action="store_true", help="the smallest sizes: does it run at all?")
    add("--peer", action="append", default=[], metavar="NAME=COMMAND",
        help="another server; {port} and {data} in the command are replaced, streams are below /v1/stream")  # fmt: skip
    add("--profile", action="store_true",
        help="one more round of ours under py-spy; DATE.profile.txt beside the results")  # fmt: skip
    add("--no-node", action="store_true", help="without the Node reference server")
    add("--dir", type=Path, default=SCRATCH, help="where the servers keep their data (default: build/bench)")
    add("--out", type=Path, help="the JSON file, to which rows are added (default: results/DATE.json)")
    add("--verbose", action="store_true", help="tracebacks")
    return parser


if __name__ == "__main__":
    sys.exit(main())
