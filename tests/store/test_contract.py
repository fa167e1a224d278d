"""What every store promises: one suite that all backends pass."""

from __future__ import annotations

import random
import sys
from itertools import pairwise
from pathlib import Path
from time import gmtime, strftime

import pytest
import trio

from ds_core.server.decide import Needs
from ds_core.server.errors import ProtocolError
from ds_core.server.offsets import token
from ds_trio_server.store.base import WINDOW, StoreClosed, Vanished
from ds_trio_server.store.memory import MemoryStore
from ds_trio_server.store.sqlite.engine import SQLiteStore
from tests.store.rig import WALL, Rig, Soon, Watch, header


async def refused(awaitable: object) -> int:
    """The status of a refusal."""
    with pytest.raises(ProtocolError) as caught:
        await awaitable  # type: ignore[misc]
    return caught.value.status


# Opening and closing


async def test_only_an_open_store_is_used_and_any_other_says_so_at_once(rig: Rig, tmp_path: Path) -> None:
    await rig.create("s", b"x")
    found = await rig.stream("s")
    made = rig.store._store if isinstance(rig.store, Soon) else rig.store
    never = MemoryStore() if isinstance(made, MemoryStore) else SQLiteStore(tmp_path / "never")
    await made.close()
    await made.close()  # nothing, as of a file
    with trio.fail_after(5):
        for store in (made, never):
            assert not store.is_open
            for use in (
                lambda store=store: Rig(store, rig.time).create("t"),
                lambda store=store: store.look("s", lambda view: (None, None)),
                lambda store=store: store.read(found, 0, 1),
                lambda store=store: store.span(found, 0),
                lambda store=store: store.append_at(found, 0),
                lambda store=store: store.sweep(),
                lambda store=store: store.paths(),
                lambda store=store: store.usage(),
                lambda store=store: store.verify(),
                lambda store=store: store.wait_failed(),
            ):
                with pytest.raises(StoreClosed):
                    await use()
            for at_once in (
                lambda store=store: store.transact_nowait(Needs("s"), lambda view: (None, None), print),
                lambda store=store: store.look_nowait("s", lambda view: (None, None)),
                lambda store=store: store.read_nowait(found, 0, 1),
                lambda store=store: store.span_nowait(found, 0),
                lambda store=store: store.watch(found, print),
                lambda store=store: store.check_writable(),
            ):
                with pytest.raises(StoreClosed):
                    at_once()


# Life of a stream


async def test_create_append_close_delete(rig: Rig) -> None:
    assert (await rig.create("a/b", b"one ")).status == 201
    assert (await rig.create("a/b")).status == 200
    assert await refused(rig.create("a/b", content_type="text/html")) == 409
    answer = await rig.append("a/b", b"two")
    assert answer.status == 204 and header(answer, "Stream-Next-Offset") == token(1, 7)
    assert (await rig.close("a/b", b"!")).status == 204
    assert await refused(rig.append("a/b", b"late")) == 409
    found = await rig.stream("a/b")
    assert (found.visible_tail, found.visible_closed) == (8, True)
    assert await rig.read("a/b") == b"one two!"
    assert (await rig.delete("a/b")).status == 204
    for refusal in (rig.delete("a/b"), rig.stream("a/b"), rig.append("a/b", b"x")):
        assert await refused(refusal) == 404


async def test_what_does_not_exist_is_404(rig: Rig) -> None:
    for refusal in (rig.delete("none"), rig.stream("none"), rig.append("none", b"x"), rig.fork("f", "none")):
        assert await refused(refusal) == 404
    assert await rig.store.paths() == []


async def test_a_refusal_changes_nothing(rig: Rig) -> None:
    await rig.create("json", content_type="application/json")
    assert await refused(rig.append("json", b"{", "application/json", ("p", 0, 0))) == 400
    assert await refused(rig.append("json", b"1", "text/plain", ("p", 0, 0))) == 409
    assert (await rig.append("json", b"1", "application/json", ("p", 0, 0))).status == 200
    assert await rig.read("json") == b"1,"


async def test_incarnations_are_never_reused(rig: Rig) -> None:
    seen = set()
    for _ in range(5):
        await rig.create("a")
        await rig.create("b")
        seen |= {(await rig.stream("a")).id, (await rig.stream("b")).id}
        await rig.delete("a")
        await rig.delete("b")
    assert len(seen) == 10


async def test_paths_lists_what_lives_in_order(rig: Rig) -> None:
    for path in ("b", "a/c", "é", "a", "source"):
        await rig.create(path)
    await rig.fork("z", "source")
    await rig.delete("source")
    await rig.delete("b")
    assert await rig.store.paths() == ["a", "a/c", "z", "é"]


# Bytes


async def test_any_range_reads_back(rig: Rig) -> None:
    rng = random.Random(7)
    await rig.create("s", content_type="application/octet-stream")
    whole = b""
    ends = [0]
    for size in (1, 2, 300, 5000, 1, 70_000, 300_000, 3, 900_000, 10, 262_144, 262_145, 1):
        data = rng.randbytes(size)
        await rig.append("s", data, "application/octet-stream")
        whole += data
        ends.append(len(whole))
    assert await rig.read("s") == whole
    assert await rig.spans("s") == list(pairwise(ends))
    found = await rig.stream("s")
    for _ in range(60):
        start = rng.randrange(len(whole))
        end = min(len(whole), start + rng.choice((1, 10, 1000, 262_144, 10**7)))
        window = await rig.store.read(found, start, end)
        data = b"".join(window)
        assert window and all(window) and whole[start:end].startswith(data)
        assert len(data) == end - start or len(data) >= WINDOW // 2
        assert len(data) <= WINDOW + 262_144
        assert await rig.read("s", start, end) == whole[start:end]
        first, data = await rig.store.append_at(found, start)
        assert first in ends and data == whole[first : ends[ends.index(first) + 1]]


async def test_large_appends_are_one_append(rig: Rig) -> None:
    data = random.Random(1).randbytes(3_000_001)
    await rig.create("s", data, "application/octet-stream")
    await rig.append("s", b"x", "application/octet-stream")
    assert await rig.spans("s") == [(0, len(data)), (len(data), len(data) + 1)]
    assert await rig.store.append_at(await rig.stream("s"), 2_000_000) == (0, data)


async def test_json_is_stored_message_by_message(rig: Rig) -> None:
    await rig.create("s", b"[1, 2]", "application/json")
    await rig.append("s", b'[{"a":1},[3]]', "application/json")
    assert await rig.read("s") == b'1,2,{"a":1},[3],'
    assert await rig.spans("s") == [(0, 4), (4, 16)]


async def test_a_removed_stream_has_vanished(rig: Rig) -> None:
    await rig.create("s", b"data")
    found = await rig.stream("s")
    await rig.delete("s")
    await rig.sweep()
    with pytest.raises(Vanished):
        await rig.store.read(found, 0, 4)
    with pytest.raises(Vanished):
        await rig.store.span(found, 0)


# Forks


async def test_forks_of_forks_read_through(rig: Rig) -> None:
    await rig.create("0", b"root-")
    whole = b"root-"
    for level in range(1, 7):
        await rig.fork(str(level), str(level - 1))
        whole += b"%d-" % level
        await rig.append(str(level), b"%d-" % level)
        await rig.append(str(level - 1), b"hidden")
    assert await rig.read("6") == whole
    assert await rig.read("3") == b"root-1-2-3-hidden"
    assert await rig.spans("6") == [(0, 5), *((at, at + 2) for at in range(5, 17, 2))]
    assert await rig.read("6", 3, 8) == whole[3:8]
    assert (await rig.stream("6")).incarnation == (await rig.stream("0")).incarnation


async def test_a_fork_may_leave_inside_an_append(rig: Rig) -> None:
    await rig.create("s", b"0123456789")
    await rig.append("s", b"abcdef")
    assert (await rig.fork("f", "s", 10, skip=3)).status == 201
    await rig.append("f", b"XYZ")
    assert await rig.read("f") == b"0123456789abcXYZ"
    assert await rig.spans("f") == [(0, 10), (10, 13), (13, 16)]
    # A fork of the fork that leaves earlier than it did, and one at the very start.
    await rig.fork("g", "f", 4)
    await rig.append("g", b"!")
    assert await rig.read("g") == b"0123!"
    assert await rig.spans("g") == [(0, 4), (4, 5)]
    await rig.fork("h", "f", 0)
    await rig.append("h", b"new")
    assert await rig.read("h") == b"new"
    assert await refused(rig.fork("i", "s", 10, skip=7)) == 400
    assert await refused(rig.fork("i", "s", 17)) == 400


async def test_sub_offsets_count_messages(rig: Rig) -> None:
    await rig.create("s", b"[1,2]", "application/json")
    await rig.append("s", b"[30,40,50]", "application/json")
    for skip, expected in ((1, b"1,2,30,"), (2, b"1,2,30,40,"), (3, b"1,2,30,40,50,")):
        await rig.fork(f"f{skip}", "s", 4, skip)
        assert await rig.read(f"f{skip}") == expected
    assert await refused(rig.fork("f4", "s", 4, 4)) == 400
    assert await refused(rig.fork("f", "s", 5)) == 400


async def test_a_large_append_may_be_cut_by_a_fork(rig: Rig) -> None:
    data = random.Random(3).randbytes(1_000_000)
    await rig.create("s", data, "application/octet-stream")
    await rig.fork("f", "s", 0, skip=600_000)
    await rig.append("f", b"end", "application/octet-stream")
    assert await rig.read("f") == data[:600_000] + b"end"
    assert await rig.spans("f") == [(0, 600_000), (600_000, 600_003)]


async def test_the_same_fork_again_is_200(rig: Rig) -> None:
    await rig.create("s", b"abc")
    assert (await rig.fork("f", "s", 2)).status == 201
    assert (await rig.fork("f", "s", 2)).status == 200
    assert await refused(rig.fork("f", "s", 1)) == 409
    assert await refused(rig.fork("f", "s")) == 409
    await rig.delete("f")
    assert (await rig.delete("s")).status == 204
    assert await refused(rig.stream("s")) == 404, "a reference has leaked"


async def test_a_source_with_forks_is_soft_deleted_and_released_up_the_chain(rig: Rig) -> None:
    await rig.create("a", b"a")
    await rig.fork("b", "a")
    await rig.append("b", b"b")
    await rig.fork("c", "b")
    await rig.append("c", b"c")
    await rig.fork("d", "a")
    await rig.delete("a")
    await rig.delete("b")
    for path in ("a", "b"):
        for refusal in (rig.stream(path), rig.append(path, b"x"), rig.delete(path)):
            assert await refused(refusal) == 410
        for refusal in (rig.create(path), rig.fork("e", path)):
            assert await refused(refusal) == 409
    assert await rig.read("c") == b"abc"
    await rig.delete("d")
    assert await rig.read("c") == b"abc"
    await rig.delete("c")
    for path in ("a", "b", "c", "d"):
        assert await refused(rig.stream(path)) == 404
        assert (await rig.create(path)).status == 201
        assert await rig.read(path) == b""


async def test_forks_inherit_neither_producers_nor_closure(rig: Rig) -> None:
    await rig.create("s")
    await rig.append("s", b"x", producer=("p", 3, 0), stream_seq="z")
    await rig.close("s")
    await rig.fork("f", "s")
    assert (await rig.append("f", b"y", producer=("p", 0, 0), stream_seq="a")).status == 200
    assert await rig.read("f") == b"xy"


# Trimming


async def test_a_trimmed_stream_begins_later(rig: Rig) -> None:
    await rig.create("s", b"0123456789")
    for data in (b"abcde", b"fghij", b"klmno"):
        await rig.append("s", data)
    await rig.trim("s", 15)
    await rig.trim("s", 10)  # never back
    assert (await rig.stream("s")).start == 15
    assert await rig.read("s") == b"fghijklmno"
    assert await rig.spans("s") == [(15, 20), (20, 25)]
    await rig.append("s", b"!", producer=("p", 0, 0))
    await rig.trim("s", 26)
    await rig.sweep()
    assert await rig.read("s") == b"" and (await rig.stream("s")).visible_tail == 26
    await rig.append("s", b"more", producer=("p", 0, 1))
    assert await rig.read("s") == b"more" and await rig.spans("s") == [(26, 30)]


async def test_a_reader_overtaken_by_trimming_gets_the_right_bytes_or_none(rig: Rig) -> None:
    whole = b"x" * 1000 + b"y" * 300_000 + b"z"
    await rig.create("s", whole[:1000])
    await rig.append("s", whole[1000:-1])
    await rig.append("s", b"z")
    await rig.trim("s", 301_000)
    await rig.sweep()
    found = await rig.stream("s")
    for at in (0, 500, 1000, 300_999):
        try:
            assert await rig.store.read(found, at, at + 1) == [whole[at : at + 1]]
            first, data = await rig.store.append_at(found, at)
            assert data == whole[first : first + len(data)]
        except Vanished:
            pass
    assert await rig.read("s") == b"z"


async def test_forks_keep_what_they_inherited(rig: Rig) -> None:
    await rig.create("s", b"01234")
    await rig.append("s", b"56789")
    await rig.fork("early", "s", 5)
    await rig.append("early", b"early")
    await rig.append("s", b"abcde")
    await rig.trim("s", 10)
    await rig.fork("late", "s")
    await rig.append("late", b"late")
    for _ in range(3):
        await rig.sweep()
    assert await rig.read("early") == b"01234early"
    assert await rig.read("s") == b"abcde"
    assert await rig.read("late") == b"abcdelate" and (await rig.stream("late")).start == 10
    assert await refused(rig.fork("f", "s", 5)) == 410
    await rig.delete("s")
    assert await rig.read("early") == b"01234early" and await rig.read("late") == b"abcdelate"
    await rig.delete("early")
    await rig.sweep()
    assert await rig.read("late") == b"abcdelate"
    await rig.trim("late", 15)
    await rig.sweep()
    assert await rig.read("late") == b"late"
    await rig.delete("late")
    assert (await rig.create("s")).status == 201


# Producers


async def test_producers(rig: Rig) -> None:
    await rig.create("s")
    assert (await rig.append("s", b"0", producer=("p", 1, 0))).status == 200
    assert (await rig.append("s", b"?", producer=("p", 1, 0))).status == 204
    assert await refused(rig.append("s", b"?", producer=("p", 1, 2))) == 409
    assert await refused(rig.append("s", b"?", producer=("p", 0, 0))) == 403
    assert await refused(rig.append("s", b"?", producer=("p", 2, 1))) == 400
    assert (await rig.append("s", b"1", producer=("p", 1, 1))).status == 200
    assert (await rig.append("s", b"2", producer=("p", 2, 0))).status == 200
    assert await refused(rig.append("s", b"?", producer=("p", 1, 2))) == 403
    assert (await rig.append("s", b"3", producer=("other", 0, 0))).status == 200
    assert await rig.read("s") == b"0123"


async def test_the_closing_request_may_be_repeated(rig: Rig) -> None:
    await rig.create("s")
    for _ in range(2):
        answer = await rig.append("s", b"end", producer=("p q", 0, 0), stream_closed="true")
        assert header(answer, "Stream-Closed") == "true"
    assert await refused(rig.append("s", b"end", producer=("p", 0, 0), stream_closed="true")) == 409
    assert await rig.read("s") == b"end"


async def test_more_producers_than_any_cache_holds(rig: Rig) -> None:
    count = 3000
    await rig.create("s")
    for seq in range(2):
        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(rig.append, "s", b".", "text/plain", (f"producer {number}", 0, seq))
    assert (await rig.stream("s")).visible_tail == 2 * count
    for number in range(0, count, 97):
        assert (await rig.append("s", b"?", producer=(f"producer {number}", 0, 1))).status == 204
        assert await refused(rig.append("s", b"?", producer=(f"producer {number}", 0, 3))) == 409
    assert (await rig.stream("s")).visible_tail == 2 * count


async def test_concurrent_retries_are_accepted_once(rig: Rig) -> None:
    await rig.create("s")
    statuses: list[int] = []

    async def send(seq: int) -> None:
        try:
            statuses.append((await rig.append("s", b"%d" % seq, producer=("p", 0, seq))).status)
        except ProtocolError as error:
            statuses.append(error.status)

    for seq in range(10):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(send, seq)
    assert statuses.count(200) == 10 and statuses.count(204) == 40
    assert await rig.read("s") == b"0123456789"


# Time


async def test_a_ttl_slides_with_every_use(rig: Rig) -> None:
    await rig.create("s", stream_ttl=10)
    for use in (rig.use, rig.use, lambda path: rig.append(path, b"x"), rig.close):
        await rig.pass_time(9)
        await use("s")  # type: ignore[operator]
    await rig.pass_time(9)
    await rig.head("s")
    await rig.pass_time(2)
    assert await refused(rig.stream("s")) == 404
    assert (await rig.create("s", b"new", stream_ttl=10)).status == 201
    assert await rig.read("s") == b"new"


async def test_an_expired_stream_is_gone_before_and_after_the_sweep(rig: Rig) -> None:
    for number in range(30):
        await rig.create(f"s{number}", b"data", stream_ttl=10 + number % 2 * 10)
    await rig.create("stays", b"data")
    await rig.pass_time(10)
    assert await refused(rig.stream("s0")) == 404
    await rig.stream("s1")
    await rig.sweep()
    assert len(await rig.store.paths()) == 16
    await rig.pass_time(10)
    await rig.sweep()
    assert await rig.store.paths() == ["stays"]
    assert await rig.sweep() == 0


async def test_expires_at_is_never_renewed(rig: Rig) -> None:
    at = strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(WALL + rig.time.tick + 10))
    await rig.create("s", stream_expires_at=at)
    await rig.pass_time(9)
    await rig.use("s")
    await rig.append("s", b"x")
    await rig.pass_time(2)
    assert await refused(rig.stream("s")) == 404
    await rig.sweep()
    assert await rig.store.paths() == []


async def test_a_source_that_expires_lives_on_for_its_forks(rig: Rig) -> None:
    await rig.create("s", b"data", stream_ttl=10)
    await rig.fork("f", "s", stream_ttl=1000)
    await rig.fork("g", "s")  # inherits the TTL
    await rig.pass_time(11)
    assert await refused(rig.stream("s")) == 410
    assert await refused(rig.stream("g")) == 404
    await rig.sweep()
    assert await refused(rig.stream("s")) == 410
    assert await refused(rig.create("s")) == 409
    assert await rig.read("f") == b"data"
    await rig.pass_time(1200)  # a store may put off the removal that frees the source
    await rig.sweep()
    assert (await rig.create("s")).status == 201
    assert await rig.store.paths() == ["s"]


# Watching


async def test_a_watcher_is_told_every_byte_once(rig: Rig) -> None:
    await rig.create("s", b"before")
    await rig.create("other")
    watch = Watch(rig, await rig.stream("s"))
    expected = b""
    for size in (1, 100, 70_000, 5):
        data = bytes([65 + size % 26]) * size
        await rig.append("s", data)
        await rig.append("other", b"noise")
        expected += data
        assert watch.bytes() == expected
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(rig.append, "s", b"together")
    assert watch.bytes() == expected + b"together" * 50
    assert not watch.ended
    await rig.close("s", b"bye")
    assert watch.ended and watch.bytes().endswith(b"bye")
    rig.store.unwatch(watch.found, watch)


async def test_a_watcher_is_told_the_end(rig: Rig) -> None:
    for path in ("closed", "deleted", "soft", "expired"):
        await rig.create(path, stream_ttl=10 if path == "expired" else None)
    await rig.fork("fork", "soft")
    watches = {path: Watch(rig, await rig.stream(path)) for path in ("closed", "deleted", "soft", "expired")}
    await rig.close("closed")
    await rig.delete("deleted")
    await rig.delete("soft")
    await rig.pass_time(11)
    await rig.sweep()
    for watch in watches.values():
        assert watch.ended and watch.calls and watch.bytes() == b""


async def test_watchers_come_and_go(rig: Rig) -> None:
    await rig.create("s")
    found = await rig.stream("s")
    first, second = Watch(rig, found), Watch(rig, found)
    await rig.append("s", b"1")
    rig.store.unwatch(found, first)
    rig.store.unwatch(found, first)
    await rig.append("s", b"2")
    rig.store.unwatch(found, second)
    await rig.append("s", b"3")
    assert (first.bytes(), second.bytes()) == (b"1", b"12")


async def test_a_forks_watcher_is_told_of_the_fork_only(rig: Rig) -> None:
    await rig.create("s", b"abc")
    await rig.fork("f", "s")
    watch = Watch(rig, await rig.stream("f"))
    await rig.append("s", b"source")
    await rig.append("f", b"fork")
    assert watch.bytes() == b"fork"


# Many at once


async def test_many_writers_and_readers_at_once(rig: Rig) -> None:
    await rig.create("s")
    seen: list[bytes] = []

    async def write(number: int) -> None:
        for _ in range(10):
            await rig.append("s", b"%02d;" % number)

    async def follow() -> None:
        data = b""
        while len(data) < 3 * 200:
            data += await rig.read("s", len(data))
            await trio.sleep(0)
        seen.append(data)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(write, number)
        for _ in range(3):
            nursery.start_soon(follow)
    whole = await rig.read("s")
    assert sorted(whole.split(b";"))[1:] == sorted(b"%02d" % number for number in range(20) for _ in range(10))
    assert set(seen) == {whole}


# The doors that never wait


async def test_what_never_waits_is_the_same_or_later(rig: Rig) -> None:
    store = rig.store
    await rig.create("s", b"data")
    if not isinstance(store, Soon):
        return
    await rig.append("s", b"more", producer=("p", 0, 0))
    assert store.taken >= 1, "nothing took the quick way"
    assert await rig.read("s") == b"datamore"
    for refusal in (rig.append("s", b"?", producer=("p", 0, 5)), rig.append("none", b"x"), rig.append("s", b"")):
        assert await refused(refusal) in (400, 404, 409)
    assert (await rig.append("s", b"?", producer=("p", 0, 0))).status == 204
    assert await rig.read("s") == b"datamore"


async def test_a_read_of_tiny_appends_lets_others_have_their_turn(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith("ds_trio_server.store.") and hasattr(module, "SLICES"):
            monkeypatch.setattr(module, "SLICES", 10)
    await rig.create("s")
    for number in range(35):
        await rig.append("s", b"%02d" % number)
    whole = b"".join(b"%02d" % number for number in range(35))
    found = await rig.stream("s")
    for start in (0, 1, 30, 49):
        turns = []

        async def other(turns: list[None] = turns) -> None:
            while True:
                turns.append(None)
                await trio.sleep(0)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            at = start
            while at < len(whole):
                pieces = await rig.store.read(found, at, len(whole))
                assert 0 < len(pieces) <= 10
                assert b"".join(pieces) == whole[at : at + sum(map(len, pieces))]
                at += sum(map(len, pieces))
            nursery.cancel_scope.cancel()
        assert len(turns) >= (len(whole) - start) // 20 - 1
        with pytest.raises(trio.WouldBlock):
            rig.store.read_nowait(found, start, start + 21)
    assert await rig.read("s") == whole
