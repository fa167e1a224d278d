"""Retention: what is trimmed, what stays, and what readers and forks see of it."""

from __future__ import annotations

import contextlib
import random
import re
import socket
from types import SimpleNamespace

import pytest
import trio

from ds_core.server import stream
from ds_core.server.decide import Needs
from ds_core.server.errors import ProtocolError
from ds_core.server.offsets import token
from ds_trio_server.cli import main as cli
from ds_trio_server.http import listeners
from ds_trio_server.store.memory import MemoryStore
from ds_trio_server.store.retention import Retention, parse
from ds_trio_server.store.sqlite import maintenance, trimmer
from ds_trio_server.store.sqlite.engine import SQLiteStore
from ds_trio_server.store.sqlite.space import DefaultMinFree, MinFree, Space
from tests.server.site import Client, request, running
from tests.tools import serve

from . import retention as trimming
from .servers import ask
from .stores import Time, opened
from .streams import append, delete, find, put, read

DAY = 86400.0


@pytest.fixture(autouse=True)
def looking_takes_no_time(monkeypatch):
    """The rhythm of retention follows how long a look takes, and these clocks are set by hand."""
    monkeypatch.setattr(trimmer, "time", SimpleNamespace(monotonic=lambda: 0.0))


async def settle(store, time, seconds=0.0, step=1.0):
    """Let time pass, with the sweeps that belong to it."""
    ends = time.seconds + seconds
    while True:
        await store.sweep()
        if time.seconds >= ends:
            break
        time.seconds += step
    for _ in range(2000):  # a step of a busy machine's frees little
        while store._queues.pending() is not None:  # what goes behind a commit is nobody's to wait for
            await trio.sleep(0.001)
        if not store._sweeper.garbage:
            break
        await store.sweep()


def rows(store, path):
    return [
        position
        for (position,) in store._db.reader.execute(
            "SELECT position FROM appends WHERE stream = (SELECT id FROM streams WHERE path = ?)", (path,)
        )
    ]


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("7d", "any/thing", (7 * DAY, None)),
        ("90s", "a", (90.0, None)),
        ("256M", "a", (None, 256 << 20)),
        ("65536", "a", (None, 65536)),
        ("logs/**=2G", "logs/a/b", (None, 2 << 30)),
        ("logs/**=2G", "logs", (None, 2 << 30)),
        ("logs/**=2G", "logsx/a", (None, None)),
        ("logs/*=1h", "logs/a", (3600.0, None)),
        ("logs/*=1h", "logs/a/b", (None, None)),
        ("**/temp=1h", "a/b/temp", (3600.0, None)),
        ("**/temp=1h", "temp", (3600.0, None)),
        ("a.c=1h", "abc", (None, None)),
        ("a=b=1h", "a=b", (3600.0, None)),
        ("s*r/x=1h", "sensor/x", (3600.0, None)),
        ("forever", "a", (None, None)),
    ],
)
def test_rules(text, path, expected):
    assert Retention([parse(text)]).of(path) == expected


def test_a_later_rule_wins_and_the_other_kind_stays():
    rules = Retention(map(parse, ["7d", "logs/**=256M", "logs/short/*=1h", "keep/**=forever"]))
    assert rules.of("a") == (7 * DAY, None)
    assert rules.of("logs/a") == (7 * DAY, 256 << 20)
    assert rules.of("logs/short/a") == (3600.0, 256 << 20)
    assert rules.of("keep/a") == (None, None)


@pytest.mark.parametrize("text", ["", "7", "0d", "-1d", "7y", "x", "=7d", "a/=", "1.5h", "logs/**", "٣d"])
def test_what_is_no_rule_is_refused_with_what_would_be(text):
    if text == "7":  # seven bytes
        assert parse(text).bytes == 7
        return
    with pytest.raises(ValueError, match=r"7d|path"):
        parse(text)


async def test_bytes_keep_at_least_that_much_in_whole_appends(tmp_path):
    time = Time()
    store = await opened(tmp_path, time, "1000", "keep/*=forever")
    for path in ("a", "keep/a"):
        await put(store, path, b"0" * 7)
        for n in range(100):
            await append(store, path, bytes([65 + n % 26]) * 70)
    await settle(store, time, 3)
    found = await find(store, "a")
    assert 1000 <= found.tail - found.start < 1070 and (found.start - 7) % 70 == 0
    assert (await read(store, "a")) == (await read(store, "keep/a"))[found.start :]
    assert min(rows(store, "a")) == found.start, "the rest is freed"
    assert (await find(store, "keep/a")).start == 0
    await append(store, "a", b"more")
    assert not maintenance.check(tmp_path).problems
    await store.close()
    store = await opened(tmp_path, time, "1000")
    assert (await find(store, "a")).start == found.start
    await store.close()


async def test_one_large_append_stays(tmp_path):
    time = Time()
    store = await opened(tmp_path, time, "1000")
    await put(store, "a", b"0" * 7)
    await append(store, "a", b"x" * 600_000)
    await settle(store, time, 3)
    assert await read(store, "a") == b"x" * 600_000
    assert not maintenance.check(tmp_path).problems
    await store.close()


async def test_age_counts_time_that_passed_and_is_never_early(tmp_path):
    time = Time()
    store = await opened(tmp_path, time, "640s")
    await put(store, "a", b"")
    born = {}
    for n in range(200):
        born[n] = time.seconds
        await append(store, "a", b"%04d" % n)
        time.seconds += 5
        await store.sweep()
        found = await find(store, "a")
        first = found.start // 4
        for gone in range(first):
            assert time.seconds - born[gone] >= 640
        if first <= n:
            # A step late (10 s), and a sweep or two.
            assert time.seconds - born[first] <= 640 + 10 + 15
    await settle(store, time, 700, 10)
    found = await find(store, "a")
    assert found.start == found.tail, "an old stream is empty, and there"
    assert await read(store, "a") == b""
    await append(store, "a", b"new")
    assert await read(store, "a") == b"new"
    assert store._db.reader.execute("SELECT count(*) FROM times").fetchone()[0] <= 1
    await store.close()


async def test_age_goes_on_after_a_crash_that_nobody_marked(tmp_path):
    time = Time()
    store = await opened(tmp_path, time, "64s")
    await put(store, "a", b"old")
    left = store.now().steady
    await store.close()  # before any sweep
    store = SQLiteStore(tmp_path, time.clock(left), Retention([parse("64s")]), MinFree())
    await store.open()
    await settle(store, time, 10)
    assert await read(store, "a") == b"old"
    await settle(store, time, 70)
    assert await read(store, "a") == b""
    await store.close()


async def test_times_cost_a_bounded_number_of_rows(tmp_path):
    time = Time()
    store = await opened(tmp_path, time, "6400s")
    await put(store, "a", b"")
    for _ in range(3000):
        await append(store, "a", b"x")
        time.seconds += 10
        if _ % 5 == 0:
            await store.sweep()
    assert store._db.reader.execute("SELECT count(*) FROM times").fetchone()[0] <= 66
    await store.close()


async def test_a_trimmed_offset_is_gone_and_names_the_earliest(tmp_path):
    time = Time()
    store = await opened(tmp_path, time, "100")
    await put(store, "a", b"")
    for _ in range(50):
        await append(store, "a", b"0123456789")
    await settle(store, time, 3)
    found = await find(store, "a")
    with pytest.raises(ProtocolError) as refusal:
        await put(store, "f", stream_forked_from="a", stream_fork_offset=token(found.incarnation, 10))
    assert refusal.value.status == 410
    assert dict(refusal.value.headers)["stream-earliest-offset"].endswith(f"_{found.start:016d}")
    await store.close()


@pytest.mark.parametrize("seed", range(6))
async def test_forks_keep_what_they_need_and_no_more(tmp_path, seed):
    """A model: the bytes of every stream are known, whatever is trimmed, forked and deleted."""
    rng = random.Random(seed)
    time = Time()
    store = await opened(tmp_path, time, "200", "keep*=forever")
    whole: dict[str, bytes] = {}
    ends: dict[str, list[int]] = {}
    for step in range(150):
        time.seconds += 1
        action = rng.random()
        alive = sorted(whole)
        if action < 0.1 or not alive:
            path = f"{rng.choice(('keep', 's'))}{step}"
            await put(store, path)
            whole[path], ends[path] = b"", [0]
        elif action < 0.25:
            source = rng.choice(alive)
            start = (await find(store, source)).start
            at = rng.choice([end for end in ends[source] if end >= start] or [start])
            path = f"{rng.choice(('keep', 's'))}{step}"
            incarnation = (await find(store, source)).incarnation
            await put(
                store, path, stream_forked_from=source, stream_fork_offset=token(incarnation, at)
            )
            whole[path], ends[path] = whole[source][:at], [end for end in ends[source] if end <= at]
        elif action < 0.32 and len(alive) > 3:
            path = rng.choice(alive)
            await delete(store, path)
            del whole[path], ends[path]
        else:
            path = rng.choice(alive)
            for _ in range(rng.randint(1, 8)):
                data = bytes([rng.randrange(65, 91)]) * rng.randint(1, 40)
                await append(store, path, data)
                whole[path] += data
                ends[path].append(len(whole[path]))
        if rng.random() < 0.5:
            await store.sweep()
        if rng.random() < 0.05:
            await store.close()
            store = SQLiteStore(tmp_path, time.clock(), Retention(map(parse, ["200", "keep*=forever"])), MinFree())
            await store.open()
        if step % 10 == 0:
            await _compare(store, whole)
    await settle(store, time, 5)
    await _compare(store, whole)
    report = maintenance.check(tmp_path)
    assert not report.problems
    for path in sorted(whole):
        await delete(store, path)
    await settle(store, time, 5)
    assert store._db.reader.execute("SELECT count(*) FROM appends").fetchone() == (0,)
    assert store._db.reader.execute("SELECT count(*) FROM removed").fetchone() == (0,)
    await store.close()


async def _compare(store, whole):
    store._tails._runs.clear()
    for path, data in whole.items():
        found = await find(store, path)
        assert found is not None and found.tail == len(data), path
        assert await read(store, path) == data[found.start :], path


async def test_appends_are_not_stalled_while_a_large_stream_is_trimmed(tmp_path):
    time = Time()
    store = await opened(tmp_path, time, "big=1000")
    await put(store, "big")
    await put(store, "small")
    for _ in range(30):
        await append(store, "big", b"x" * 500_000)
    slowest = 0.0
    done = False

    async def sweep():
        nonlocal done
        for _ in range(60):
            time.seconds += 1
            await store.sweep()
            if len(rows(store, "big")) <= 2:
                break
        done = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sweep)
        while not done:
            began = trio.current_time()
            await append(store, "small", b"x")
            slowest = max(slowest, trio.current_time() - began)
    assert len(rows(store, "big")) <= 2
    print(f"slowest append while 15 MB were trimmed: {slowest * 1000:.0f} ms")
    await store.close()


async def test_both_stores_trim_alike(tmp_path):
    time = Time()
    for store in (SQLiteStore(tmp_path, time.clock()), MemoryStore(time.clock())):
        await store.open()
        await put(store, "a")
        for n in range(10):
            await append(store, "a", b"%d" % n)
        await put(store, "f", stream_forked_from="a")
        found = await find(store, "a")
        await store.transact(Needs("a"), lambda view, id=found.id: stream.trim(view, id, 6))
        assert await read(store, "a") == b"6789" and await read(store, "f") == b"0123456789"
        await store.transact(Needs("a"), lambda view, id=found.id: stream.trim(view, id, 4))
        await store.transact(Needs("a"), lambda view, id=found.id + 1: stream.trim(view, id, 8))
        await store.transact(Needs("a"), lambda view, id=found.id: stream.trim(view, id, 11))
        await store.transact(Needs("none"), lambda view, id=found.id: stream.trim(view, id, 8))
        assert await read(store, "a") == b"6789"
        await delete(store, "f")
        assert await read(store, "a") == b"6789"
        await store.close()


@pytest.mark.parametrize("query", ["?offset=-1", "?offset=-1&live=sse"])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_slow_reader_that_trimming_overtakes_gets_no_byte_from_elsewhere(tmp_path, monkeypatch, kind, query):
    """It is cut off where the trimmed part begins for it, and told when it comes back."""
    listen = listeners.listen

    def small(host, port):
        sockets = listen(host, port)
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return sockets

    monkeypatch.setattr(listeners, "listen", small)
    store = MemoryStore() if kind == "memory" else SQLiteStore(tmp_path)
    whole = b"".join(b"%015d\n" % number for number in range(250_000))
    async with running(store, chunk=8 << 20) as site:
        await site.create("a")
        for at in range(0, len(whole), 500_000):
            await site.append("a", whole[at : at + 500_000])
        sock = trio.socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await sock.connect(("127.0.0.1", site.port))
        client = Client(trio.SocketStream(sock))
        await client.send(request("GET", "/v1/stream/a" + query))
        first = await client.exactly(1000)
        found = await find(store, "a")
        await store.transact(Needs("a"), lambda view: stream.trim(view, found.id, 3_500_000))
        if kind == "sqlite":
            store._tails.forget(found.id)
            while store._sweeper.garbage:
                await store.sweep()
        with contextlib.suppress(trio.BrokenResourceError), trio.move_on_after(20) as waiting:
            while await client.more():
                pass
        assert not waiting.cancelled_caught, "it waits for what will never come"
        client.close()
        lines = [line.removeprefix(b"data:") for line in (first + client.buffer).split(b"\n")]
        records = [int(line) for line in lines if re.fullmatch(rb"\d{15}", line)]
        assert records == list(range(len(records))), "something came from elsewhere"
        assert 60 < len(records) < 218_750
        offset = token(found.incarnation, 16 * len(records))
        answer = await site.ask("GET", f"/v1/stream/a?offset={offset}")
        assert answer.status == 410 and answer.header("stream-earliest-offset").endswith("_0000000003500000")


def test_a_server_with_rules(tmp_path):
    args = ("--data", tmp_path, "--retain", "1K", "--retain", "keep/**=forever")
    with serve.start(*args, env={"DS_RETAIN": "10K,keep/**=1"}) as server:
        for path in ("a", "keep/a"):
            assert ask(server, "PUT", path, Content_Type="text/plain")[0] == 201
            for _ in range(60):
                assert ask(server, "POST", path, b"x" * 100)[0] == 204
        first = "?offset=0000000000000001_0000000000000100"
        for _ in range(600):
            # A sweep between the appends has trimmed too, but not for the last time.
            if len(ask(server, "GET", "a")[2]) < 1224:
                break
            trio.run(trio.sleep, 0.1)
        status, headers, _ = ask(server, "GET", "a" + first)
        assert status == 410
        earliest = headers["stream-earliest-offset"]
        assert re.fullmatch(r"0000000000000001_\d{14}00", earliest)
        status, _, body = ask(server, "GET", f"a?offset={earliest}")
        assert status == 200 and 1024 <= len(body) < 1224
        assert ask(server, "GET", "a")[2] == body
        assert len(ask(server, "GET", "keep/a")[2]) == 6000


@pytest.mark.parametrize("option", [["--retain", "7y"], ["--min-free", "lots"], ["--retain", "=7d"]])
def test_wrong_options_are_refused(option, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["serve", *option])
    assert end.value.code == 2 and "ds serve" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["options", "environment"])
def test_rules_are_for_a_store_on_disk(how, capsys, monkeypatch):
    if how == "environment":
        monkeypatch.setenv("DS_MEMORY", "1")
        monkeypatch.setenv("DS_RETAIN", "7d")
    status = cli.main(["serve", *(["--memory", "--retain", "7d"] if how == "options" else [])])
    said = capsys.readouterr()
    assert status == 2 and said.out == "" and said.err.count("\n") == 1
    assert "give --data DIR instead of --memory" in said.err and "Stream-TTL" in said.err


def test_the_watermark_has_a_default_that_fits_small_cards():
    assert DefaultMinFree().of(64 << 30) == 128 << 20
    assert DefaultMinFree().of(1 << 30) == (1 << 30) // 20
    assert MinFree(share=0.1).of(1000) == 100


def test_the_watermark_does_not_flap(tmp_path, monkeypatch):
    class Found:
        f_frsize = 1
        f_blocks = 10_000
        f_bavail = 0

    monkeypatch.setattr("os.statvfs", lambda path: Found)
    space = Space(tmp_path, MinFree(bytes=1600))
    seen = []
    for free in (1601, 1599, 1601, 1650, 1701, 1601, 0):
        Found.f_bavail = free
        space.measure()
        seen.append(space.low)
    assert seen == [False, True, True, True, False, False, True]


def test_the_file_of_a_trimmed_stream_shrinks_beside_appends(tmp_path):
    result = trimming.run(tmp_path, mib=16, clients=2, seconds=0.5)
    assert result.after < result.before // 2


@pytest.mark.parametrize("size", [100, 700, 810, 900, 901, 1360, 2045, 4050, 4100, 6200, 8200, 70_000, 300_000])
async def test_what_a_trimmed_stream_takes_in_the_file_is_what_security_says(tmp_path, size):
    time = Time()
    keep = 1_000_000
    store = await opened(tmp_path, time, f"s={keep}")
    await put(store, "s")
    (fixed,) = store._db.reader.execute("PRAGMA page_count").fetchone()
    for _ in range(max(4, 3 * keep // size // 64)):
        async with trio.open_nursery() as nursery:
            for _ in range(64 if size < 10_000 else 8):
                nursery.start_soon(append, store, "s", bytes(size))
        time.seconds += 1
        await store.sweep()
    await settle(store, time, 60)
    found = await find(store, "s")
    assert keep <= found.tail - found.start <= keep * 17 / 16 + 4096 + size
    # A row of several pages is there in parts; each of those wastes less than a small one.
    most = 4 / 3 if size <= 900 or size > 4096 else 2
    (pages,) = store._db.reader.execute("PRAGMA page_count").fetchone()
    (free,) = store._db.reader.execute("PRAGMA freelist_count").fetchone()
    count = (found.tail - found.start) // size
    assert (pages - free - fixed) * 4096 <= (size * most + 64) * count
    assert free * 4096 <= max(6 << 20, pages * 4096 // 8)
    await store.close()


async def test_sources_that_are_gone_keep_nothing_that_nobody_reads(tmp_path):
    """Fork, delete the source, go on with the fork: under a rule that is as bounded as one stream is."""
    time = Time()
    store = await opened(tmp_path, time, "keep/**=100000")
    await put(store, "keep/0")
    await append(store, "keep/0", b"x" * 1000)
    for number in range(1, 31):
        if number % 2:
            await put(store, f"keep/{number}", stream_forked_from=f"keep/{number - 1}")
            await delete(store, f"keep/{number - 1}")
        else:
            await put(store, f"keep/{number}", stream_forked_from=f"keep/{number - 1}")
        for _ in range(10):
            await append(store, f"keep/{number}", b"%02d" % number * 5000)
        if not number % 2:
            await delete(store, f"keep/{number - 1}")
        time.seconds += 1
        await store.sweep()
    await settle(store, time, 60)
    found = await find(store, "keep/30")
    assert await read(store, "keep/30") == b"".join(b"%02d" % n * 50_000 for n in range(31))[found.start - found.tail :]
    (kept,) = store._db.reader.execute("SELECT sum(size) FROM stored").fetchone()
    assert kept <= 120_000
    assert not maintenance.check(tmp_path).problems
    await store.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_source_whose_forks_begin_later_is_freed_when_it_is_deleted(tmp_path, kind):
    time = Time()
    store = MemoryStore(time.clock()) if kind == "memory" else SQLiteStore(tmp_path, time.clock(), None, MinFree())
    await store.open()
    await put(store, "a", b"0123456789")
    await append(store, "a", b"abcdefghij")
    await put(store, "b", stream_forked_from="a")
    await append(store, "b", b"more")
    fork = await find(store, "b")
    await store.transact(Needs("b"), lambda view: stream.trim(view, fork.id, 20))
    await delete(store, "a")
    for _ in range(3):
        await store.sweep()
    assert (await find(store, "b")).start == 20 and await read(store, "b") == b"more"
    if kind == "memory":
        assert store._logs[fork.lineage[0][0]].data == []
    else:
        assert store._db.reader.execute("SELECT count(*) FROM appends").fetchone() == (1,)
        assert not maintenance.check(tmp_path).problems
    await store.close()


async def test_however_many_streams_are_too_old_each_has_its_turn(tmp_path, monkeypatch):
    """All of them are appended to, so that those that were cut are soon too old again."""
    monkeypatch.setattr("ds_trio_server.store.sqlite.trimmer._CUTS_AT_ONCE", 20)
    monkeypatch.setattr("ds_trio_server.store.sqlite.sweeper._COLLECT_FOR", 0.0)  # one look a sweep
    time = Time()
    store = await opened(tmp_path, time, "*=10s")
    for n in range(100):
        await put(store, f"s{n}")
    for second in range(40):
        for n in range(100):
            await append(store, f"s{n}", b"%04d" % second)
        time.seconds += 1
        await store.sweep()
    oldest = [int((await read(store, f"s{n}"))[:4]) for n in range(100)]
    assert min(oldest) >= 40 - 10 - 8, "no later than it takes to go around"
    await store.close()


async def test_a_sweep_goes_on_while_more_is_too_old(tmp_path, monkeypatch):
    monkeypatch.setattr("ds_trio_server.store.sqlite.trimmer._CUTS_AT_ONCE", 20)
    time = Time()
    store = await opened(tmp_path, time, "*=10s")
    for n in range(90):
        await put(store, f"s{n}", b"x")
    time.seconds += 1
    await store.sweep()
    time.seconds += 20
    await store.sweep()
    assert [await read(store, f"s{n}") for n in range(90)] == [b""] * 90
    await store.close()
