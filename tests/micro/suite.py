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
import time  # noqa: E402

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
        assert s.seal().closed and s.head().closed
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
    s = stream(headers=headers, token=lambda: asked.append(2) or "t", params={"b": 1, "a": "x y", "c d": "\r\n"})
    s.create()
    s.head()
    assert sorted(asked) == [1, 1, 2, 2]


def test_wrong_options_are_refused_before_anything_is_sent():
    nowhere = "http://127.0.0.1:1/v1/stream/x"
    urls = ["", "nothing", "ftp://h/s", "HTTP://h/s", "http://h", "http:///s", "http://:80/s", "http://h:x/s"]
    urls += ["http://u:p@h/s", "http://::1/s", "http://[]/s", "http://h/a b", "http://h/ü", "http://h/s#part"]
    urls.append("http://h/a\r\nX: y")
    urls += ["http://h:65536/s", "http://h:99999/s", "http://h:123456789012/s", "http://h:1²/s", "https://h:65536/s"]
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


def test_what_json_has_no_word_for_is_refused_at_once():
    """Kept, it would be refused by the server for good, and with it all that is in the same batch."""
    s = stream("application/json")
    s.create()
    box = Outbox(None, s, "p")
    bad = [{1: 2}, {1: 2.5}, {None: 2.5}, {True: 1}, {1.5: 1}, {(1, 2): 2.5}, {b"k": 2}, {"a": [1, {3: 4.5}]}]
    for value in bad:
        for call in (box.append, s.append):
            assert "keys are strings" in str(raises(TypeError, call, value)), value
    bad = [{1, 2}, set(), b"abc", bytearray(b"ab"), memoryview(b"ab"), range(3), object(), len, [{1}], {"e": b"x"}]
    bad += [{"f": 1.5, "e": b"x"}, (1.5, {1}), 1j, iter([1])]
    for value in bad:
        for call in (box.append, s.append):
            assert "JSON has no" in str(raises(TypeError, call, value)), value
    nested = []
    nested.append(nested)
    raises(ValueError, box.append, nested)
    for depth in (129, 200):
        nested = 1
        for _ in range(depth):
            nested = [nested]
        raises(ValueError, box.append, nested)  # the server takes 128 levels
    assert box.records == 0
    good = [{"a": (1, 2.5)}, [], {}, "", True, None, 10**40 if EDGE else 10**12, {"e.": "1.5"}]
    if EDGE:
        good += [10**5000 + 7, {"ü": [-(10**4400), "ü"]}]  # more digits than CPython makes a text of by itself
    for value in good:
        box.append(value)
    assert box.flush(5) == 0
    good[0] = {"a": [1, 2.5]}
    assert list(s.read()) == good


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
    s.seal()
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
            assert (await writer.seal()).closed

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


def test_every_option_is_checked_before_anything_is_sent():
    nowhere = "http://127.0.0.1:1/v1/stream/x"
    for options in (
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": 10**7},
        {"live_timeout": 0},
        {"live_timeout": 10**7},
        {"buffer": 0},
        {"max_bytes": -1},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
    ):
        assert "timeout" in str(raises(ValueError, Stream, nowhere, **options)), options
    s = Stream(nowhere)
    folder = FOLDER + "/options"
    for path in (None, folder):
        for options in (
            {"epoch": -1},
            {"epoch": 2**53},
            {"in_flight": 0},
            {"in_flight": -1},
            {"limit": 0},
            {"segment": -1},
            {"count": -1},
            {"age": -1},
            {"sync_every": 0},
            {"when_full": "x"},
        ):
            name = next(iter(options))
            assert name in str(raises(ValueError, Outbox, path, s, "p", **options)), options
    for options in ({"in_flight": 2}, {"segment": 32}, {"limit": 1000, "segment": 512}):
        raises(ValueError, Outbox, folder, s, "p", **options)
    try:
        os.stat(folder)
    except OSError:
        pass
    else:
        raise AssertionError("a folder was made, and the options were wrong")
    raises(ValueError, Outbox, None, Stream(nowhere, content_type=None), "p")
    for path in (None, folder):
        for producer in ("", "a\nb", "a\r\nX: y", "\0", " ", "a ", " a", "x" * 257, "a\tb"):
            assert "producer" in str(raises(ValueError, Outbox, path, s, producer)), producer
        for producer in (7, b"p", None):
            raises_some((TypeError, ValueError), Outbox, path, s, producer)
        for options in (
            {"epoch": True},
            {"epoch": 1.5},
            {"limit": 1e5},
            {"segment": 512.0},
            {"count": 1.5},
            {"sync_every": 1.5},
            {"in_flight": 1.5},
            {"age": float("nan")},
            {"limit": "1"},
            {"age": "1"},
        ):
            raises_some((TypeError, ValueError), lambda: Outbox(path, s, "p", **options))  # noqa: B023
    for options in (
        {"token": "a\nb"},
        {"headers": {"X": "a\r\nb"}},
        {"headers": {"X\n": "a"}},
        {"headers": {"X": "\0"}},
        {"content_type": "text/plain\r\nX: y"},
        {"timeout": "3"},
        {"live_timeout": None},
        {"buffer": 1e9},
    ):
        raises_some((TypeError, ValueError), lambda: Stream(nowhere, **options))  # noqa: B023
    pinned = "https" + nowhere[4:]
    for pin in ("z" * 64, "0" * 63, "0" * 63 + "-"):
        assert "SHA-256" in str(raises(ValueError, Stream, pinned, pin=pin))
    raises_some(OSError, os.stat, folder)
    box = Outbox(None, s, "p")
    box.append(1)
    for seconds in (float("inf"), float("nan"), "3", None):
        raises_some((TypeError, ValueError, OverflowError), box.flush, seconds)
    assert box.records == 1 and box.error is None
    Outbox(None, s, "p", limit=100, segment=10, count=1, age=0.5, epoch=0, in_flight=5)


def test_numbers_of_any_length_are_read():
    if not EDGE:
        return  # the other server has JavaScript's numbers
    s = stream("application/json")
    s.create()
    for digits in (b"9" * 700, b"-" + b"9" * 6000, b"1" + b"0" * 8000):
        s.append(b'[%s, {"a": [%s]}]' % (digits, digits), raw=True)
    got = list(s.read())
    assert got[::2] == [10**700 - 1, 1 - 10**6000, 10**8000]
    assert [item["a"] for item in got[1::2]] == [[item] for item in got[::2]]


def test_misspelt_names_are_told_with_whose_they_are():
    s = stream()
    box = Outbox(None, s, "p")
    for it, whose, names in (
        (s, "Stream", ("apend", "quote", "operation", "sys")),
        (box, "Outbox", ("flsh", "recrods")),
        (ds_micro, "ds_micro", ("Strem", "NotFond")),
    ):
        for name in names:
            error = raises(AttributeError, getattr, it, name)
            assert whose in str(error) and name in str(error), error
    assert not hasattr(s, "nothing") and not hasattr(box, "nothing")


def test_a_stream_takes_the_content_type_that_the_server_has():
    for content_type in TYPES:
        s = stream(content_type)
        s.create()
        other = Stream(s.url, content_type=None, timeout=5)
        other.append(value(s, 1))  # asks first
        assert other.content_type.split(";")[0] == content_type
        third = Stream(s.url, content_type=None, timeout=5)
        assert third.adopt().status == 200
        box = Outbox(None, third, "p")
        box.append(value(s, 2))
        assert box.flush(5) == 0
        assert numbers(s, list(s.read())) == [1, 2]
    raises(ds_micro.NotFound, Stream(URL + "/none", content_type=None, timeout=5).adopt)


def test_where_an_answer_ends_and_whether_it_was_the_tail():
    for content_type, live in (("application/cbor-seq", "long-poll"), ("application/json", "sse")):
        s = stream(content_type)
        s.create()
        s.append(value(s, 0), value(s, 1))
        cursor = Cursor()
        items = same(s).read(cursor, live=live, marks=True, deadline=10)
        assert not items.caught_up and not items.closed
        got = []
        marks = 0
        for item in items:
            if item is not ds_micro.MARK:
                got.append(item)
                continue
            marks += 1
            assert cursor.items == 0 and cursor.offset == s.head().offset
            assert items.caught_up
            if len(got) == 2:
                s.append(value(s, 2))
            elif len(got) == 3 and not items.closed:
                s.seal()
        assert numbers(s, got) == [0, 1, 2] and items.closed and items.caught_up and marks > 2
        items = s.read(marks=True)
        assert [item is ds_micro.MARK for item in items] == [False] * 3 + [True]


def test_a_live_read_may_have_a_deadline():
    s = stream()
    s.create()
    s.append(1)
    for live in ("long-poll", "sse"):
        for patience in (60, None):
            begun = time.time()
            items = s.read(live=live, patience=patience, deadline=1)
            assert list(items) == [1]
            assert 0.8 < time.time() - begun < 3
            assert items.caught_up and not items.closed
    assert s.append(2).status == 204
    begun = time.time()
    nobody = Stream("http://127.0.0.1:1/v1/stream/x", timeout=1)
    assert list(nobody.read(live="long-poll", patience=None, deadline=1)) == []
    assert time.time() - begun < 3


def test_text_is_the_same_for_all():
    import json

    pair = json.loads('"a\\ud83d\\ude00b"')  # on MicroPython its halves
    character = b"a\xf0\x9f\x98\x80b".decode()
    halves = [json.loads(text) for text in ('"\\ud83d"', '"\\ude00"', '"\\ude00\\ud83d"', '"x\\ud83dx\\ude00"')]
    for content_type in TYPES:
        s = stream(content_type)
        s.create()
        for path in (None, FOLDER + "/pair" + str(count)):
            box = Outbox(path, s, "p" + str(path))
            for half in halves:
                for wrong in (half, [half], {"a": half}, {half: 1})[: 1 if content_type == "text/plain" else 4]:
                    raises_some(ValueError, box.append, wrong)
                    raises_some(ValueError, s.append, wrong)
            assert box.append(pair) and box.append(character)
            assert box.flush(5) == 0, box.error
        got = list(s.read())
        if content_type == "text/plain":
            assert b"".join(got).decode() == character * 4
        else:
            assert got == [character] * 4, got
    s = stream("application/json")
    s.create()
    s.append(b'["\\ud83d\\ude00", {"\\ud83d\\ude00": "\\u00e9"}]', raw=True)
    assert list(s.read()) == [character[1:-1], {character[1:-1]: b"\xc3\xa9".decode()}]
    if EDGE:
        for wrong in (b'"\\ud83d"', b'["ok", "\\ude00\\ud83d"]', b'{"\\uDEAD": 1}', b'"\xed\xa0\xbd\xed\xb8\x80"'):
            raises(ds_micro.BadRequest, s.append, wrong, raw=True)
        c = stream()
        c.create()
        raises(ds_micro.BadRequest, c.append, b"\x66\xed\xa0\xbd\xed\xb8\x80", raw=True)


def raises_some(kind, call, *args):
    try:
        call(*args)
    except kind:
        return
    raise AssertionError("%s was not raised" % kind.__name__)


def test_floats_make_the_round_trip_exactly():
    single = 1.0 + 2.0**-30 == 1.0
    values = [0.0, 0.5, -21.5, 3.3, 0.1, 1e10, 1e-10, 123456.789, 5.5e-7, 2.0**-20, 1 / 3]
    if not single:
        values += [1732741353.25, 1e300, -1e-300, 5e-324, 1.7976931348623157e308]
    values += [1732741353, 2**53 - 1]
    for content_type in TYPES[:2]:
        s = stream(content_type)
        s.create()
        s.append(*values)
        got = list(s.read())
        assert got == values, got
        if EDGE:  # which keeps what was sent byte for byte
            assert [isinstance(a, float) for a in got] == [isinstance(b, float) for b in values], got
    # What others wrote: whole numbers beyond single precision are exact everywhere.
    s = stream("application/json")
    s.create()
    s.append(b"[1732741353.0, 1e300, 0.1]", raw=True)
    got = list(s.read())
    assert got[:2] == [1732741353, 10**300 if single else 1e300] and got[2] == 0.1


def test_discarding_when_nothing_waits_changes_nothing():
    for path in (None, FOLDER + "/nothing"):
        s = stream()
        s.create()
        for life in range(3):
            box = Outbox(path, s, "p", epoch=None if path else life)
            box.append(life * 2)
            assert box.flush(5) == 0
            assert box.discard() == 0 and box.dropped == 0
            box.append(life * 2 + 1)
            assert box.flush(5) == 0
            box.close()
        assert list(s.read()) == list(range(6))
    # Before the server has said anything: the number is nobody's any more.
    s = stream()
    s.create()
    for path in (None, FOLDER + "/discarded"):
        box = Outbox(path, s, "q" + str(path))
        box.append("a")
        assert box.flush(5) == 0
        box.append("never")
        assert box.discard() == 1
        box.append("b")
        assert box.flush(5) == 0 and box.dropped == 1
    assert list(s.read()) == ["a", "b", "a", "b"]


def test_an_outbox_closes_the_stream_exactly_once():
    for path in (None, FOLDER + "/closing"):
        s = stream()
        s.create()
        box = Outbox(path, s, "p")
        for i in range(5):
            box.append(i)
        assert box.close_stream(10) is True
        assert box.close_stream(10) is True  # as if the answer had been lost
        assert list(s.read()) == list(range(5)) and s.head().closed
        if path:
            box.close()
            box = Outbox(path, s, "p")
            assert box.close_stream(10) is True
        box.append(5)  # too late, and not lost in silence
        raises(ds_micro.Closed, box.flush, 5)
        assert box.records == 1 and box.discard() == 1
        raises(ds_micro.Closed, Outbox(None, s, "another").close_stream, 5)
    s = Stream("http://127.0.0.1:1/v1/stream/x", timeout=1)
    box = Outbox(None, s, "p")
    assert box.close_stream(0.5) is False and isinstance(box.error, ds_micro.Disconnected)


def test_an_outbox_of_another_version_is_refused_and_kept():
    folder = FOLDER + "/version"
    s = stream()
    Outbox(folder, s, "p").append(1)
    name = folder + "/00000001.out"
    with open(name, "rb") as f:
        data = f.read()
    from binascii import crc32

    data = b"dsO2" + data[4:32] + crc32(b"dsO2" + data[4:32]).to_bytes(4, "big") + data[36:]
    with open(name, "wb") as f:
        f.write(data)
    assert "version" in str(raises(ValueError, Outbox, folder, s, "p"))
    with open(name, "rb") as f:
        assert f.read() == data


def put(name, data):
    with open(name, "wb") as f:
        f.write(data)


def test_a_flipped_bit_in_a_header_loses_nothing():
    """Nor is a number used again that the server may have: that record would be taken for a duplicate, and be lost."""
    folder = FOLDER + "/rot"
    try:
        os.mkdir(folder)
    except OSError:
        pass
    first, second = folder + "/00000001.out", folder + "/00000002.out"
    for at in (0, 1, 3, 4, 11, 12, 19, 20, 27, 28, 31, 32, 35):
        for bit in (1, 2, 128) if at == 3 else (64,):
            s = stream()
            s.create()
            for name in os.listdir(folder):
                os.remove(folder + "/" + name)
            box = Outbox(folder, s, "p")
            box.append(1)
            with open(first, "rb") as f:
                sent = f.read()
            assert box.flush(5) == 0
            box.append(2)
            box.append(3)
            box.close()
            put(first, sent)  # as if the power had failed between the server's answer and the deletion
            with open(second, "rb") as f:
                data = bytearray(f.read())
            data[at] ^= bit
            put(second, data)
            box = Outbox(folder, s, "p")
            assert box.records == 3 and box.damaged == (36 if at > 3 else 0), (at, box.records, box.damaged)
            box.append(4)
            assert box.flush(5) == 0, box.error
            box.close()
            assert list(s.read()) == [1, 2, 3, 4], (at, bit, list(s.read()))
            # And where nothing else is left that knows the numbers.
            box = Outbox(folder, s, "p")
            box.append(5)
            box.close()
            (name,) = os.listdir(folder)
            with open(folder + "/" + name, "rb") as f:
                data = bytearray(f.read())
            data[at] ^= bit
            put(folder + "/" + name, data)
            box = Outbox(folder, s, "p", epoch=0)
            box.append(6)
            assert box.flush(5) == 0, box.error
            box.close()
            assert list(s.read()) == [1, 2, 3, 4, 5, 6], (at, bit, list(s.read()))


def test_a_flipped_bit_in_a_record_is_told():
    folder = FOLDER + "/rotten"
    s = stream("text/plain")
    s.create()
    box = Outbox(folder, s, "p")
    for i in range(4):
        box.append("%d," % i)
    box.close()
    assert box.damaged == 0
    name = folder + "/00000001.out"
    with open(name, "rb") as f:
        data = bytearray(f.read())
    data[36 + 2 * 8] ^= 128  # the third record's length: 32 KB
    put(name, data)
    box = Outbox(folder, s, "p")
    assert (box.records, box.damaged) == (2, 16)
    box.append("4,")
    assert box.flush(5) == 0
    assert numbers(s, list(s.read())) == [0, 1, 4]


def test_two_outboxes_on_one_folder_are_told():
    folder = FOLDER + "/shared"
    s = stream()
    s.create()
    old = Outbox(folder, s, "p")
    old.append(1)
    new = Outbox(folder, same(s), "p")
    assert new.records == 1
    new.append(2)
    for call in (lambda: old.append(0), lambda: old.flush(5), old.discard):
        assert folder in str(raises(RuntimeError, call))
    assert new.flush(5) == 0
    new.append(3)
    new.close()
    # Nobody has it now: who comes first reads what is there, and goes on.
    old.append(4)
    assert old.records == 2
    assert folder in str(raises(RuntimeError, new.append, 0))
    assert old.flush(5) == 0
    old.close()
    old.append(5)  # after it was closed, as before
    assert old.flush(5) == 0
    assert list(s.read()) == [1, 2, 3, 4, 5]


def test_segments_are_found_whatever_their_number():
    folder = FOLDER + "/many"
    s = stream("text/plain")
    s.create()
    Outbox(folder, s, "p", limit=1024, segment=128).close()
    os.rename(folder + "/00000001.out", folder + "/99999999.out")  # as after years
    box = Outbox(folder, s, "p", limit=1024, segment=128)
    for i in range(40):
        box.append("%d," % i)
    box.close()
    box = Outbox(folder, s, "p", limit=1024, segment=128)
    assert box.records == 40 and box.flush(5) == 0
    assert numbers(s, list(s.read())) == list(range(40))
    box.close()
    assert len(os.listdir(folder)) == 1


def test_what_others_left_in_the_folder_does_no_harm():
    folder = FOLDER + "/garbage"
    s = stream()
    s.create()
    box = Outbox(folder, s, "p")
    box.append(1)
    box.close()
    names = ["notes", "1.out", "+0000001.out", "0000 001.out", "abcdefgh.out", ".out", "-0000001.out"]
    names += ["00000000.out", "012345678.out"]
    for name in names:
        with open(folder + "/" + name, "w") as f:
            f.write("dsO9")
    for name in ("00000099.out", "cursor"):
        os.mkdir(folder + "/" + name)
    box = Outbox(folder, s, "p")
    box.append(2)
    assert box.flush(5) == 0
    assert list(s.read()) == [1, 2]


def test_a_cursors_file_is_never_without_a_cursor():
    path = FOLDER + "/halves"
    Cursor(path).save()
    last = None
    for i in range(6):
        cursor = Cursor(path).load()
        if last:
            assert (cursor.offset, cursor.items) == last
        with open(path, "rb") as f:
            before = f.read()
        cursor.offset = "%016d_%016d" % (i, i)
        cursor.items = i
        cursor.save()
        now = (cursor.offset, i)
        with open(path, "rb") as f:
            after = f.read()
        # Only one half changes; torn at any byte, the file still has the other.
        changed = [at for at in range(128) if before[at : at + 1] != after[at : at + 1]]
        assert len(before) == len(after) == 128 and (max(changed) < 64 or min(changed) > 63)
        for at in changed:
            with open(path, "wb") as f:
                f.write(after[:at] + before[at:])
            found = Cursor(path).load()
            assert (found.offset, found.items) in (now, last or ("-1", 0)), at
        with open(path, "wb") as f:
            f.write(after)
        last = now
    with open(path, "w") as f:
        f.write("0000000000000001_0000000000000100 7\n")  # as it was written once
    cursor = Cursor(path).load()
    assert (cursor.offset, cursor.items) == ("0000000000000001_0000000000000100", 7)
    for i in range(3):
        cursor.items = i
        cursor.save()
        assert Cursor(path).load().items == i
    cursor.offset = "x" * 200  # some other server's
    for i in range(3):
        cursor.items = i
        cursor.save()
        found = Cursor(path).load()
        assert (found.offset, found.items) == ("x" * 200, i)


def test_cancelling_is_never_lost_on_asyncio():
    async def follow(s, live):
        async for _ in s.read("now", live=live):
            pass

    async def main(live):
        url = stream("text/plain").url
        await aio.Stream(url, content_type="text/plain", timeout=5).create()
        writer = aio.Stream(url, content_type="text/plain", timeout=5)
        for i in range(25):
            s = aio.Stream(url, content_type="text/plain", timeout=5)
            task = asyncio.create_task(follow(s, live))
            await asyncio.sleep(0.02 + i / 1000)
            # In the same instant something arrives, and the wait ends.
            await writer.append("x")
            await asyncio.sleep(i % 5 / 1000)
            task.cancel()
            for _ in range(200):
                if task.done():
                    break
                await asyncio.sleep(0.01)
            assert task.done(), "a cancellation was lost"
            s.drop()

    for live in ("long-poll", "sse"):
        asyncio.run(main(live))


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
