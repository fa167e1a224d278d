"""What overload does to those who behave: a table.

    python -m tests.overload                    # 2,000 connections, half of them slow; about five minutes
    python -m tests.overload --connections 400 --seconds 5

Workers append 100 bytes exactly once or read the tail, at a steady pace, on SQLite with every append
synced. Phases with and without the others alternate; ratios are of medians of the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys

from .scenario import Phase, Scenario, creators, giants, memory, nobody, slow, together


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.overload", description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each phase (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=400, help="requests a second that behave (default: %(default)s)")
    parser.add_argument("--body", type=int, default=16, help="MiB of a large body, the limit (default: %(default)s)")
    options = parser.parse_args()
    half = options.connections // 2
    size = options.body << 20
    attacks = {
        f"{half} slow connections": slow(half),
        "4 connections that create streams": creators(4),
        f"2 connections, {options.body} MiB a second each": giants(2, size, 1.0),
        "all of these": together(slow(half), creators(4), giants(2, size, 1.0)),
        f"2 connections, {options.body} MiB without a pause": giants(2, size),
    }
    failures: list[str] = []
    with Scenario("--max-body", f"{options.body}M", workers=half, pause=half / options.rate) as scenario:
        idle = memory(scenario.server.pid) >> 20
        print(f"{half} clients that behave, {options.rate:g} requests a second; the server alone: {idle} MiB")
        columns = "".join(f" {name:>9} {'alone':>9} {'ratio':>6}" for name in ("median", "p99"))
        print(f"{'beside them':40}{columns}    memory")
        for name, enemies in attacks.items():
            alone: list[Phase] = []
            attacked: list[Phase] = []
            for _ in range(options.rounds):
                alone.append(scenario.phase(options.seconds, nobody))
                attacked.append(scenario.phase(options.seconds, enemies, 3.0))
            line = f"{name:40}"
            for share in (0.5, 0.99):
                usual = statistics.median(phase.at(share) for phase in alone)
                under = statistics.median(phase.at(share) for phase in attacked)
                line += f" {under * 1000:6.1f} ms {usual * 1000:6.1f} ms {under / usual:6.1f}"
            top = max(phase.memory for phase in attacked) >> 20
            print(f"{line} {top:5} MiB", flush=True)
            print(f"    answers: {', '.join(f'{kind}: {n}' for kind, n in attacked[-1].seen.items())}")
            failures += [failure for phase in (*alone, *attacked) for failure in phase.failures]
        stored = scenario.stored()
        print(f"{scenario.acknowledged} appends acknowledged, {stored} stored; load {os.getloadavg()[0]:.1f}")
    for failure in failures[:5]:
        print(failure, file=sys.stderr)
    return 1 if failures or stored != scenario.acknowledged else 0


if __name__ == "__main__":
    sys.exit(main())
