"""The applications' client beside the official Python one (PyPI `durable-streams`), each in its own process on asyncio.

    python -m tests.bench.clients [--rounds 3] [--quick]

Both do the same against one `ds serve --memory`, in turns; the official one in a virtual environment of its own, which
is made in build/bench/official. Prints a table: medians, and the median of the ratios within each round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
JSON = "application/json"
RECORD = {"t": 21.5, "rh": 40, "at": "2026-11-28T07:00:00Z"}


class Sizes(NamedTuple):
    """How much is done of each."""

    appends: int = 1500
    messages: int = 100_000
    readers: int = 300
    rounds: int = 9


SMOKE = Sizes(64, 200, 3, 2)
FIGURES = {
    "sequential": "appends of one task, one after another",
    "concurrent": "appends of 64 tasks, a request each",
    "batched": "... what one moment brings in one request",
    "reading": "messages read of a long stream",
    "live": "an append reaches the last of {readers} live readers",
}


async def rate(count: int, call: Callable[[], Awaitable[object]], tasks: int = 1) -> float:
    """How many a second."""

    async def some() -> None:
        for _ in range(count // tasks):
            await call()

    await call()
    began = time.perf_counter()
    await asyncio.gather(*[some() for _ in range(tasks)])
    return count // tasks * tasks / (time.perf_counter() - began)


async def fanned(
    sizes: Sizes, append: Callable[[], Awaitable[object]], follow: Callable[[Callable[[], None]], Any]
) -> float:
    """Seconds from an append until all readers have its message; the median."""
    arrived = 0
    everybody = asyncio.Event()

    def got() -> None:
        nonlocal arrived
        arrived += 1
        if arrived % sizes.readers == 0:
            everybody.set()

    async def all_have_it() -> None:
        async with asyncio.timeout(60):
            await everybody.wait()

    readers = [asyncio.create_task(follow(got)) for _ in range(sizes.readers)]
    await append()  # each reader that is there says so
    await all_have_it()
    await asyncio.sleep(0.5)
    found = []
    for _ in range(sizes.rounds):
        everybody.clear()
        began = time.perf_counter()
        await append()
        await all_have_it()
        found.append(time.perf_counter() - began)
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    return statistics.median(found)


async def ours(url: str, sizes: Sizes) -> dict[str, float]:
    from ds_client import Client

    async with Client(url, connections=64, trust_env=False) as session:
        stream, long, live = (session.stream(f"ours-{name}", JSON) for name in ("short", "long", "live"))
        for each in (stream, long, live):
            await each.create()
        producer = stream.producer("p")
        found = {
            "sequential": await rate(sizes.appends, lambda: stream.append(RECORD)),
            "concurrent": await rate(sizes.appends * 2, lambda: stream.append(RECORD), 64),
            "batched": await rate(sizes.appends * 8, lambda: producer.append(RECORD), 64),
        }
        for _ in range(sizes.messages // 100):
            await long.append(*[RECORD] * 100)
        began, count = time.perf_counter(), 0
        async for _ in long.read():
            count += 1
        assert count == sizes.messages // 100 * 100
        found["reading"] = count / (time.perf_counter() - began)

        async def follow(got: Callable[[], None]) -> None:
            async for _ in live.follow(live="sse"):
                got()

        found["live"] = await fanned(sizes, lambda: live.append(RECORD), follow)
        for each in (stream, long, live):
            await each.delete()
    return found


async def official(url: str, sizes: Sizes) -> dict[str, float]:
    import httpx
    from durable_streams import AsyncDurableStream, astream

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False) as client:

        async def stream(name: str, batching: bool) -> Any:
            handle = AsyncDurableStream(f"{url}/official-{name}", client=client, content_type=JSON, batching=batching)
            if batching or name == "live":
                await handle.create_stream(content_type=JSON)
            return handle

        batched, live = await stream("short", True), await stream("live", False)
        single = await stream("short", False)
        long = AsyncDurableStream(f"{url}/official-long", client=client, content_type=JSON)
        await long.create_stream(content_type=JSON)
        found = {
            "sequential": await rate(sizes.appends, lambda: single.append(RECORD)),
            "concurrent": await rate(sizes.appends * 2, lambda: single.append(RECORD), 64),
            "batched": await rate(sizes.appends * 8, lambda: batched.append(RECORD), 64),
        }
        await asyncio.gather(*[long.append(RECORD) for _ in range(sizes.messages // 100 * 100)])
        began, count = time.perf_counter(), 0
        async with astream(long.url, live=False, client=client) as answer:
            async for _ in answer.iter_json():
                count += 1
        assert count == sizes.messages // 100 * 100
        found["reading"] = count / (time.perf_counter() - began)

        async def follow(got: Callable[[], None]) -> None:
            async with astream(live.url, offset="-1", live="sse", client=client) as answer:
                async for _ in answer.iter_json():
                    got()

        found["live"] = await fanned(sizes, lambda: live.append(RECORD), follow)
        for each in (single, long, live):
            await each.delete()
    return found


def python_of_the_official_client(folder: Path) -> Path:
    """The interpreter of an environment that has it."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        words = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "durable-streams"]
        subprocess.run([str(python), *words], check=True)
    return python


def measure(python: Path | str, which: str, url: str, sizes: Sizes) -> dict[str, float]:
    """A client's figures, in a process of its own."""
    from tests.tools import serve

    argv = [str(python), __file__, which, url, *map(str, sizes)]
    env = serve.environment() if which == "ours" else None
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"{which}: {done.stderr}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    from tests.tools import serve

    parser = argparse.ArgumentParser(prog="python -m tests.bench.clients", description="The clients, side by side.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="the smallest sizes")
    options = parser.parse_args()
    sizes = SMOKE if options.quick else Sizes()
    python = {"ours": Path(sys.executable), "official": python_of_the_official_client(ROOT / "build/bench/official")}
    rounds = []
    with serve.start("--memory") as server:
        for _ in range(options.rounds):
            rounds.append({name: measure(python[name], name, server.url, sizes) for name in ("ours", "official")})
    for figure, text in FIGURES.items():
        values = {name: statistics.median(each[name][figure] for each in rounds) for name in python}
        ratio = statistics.median(each["ours"][figure] / each["official"][figure] for each in rounds)
        shown = [f"{value * 1000:.1f} ms" if figure == "live" else f"{value:,.0f}/s" for value in values.values()]
        print(f"| {text.format(readers=sizes.readers)} | {' | '.join(shown)} | {ratio:.2g}x |")


if __name__ == "__main__":
    if len(sys.argv) > 2 and sys.argv[1] in ("ours", "official"):
        program = {"ours": ours, "official": official}[sys.argv[1]]
        print(json.dumps(asyncio.run(program(sys.argv[2], Sizes(*map(int, sys.argv[3:]))))))
    else:
        main()
