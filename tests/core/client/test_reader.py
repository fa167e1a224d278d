"""The reader and a model of a server, wired together in memory: every break at every byte, exactly once."""

from portable import pieces, raises

from ds_core.client.errors import BadResponse
from ds_core.client.reader import CATCH_UP, LIVE, MARK, NEED_DATA, OVER, Reader, kind_of
from ds_core.wire import cbor, media, sse


class Cursor:
    def __init__(self, offset="-1", items=0):
        self.offset = offset
        self.items = items


class Server:
    """A stream of encoded items; an answer has at most `chunk` of them."""

    def __init__(self, items, content_type="application/cbor-seq", chunk=100, closed=False):
        self.items = items
        self.type = content_type
        self.chunk = chunk
        self.closed = closed

    def get(self, query):
        query = dict(query)
        start = query["offset"]
        start = 0 if start == "-1" else len(self.items) if start == "now" else int(start)
        live = query.get("live")
        end = min(start + self.chunk, len(self.items))
        tail = end == len(self.items)
        headers = {"content-type": self.type, "stream-next-offset": "%08d" % end}
        if live == "sse":
            return 200, self.events_headers(), self.events(start)
        if tail:
            headers["stream-up-to-date"] = "true"
            if self.closed:
                headers["stream-closed"] = "true"
        if live:
            headers["stream-cursor"] = str(int(query.get("cursor", "0")) + 1)
            if start == end:
                return 204, headers, b""
        return 200, headers, self.join(start, end)

    def join(self, start, end):
        if self.type == "application/json":
            return b"[" + b",".join(self.items[start:end]) + b"]"
        return b"".join(self.items[start:end])

    def events_headers(self):
        headers = {"content-type": "text/event-stream"}
        if self.type == "application/cbor-seq":
            headers["stream-sse-data-encoding"] = "base64"
        return headers

    def events(self, start):
        out = b""
        while True:
            end = min(start + self.chunk, len(self.items))
            tail = end == len(self.items)
            if end > start:
                out += sse.data_event(self.join(start, end), self.type == "application/cbor-seq")
            out += sse.control_event("%08d" % end, "9", tail, tail and self.closed)
            start = end
            if tail:
                return out


def drive(reader, server, cut=None, step=1000, requests=1000):
    """Ask until it is over; break the first answer after `cut` body bytes. The items handed out."""
    out = []
    for _ in range(requests):
        if reader.state == OVER:
            break
        status, headers, body = server.get(reader.query())
        reader.head(status, headers)
        broken = cut is not None and cut < len(body)
        if broken:
            body = body[:cut]
        cut = None
        for piece in pieces(body, step):
            reader.feed(memoryview(piece))
            while True:
                item = reader.next()
                if item is NEED_DATA:
                    break
                out.append(item)
        if not broken:
            reader.end()
    return out


VALUES = [0, -5, "text", b"bytes", [1, [2, {}]], {"t": 21.5, "rh": 40}, None, True, "", 1e300, "ü" * 40]
JSON = [b"0", b'"a,]b"', b"[1, [2]]", b'{"a": {"b": "}"}}', b"null", b'"\\\\"', b'"\\"]"', b"-1.5e3", b"[]", b'""']
JSON_VALUES = [0, "a,]b", [1, [2]], {"a": {"b": "}"}}, None, "\\", '"]', -1500.0, [], ""]


def streams(chunk=100, closed=False):
    yield Server([cbor.encode(value) for value in VALUES], "application/cbor-seq", chunk, closed), VALUES
    yield Server(JSON, ["application/json", " charset=utf-8"][0], chunk, closed), JSON_VALUES


def test_catching_up_ends_at_the_tail():
    for chunk in (1, 3, 100):
        for server, values in streams(chunk):
            for step in (1, 2, 1000):
                cursor = Cursor()
                reader = Reader(cursor)
                assert drive(reader, server, step=step) == values
                assert (cursor.offset, cursor.items) == ("%08d" % len(values), 0)


def test_a_break_at_every_byte_loses_and_repeats_nothing():
    for chunk in (4, 100):
        for server, values in streams(chunk, closed=True):
            total = len(server.join(0, len(values)))
            for cut in range(total):
                for live in (None, "long-poll"):
                    assert drive(Reader(Cursor(), live), server, cut, 5) == values, (cut, live)


def test_a_break_at_every_byte_of_events():
    for chunk in (4, 100):
        for server, values in streams(chunk, closed=True):
            for cut in range(len(server.events(0))):
                cursor = Cursor()
                reader = Reader(cursor, "sse")
                reader.state = LIVE  # as after a catch-up that ended at the very start
                reader._type = server.type
                assert drive(reader, server, cut, 7) == values, cut
                assert cursor.items == 0


def test_a_saved_cursor_goes_on_after_the_last_handled_item():
    for server, values in streams():
        for stop in range(len(values)):
            cursor = Cursor()
            reader = Reader(cursor)
            status, headers, body = server.get(reader.query())
            reader.head(status, headers)
            reader.feed(body)
            for _ in range(stop):
                reader.next()
            saved = Cursor(cursor.offset, cursor.items)
            assert drive(Reader(saved), server) == values[stop:]


def test_a_server_may_cut_its_answers_differently_the_second_time():
    for server, values in streams(100):
        cursor = Cursor("-1", 7)
        server.chunk = 3  # two answers lie wholly within what was handled
        assert drive(Reader(cursor), server) == values[7:]


def test_bytes_are_counted_one_by_one():
    server = Server([b"abc", b"defg", b"h"], "application/octet-stream", 2, closed=True)
    for cut in range(8):
        for step in (1, 2, 100):
            assert b"".join(drive(Reader(Cursor()), server, cut, step)) == b"abcdefgh"
    server = Server([b"\x01\x02"], "application/cbor-seq")
    assert drive(Reader(Cursor(), raw=True), server) == [b"\x01\x02"]


def test_the_query_of_each_state():
    server = Server([b"a"], "text/plain")
    reader = Reader(Cursor(), "long-poll", max_bytes=500)
    assert reader.query() == [("max-bytes", 500), ("offset", "-1")]
    drive(reader, server, requests=1)
    assert reader.state == LIVE
    assert reader.query() == [("live", "long-poll"), ("max-bytes", 500), ("offset", "00000001")]
    drive(reader, server, requests=2)
    assert ("cursor", "2") in reader.query()


def test_now_begins_at_the_tail():
    server = Server([b"a"], "text/plain")
    reader = Reader(Cursor("now"), "long-poll")
    assert drive(reader, server, requests=2) == []
    server.items.append(b"b")
    assert drive(reader, server, requests=1) == [b"b"]


def test_live_chosen_by_content_type():
    chosen = (("text/plain", "sse"), ("application/json", "sse"), ("application/cbor-seq", "long-poll"))
    for content_type, live in chosen:
        reader = Reader(Cursor(), "auto")
        drive(reader, Server([], content_type), requests=1)
        assert dict(reader.query())["live"] == live


def test_states():
    cases = ((None, False, OVER), (None, True, OVER), ("long-poll", False, LIVE), ("sse", True, OVER))
    for live, closed, state in cases:
        reader = Reader(Cursor(), live)
        assert reader.state == CATCH_UP
        drive(reader, Server([b"1"], "text/plain", closed=closed), requests=1)
        assert reader.state == state


def test_an_answer_that_is_not_a_stream():
    with raises(BadResponse, "Stream-Next-Offset"):
        Reader(Cursor()).head(200, {"content-type": "text/html"})
    reader = Reader(Cursor(), "sse")
    drive(reader, Server([], "text/plain"), requests=1)
    with raises(BadResponse, "events"):
        reader.head(200, {"content-type": "text/html"})


def test_bodies_that_are_not_of_their_content_type():
    for content_type, body in (
        ("application/cbor-seq", b"\xff"),
        ("application/cbor-seq", b"\x61"),  # ends within an item
        ("application/cbor-seq", b"\x61\xff"),
        ("application/json", b"{}"),
        ("application/json", b"[1"),
        ("application/json", b"[1,]"),
        ("application/json", b"[,1]"),
        ("application/json", b"[1 2]"),
        ("application/json", b"[nul]"),
        ("application/json", b"[1]]"),
        ("application/json", b"[}]"),
        ("application/json", b"[" + b"1" * 70000 + b"]"),
    ):
        reader = Reader(Cursor())
        reader.head(200, {"content-type": content_type, "stream-next-offset": "1"})
        try:
            reader.feed(body)
            while reader.next() is not NEED_DATA:
                pass
            reader.end()
        except BadResponse:
            continue
        assert False, body[:20]


def test_bad_events():
    for data in (
        b"event: control\ndata: {\n\n",
        b"event: control\ndata: {}\n\n",
        b"event: control\ndata: []\n\n",
        b"event: data\ndata: AA\n\nevent: control\ndata: {\"streamNextOffset\":\"1\"}\n\n",
        b"event: control\ndata: " + b" " * 5000 + b"{}\n\n",
    ):
        reader = Reader(Cursor(), "sse")
        reader.state = LIVE
        reader._type = "application/cbor-seq"
        reader.head(200, {"content-type": "text/event-stream", "stream-sse-data-encoding": "base64"})
        try:
            reader.feed(data)
            while reader.next() is not NEED_DATA:
                pass
        except BadResponse:
            continue
        assert False, data


def test_kinds():
    for content_type, kind in (
        ("application/json", "json"),
        ("Application/JSON; charset=utf-8", "json"),
        ("application/cbor-seq", "cbor"),
        ("application/senml+cbor-seq", "cbor"),
        ("application/xcbor-seq", "bytes"),
        ("text/plain", "bytes"),
        ("", "bytes"),
    ):
        assert kind_of(content_type) == kind, content_type
        # And a server, which takes no type that is none, says the same.
        if content_type:
            assert media.kind_of(content_type) == {"bytes": media.BYTES, "json": media.JSON, "cbor": media.CBOR}[kind]


def test_where_answers_end_and_whether_at_the_tail():
    values = [{"n": i} for i in range(5)]
    for live in (None, "long-poll", "sse"):
        server = Server([cbor.encode(value) for value in values], chunk=2, closed=bool(live))
        reader = Reader(Cursor(), live, marks=True)
        assert not reader.caught_up and not reader.closed
        got = []
        marks = []
        while reader.state != OVER:
            status, headers, body = server.get(reader.query())
            reader.head(status, headers)
            for piece in pieces(body, 7):
                reader.feed(piece)
                while True:
                    item = reader.next()
                    if item is NEED_DATA:
                        break
                    if item is MARK:
                        assert reader.cursor.items == 0
                        marks.append((len(got), reader.caught_up, reader.closed))
                    else:
                        got.append(item)
            if reader.end() is MARK:
                assert reader.cursor.items == 0
                marks.append((len(got), reader.caught_up, reader.closed))
        assert got == values
        assert marks[:2] == [(2, False, False), (4, False, False)]
        assert marks[-1] == (5, True, bool(live))
        assert Reader(Cursor())._mark is None
