"""The client against a real server; the same on CPython and MicroPython.

    python suite.py ROOT URL FOLDER [EXTRA]       ROOT: the checkout, or a folder of .mpy; URL: where streams may
    be created

EXTRA `edge`: the server is ours (410 for a recreated stream, CBOR checked). Prints one line per test, ends with
status 0 when all went well.
"""
# ruff: noqa: UP031 (MicroPython)

import sys

ROOT, URL, FOLDER = sys.argv[1:4]
EDGE = "edge" in sys.argv[4:]
sys.path[:0] = [ROOT, ROOT + "/micro"]

import asyncio  # noqa: E402
import gc  # noqa: E402
import os  # noqa: E402

import ds_micro  # noqa: E402
from ds_micro import Cursor, Outbox, Stream, aio  # noqa: E402

TYPES = ("application/cbor-seq", "application/json", "text/plain")
count = 0


def stream(content_type="application/cbor-seq", **options):
    global count
    count += 1
    # Unlike any other run's.
    name = "%s/%d-%s" % (URL, count, "".join(["%02x" % byte for byte in os.urandom(4)]))
    return Stream(name, content_type=content_type, timeout=5, **options)


def same(s, **options):
    """Another connection to the same stream."""
    return Stream(s.url, content_type=s.content_type, timeout=5, **options)


def value(s, i):
    return b"%d," % i if s.content_type == "text/plain" else {"n": i}


def numbers(s, items):
    if s.content_type == "text/plain":
        return [int(word) for word in b"".join(items).split(b",") if word]
    return [item["n"] for item in items]


def raises(kind, call, *args, **options):
    try:
        call(*args, **options)
    except kind as exc:
        assert exc.__class__ is kind, exc
        return exc
    raise AssertionError("%s was not raised" % kind.__name__)


def test_create_append_read_head_close_delete():
    for content_type in TYPES:
        s = stream(content_type)
        result = s.create()
        assert result.status == 201 and result.offset and not result.closed
        assert s.create().status == 200
        last = result.offset
        for i in range(5):
            result = s.append(value(s, i))
            assert result.status == 204 and result.offset > last and not result.duplicate
            last = result.offset
        assert s.append(value(s, 5), value(s, 6)).offset > last
        head = s.head()
        assert head.status == 200 and head.headers["content-type"].split(";")[0] == content_type
        cursor = Cursor()
        assert numbers(s, list(s.read(cursor))) == list(range(7))
        assert (cursor.offset, cursor.items) == (head.offset, 0)
        assert list(s.read(cursor)) == []
        assert list(s.read("now")) == []
        assert s.append(value(s, 7), close=True).closed
        assert numbers(s, list(s.read(cursor, live="long-poll"))) == [7]
        assert s.close().closed and s.head().closed
        error = raises(ds_micro.Closed, s.append, value(s, 8))
        assert error.status == 409 and error.url == s.url and error.message
        assert s.delete().status == 204
        error = raises(ds_micro.NotFound, s.head)
        assert error.status == 404 and not error.retry


def test_values_of_all_kinds_make_the_round_trip():
    values = [0, -1, 2**40, 1.5, "text ü", None, True, [1, [2]], {"a": {"b": []}}, "x" * 3000]
    for content_type in TYPES[:2]:
        s = stream(content_type)
        s.create(values=values[:2])
        s.append(*values[2:])
        assert list(s.read()) == values
    s = stream()
    s.create()
    s.append(b"\x01\x02", raw=True)
    assert list(s.read()) == [1, 2]
    assert b"".join(s.read(raw=True)) == b"\x01\x02"
    s = stream("application/octet-stream")
    s.create()
    blob = bytes(range(256)) * 40
    s.append(blob)
    assert b"".join(s.read()) == blob


def test_options():
    s = stream()
    assert s.create(ttl=3600).status == 201
    assert s.head().headers["stream-ttl"] == "3600"
    raises(ds_micro.Conflict, s.create, ttl=7200)
    assert s.append(1, seq="a").status == 204
    assert raises(ds_micro.Conflict, s.append, 2, seq="a").status == 409
    asked = []
    headers = {"X-One": lambda: asked.append(1) or "1"}
    s = stream(headers=headers, token=lambda: asked.append(2) or "t", params={"b": 1, "a": "x y"})
    s.create()
    s.head()
    assert sorted(asked) == [1, 1, 2, 2]


def test_wrong_options_are_refused_before_anything_is_sent():
    nowhere = "http://127.0.0.1:1/v1/stream/x"
    urls = ["", "nothing", "ftp://h/s", "HTTP://h/s", "http://h", "http:///s", "http://:80/s", "http://h:x/s"]
    urls += ["http://u:p@h/s", "http://::1/s", "http://[]/s", "http://h/a b", "http://h/ü", "http://h/s#part"]
    urls.append("http://h/a\r\nX: y")
    for url in urls:
        assert url in str(raises(ValueError, Stream, url))
    assert "https" in str(raises(ValueError, Stream, nowhere, verify=False))
    raises(ValueError, Stream, nowhere, pin="00")
    s = Stream(nowhere)
    raises(ValueError, s.create, ttl=-1)
    raises(ValueError, s.create, ttl=1, expires_at="2030-01-01T00:00:00Z")
    raises(ValueError, s.create, offset="1")
    raises(ValueError, s.append)
    raises(ValueError, s.read, live="yes")
    raises(ValueError, Outbox, None, s, "p", when_full="x")
    raises(ValueError, Outbox, None, s, "")
    raises(ValueError, Outbox, FOLDER, s, "p", in_flight=2)
    raises(ds_micro.Disconnected, s.create)


def test_a_url_may_have_a_query():
    s = stream()
    s = Stream(s.url + "?key=a%20b", timeout=5, params={"more": 1})
    s.create()
    s.append(1)
    assert list(s.read()) == [1]


def test_values_that_do_not_suit_the_stream_are_refused_before_they_are_kept():
    for content_type, kind, values in (
        ("application/json", (TypeError, ValueError), (float("nan"), [float("inf")], object())),
        ("application/cbor-seq", (TypeError,), (object(), {1, 2})),
        ("text/plain", (TypeError,), ({"a": 1}, 5, None)),
    ):
        s = stream(content_type)
        for path in (None, FOLDER + "/unsuited-" + content_type[-4:]):
            box = Outbox(path, s, "p")
            for bad in values:
                try:
                    box.append(bad)
                except kind:
                    continue
                raise AssertionError(bad)
            assert box.records == 0
    for path in (None, FOLDER + "/empty"):
        raises(ValueError, Outbox(path, stream("text/plain"), "p").append, b"")
        box = Outbox(path, stream(), "p", limit=4096, segment=1024)
        box.append("small")
        assert "1 to" in str(raises(ValueError, box.append, "x" * 5000))
        assert (box.records, box.dropped) == (1, 0)


def test_text_is_sent_as_utf_8():
    s = stream("text/plain")
    s.create()
    s.append("ä", b"b", bytearray(b"c"))
    path = FOLDER + "/text"
    for box in (Outbox(None, s, "p"), Outbox(path, s, "q")):
        box.append("grün ")
        box.append("€")
    box.close()
    Outbox(None, s, "p").flush()  # another outbox in RAM: nothing of the first
    assert Outbox(path, s, "q").flush(5) == 0
    assert b"".join(s.read()).decode() == "äbcgrün €"


def test_a_cursor_that_cannot_be_read_is_not_taken_for_a_new_one():
    path = FOLDER + "/damaged"
    for text in ("", "1", "a b", "1 2 3"):
        with open(path, "w") as f:
            f.write(text)
        assert path in str(raises(ValueError, Cursor(path).load))
    try:
        Cursor(FOLDER).load()
    except OSError:
        pass
    else:
        raise AssertionError("a folder is no cursor")
    cursor = Cursor(FOLDER + "/none", "now").load()
    assert cursor.offset == "now"


def test_forks():
    s = stream()
    s.create()
    s.append(1)
    middle = s.head().offset
    s.append(2)
    for options, expected in (({}, [1, 2]), ({"offset": middle}, [1])):
        fork = stream()
        assert fork.fork(s, **options).status == 201
        assert list(fork.read()) == expected
        fork.append(3)
        expected.append(3)
        assert list(fork.read()) == expected
    assert list(s.read()) == [1, 2]
    raises(ds_micro.NotFound, stream().fork, stream())


def test_a_cursor_resumes_exactly_after_the_last_handled_item():
    path = FOLDER + "/cursor"
    for content_type in TYPES[:2]:
        s = stream(content_type)
        s.create()
        s.append(*[value(s, i) for i in range(10)])
        s.append(*[value(s, i) for i in range(10, 20)])
        got = []
        Cursor(path).save()
        while True:
            cursor = Cursor(path).load()
            n = 0
            for item in s.read(cursor):
                got.append(item)
                cursor.save()
                n += 1
                if n == 3:
                    break  # as if the power failed
            if n < 3:
                break
        assert numbers(s, got) == list(range(20))


def test_reading_and_appending_on_one_stream():
    s = stream()
    s.create()
    s.append(0, 1, 2)
    got = []
    for item in s.read():
        got.append(item)
        if item < 6:
            s.append(item + 3)
    assert got == list(range(9)), got


def test_a_deleted_and_recreated_stream_is_noticed():
    s = stream()
    s.create()
    s.append("old")
    cursor = Cursor()
    list(s.read(cursor))
    s.delete()
    raises(ds_micro.NotFound, list, s.read(cursor))
    if EDGE:
        s.create()
        s.append("new")
        error = raises(ds_micro.Gone, list, s.read(cursor))
        assert "now" in str(error)


def test_bad_appends_are_refused():
    s = stream()
    s.create()
    if EDGE:
        raises(ds_micro.BadRequest, s.append, b"\xff", raw=True)
    other = Stream(s.url, content_type="text/plain")
    raises(ds_micro.Conflict, other.append, b"x")
    assert list(s.read()) == []


def test_a_dead_connection_is_replaced():
    s = stream()
    s.create()
    if not hasattr(s, "_conn"):
        return  # cross-compiled: private names are other names
    for call in (s.head, lambda: s.append(1), lambda: list(s.read())):
        s._conn.close()  # behind its back
        s._conn._socket = None
        s._due = -1
        call()


def test_an_outbox_delivers_exactly_once():
    for content_type in TYPES:
        for path in (None, FOLDER + "/box" + str(count)):
            s = stream(content_type)
            s.create()
            for life in range(3):
                box = Outbox(path, s, producer="p", limit=8192, in_flight=1 if path else 3, segment=512)
                for i in range(life * 100, life * 100 + 100):
                    assert box.append(value(s, i))
                assert box.records == 100
                assert box.flush(10) == 0 and box.error is None
                assert box.flush(10) == 0
                box.close()
            assert numbers(s, list(s.read())) == list(range(300))
            assert box.dropped == box.writer.duplicates == 0 < box.writer.sent


def test_an_erased_outbox_loses_nothing():
    s = stream()
    s.create()
    for _ in range(5):
        box = Outbox(None, s, producer="p")
        box.append("x")
        assert box.flush(5) == 0
    assert list(s.read()) == ["x"] * 5


def test_an_outbox_without_a_server_keeps_what_it_has():
    s = Stream("http://127.0.0.1:1/v1/stream/x", timeout=1)
    box = Outbox(None, s, producer="p")
    box.append(1)
    assert box.flush(0.3) == 1
    assert isinstance(box.error, ds_micro.Disconnected)
    s = stream()
    box = Outbox(None, s, producer="p")
    box.append(1)
    assert raises(ds_micro.NotFound, box.flush).status == 404
    s.create()
    assert box.flush() == 0
    s.close()
    box.append(2)
    raises(ds_micro.Closed, box.flush)
    assert box.records == 1
    box.discard()
    assert (box.records, box.dropped) == (0, 1)


def test_a_flush_that_was_interrupted_can_be_repeated():
    s = stream()
    s.create()
    asked = []

    def token():
        asked.append(1)
        if len(asked) == 3:
            raise KeyError("no token")
        return "t"

    for path in (None, FOLDER + "/interrupted"):
        del asked[:]
        box = Outbox(path, same(s, token=token), producer="p" + str(path), count=1, in_flight=1 if path else 3)
        for i in range(5):
            box.append(i)
        raises(KeyError, box.flush)
        assert box.flush(5) == 0
    assert list(s.read()) == [0, 1, 2, 3, 4] * 2


def test_a_full_outbox():
    s = Stream("http://127.0.0.1:1/v1/stream/x")
    for path in (None, "full"):
        for full in ("drop-oldest", "drop-newest", "refuse"):
            box = Outbox(path and FOLDER + "/" + full, s, "p", limit=2048, segment=256, when_full=full)
            refused = 0
            for i in range(400):
                try:
                    box.append("record %04d" % i)
                except ds_micro.OutboxFull:
                    refused += 1
            assert box.records + box.dropped + refused == 400
            assert 50 < box.records < 200
            assert (refused > 0) == (full == "refuse")


def test_live_on_asyncio():
    async def main(content_type, live):
        s = aio.Stream(stream(content_type).url, content_type=content_type, timeout=5, live_timeout=20)
        assert (await s.create()).status == 201
        writer = aio.Stream(s.url, content_type=content_type, timeout=5)
        box = aio.Outbox(None, writer, "p", in_flight=4, count=5)

        async def feed():
            for i in range(60):
                box.append(value(s, i))
                if i % 20 == 19:
                    assert await box.flush(10) == 0
                    await asyncio.sleep(0.05)
            assert (await writer.close()).closed

        task = asyncio.create_task(feed())
        got = []
        async for item in s.read(live=live):
            got.append(item)
        await task
        assert numbers(s, got) == list(range(60)), got
        await s.delete()
        try:
            await s.head()
        except aio.NotFound:
            pass

    for content_type in TYPES:
        for live in ("long-poll", "sse", "auto"):
            asyncio.run(main(content_type, live))


def test_cancelling_on_asyncio():
    async def main():
        s = aio.Stream(stream().url, timeout=5)
        await s.create()

        async def wait():
            async for _ in s.read("now", live="long-poll"):
                pass

        task = asyncio.create_task(wait())
        await asyncio.sleep(0.2)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        assert (await s.append(1)).status == 204
        async for item in s.read():
            assert item == 1

    asyncio.run(main())


failed = 0
for name in sorted(globals()):
    if name[:5] == "test_":
        gc.collect()
        try:
            globals()[name]()
            print("ok", name)
        except Exception as exc:
            failed += 1
            print("FAILED", name)
            if hasattr(sys, "print_exception"):
                sys.print_exception(exc, sys.stdout)
            else:
                import traceback

                traceback.print_exception(exc)
sys.exit(1 if failed else 0)
