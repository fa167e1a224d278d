"""Room on the disk, on a real server and a small file system: the promise of --min-free, the way out of a full disk.

    python -m tests.faults.room --mib 800 --seconds 60

Clients append as quickly as they can, with retention and without; then somebody else takes all the room there is,
then a reader holds the log back. All the while the room that is left is looked at. Whatever happens, reads and deletes
go on, and appends come back by themselves.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import trio

from ds_trio_server.store.sqlite import files, maintenance
from tests.tools import serve

from .client import Client
from .volume import Volume, mounted

MIB = 1 << 20
_SLACK = MIB // 2
_HOLD = (
    "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None); db.execute('BEGIN');"
    "db.execute('SELECT count(*) FROM streams').fetchone(); print('reading', flush=True); sys.stdin.read()"
)


class Least:
    """The least room there was while the block lasted, looked at every few milliseconds."""

    def __init__(self, disk: Volume) -> None:
        self._disk = disk
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.bytes = disk.free

    def _look(self) -> None:
        while not self._ended.wait(0.003):
            self.bytes = min(self.bytes, self._disk.free)

    def __enter__(self) -> Least:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()


class Reader:
    """Somebody who reads the database for long, in a process of its own."""

    def __init__(self, data: Path) -> None:
        argv = [sys.executable, "-c", _HOLD, str(data / files.FILE)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None and self._process.stdout.readline() == "reading\n"

    def leave(self) -> None:
        self._process.communicate()


async def load(port: int, seconds: float, clients: int, size: int, until_full: bool = False) -> dict[int, int]:
    """Append as quickly as possible for a time; returns how often there was which status."""
    seen: dict[int, int] = {}
    full = trio.Event()
    body = bytes(size)

    async def append(number: int) -> None:
        client = Client(port)
        await client("PUT", f"load{number}")
        while not full.is_set():
            status = (await client("POST", f"load{number}", body))[0]
            seen[status] = seen.get(status, 0) + 1
            if status in (503, 507):
                if until_full and status == 507:
                    full.set()
                await trio.sleep(0.05)
        await client.close()

    async with trio.open_nursery() as nursery:
        for number in range(clients):
            nursery.start_soon(append, number)
        with trio.move_on_after(seconds):
            await full.wait()
        full.set()
    return seen


async def comes_back(port: int, within: float) -> float:
    """Seconds until an append is taken again."""
    client = Client(port)
    began = time.monotonic()
    await client("PUT", "small")
    while (await client("POST", "small", b"x" * 100))[0] != 204:
        assert time.monotonic() - began < within, "appends don't come back by themselves"
        await trio.sleep(0.2)
        await client("PUT", "small")
    await client.close()
    return time.monotonic() - began


async def delete(port: int, *paths: str) -> None:
    client = Client(port)
    for path in paths:
        assert (await client("DELETE", path))[0] == 204, "a full disk refuses no delete"
    await client.close()


def run(folder: Path, mib: int, seconds: float, say: object = print) -> None:
    """All of it. Raises AssertionError where a promise is not kept."""
    tell = say if callable(say) else lambda text: None
    kept = mib * MIB // 8
    data = folder / "data"
    options = ("--data", data, "--min-free", str(kept))
    with mounted(folder, f"{mib}m") as disk:
        with serve.start(*options, "--retain", f"load*={mib * MIB // 64}") as server, Least(disk) as least:
            seen = trio.run(load, server.port, seconds, 4, mib * MIB // 512)
            back = trio.run(comes_back, server.port, 30)
            tell(f"with retention: {seen}, at least {least.bytes / MIB:.1f} MiB free; back in {back:.1f} s")
            assert least.bytes >= kept - _SLACK and server.process.poll() is None
            assert set(seen) <= {204, 503, 507}
        with serve.start(*options) as server, Least(disk) as least:
            trio.run(comes_back, server.port, 30)
            seen = trio.run(load, server.port, 10 * seconds + 60, 4, mib * MIB // 512, True)
            tell(f"without: {seen}, at least {least.bytes / MIB:.1f} MiB free")
            assert seen.get(507) and least.bytes >= kept - _SLACK
            disk.fill()
            assert disk.free == 0
            trio.run(delete, server.port, "load0", "load1")
            deadline = time.monotonic() + 60
            while disk.free < mib * MIB // 8:
                assert time.monotonic() < deadline, "what was deleted gives no room"
                time.sleep(0.1)
            tell("a disk that somebody else has filled is given room by deletes")
            disk.empty()
            trio.run(comes_back, server.port, 30)
            trio.run(delete, server.port, "load2", "load3")
            deadline = time.monotonic() + 60
            while disk.free < 6 * kept:
                assert time.monotonic() < deadline, "what was deleted gives no room"
                time.sleep(0.1)
        with serve.start(*options, "--retain", f"load*={mib * MIB // 64}") as server, Least(disk) as least:
            reader = Reader(data)
            seen = trio.run(load, server.port, seconds, 2, 64 * 1024)
            log = data / (files.FILE + "-wal")
            tell(f"beside a reader: {seen}, the log takes {log.stat().st_size / MIB:.0f} MiB")
            assert seen.get(204) and least.bytes >= kept - _SLACK, (seen, least.bytes, kept)
            reader.leave()
            trio.run(comes_back, server.port, 30)
            deadline = time.monotonic() + 20
            while log.stat().st_size > 17 * MIB:
                assert time.monotonic() < deadline, "the log stays long when its reader has left"
                time.sleep(0.1)
        report = maintenance.check(data)
        assert not report.problems, report.problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=800)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder) / "disk", options.mib, options.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
