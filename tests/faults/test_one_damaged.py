"""One bad stream stops nothing: each kind of damage, and what clients, upkeep and operators then do.

Damaged is `bad`, and what shares its page; everything else answers as if nothing were wrong, before and after restarts.
"""

from __future__ import annotations

import sqlite3
import subprocess

import pytest
import trio

from ds_core.server.errors import ProtocolError
from ds_trio_server.store.base import StorageFailed
from ds_trio_server.store.sqlite import files, maintenance
from ds_trio_server.store.sqlite.engine import SQLiteStore
from ds_trio_server.store.sqlite.space import MinFree
from tests.server.site import ROOT, request, running
from tests.tools import serve

from .servers import ask
from .stores import Time, opened
from .streams import append, delete, find, put, read

PAGE = 4096
OTHERS = ("first", "other", "json", "last")
LARGE = b"L" * 9000
PIECE = b"%05d" % 7 + b"p" * 395


def sql(*statements):
    def harm(folder):
        db = sqlite3.connect(folder / files.FILE)
        for statement in statements:
            assert db.execute(statement).rowcount, statement
        db.commit()
        db.close()

    return harm


def leaf(mark):
    """Noise in the page that holds some bytes of `bad`, and nothing of the others."""

    def harm(folder):
        path = folder / files.FILE
        data = bytearray(path.read_bytes())
        # Where it is, and not where it once was: on the page of an index without rowids that has it at its end.
        at = data.rindex(mark) // PAGE * PAGE
        assert data[at] == 0x0A
        data[at : at + PAGE] = bytes(range(256)) * (PAGE // 256)
        path.write_bytes(data)

    return harm


def torn_leaf(folder):
    path = folder / files.FILE
    data = bytearray(path.read_bytes())
    at = data.index(PIECE) // PAGE * PAGE
    data[at + PAGE // 2 : at + PAGE] = bytes(PAGE // 2)
    path.write_bytes(data)


def page_of(folder, table, damage):
    """Noise in the root page of a table."""
    db = sqlite3.connect(folder / files.FILE)
    (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    db.close()
    with (folder / files.FILE).open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(damage)


BAD = "(SELECT id FROM streams WHERE path = 'bad')"
MIDDLE = f"stream = {BAD} AND position = 20 * 400"
KINDS = {
    "row changed": sql(f"UPDATE appends SET data = CAST(x'21' || substr(data, 2) AS BLOB) WHERE {MIDDLE}"),
    "row of another kind": sql(f"UPDATE appends SET data = 'text' WHERE {MIDDLE}"),
    "row of no part": sql(f"UPDATE appends SET part = 'text' WHERE {MIDDLE}"),
    "row of a small part": sql(f"UPDATE appends SET part = 5 WHERE {MIDDLE}"),
    "row of a part that fits another": sql(f"UPDATE appends SET part = 20 * 400 WHERE {MIDDLE}"),
    "row of a part before all": sql(f"UPDATE appends SET part = {1 << 20} WHERE {MIDDLE}"),
    "sum changed": sql(f"UPDATE appends SET sum = sum + 1 WHERE {MIDDLE}"),
    "row missing": sql(f"DELETE FROM appends WHERE {MIDDLE}"),
    "first row missing": sql(f"DELETE FROM appends WHERE stream = {BAD} AND position = 0"),
    "last row missing": sql(f"DELETE FROM appends WHERE stream = {BAD} AND position > 40 * 400"),
    "all rows missing": sql(f"DELETE FROM appends WHERE stream = {BAD}"),
    "row moved": sql(f"UPDATE appends SET position = position + 1 WHERE {MIDDLE}"),
    "row where the next one goes": sql(
        f"INSERT INTO appends SELECT id, tail, 0, 0, x'21', NULL FROM streams WHERE id = {BAD}"
    ),
    "blob missing": sql(f"DELETE FROM blobs WHERE id IN (SELECT blob FROM appends WHERE stream = {BAD})"),
    "blob changed": sql(
        f"UPDATE blobs SET data = zeroblob(9000) WHERE id IN (SELECT blob FROM appends WHERE stream = {BAD})"
    ),
    "state unreadable": sql("UPDATE streams SET content_type = CAST(x'fffe' AS TEXT) WHERE path = 'bad'"),
    "state of another kind": sql("UPDATE streams SET closed_by = 7, forks = 'x' WHERE path = 'bad'"),
    "state nonsense": sql("UPDATE streams SET tail = tail - 400 WHERE path = 'bad'"),
    "state of no sum": sql("UPDATE streams SET sum = sum + 1 WHERE path = 'bad'"),
    "producer nonsense": sql(f"UPDATE producers SET seq = 'abc' WHERE stream = {BAD}"),
    "producer negative": sql(f"UPDATE producers SET epoch = -1 WHERE stream = {BAD}"),
    "producers uncounted": sql(f"UPDATE producing SET count = 'abc' WHERE stream = {BAD}"),
    "leaf": leaf(PIECE),
    "leaf torn": torn_leaf,
    "last leaf": leaf(b"%05d" % 40 + b"p" * 395),
}
STATE = tuple(kind for kind in KINDS if kind.startswith("state"))
WHOLE = b"".join(b"%05d" % n + b"p" * 395 for n in range(41)) + LARGE


async def made(folder, time=None):
    """`bad`, a fork of it, and others around them."""
    store = await opened(folder, time)
    for path in OTHERS:
        await put(store, path, b"o" * 20)
        for n in range(30):
            await append(store, path, b"%d" % n * 300)
    await put(store, "bad")
    for n in range(41):
        await append(store, "bad", b"%05d" % n + b"p" * 395)
    await append(store, "bad", LARGE)
    for path in ("bad", *OTHERS):
        await append(store, path, b"!", producer_id="p", producer_epoch="0", producer_seq="0")
    await put(store, "late", b"o" * 500)
    await store.close()


def site(folder, **config):
    return running(SQLiteStore(folder, None, None, MinFree()), **{"long_poll_timeout": 0.1, "sse_max": 2.0, **config})


def is_refusal(answer):
    return answer.status == 500 and b"STREAM_DAMAGED" in answer.body and b"ds check" in answer.body


def other(path):
    return b"o" * 20 + b"".join(b"%d" % n * 300 for n in range(30)) + b"!"


async def others_go_on(it, number):
    """Reads, exactly-once appends and live reads of the others."""
    for path in OTHERS:
        before = await it.ask("GET", ROOT + path)
        assert before.status == 200 and before.body.startswith(other(path)), (path, before)
        live = await it.connect()
        target = f"{ROOT}{path}?offset={before.offset}&live=sse"
        await live.send(request("GET", target))
        events = await live.events()
        await events.control()
        producer = {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": str(number)}
        assert (await it.append(path, b"+", **producer)).status == 200
        assert (await it.append(path, b"+", **producer)).status == 204, "a retry"
        assert await events.data() == b"+"
        live.close()
        assert (await it.ask("GET", ROOT + path)).body == before.body + b"+"


async def cut_or_right(it, target, right):
    """A body that is damaged further on never ends as one that is whole does."""
    client = await it.connect()
    await client.send(request("GET", target))
    try:
        answer = await client.answer()
    except AssertionError as error:
        assert "the connection ended" in str(error)
        return
    finally:
        client.close()
    assert is_refusal(answer) or (answer.status == 200 and right(answer.body)), answer


def begins(right):
    return lambda body: body.startswith(right)


async def bad_asked(it, producers, shares):
    """All that a client may ask of `bad`: 500, right bytes, or cut."""
    tail = len(WHOLE) + 1
    await cut_or_right(it, ROOT + "bad", lambda body: body.startswith(WHOLE + b"!"))
    head = await it.ask("HEAD", ROOT + "bad")
    assert head.status in (200, 500)
    if head.status == 200:
        incarnation = head.offset.split("_")[0]
        for at in (400, 20 * 400, 20 * 400 + 7, 40 * 400, tail - 1):
            position = f"{incarnation}_{at:016d}"
            for live in ("", "&live=long-poll", "&live=sse"):
                rest = b"" if live == "&live=sse" else (WHOLE + b"!")[at:]
                await cut_or_right(it, f"{ROOT}bad?offset={position}{live}", begins(rest))
        waits = await it.ask("GET", f"{ROOT}bad?offset=now&live=long-poll")
        assert waits.status == 204
    else:
        assert is_refusal(await it.ask("GET", f"{ROOT}bad?offset=now&live=long-poll"))
        assert is_refusal(await it.ask("GET", f"{ROOT}bad?offset=now&live=sse"))
    known = {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": str(producers)}
    again = await it.ask("POST", ROOT + "bad", b"k", content_type="text/plain", **known)
    assert again.status in (200, 204) or (producers > 1 and again.status == 409) or is_refusal(again), again
    async with trio.open_nursery() as nursery:
        # In one batch with others, of producers that are known and of new ones.
        answers = {}

        async def post(path, number, **headers):
            answers[path, number] = await it.ask("POST", ROOT + path, b"n", content_type="text/plain", **headers)

        for number in range(3):
            for path in ("bad", *OTHERS):
                nursery.start_soon(post, path, number)
            producer = {"Producer-Id": f"new{producers}-{number}", "Producer-Epoch": "0", "Producer-Seq": "0"}
            nursery.start_soon(lambda n=number, p=producer: post("bad", ("producer", n), **p))
            nursery.start_soon(lambda n=number, p=producer: post("late", ("producer", n), **p))
    for (path, _), answer in answers.items():
        assert answer.status in (200, 204) or (path in shares and is_refusal(answer)), (path, answer)
    fork = await it.ask("PUT", f"{ROOT}fork{producers}", **{"Stream-Forked-From": ROOT + "bad"})
    assert fork.status == 201 or is_refusal(fork), fork
    if head.status == 200:
        inside = {"Stream-Forked-From": ROOT + "bad", "Stream-Fork-Offset": f"{incarnation}_{20 * 400:016d}"}
        fork = await it.ask("PUT", f"{ROOT}inside{producers}", **inside)
        assert fork.status == 201 or is_refusal(fork), fork
        if fork.status == 201:
            await cut_or_right(it, f"{ROOT}inside{producers}", lambda body: body == WHOLE[: 20 * 400])


@pytest.mark.parametrize("kind", KINDS)
async def test_one_bad_stream_stops_nothing(tmp_path, kind, caplog):
    await made(tmp_path)
    KINDS[kind](tmp_path)
    assert maintenance.check(tmp_path).problems
    for number in (1, 2):  # every start meets it
        async with site(tmp_path, sse_max=0.1) as it:
            await bad_asked(it, number, ("bad", "late") if kind == "last leaf" else ("bad",))
            body = {path: (await it.ask("GET", ROOT + path)).body for path in OTHERS}
            for path, found in body.items():
                assert found.startswith(other(path)) and found.count(b"n") == 3 * number
            await it.store.sweep()
            health = await it.ask("GET", "/healthz")
            ready = await it.ask("GET", "/readyz")
            assert (health.status, ready.status) == (200, 200)
            assert ready.body == b"degraded\n" or it.store.upkeep.damaged == 0
        lines = [record for record in caplog.records if record.levelname == "ERROR" and "damaged" in record.message]
        assert len(lines) <= 16 * number
    assert any(lines) or kind == "row where the next one goes"
    problems = maintenance.check(tmp_path).problems
    assert problems and not any("stream 1 " in each or "(other)" in each for each in problems), problems


@pytest.mark.parametrize("kind", KINDS)
async def test_others_are_exactly_once_and_live_beside_it(tmp_path, kind):
    await made(tmp_path)
    KINDS[kind](tmp_path)
    for number in (1, 2):
        async with site(tmp_path) as it:
            await it.ask("POST", ROOT + "bad", b"n", content_type="text/plain")
            await others_go_on(it, number)
            await cut_or_right(it, ROOT + "bad", lambda body: body.startswith(WHOLE + b"!"))


@pytest.mark.parametrize("kind", KINDS)
async def test_an_operator_gets_rid_of_it_by_deleting_it(tmp_path, kind):
    await made(tmp_path)
    KINDS[kind](tmp_path)
    async with site(tmp_path) as it:
        assert (await it.ask("DELETE", ROOT + "bad")).status == 204
        assert (await it.ask("GET", ROOT + "bad")).status == 404
        assert (await it.ask("DELETE", ROOT + "bad")).status == 404
        # Where a new stream's bytes go is the page behind all others.
        body = b"" if kind == "last leaf" else b"anew"
        await it.create("bad", body=body)
        assert (await it.ask("GET", ROOT + "bad")).body == body
        for _ in range(3):
            await it.store.sweep()
        await others_go_on(it, 1)
    async with site(tmp_path) as it:
        assert (await it.ask("GET", ROOT + "bad")).body == body
        await others_go_on(it, 2)
    if "leaf" not in kind:
        assert not maintenance.check(tmp_path).problems


@pytest.mark.parametrize("kind", STATE)
async def test_a_damaged_fork_is_deleted_and_its_source_counts_it_no_more(tmp_path, kind):
    store = await opened(tmp_path)
    await put(store, "root", b"r" * 10)
    await put(store, "middle", b"m", stream_forked_from="root")
    await put(store, "bad", b"b", stream_forked_from="middle")
    await delete(store, "middle")
    await store.close()
    KINDS[kind](tmp_path)
    async with site(tmp_path) as it:
        assert is_refusal(await it.ask("GET", ROOT + "bad"))
        assert (await it.ask("DELETE", ROOT + "bad")).status == 204
        assert (await it.ask("GET", ROOT + "root")).body == b"r" * 10
        assert (await it.ask("DELETE", ROOT + "root")).status == 204
    async with site(tmp_path) as it:
        assert (await it.ask("GET", ROOT + "root")).status in (404, 410)


async def test_a_damaged_source_goes_after_its_forks(tmp_path):
    store = await opened(tmp_path)
    await put(store, "bad", b"r" * 10)
    await put(store, "one", b"m", stream_forked_from="bad")
    await put(store, "two", b"b", stream_forked_from="one")
    await store.close()
    KINDS["state nonsense"](tmp_path)
    async with site(tmp_path) as it:
        for path in ("bad", "one", "two"):
            assert is_refusal(await it.ask("GET", ROOT + path)), "what it inherits can't be told"
        assert is_refusal(await it.ask("DELETE", ROOT + "bad"))
        for path in ("two", "one", "bad"):
            assert (await it.ask("DELETE", ROOT + path)).status == 204
    assert not maintenance.check(tmp_path).problems


@pytest.mark.parametrize("kind", STATE)
async def test_what_expires_beside_it_does(tmp_path, kind):
    time = Time()
    store = await opened(tmp_path, time)
    for n in range(40):
        await put(store, f"mortal{n}", b"x", stream_ttl="10")
    await put(store, "bad", b"x", stream_ttl="5")
    await put(store, "lives", b"x")
    await store.close()
    KINDS[kind](tmp_path)
    for _ in range(2):
        store = await opened(tmp_path, time)
        time.seconds += 100
        for _ in range(2):
            await store.sweep()
        assert [path for path in await store.paths() if path != "bad"] == ["lives"]
        assert store.upkeep.failures
        await append(store, "lives", b"y")
        await store.close()


@pytest.mark.parametrize("table", ["appends", "producers", "streams", "times", "removed"])
async def test_a_page_above_many_streams_ends_nobodys_reads_that_do_not_need_it(tmp_path, table):
    """Each is told that it is damaged, or has what was stored; nobody is told anything else."""
    await made(tmp_path)
    page_of(tmp_path, table, bytes(range(256)) * (PAGE // 256))
    for _ in range(2):
        async with site(tmp_path) as it:
            for path in OTHERS:
                answer = await it.ask("GET", ROOT + path)
                assert is_refusal(answer) or answer.body.startswith(other(path)), answer
                answer = await it.ask("POST", ROOT + path, b"n", content_type="text/plain")
                assert answer.status == 204 or is_refusal(answer)
            assert (await it.ask("GET", "/healthz")).status == 200


@pytest.mark.parametrize("table", ["meta", "blobs"])
async def test_what_every_commit_may_need_still_ends_the_store(tmp_path, table):
    await made(tmp_path)
    page_of(tmp_path, table, bytes(PAGE))
    with pytest.raises((StorageFailed, ExceptionGroup)):
        store = await opened(tmp_path)
        try:
            await append(store, "first", b"x" * 2000)
        finally:
            await store.close()


async def test_a_batch_is_stored_but_for_what_is_damaged_in_it(tmp_path):
    """Nothing of it is acknowledged, seen or kept of the stream that is; everything is of the others, once."""
    await made(tmp_path)
    KINDS["last leaf"](tmp_path)
    store = await opened(tmp_path)
    answers = {}

    async def one(path, number):
        producer = {"producer_id": "q", "producer_epoch": "0", "producer_seq": str(number)}
        try:
            answers[path, number] = await append(store, path, b"%d" % number, **producer)
        except ProtocolError:
            answers[path, number] = None

    seen = []
    found = await find(store, "bad")
    store.watch(found, lambda stream, at, data: seen.append(data))
    for number in range(3):
        async with trio.open_nursery() as nursery:
            for path in ("bad", *OTHERS):
                nursery.start_soon(one, path, number)
    assert {path for (path, _), answer in answers.items() if answer is None} == {"bad"}
    assert not any(answers["bad", number] for number in range(3)) and seen == []
    assert (await find(store, "bad")).tail == found.visible_tail
    for path in OTHERS:
        assert (await read(store, path)) == other(path) + b"012"
    await store.close()
    db = sqlite3.connect(tmp_path / files.FILE)
    known = db.execute("SELECT DISTINCT stream FROM producers WHERE id = 'q' ORDER BY 1").fetchall()
    assert len(known) == len(OTHERS)
    db.close()


@pytest.mark.parametrize("query", ["", "?offset=-1&live=sse", "?offset=-1&live=long-poll"])
async def test_a_body_that_has_begun_is_cut_and_not_ended(tmp_path, query):
    store = await opened(tmp_path)
    await put(store, "bad")
    for n in range(300):
        await append(store, "bad", b"%05d" % n + b"p" * 4000)
    await store.close()
    sql("UPDATE appends SET sum = sum + 1 WHERE position = 250 * 4005")(tmp_path)
    async with site(tmp_path) as it:
        client = await it.connect()
        await client.send(request("GET", ROOT + "bad" + query))
        status, _ = await client.head()
        assert status == 200
        with trio.fail_after(10):
            while await client.more():
                pass
        assert 250_000 < len(client.buffer) < 250 * 4005 * 1.2
        assert not client.buffer.endswith(b"0\r\n\r\n") and b"00250pp" not in client.buffer
        assert is_refusal(await it.ask("GET", f"{ROOT}bad?offset=0000000000000001_{250 * 4005:016d}"))
        assert (await it.ask("GET", f"{ROOT}bad?offset=0000000000000001_{251 * 4005:016d}")).body.startswith(b"00251p")


async def test_what_is_too_old_or_too_large_beside_it_goes(tmp_path):
    time = Time()
    store = await opened(tmp_path, time)
    for n in range(200):
        await put(store, f"log{n}", b"x" * 300)
    await put(store, "bad", b"x" * 300)
    for n in range(200, 400):
        await put(store, f"log{n}", b"x" * 300)
    await store.close()
    path = tmp_path / files.FILE
    data = bytearray(path.read_bytes())
    # The row of `bad` and of those beside it.
    at = next(
        at for at in range(0, len(data), PAGE) if data[at] == 0x0D and b"bad" in data[at : at + PAGE]
    )
    data[at : at + PAGE] = bytes(range(256)) * (PAGE // 256)
    path.write_bytes(data)
    store = await opened(tmp_path, time, "log*=10s")
    for _ in range(4):
        time.seconds += 30
        await store.sweep()
    kept = 0
    for n in (0, 399):
        await append(store, f"log{n}", b"y" * 10)
        kept += len(await read(store, f"log{n}"))
    assert kept == 2 * 10, "what is old has gone, though there is damage between them"
    await store.close()


def test_a_process_lives_and_an_operator_is_told(tmp_path):
    async def fill():
        await made(tmp_path)

    trio.run(fill)
    KINDS["leaf"](tmp_path)
    for _ in range(2):
        server = serve.start("--data", tmp_path, "--min-free", "0")
        try:
            assert ask(server, "GET", "bad")[0] == 500
            assert ask(server, "GET", "first")[2].startswith(other("first"))
            assert ask(server, "POST", "first", b"+")[0] == 204
            assert ask(server, "GET", "/readyz")[::2] == (200, b"degraded\n")
            assert server.output.count("is damaged") == 1 and "ds check" in server.output
            check = subprocess.run([*serve.command(), "check", str(tmp_path)], capture_output=True, text=True)
            assert check.returncode != 0 and "damaged" in check.stderr + check.stdout
            target = tmp_path / "copy"
            copied = subprocess.run(
                [*serve.command(), "backup", str(tmp_path), str(target)], capture_output=True, text=True
            )
            assert copied.returncode != 0 and "ds check" in copied.stderr and not (target / files.FILE).exists()
            server.process.terminate()
            assert server.wait(30) == 0
        finally:
            server.kill()
