"""The table: every row is a generator that sets a server up, then yields one round's figures at each `next`."""

from __future__ import annotations

import random
import sqlite3
import statistics
import struct
import time
from collections.abc import Callable, Generator
from itertools import count
from pathlib import Path
from typing import NamedTuple

from . import load
from .client import Client, fill
from .fanout import KIND, Readers
from .subjects import Server, Subject

Figures = dict[str, float]
Rounds = Generator[Figures, None, None]

SMALL = b"x" * 100
KIB = 1024
MIB = 1024 * 1024


class Sizes(NamedTuple):
    """How much work a row is: seconds of load a round, live readers, bytes, appends and streams."""

    seconds: int
    readers: int
    appends_live: int
    idle: tuple[int, ...]
    whole: int
    grown: int
    grown_body: int
    streams: int
    commits: int


FULL = Sizes(3, 1000, 15, (1000, 10_000), 64 * MIB, 1_000_000, 4295, 100_000, 300)
QUICK = Sizes(1, 1000, 5, (1000, 2000), 16 * MIB, 50_000, 4295, 20_000, 100)
SMOKE = Sizes(1, 20, 2, (20, 50), MIB, 500, 200, 200, 10)


class Figure(NamedTuple):
    """One number of a row. `ratio` is the target for ours / peer's, `value` the target for ours itself."""

    name: str
    unit: str
    better: str
    ratio: float | None = None
    value: float | None = None

    def met(self, number: float, target: float) -> bool:
        return number >= target if self.better == "more" else number <= target


class Row(NamedTuple):
    """`peers` are the stores that our `store` is held against, none for a row that is ours alone."""

    name: str
    title: str
    figures: tuple[Figure, ...]
    store: str
    peers: tuple[str, ...]
    rounds: Callable[[Subject, Sizes], Rounds]


# --------------------------------------------------------------------------------
# Requests


def appends(connections: int, streams: int = 1) -> Callable[[Subject, Sizes], Rounds]:
    def rounds(subject: Subject, sizes: Sizes) -> Rounds:
        with subject.start() as server, Client(server) as client:
            for number in count():
                for stream in range(streams):
                    client.create(f"round-{number}-{stream}")
                path = f"round-{number}-%d" if streams > 1 else f"round-{number}-0"
                every = streams if streams > 1 else 0
                if number == 0:
                    load.run(server, "POST", path, body=SMALL, connections=connections, seconds=1, streams=every)
                seconds = sizes.seconds
                done = load.run(
                    server, "POST", path, body=SMALL, connections=connections, seconds=seconds, streams=every
                )
                yield {"appends": done.rate, "p99": done.p99 * 1000, "wrk's own share": done.share}
                # The reference server answers 404 to some appends once it has more than 100 streams' files open.
                for stream in range(streams):
                    client.delete(f"round-{number}-{stream}")

    return rounds


def append_latency(subject: Subject, sizes: Sizes) -> Rounds:
    """One client, one append at a time, beside what one commit of one row costs on the same disk."""
    with subject.start() as server, Client(server) as client:
        for number in count():
            path = f"latency-{number}"
            client.create(path)
            slices = []
            for _ in range(sizes.seconds):  # short turns: a disk shared with others changes within a second
                bare = bare_commit(subject.folder / "bare", sizes.commits // 2)
                append = load.run(server, "POST", path, body=SMALL, connections=1, seconds=1).p50
                bare = (bare + bare_commit(subject.folder / "bare", sizes.commits // 2)) / 2
                slices.append((append / bare, append, bare))
            ratio, append, bare = (statistics.median(one) for one in zip(*slices, strict=True))
            yield {"append": append * 1000, "bare commit": bare * 1000, "append / bare commit": ratio}


def bare_commit(folder: Path, commits: int) -> float:
    """Median seconds of one SQLite transaction that inserts 100 bytes, durably."""
    folder.mkdir(exist_ok=True)
    db = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE IF NOT EXISTS appends (at INTEGER PRIMARY KEY, data BLOB)")
        times = []
        for _ in range(commits):
            start = time.perf_counter()
            db.execute("INSERT INTO appends (data) VALUES (?)", (SMALL,))
            times.append(time.perf_counter() - start)
    finally:
        db.close()
    return statistics.median(times)


def small_reads(subject: Subject, sizes: Sizes) -> Rounds:
    """Catch-up reads of a stream of 1 KiB: its last 100 bytes, and all of it."""
    with subject.start() as server, Client(server) as client:
        tail = client.create("small")
        client.append("small", b"x" * (KIB - len(SMALL) * 5))
        for _ in range(5):
            before, tail = tail, client.append("small", SMALL)
        for number in count():
            if number == 0:
                load.run(server, "GET", f"small?offset={before}", seconds=1)
            last = load.run(server, "GET", f"small?offset={before}", seconds=sizes.seconds)
            whole = load.run(server, "GET", "small?offset=-1", seconds=sizes.seconds)
            yield {"reads of 100 B": last.rate, "reads of 1 KiB": whole.rate, "wrk's own share": last.share}


def whole_read(body: int) -> Callable[[Subject, Sizes], Rounds]:
    def rounds(subject: Subject, sizes: Sizes) -> Rounds:
        appends = max(1, sizes.whole // body)
        data = random.Random(1).randbytes(min(body, sizes.whole))
        with subject.start() as server, Client(server) as client:
            client.create("whole")
            if body <= 65536:
                fill(server, (("POST", "whole", data) for _ in range(appends)))
            else:
                for _ in range(appends):
                    client.append("whole", data)
            while True:
                rates, shares = [], []
                until = time.monotonic() + sizes.seconds
                while not rates or time.monotonic() < until:
                    cpu, start = time.process_time(), time.perf_counter()
                    size = client.read_whole("whole")
                    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
                    if size != appends * len(data):
                        raise RuntimeError(f"read {size} bytes, {appends * len(data)} were written")
                    rates.append(size / MIB / seconds)
                    shares.append(cpu / seconds * 100)
                yield {"read": statistics.median(rates), "reader's own share": statistics.median(shares)}

    return rounds


RECORD = (
    b"\xa3\x61t\x1a" + struct.pack(">I", 1_700_000_000) + b"\x61v\xfa" + struct.pack(">f", 21.5) + b"\x61s\x19\x04\xd2"
)


def cbor_ingest(subject: Subject, sizes: Sizes) -> Rounds:
    """1,000 records of 20 bytes a POST. Our server checks each item; a peer that doesn't know the type doesn't."""
    with subject.start() as server, Client(server) as client:
        for number in count():
            client.create(f"cbor-{number}", "application/cbor-seq")
            done = load.run(
                server,
                "POST",
                f"cbor-{number}",
                body=RECORD * 1000,
                content_type="application/cbor-seq",
                connections=16,
                seconds=sizes.seconds,
            )
            yield {"records": done.rate * 1000}


# --------------------------------------------------------------------------------
# Live readers


def fan_out(live: str) -> Callable[[Subject, Sizes], Rounds]:
    def rounds(subject: Subject, sizes: Sizes) -> Rounds:
        with subject.start() as server, Client(server) as client:
            for number in count():
                client.create(f"live-{number}", KIND)
                with Readers(server, f"live-{number}", live, sizes.readers) as readers:
                    seen = []
                    for _ in range(sizes.appends_live + 2):
                        time.sleep(0.1 if live == "sse" else 0.4)  # long-poll readers are back by then
                        seen.append(readers.append())
                    del seen[:2]
                yield {
                    "median reader": statistics.median(one.median for one in seen) * 1000,
                    "last reader": statistics.median(one.last for one in seen) * 1000,
                    "readers' own cost": statistics.median(one.cpu for one in seen) * 1000,
                }

    return rounds


IDLE = ("1,000 readers", "10,000 readers")


def idle_readers(subject: Subject, sizes: Sizes) -> Rounds:
    """What the server's memory grows by for each SSE reader that waits; one append reaches them all first."""
    while True:
        figures = {}
        for name, readers in zip(IDLE, sizes.idle, strict=True):
            with subject.start() as server, Client(server) as client:
                client.create("idle", KIND)
                with Readers(server, "idle", "sse", 10) as few:
                    few.append()
                before = server.settled_rss()
                with Readers(server, "idle", "sse", readers) as many:
                    many.append()
                    figures[name] = (server.settled_rss() - before) / readers / KIB
        yield figures


# --------------------------------------------------------------------------------
# Growth


def long_stream(subject: Subject, sizes: Sizes) -> Rounds:
    """Appends and tail reads of a stream with a past, beside those of a new one."""
    body = random.Random(1).randbytes(sizes.grown_body)
    with subject.start() as server, Client(server) as client:
        client.create("grown")
        fill(server, (("POST", "grown", body) for _ in range(sizes.grown)))
        for number in count():
            fresh = f"fresh-{number}"
            client.create(fresh)
            order = ["grown", fresh] if number % 2 else [fresh, "grown"]
            append = {path: load.run(server, "POST", path, body=SMALL, seconds=sizes.seconds).rate for path in order}
            last = {path: (client.append(path, SMALL), client.append(path, SMALL))[0] for path in order}
            read = {
                path: load.run(server, "GET", f"{path}?offset={last[path]}", seconds=sizes.seconds).rate
                for path in order
            }
            yield {"append cost": append[fresh] / append["grown"], "tail read cost": read[fresh] / read["grown"]}


def many_streams(subject: Subject, sizes: Sizes) -> Rounds:
    """A server that keeps many streams: its start, its memory, and appends all over them."""
    with subject.start() as server:
        empty = _after_start(server, "0")
    with subject.start() as server:
        fill(server, (("PUT", str(number), SMALL) for number in range(sizes.streams)))
    while True:
        start = time.perf_counter()
        with subject.start(keep=True) as server, Client(server) as client:
            client.append("0", SMALL)
            started = time.perf_counter() - start
            at_rest = server.settled_rss() - empty
            one = load.run(server, "POST", "0", body=SMALL, seconds=sizes.seconds).rate
            before = server.settled_rss()
            many = load.run(
                server, "POST", "%d", body=SMALL, seconds=sizes.seconds, streams=sizes.streams, order="random"
            ).rate
            used = at_rest + max(0, server.settled_rss() - before)
        yield {
            "start": started,
            "memory at rest": at_rest / sizes.streams,
            "memory after load": used / sizes.streams,
            "random / one": many / one,
        }


def _after_start(server: Server, path: str) -> int:
    with Client(server) as client:
        client.create(path)
        client.append(path, SMALL)
    return server.settled_rss()


def idle_process(subject: Subject, sizes: Sizes) -> Rounds:
    while True:
        start = time.perf_counter()
        with subject.start() as server, Client(server) as client:
            client.create("first")
            yield {"first answer": time.perf_counter() - start, "memory": server.settled_rss() / MIB}


# --------------------------------------------------------------------------------


_WRK = Figure("wrk's own share", "%", "less")
_READER = Figure("reader's own share", "%", "less")


def _append_row(name: str, title: str, connections: int, streams: int, store: str, target: float) -> Row:
    figures = (Figure("appends", "/s", "more", ratio=target), Figure("p99", "ms", "less"), _WRK)
    return Row(name, title, figures, store, (store,), appends(connections, streams))


def _whole_row(name: str, title: str, body: int, target: float) -> Row:
    figures = (Figure("read", "MiB/s", "more", ratio=target), _READER)
    return Row(name, title, figures, "disk", ("disk", "memory"), whole_read(body))


def _live_row(name: str, title: str, live: str, target: float) -> Row:
    figures = (
        Figure("median reader", "ms", "less"),
        Figure("last reader", "ms", "less", ratio=target),
        Figure("readers' own cost", "ms", "less"),
    )
    return Row(name, title, figures, "disk", ("disk", "memory"), fan_out(live))


ROWS = (
    _append_row("append", "durable appends of 100 B, 64 connections, one stream", 64, 1, "disk", 14),
    _append_row("append-64", "durable appends of 100 B, 64 connections, 64 streams", 64, 64, "disk", 14),
    _append_row("append-256", "durable appends of 100 B, 256 connections, one stream", 256, 1, "disk", 18),
    Row(
        "latency",
        "one durable append at a time",
        (
            Figure("append", "ms", "less"),
            Figure("bare commit", "ms", "less"),
            Figure("append / bare commit", "x", "less", value=1.3),
        ),
        "disk",
        ("disk",),
        append_latency,
    ),
    _append_row("append-memory", "appends of 100 B in memory, 64 connections", 64, 1, "memory", 1.2),
    Row(
        "read-small",
        "catch-up reads of a stream of 1 KiB, 64 connections",
        (Figure("reads of 100 B", "/s", "more", ratio=1), Figure("reads of 1 KiB", "/s", "more", ratio=1), _WRK),
        "disk",
        ("memory", "disk"),
        small_reads,
    ),
    _whole_row("read-4k", "whole read of 64 MiB that came as 4 KiB appends", 4 * KIB, 2),
    _whole_row("read-1m", "whole read of 64 MiB that came as 1 MiB appends", MIB, 3),
    _live_row("sse", "one append to 1,000 SSE readers", "sse", 0.35),
    _live_row("long-poll", "one append to 1,000 long-poll readers", "long-poll", 0.7),
    Row(
        "idle-readers",
        "memory of an SSE reader that waits",
        (
            Figure(IDLE[0], "KiB each", "less", value=6),
            Figure(IDLE[1], "KiB each", "less", value=6),
        ),
        "disk",
        ("memory",),
        idle_readers,
    ),
    Row(
        "cbor",
        "CBOR ingest, 1,000 records of 20 B a POST, 16 connections",
        (Figure("records", "/s", "more", value=1_000_000),),
        "disk",
        ("disk",),
        cbor_ingest,
    ),
    Row(
        "long-stream",
        "a stream of 1,000,000 appends and 4 GiB beside a new one",
        (Figure("append cost", "x", "less", value=1.2), Figure("tail read cost", "x", "less", value=1.2)),
        "disk",
        (),
        long_stream,
    ),
    Row(
        "many-streams",
        "a server with 100,000 streams",
        (
            Figure("start", "s", "less", value=1),
            Figure("memory at rest", "B a stream", "less", value=400),
            Figure("memory after load", "B a stream", "less", value=400),
            Figure("random / one", "x", "more", value=0.7),
        ),
        "disk",
        (),
        many_streams,
    ),
    Row(
        "idle",
        "an idle process",
        (Figure("first answer", "s", "less", value=0.5), Figure("memory", "MiB", "less", value=45)),
        "disk",
        ("disk",),
        idle_process,
    ),
)
