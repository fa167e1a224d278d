"""What grows: each case is measured beside a fresh store, or beside nobody, in the same minutes on the same disk.

    python -m tests.bench.growth                            # make bench-growth; about ten minutes, 3 GB of disk
    python -m tests.bench.growth --quick --only freeing     # smaller sizes, some cases (make bench-growth ARGS=...)

Prints a table in Markdown, a line as soon as it is known: what is measured, grown, fresh. Of two figures trust how they
compare: absolute ones move with the machine, its disk and its neighbours. It measures, and never fails a build on time.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import math
import os
import re
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

from ds_core.wire import cbor
from ds_micro import Stream
from tests.tools import serve

from . import load, machine
from .beside import Probe, at, catching_up, reading
from .client import Client, fill
from .fanout import allow_files
from .rows import KIB, MIB, SMALL
from .subjects import Server

SCRATCH = machine.ROOT / "build" / "growth"
IDLE_STREAMS = 6000
KEPT = 64 * KIB


class Sizes(NamedTuple):
    """How much each case takes: counts, seconds of load, bytes."""

    watched: tuple[int, ...]
    small: int
    expiring: int
    rows: int
    events: int
    seconds: float
    backup: int
    log: int
    messages: int


FULL = Sizes((4000, 8000, 10_000), 20_000, 50_000, 200_000, 50, 8, 2048 * MIB, 200 * MIB, 2_000_000)
QUICK = Sizes((1000, 4000, 5000), 3000, 10_000, 50_000, 50, 3, 256 * MIB, 64 * MIB, 300_000)
SMOKE = Sizes((20,), 50, 50, 500, 2, 1, 4 * MIB, 2 * MIB, 2000)


class Line(NamedTuple):
    """One line of the table; `fresh` is what `than` says, beside a fresh store or beside nobody. NaN: no such thing."""

    what: str
    unit: str
    grown: float
    fresh: float
    than: str


@contextlib.contextmanager
def started(folder: Path, *options: object, keep: bool = False) -> Iterator[Server]:
    """A server on an empty folder, unless `keep`."""
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    process = serve.start("--data", folder, "--log-level", "error", *options)
    try:
        yield Server(process, process.host, process.port, "/v1/stream/")
    finally:
        process.stop()


# Watched streams


def watched(folder: Path, sizes: Sizes) -> Iterator[Line]:
    """N event streams on N streams: connecting them, and appends over other streams beside them."""
    few = max(2, min(sizes.watched) // 8)
    alone = _watch(folder, few, sizes.seconds)
    for count in sizes.watched:
        each, beside, connecting = _watch(folder, count, sizes.seconds)
        than = f"{few:,} readers"
        yield Line(f"connecting {count:,} readers of as many streams, each", "ms", each, alone[0], than)
        yield Line("... one client's appends beside that", "/s", connecting, alone[2], than)
        yield Line(f"... 16 clients' to {IDLE_STREAMS:,} other streams, then", "/s", beside, alone[1], than)


def _watch(folder: Path, count: int, seconds: float) -> tuple[float, float, float]:
    allow_files(count + 200)
    with started(folder) as server, contextlib.ExitStack() as stack:
        names = [f"w{number}" for number in range(count)] + [f"i{number}" for number in range(IDLE_STREAMS)]
        fill(server, (("PUT", name, b"") for name in names))
        ended = threading.Event()
        probe = stack.enter_context(Probe(server))
        times: list[float] = []
        thread = threading.Thread(target=lambda: times.extend(probe.until(ended.is_set)))
        thread.start()
        began = time.perf_counter()
        try:
            for number in range(count):
                sock = stack.enter_context(socket.create_connection((server.host, server.port), 60))
                target = f"{server.root}w{number}?offset=now&live=sse"
                sock.sendall(f"GET {target} HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode())
                found = b""
                while b"upToDate" not in found:
                    data = sock.recv(4096)
                    if not data:
                        raise RuntimeError(f"a reader was ended: {found[:300]!r}")
                    found += data
            took = time.perf_counter() - began
        finally:
            ended.set()
            thread.join()
        over = load.run(
            server, "POST", "i%d", body=SMALL, connections=16, seconds=seconds / 2, streams=IDLE_STREAMS, order="random"
        )
        return took * 1000 / count, over.rate, len(times) / took


# Freeing


def freeing(folder: Path, sizes: Sizes) -> Iterator[Line]:
    """Small streams that are deleted, how fast they are freed; what that costs of the flash."""
    count = sizes.small
    with started(folder) as server:
        fill(server, (("PUT", f"s{number}", SMALL) for number in range(count)))
        before = _syncs(server)
        began = time.monotonic()
        fill(server, (("DELETE", f"s{number}", b"") for number in range(count)))
        deleted = time.monotonic() - began
        _wait(lambda: not _left(folder), 600, "streams that are not freed")
        freed = time.monotonic() - began
        syncs = (_syncs(server) - before) / count
    yield Line(f"small streams freed, of {count:,}", "/s", count / freed, count / deleted, "deletes a second meanwhile")
    yield Line("... syncs for each, its delete included", "", syncs, math.nan, "")


def expiring(folder: Path, sizes: Sizes) -> Iterator[Line]:
    """Many streams that are over in the same second, and one who appends meanwhile."""
    count = sizes.expiring
    with started(folder) as server, Probe(server) as probe:
        alone = probe.during(sizes.seconds)
        until = math.ceil(time.time() + 2 + count / 3000)
        text = datetime.datetime.fromtimestamp(until, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        puts = (("PUT", f"e{number}", SMALL) for number in range(count))
        fill(server, puts, headers=f"Stream-Expires-At: {text}\r\n")
        if time.time() > until - 0.5:
            raise RuntimeError(f"{count} streams were not made in time")
        time.sleep(max(0.0, until - time.time()))
        gone = threading.Event()

        def watch() -> None:
            with contextlib.suppress(RuntimeError):
                _wait(lambda: not _left(folder, 1), 600, "streams that do not expire", 0.25)
            gone.set()

        thread = threading.Thread(target=watch)
        began = time.monotonic()
        thread.start()
        times = probe.until(gone.is_set)
        took = time.monotonic() - began
        thread.join()
        if left := _left(folder, 1):
            raise RuntimeError(f"{left} streams are left")
    yield Line(f"{count:,} streams expire at once: until all are freed", "s", took, math.nan, "")
    yield Line("... the longest append meanwhile", "ms", at(times, 1), at(alone, 1), "nothing expires")
    yield Line("... p99 of appends meanwhile", "ms", at(times, 0.99), at(alone, 0.99), "nothing expires")


def tiny(folder: Path, sizes: Sizes) -> Iterator[Line]:
    """One-byte appends to a stream of which retention keeps 64 KiB."""
    rates = []
    for options in (("--retain", "one=64K"), ()):
        with started(folder, *options) as server, Client(server) as client:
            client.create("one")
            rates.append(load.run(server, "POST", "one", body=b"x", seconds=sizes.seconds).rate)
            if options:
                rows = _rows(folder)
                time.sleep(2)
                rested = _rows(folder)
    yield Line("one-byte appends under --retain one=64K", "/s", *rates, "without --retain")
    yield Line("... rows of appends that are there then", "", rows, KEPT, "what may stay")
    yield Line("... 2 s later", "", rested, KEPT, "what may stay")


def _query(folder: Path, query: str) -> int:
    """A number from the file, which a server is using."""
    with contextlib.closing(sqlite3.connect(f"file:{folder / 'streams.db'}?mode=ro", uri=True, timeout=10)) as db:
        return int(db.execute(query).fetchone()[0])


def _left(folder: Path, usual: int = 0) -> int:
    """Streams in the file, ended ones too, beyond those that stay."""
    count = "(SELECT count(*) FROM streams) + (SELECT count(*) FROM removed)"
    return max(0, _query(folder, f"SELECT {count}") - usual)


def _rows(folder: Path) -> int:
    return _query(folder, "SELECT count(*) FROM appends")


def _syncs(server: Server) -> int:
    with urlopen(server.origin + "/metrics", timeout=60) as answer:
        found = re.search(rb"^ds_fsync_seconds_count (\d+)", answer.read(), re.MULTILINE)
    if found is None:
        raise RuntimeError("/metrics has no ds_fsync_seconds; is prometheus-client installed?")
    return int(found[1])


def _wait(condition: Callable[[], bool], seconds: float, what: str, pause: float = 0.1) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"after {seconds:g} s there are {what}")
        time.sleep(pause)


# Latency


def readers(folder: Path, sizes: Sizes) -> Iterator[Line]:
    """A small append beside those who read a stream of one-byte appends, whole, again and again."""
    with started(folder) as server, Client(server) as client, Probe(server) as probe:
        client.create("bytes")
        fill(server, (("POST", "bytes", b"x") for _ in range(sizes.rows)))
        alone = probe.during(sizes.seconds)
        for count in (1, 4):
            with reading(server, "bytes", count, sizes.seconds) as ended:
                times = probe.until(ended)
            who = f"{count} who read {sizes.rows:,} one-byte appends" if count == 1 else f"{count} of them"
            yield Line(f"p99 of a small append beside {who}", "ms", at(times, 0.99), at(alone, 0.99), "alone")
        began = time.perf_counter()
        size = client.read_whole("bytes")
        rate = size / (time.perf_counter() - began)
        client.create("fresh")
        client.append("fresh", b"x" * size)
        began = time.perf_counter()
        client.read_whole("fresh")
        fresh = size / (time.perf_counter() - began)
        yield Line("reading them", "MiB/s", rate / MIB, fresh / MIB, "the same bytes in one append")


def events(folder: Path, sizes: Sizes) -> Iterator[Line]:
    """A small append beside event streams that catch up on 20 MiB, again and again."""
    with started(folder) as server, Client(server) as client, Probe(server) as probe:
        client.create("past", "text/plain")
        fill(server, (("POST", "past", b"x" * KIB) for _ in range(sizes.rows // 10)), "text/plain")
        alone = probe.during(sizes.seconds)
        with catching_up(server, "past", sizes.events):
            times = probe.during(sizes.seconds)
    who = f"beside {sizes.events} event streams that catch up"
    yield Line(f"p50 of a small append {who}", "ms", at(times, 0.5), at(alone, 0.5), "alone")
    yield Line(f"p99 of a small append {who}", "ms", at(times, 0.99), at(alone, 0.99), "alone")


def backup(folder: Path, sizes: Sizes) -> Iterator[Line]:
    """A small append beside `ds backup` of a large store on the same disk."""
    copy = folder.with_name(folder.name + "-copy")
    shutil.rmtree(copy, ignore_errors=True)
    try:
        with started(folder) as server, Client(server) as client, Probe(server) as probe:
            client.create("large")
            data = os.urandom(MIB)
            for _ in range(sizes.backup // MIB):
                client.append("large", data)
            time.sleep(1)
            alone = probe.during(sizes.seconds)
            argv = [*serve.command(), "backup", str(folder), str(copy)]
            with subprocess.Popen(argv, env=serve.environment(), stdout=subprocess.DEVNULL) as process:
                began = time.monotonic()
                times = probe.until(lambda: process.poll() is not None)
                took = time.monotonic() - began
            if process.returncode:
                raise RuntimeError(f"ds backup ended with {process.returncode}")
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    what = f"the longest append beside ds backup of {sizes.backup // MIB:,} MiB ({took:.0f} s)"
    yield Line(what, "ms", at(times, 1), at(alone, 1), "alone")
    yield Line("... p99", "ms", at(times, 0.99), at(alone, 0.99), "alone")


def killed(folder: Path, sizes: Sizes) -> Iterator[Line]:
    """The first appends after kill -9 with a large log, which somebody who read the file had kept from ending."""
    found = {}
    for size in (MIB, sizes.log):
        with started(folder) as server, Client(server) as client, contextlib.ExitStack() as stack:
            client.create("log")
            db = sqlite3.connect(f"file:{folder / 'streams.db'}?mode=ro", uri=True)
            stack.enter_context(contextlib.closing(db))
            db.execute("BEGIN")
            db.execute("SELECT count(*) FROM streams").fetchone()
            for _ in range(size // MIB):
                client.append("log", os.urandom(MIB))
            server.process.kill()  # type: ignore[attr-defined]
            log = (folder / "streams.db-wal").stat().st_size
        if log < size:
            raise RuntimeError(f"the log has {log} bytes")
        began = time.monotonic()
        with started(folder, keep=True) as server:
            start = time.monotonic() - began
            with Probe(server) as probe:
                found[size] = (probe.during(max(2.0, sizes.seconds / 2)), start)
    (times, start), (fresh, usual) = found[sizes.log], found[MIB]
    what = f"the longest of the first appends after a kill with a log of {sizes.log // MIB} MiB"
    yield Line(what, "ms", at(times, 1), at(fresh, 1), "a log of 1 MiB")
    yield Line("... the start before it", "s", start, usual, "a log of 1 MiB")


# Ours beside itself


def decoding(folder: Path, sizes: Sizes) -> Iterator[Line]:
    """`ds read` of small messages beside a loop over `Stream.read`, which has the device's decoders."""
    kinds: dict[str, Callable[[list[object]], bytes]] = {
        "json": lambda values: json.dumps(values).encode(),
        "cbor-seq": lambda values: b"".join(map(cbor.encode, values)),
    }
    with started(folder) as server, Client(server) as client:
        for kind, encode in kinds.items():
            content_type = f"application/{kind}"
            client.create(kind, content_type)
            for first in range(0, sizes.messages, 1000):
                values: list[object] = [_message(number) for number in range(first, first + 1000)]
                client.append(kind, encode(values), content_type)
            url = f"{server.origin}{server.root}{kind}"
            few = min(sizes.messages, 100_000)
            one_by_one = Stream(url, buffer=65536).read(limit=1 << 20)
            began = time.perf_counter()
            for _ in range(few):
                next(one_by_one)
            slow = few / (time.perf_counter() - began)
            rates = []
            for _ in range(3):
                began = time.perf_counter()
                argv = [*serve.command(), "read", url]
                done = subprocess.run(argv, stdout=subprocess.PIPE, env=serve.environment(), check=True)
                rates.append(sizes.messages / (time.perf_counter() - began))
                if done.stdout.count(b"\n") != sizes.messages:
                    raise RuntimeError("ds read did not print every message")
            what = f"ds read of {sizes.messages:,} messages of {kind.partition('-')[0].upper()}, its start included"
            yield Line(what, "/s", statistics.median(rates), slow, "Stream.read, one by one")


def _message(number: int) -> dict[str, object]:
    return {"id": number, "at": 1_700_000_000 + number, "t": 21.5 + number % 64 / 8, "unit": "C", "ok": True}


# --------------------------------------------------------------------------------

CASES = {
    case.__name__: case
    for case in (watched, freeing, expiring, tiny, readers, events, backup, killed, decoding)
}  # fmt: skip


def text(number: float) -> str:
    if math.isnan(number):
        return ""
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.3g}"


def show(line: Line) -> str:
    """A row of the table in Markdown."""
    unit = line.unit if line.unit[:1] in ("/", "") else f" {line.unit}"
    fresh = f"{text(line.fresh)}{unit} ({line.than})" if line.than else ""
    return f"| {line.what} | {text(line.grown)}{unit} | {fresh} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.growth", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--only", default="", metavar="CASE,...", help=", ".join(CASES))
    add("--quick", action="store_true", help="smaller sizes")
    add("--smoke", action="store_true", help="the smallest sizes: does it run at all?")
    add("--dir", type=Path, default=SCRATCH, help="where the servers keep their data (default: build/growth)")
    options = parser.parse_args()
    names = [name for name in options.only.split(",") if name] or list(CASES)
    if unknown := set(names) - set(CASES):
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    try:
        load.find()
    except load.Unavailable as reason:
        print(reason, file=sys.stderr)
        return 2
    sizes = SMOKE if options.smoke else QUICK if options.quick else FULL
    about = machine.describe(options.dir)
    print(f"{datetime.date.today()}: {about['cores']} cores of {about['processor']}, {about['system']}, ", end="")
    print(f"{about['python']}, SQLite {about['sqlite']}, {about['file_system']}; load {about['load_average']}\n")
    print("| what | grown | fresh |\n| --- | ---: | ---: |", flush=True)
    failed = False
    for name in names:
        try:
            for line in CASES[name](options.dir / name, sizes):
                print(show(line), flush=True)
        except (RuntimeError, OSError, HTTPException, sqlite3.Error, subprocess.SubprocessError) as reason:
            failed = True
            print(f"{name} failed: {reason}", file=sys.stderr, flush=True)
        finally:
            shutil.rmtree(options.dir / name, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
