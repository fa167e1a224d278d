"""Retention on a real server: what trimming a large stream costs those who append meanwhile, and how the file shrinks.

    python -m tests.faults.retention --mib 256 --clients 8

A stream is filled, and read by a fork that needs the end of it. Then the server is started anew with a rule that keeps
little. Clients append to other streams all the time: first beside nothing, then beside the trimming.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import trio

from ds_trio_server.store.sqlite import maintenance
from tests.tools import serve

from .client import Client

MIB = 1 << 20
PIECE = bytes(range(256)) * 64
KEEP = MIB
NEEDED = 64


class Result:
    """What was measured: sizes in bytes, times in seconds."""

    def __init__(self) -> None:
        self.before = self.after = 0
        self.took = 0.0
        self.quiet: list[float] = []
        self.busy: list[float] = []

    def __str__(self) -> str:
        return (
            f"the file went from {self.before / MIB:.0f} to {self.after / MIB:.0f} MiB in {self.took:.1f} s; "
            f"an append took {_at(self.quiet, 0.5):.1f} ms at the median, {_at(self.quiet, 0.99):.1f} at p99 and "
            f"{_at(self.quiet, 1):.0f} at most before, {_at(self.busy, 0.5):.1f}, {_at(self.busy, 0.99):.1f} and "
            f"{_at(self.busy, 1):.0f} meanwhile ({len(self.busy)} appends)"
        )


def _at(found: list[float], share: float) -> float:
    return sorted(found)[min(len(found) - 1, int(share * len(found)))] * 1000


async def _fill(port: int, count: int) -> None:
    client = Client(port)
    assert (await client("PUT", "big"))[0] == 201
    for number in range(count):
        status, headers, _ = await client("POST", "big", PIECE)
        assert status == 204
        if number == count - NEEDED - 1:
            offset = headers["stream-next-offset"]
            forked = {"Stream_Forked_From": "/v1/stream/big", "Stream_Fork_Offset": offset}
            assert (await client("PUT", "fork", **forked))[0] == 201
    await client.close()


async def _append(port: int, number: int, times: list[float], until: trio.Event) -> None:
    client = Client(port)
    assert (await client("PUT", f"small{number}"))[0] in (200, 201)
    while not until.is_set():
        began = time.perf_counter()
        assert (await client("POST", f"small{number}", b"x" * 100))[0] == 204
        times.append(time.perf_counter() - began)
    await client.close()


async def _quiet(port: int, clients: int, times: list[float], seconds: float) -> None:
    done = trio.Event()
    async with trio.open_nursery() as nursery:
        for number in range(clients):
            nursery.start_soon(_append, port, number, times, done)
        await trio.sleep(seconds)
        done.set()


async def _busy(port: int, clients: int, result: Result, file: Path) -> None:
    done = trio.Event()
    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for number in range(clients):
            nursery.start_soon(_append, port, number, result.busy, done)
        smallest, since = result.before, began
        # It has ended when the file has not become smaller for a while.
        while smallest > result.before // 2 or time.perf_counter() - since < 3:
            await trio.sleep(0.1)
            if file.stat().st_size < smallest:
                smallest, since = file.stat().st_size, time.perf_counter()
            assert time.perf_counter() - began < 600, "the file does not shrink"
        result.took, result.after = since - began, smallest
        done.set()


async def _verify(port: int, count: int) -> None:
    client = Client(port)
    whole = PIECE * count
    status, headers, body = await client("GET", "big?offset=0000000000000001_0000000000000000")
    assert status == 410
    earliest = headers["stream-earliest-offset"]
    at = int(earliest.rpartition("_")[2])
    assert at % len(PIECE) == 0 and KEEP <= len(whole) - at < KEEP + KEEP // 8, "trimmed elsewhere than after an append"
    for path, start in ((f"big?offset={earliest}", at), ("big?offset=-1", at), ("fork?offset=-1", 0)):
        expected = whole[start:] if start else None
        got, target = b"", path
        while True:
            status, headers, body = await client("GET", target)
            assert status == 200, (target, status)
            got += body
            if headers.get("stream-up-to-date"):
                break
            target = f"{path.partition('?')[0]}?offset={headers['stream-next-offset']}"
        assert got == expected if expected is not None else got == whole[: len(got)] and len(got) >= KEEP // 2
    await client.close()


def run(folder: Path, mib: int, clients: int, seconds: float = 5.0) -> Result:
    """Fill, trim and measure; raises AssertionError when what is left is not what should be."""
    result = Result()
    count = mib * MIB // len(PIECE)
    data, file = folder / "data", folder / "data" / "streams.db"
    with serve.start("--data", data, "--min-free", "0") as server:
        trio.run(_fill, server.port, count)
    with serve.start("--data", data, "--min-free", "0") as server:
        trio.run(_quiet, server.port, clients, result.quiet, seconds)
    result.before = file.stat().st_size
    rules = ("--retain", f"big={KEEP}", "--retain", f"fork={KEEP}")
    with serve.start("--data", data, "--min-free", "0", *rules) as server:
        trio.run(_busy, server.port, clients, result, file)
        trio.run(_verify, server.port, count)
    report = maintenance.check(data)
    assert not report.problems, report.problems
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(run(Path(folder), options.mib, options.clients))
    return 0


if __name__ == "__main__":
    sys.exit(main())
