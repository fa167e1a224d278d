"""What the SQLite store promises beyond the contract: durable before visible, and all there after any end."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ds_core.server import create, stream
from ds_core.server.errors import ProtocolError
from ds_trio_server.store.base import Damaged, StorageFailed, StorageFull
from ds_trio_server.store.sqlite import engine, maintenance, producers, schema
from ds_trio_server.store.sqlite.committer import Committer
from ds_trio_server.store.sqlite.engine import SQLiteStore
from tests.store.rig import Rig, Soon, Time, Watch, header


@asynccontextmanager
async def opened(folder: Path, time: Time | None = None, **options: Any) -> AsyncIterator[Rig]:
    """An open store on a directory, closed at the end of the block."""
    time = time or Time()
    store = SQLiteStore(folder, time.clock(), **options)
    await store.open()
    try:
        yield Rig(store, time)
    finally:
        await store.close()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with opened(tmp_path / "data") as rig:
        yield rig


@contextmanager
def disk_held(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing reaches the disk inside the block."""
    gate = threading.Event()

    def hold(write: Any) -> Any:
        def held(self: Committer, batch: Any) -> None:
            assert gate.wait(60)
            write(self, batch)

        return held

    with monkeypatch.context() as patch:
        patch.setattr(Committer, "_write", hold(Committer._write))
        patch.setattr(Committer, "_stage", hold(Committer._stage))
        try:
            yield
        finally:
            gate.set()


# Decisions


async def test_no_decision_asks_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a decision needs is loaded before it runs, however little of it is in memory."""
    monkeypatch.setattr(engine, "_CACHED_STREAMS", 1)
    monkeypatch.setattr(producers, "_GENERATION", 1)
    asked: list[str] = []
    decided = 0

    def watched(decide: Any) -> Any:
        def run(*args: Any) -> Any:
            nonlocal decided
            decided += 1
            before = len(asked)
            try:
                return decide(*args)
            finally:
                assert len(asked) == before, asked[before:]

        return run

    for module, name in ((stream, "append"), (stream, "head"), (stream, "delete"), (create, "create")):
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    async with opened(tmp_path) as rig:
        assert isinstance(rig.store, SQLiteStore)
        rig.store._db.reader.set_trace_callback(asked.append)
        for path in "abc":
            await rig.create(path, b"x", stream_ttl=60)
            for seq in range(3):
                for producer in "pq":
                    assert (await rig.append(path, b"y", producer=(producer, 0, seq))).status == 200
        await rig.fork("d", "a", at=3)
        assert (await rig.append("d", b"z", producer=("p", 0, 0))).status == 200
        for path in "abcd":
            assert (await rig.append(path, b"?", producer=("p", 0, 0))).status == 204
            await rig.head(path)
            await rig.delete(path)
    assert decided > 30 and any("producers" in statement for statement in asked)


# Durable, then visible


async def test_nothing_is_visible_before_it_is_durable(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.create("s", b"old")
    watch = Watch(rig, await rig.stream("s"))
    answers: list[str] = []

    async def run(name: str, awaitable: Any) -> None:
        try:
            answers.append(f"{name} {(await awaitable).status}")
        except ProtocolError as error:
            answers.append(f"{name} {error.status}")

    async with trio.open_nursery() as nursery:
        with disk_held(monkeypatch):
            nursery.start_soon(run, "append", rig.append("s", b"new", producer=("p", 0, 0)))
            await wait_all_tasks_blocked()
            # All of these rest on what may still be lost: they wait with it.
            nursery.start_soon(run, "duplicate", rig.append("s", b"new", producer=("p", 0, 0)))
            nursery.start_soon(run, "gap", rig.append("s", b"?", producer=("p", 0, 5)))
            await wait_all_tasks_blocked()
            nursery.start_soon(run, "close", rig.close("s"))
            await wait_all_tasks_blocked()
            nursery.start_soon(run, "late", rig.append("s", b"late"))
            nursery.start_soon(run, "create", rig.create("t", b"t"))
            await wait_all_tasks_blocked()
            nursery.start_soon(run, "again", rig.create("t", content_type="text/html"))
            await wait_all_tasks_blocked()
            assert answers == []
            # Readers go on meanwhile, with what is durable.
            assert await rig.read("s") == b"old"
            assert not (await rig.stream("s")).visible_closed
            assert header(await rig.head("s"), "Stream-Closed") is None
            assert watch.calls == []
    assert sorted(answers) == [
        "again 409", "append 200", "close 204", "create 201", "duplicate 204", "gap 409", "late 409"
    ]  # fmt: skip
    assert await rig.read("s") == b"oldnew" and watch.bytes() == b"new" and watch.ended


async def test_a_stream_that_is_being_made_or_removed_is_waited_for(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.create("old", b"data")
    seen: list[object] = []

    async def read(path: str) -> None:
        try:
            seen.append(await rig.read(path))
        except ProtocolError as error:
            seen.append(error.status)

    async with trio.open_nursery() as nursery:
        with disk_held(monkeypatch):
            nursery.start_soon(rig.create, "new", b"fresh")
            nursery.start_soon(rig.delete, "old")
            await wait_all_tasks_blocked()
            nursery.start_soon(read, "new")
            nursery.start_soon(read, "old")
            await wait_all_tasks_blocked()
            assert seen == []
    assert sorted(seen, key=str) == [404, b"fresh"]


async def test_many_decisions_share_a_commit(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.create("s")
    batches: list[int] = []
    write = Committer._write

    def counted(self: Committer, batch: Any) -> None:
        batches.append(len(batch.appends))
        write(self, batch)

    monkeypatch.setattr(Committer, "_write", counted)
    async with trio.open_nursery() as nursery:
        for _ in range(500):
            nursery.start_soon(rig.append, "s", b"x")
    assert sum(batches) == 500 and len(batches) < 20


# Bounded memory


async def test_more_streams_than_the_cache_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_CACHED_STREAMS", 16)
    async with opened(tmp_path / "data") as rig:
        watched: list[Watch] = []
        for number in range(200):
            await rig.create(f"s{number}", b"%d:" % number)
            if number % 40 == 0:
                watched.append(Watch(rig, await rig.stream(f"s{number}")))
        for round in range(2):
            async with trio.open_nursery() as nursery:
                for number in range(200):
                    nursery.start_soon(rig.append, f"s{number}", b"%d" % round, "text/plain", ("p", 0, round))
        for number in range(200):
            assert await rig.read(f"s{number}") == b"%d:01" % number
            assert (await rig.append(f"s{number}", b"?", producer=("p", 0, 1))).status == 204
        assert [watch.bytes() for watch in watched] == [b"01"] * 5
        await rig.fork("fork", "s3")
        for number in range(200):
            await rig.append(f"s{number}", b"!")
        assert await rig.read("fork") == b"3:01"
        assert [watch.bytes() for watch in watched] == [b"01!"] * 5
        for number in range(200):
            await rig.delete(f"s{number}")
        assert await rig.store.paths() == ["fork"]
        assert len(rig.store._cache._by_path) <= 32  # type: ignore[attr-defined]


# Open again


async def fill(rig: Rig) -> None:
    await rig.create("plain", b"one")
    await rig.append("plain", b"two", producer=("p p", 3, 0), stream_seq="m")
    await rig.append("plain", b"three", producer=("p p", 3, 1))
    await rig.create("json", b"[1,2]", "application/json; charset=utf-8")
    await rig.append("json", b"[3]", "application/json")
    await rig.create("big", b"x" * 700_000, "application/octet-stream")
    await rig.create("closed", b"end")
    await rig.append("closed", b"!", producer=("c", 0, 0), stream_closed="true")
    await rig.create("ttl", stream_ttl=100)
    await rig.create("expires", stream_expires_at="2099-01-01T00:00:00Z")
    await rig.fork("fork", "plain", 6)
    await rig.append("fork", b"own")
    await rig.fork("fork2", "fork", 3, skip=1)
    await rig.create("soft", b"kept")
    await rig.fork("heir", "soft")
    await rig.delete("soft")
    await rig.create("trimmed", b"one")
    await rig.append("trimmed", b"two")
    await rig.fork("whole", "trimmed")
    await rig.trim("trimmed", 3)
    await rig.create("gone", b"gone")
    await rig.delete("gone")


async def check(rig: Rig) -> None:
    assert await rig.read("plain") == b"onetwothree"
    assert await rig.spans("plain") == [(0, 3), (3, 6), (6, 11)]
    assert await rig.read("json") == b"1,2,3,"
    assert header(await rig.head("json"), "Content-Type") == "application/json; charset=utf-8"
    assert await rig.read("big") == b"x" * 700_000 and len(await rig.spans("big")) == 1
    assert await rig.read("closed") == b"end!" and (await rig.stream("closed")).visible_closed
    assert await rig.read("fork") == b"onetwoown" and await rig.read("fork2") == b"onet"
    assert await rig.read("heir") == b"kept"
    assert await rig.read("trimmed") == b"two" and await rig.read("whole") == b"onetwo"
    assert header(await rig.head("ttl"), "Stream-TTL") == "100"
    assert header(await rig.head("expires"), "Stream-Expires-At") == "2099-01-01T00:00:00Z"
    for path, status in (("gone", 404), ("soft", 410)):
        with pytest.raises(ProtocolError) as caught:
            await rig.stream(path)
        assert caught.value.status == status
    assert (await rig.append("plain", b"?", producer=("p p", 3, 1))).status == 204
    assert (await rig.append("closed", b"?", producer=("c", 0, 0), stream_closed="true")).status == 204
    refusals: list[tuple[int, dict[str, Any]]] = [
        (409, {"producer": ("p p", 3, 3)}), (403, {"producer": ("p p", 2, 0)}), (409, {"stream_seq": "m"})
    ]  # fmt: skip
    for status, headers in refusals:
        with pytest.raises(ProtocolError) as caught:
            await rig.append("plain", b"?", **headers)
        assert caught.value.status == status
    incarnations = {(await rig.stream(path)).id for path in await rig.store.paths()}
    await rig.create("fresh")
    assert (await rig.stream("fresh")).id > max(incarnations)
    await rig.delete("fresh")


async def test_everything_is_there_after_closing(tmp_path: Path) -> None:
    async with opened(tmp_path / "data") as rig:
        await fill(rig)
    for _ in range(2):
        async with opened(tmp_path / "data") as rig:
            await check(rig)


async def test_everything_is_there_after_a_crash(tmp_path: Path) -> None:
    async with opened(tmp_path / "data") as rig:
        await fill(rig)
        # What a power cut would leave: the file, its log, and whatever else is there.
        shutil.copytree(tmp_path / "data", tmp_path / "image")
    async with opened(tmp_path / "image") as rig:
        await check(rig)


async def test_every_crash_image_has_all_that_was_answered_and_whole_appends_only(tmp_path: Path) -> None:
    answered: list[int] = []
    images: list[int] = []
    async with opened(tmp_path / "data") as rig:
        await rig.create("s")

        async def write(name: str) -> None:
            for seq in range(40):
                await rig.append("s", f"<{name}{seq}>".encode() * 50, producer=(name, 0, seq))
                answered.append(1)

        async def cut_power() -> None:
            for number in range(4):
                while len(answered) < number * 30:
                    await trio.sleep(0)
                images.append(len(answered))
                # Like a disk, a copy is not of one instant: the log is taken first, then what it is for.
                folder = tmp_path / f"image{number}"
                folder.mkdir()
                with sqlite3.connect(tmp_path / "data" / "streams.db") as db:
                    db.execute("BEGIN").fetchall()
                    db.execute("SELECT count(*) FROM streams").fetchall()
                    for name in ("streams.db", "streams.db-wal"):
                        shutil.copy(tmp_path / "data" / name, folder / name)
                db.close()

        async with trio.open_nursery() as nursery:
            for name in "abcd":
                nursery.start_soon(write, name)
            nursery.start_soon(cut_power)
    for number, least in enumerate(images):
        async with opened(tmp_path / f"image{number}") as rig:
            data = await rig.read("s")
            found = [data[first:end] for first, end in await rig.spans("s")]
            assert len(found) >= least
            for name in "abcd":
                mine = [item for item in found if item.startswith(b"<" + name.encode())]
                assert mine == [f"<{name}{seq}>".encode() * 50 for seq in range(len(mine))]
                if mine:
                    assert (await rig.append("s", b"?", producer=(name, 0, len(mine) - 1))).status == 204
                assert (await rig.append("s", b"!", producer=(name, 0, len(mine)))).status == 200


async def test_ttls_count_the_time_that_was_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time()
    # The store goes on from the clock that it saved.
    monkeypatch.setattr(engine, "Clock", time.clock)

    @asynccontextmanager
    async def reopened() -> AsyncIterator[Rig]:
        store = SQLiteStore(tmp_path / "data")
        await store.open()
        yield Rig(store, time)
        await store.close()

    async with reopened() as rig:
        await rig.create("s", b"data", stream_ttl=100)
        await rig.pass_time(60)
    time.tick += 10_000  # down
    async with reopened() as rig:
        assert await rig.read("s") == b"data"
        await rig.pass_time(60)
        with pytest.raises(ProtocolError):
            await rig.stream("s")
        await rig.pass_time(60)
        await rig.sweep()
        assert await rig.store.paths() == []


async def test_what_is_removed_gives_its_room_back(rig: Rig) -> None:
    for number in range(20):
        await rig.create(f"s{number}", b"x" * 300_000)
    size = await _pages(rig)
    for number in range(20):
        await rig.delete(f"s{number}")
    for _ in range(200):
        await rig.sweep()
        if await _pages(rig) < size / 4:
            break
    assert await _pages(rig) < size / 4
    await rig.create("s", b"new")
    assert await rig.read("s") == b"new"


async def _pages(rig: Rig) -> int:
    db = rig.store._db.reader  # type: ignore[attr-defined]
    used = db.execute("PRAGMA page_count").fetchone()[0] - db.execute("PRAGMA freelist_count").fetchone()[0]
    assert isinstance(used, int)
    return used


# One at a time


async def test_a_second_store_on_the_same_directory_is_refused(rig: Rig, tmp_path: Path) -> None:
    second = SQLiteStore(tmp_path / "data")
    with pytest.raises(StorageFailed, match=r"in use by another server.*give another --data"):
        await second.open()
    await rig.create("s", b"unharmed")
    assert await rig.read("s") == b"unharmed"


async def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "streams.db") as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    before = (tmp_path / "streams.db").read_bytes()
    with pytest.raises(StorageFailed, match="not a stream store"):
        await SQLiteStore(tmp_path).open()
    assert (tmp_path / "streams.db").read_bytes() == before


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "streams.db").write_bytes(b"not a database at all" * 1000)
    with pytest.raises(StorageFailed, match=r"streams\.db"):
        await SQLiteStore(tmp_path).open()
    assert (tmp_path / "streams.db").read_bytes() == b"not a database at all" * 1000


async def test_a_directory_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises((OSError, StorageFailed), match="file"):
        await SQLiteStore(tmp_path / "file").open()
    (tmp_path / "streams.db").mkdir()
    with pytest.raises((OSError, StorageFailed), match=r"streams\.db"):
        await SQLiteStore(tmp_path).open()


# No room


async def test_a_full_disk_is_507_and_ends_when_there_is_room(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    # The limits below are set on the writer's connection, which must do nothing else meanwhile.
    monkeypatch.setattr(Committer, "_keep_up", lambda self, batch: None)
    await rig.create("s", b"before", stream_ttl=100)
    watch = Watch(rig, await rig.stream("s"))
    writer = rig.store._db.writer  # type: ignore[attr-defined]
    pages = schema.one(writer, "PRAGMA page_count")[0]
    schema.one(writer, f"PRAGMA max_page_count = {pages}")
    statuses: list[int] = []

    async def attempt(awaitable: Any) -> None:
        try:
            statuses.append((await awaitable).status)
        except StorageFull as error:
            statuses.append(error.status)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            body = bytes(100_000)
            nursery.start_soon(attempt, rig.append("s", body, producer=(f"p{number}", 0, 0), stream_seq=f"{number}"))
            nursery.start_soon(attempt, rig.create(f"new{number}", body))
    assert statuses == [507] * 10
    # It never happened: nothing is there, and reads go on.
    assert await rig.read("s") == b"before" and watch.calls == []
    assert await rig.store.paths() == ["s"]
    await rig.use("s")
    schema.one(writer, "PRAGMA max_page_count = 1000000")
    for number in range(5):
        answer = await rig.append("s", b"%d" % number, producer=(f"p{number}", 0, 0), stream_seq=f"{number}")
        assert answer.status == 200
    assert await rig.read("s") == b"before01234" and watch.bytes() == b"01234"
    assert (await rig.create("new0", b"room")).status == 201


async def test_a_failure_of_the_disk_ends_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SQLiteStore(tmp_path / "data", Time().clock())
    await store.open()
    rig = Rig(store, Time())
    await rig.create("s", b"durable")

    def fail(self: Committer, batch: Any) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = 1034  # SQLITE_IOERR_FSYNC
        error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Committer, "_write", fail)
        failed: list[str] = []

        async def attempt(data: bytes) -> None:
            try:
                await rig.append("s", data)
            except StorageFailed as error:
                failed.append(str(error))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(attempt, b"lost")
    assert len(failed) == 5 and all("SQLITE_IOERR_FSYNC" in message for message in failed)
    assert "check the disk" in str(await store.wait_failed())
    for refusal in (rig.append("s", b"x"), rig.stream("s"), rig.create("t")):
        with pytest.raises(StorageFailed):
            await refusal
    await store.close()
    # The process ends here; the next one finds what was durable.
    shutil.copytree(tmp_path / "data", tmp_path / "image")
    async with opened(tmp_path / "image") as rig:
        assert await rig.read("s") == b"durable"


async def test_what_never_waits_does_not_speak_before_the_disk_does(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.create("s", b"old")
    quick = Rig(Soon(rig.store), rig.time)
    answers: list[str] = []

    async def run(name: str, awaitable: Any) -> None:
        try:
            answers.append(f"{name} {(await awaitable).status}")
        except ProtocolError as error:
            answers.append(f"{name} {error.status}")

    async with trio.open_nursery() as nursery:
        with disk_held(monkeypatch):
            for name, awaitable in (
                ("append", quick.append("s", b"new", producer=("p", 0, 0))),
                ("duplicate", quick.append("s", b"new", producer=("p", 0, 0))),
                ("gap", quick.append("s", b"?", producer=("p", 0, 5))),
                ("close", quick.close("s")),
                ("late", quick.append("s", b"late")),
            ):
                nursery.start_soon(run, name, awaitable)
                await wait_all_tasks_blocked()
            assert answers == [] and await quick.read("s") == b"old"
    assert sorted(answers) == ["append 200", "close 204", "duplicate 204", "gap 409", "late 409"]
    assert await quick.read("s") == b"oldnew"


async def test_what_never_waits_hears_of_a_full_disk(rig: Rig) -> None:
    await rig.create("s", b"before")
    quick = Rig(Soon(rig.store), rig.time)
    writer = rig.store._db.writer  # type: ignore[attr-defined]
    pages = schema.one(writer, "PRAGMA page_count")[0]
    schema.one(writer, f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageFull):
        await quick.append("s", bytes(300_000))
    assert await quick.read("s") == b"before"
    schema.one(writer, "PRAGMA max_page_count = 1000000")
    assert (await quick.append("s", b" after")).status == 204
    assert await quick.read("s") == b"before after"


# A stream's row has a checksum


async def _kinds(rig: Rig) -> list[str]:
    """A stream of every kind, each with what only that has."""
    await rig.create("plain", b"text")
    await rig.create("ttl", b"text", stream_ttl=1000)
    await rig.create("expires", b"text", stream_expires_at="2035-01-01T00:00:00Z")
    await rig.append("plain", b"more", stream_seq="k", producer=("p x", 3, 0))
    await rig.create("closed", b"text")
    await rig.append("closed", b"end", producer=("q", 0, 0), stream_closed="true")
    await rig.fork("fork", "plain", at=4)
    await rig.fork("fork/of", "fork", stream_ttl=500)
    await rig.create("source", b"text", stream_ttl=1000)
    await rig.fork("child", "source")
    await rig.delete("source")
    await rig.trim("plain", 4)
    return ["plain", "ttl", "expires", "closed", "fork", "fork/of", "child"]


async def test_rows_of_every_kind_are_what_was_written(tmp_path: Path) -> None:
    time = Time()
    async with opened(tmp_path, time) as rig:
        paths = await _kinds(rig)
        before = [(await rig.head(path)).headers for path in paths]
    assert not maintenance.check(tmp_path).problems
    async with opened(tmp_path, time) as rig:
        assert [(await rig.head(path)).headers for path in paths] == before
        for path in paths:
            if path != "closed":
                await rig.append(path, b"!")
    assert not maintenance.check(tmp_path).problems


@pytest.mark.parametrize(
    "column",
    [
        *("path", "incarnation", "content_type", "start", "tail", "closed", "closed_by", "stream_seq", "ttl"),
        *("deadline", "expires_at", "expires", "source", "fork_at", "recipe", "forks", "deleted", "sum"),
    ],
)
async def test_a_row_that_is_not_what_was_written_is_damage(column: str, tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        await _kinds(rig)
    # As a bit that has turned over does, behind the database's back.
    db = sqlite3.connect(tmp_path / schema.FILE)
    changed = {"path": "path || 'x'", "sum": "sum + 1"}.get(column, f"ifnull({column}, 7) || '1'")
    for name in ("plain", "child"):
        db.execute(f"UPDATE streams SET {column} = {changed} WHERE path = ?", (name,))
    db.commit()
    db.close()
    assert any("row of stream" in problem for problem in maintenance.check(tmp_path).problems)
    async with opened(tmp_path) as rig:
        for name in ("plain", "child"):
            with pytest.raises(Damaged):
                await rig.head(name + ("x" if column == "path" else ""))
        await rig.create("another")


async def test_a_stream_that_its_index_has_lost_is_not_just_missing(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        for number in range(300):
            await rig.create(f"s{number}")
    db = sqlite3.connect(tmp_path / schema.FILE)
    (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_streams_1'").fetchone()
    db.close()
    with (tmp_path / schema.FILE).open("r+b") as file:
        # An empty index page, well formed.
        file.seek((page - 1) * 4096)
        file.write(b"\x0a\x00\x00\x00\x00\x10\x00\x00".ljust(4096, b"\x00"))
    async with opened(tmp_path) as rig:
        await rig.store.verify()
        for number in range(300):
            with pytest.raises(Damaged, match="an index has lost it"):
                await rig.head(f"s{number}")


async def test_commits_and_their_syncs_are_counted(rig: Rig) -> None:
    await rig.create("s")
    before = rig.store.commits.seconds.sum, rig.store.commits.fsync.sum
    await rig.append("s", b"x")
    seconds, fsync = rig.store.commits.seconds.sum - before[0], rig.store.commits.fsync.sum - before[1]
    assert 0 < fsync < seconds


@pytest.mark.parametrize("restart", [False, True])
async def test_a_deleted_source_is_what_it_was_though_its_forks_need_less_of_it(tmp_path: Path, restart: bool) -> None:
    """Its row's checksum was made of where a fork of it had left the chain, not of where it had left its own source."""
    async with opened(tmp_path) as rig:
        await rig.create("a", b"x" * 100)
        await rig.fork("b", "a", 91)
        await rig.fork("c", "b", 70)
        await rig.fork("d", "b", 70)
        await rig.delete("b")
        assert isinstance(rig.store, SQLiteStore)
        if not restart:
            for path in ("d", "c"):
                for entry in list(rig.store._cache._by_id.values()):
                    rig.store._cache.drop(entry)  # as one that was not used for long
                assert await rig.read("c") == b"x" * 70
                await rig.delete(path)
    for path in ("d", "c") if restart else ():
        assert maintenance.check(tmp_path).problems == []
        async with opened(tmp_path) as rig:
            assert await rig.read("c") == b"x" * 70
            await rig.delete(path)
    assert maintenance.check(tmp_path).problems == []
