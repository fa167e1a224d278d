"""Server-sent events on both interpreters: what is encoded, what arrives however it is cut, and the
limits.
"""

from portable import pieces, raises

from ds_core.wire.sse import NEED_DATA, Parser, SSEError, control_event, data_event, decode_base64, event

# A stream, and the events in it: the grammar of the HTML standard, 9.2.6, case by case.
STREAMS = (
    (b"", []),
    (b"data: a\n\n", [("message", b"a")]),
    (b"data:a\n\n", [("message", b"a")]),
    (b"data:  a\n\n", [("message", b" a")]),
    (b"data: a \n\n", [("message", b"a ")]),
    (b"data\n\n", [("message", b"")]),
    (b"data:\n\n", [("message", b"")]),
    (b"data: \n\n", [("message", b"")]),
    (b"data\ndata\n\n", [("message", b"\n")]),
    (b"data\n\ndata\ndata\n\ndata:", [("message", b""), ("message", b"\n")]),
    (b"data:test\n\ndata: test\n\n", [("message", b"test")] * 2),
    (b"data: a\ndata: b\ndata:\ndata: c\n\n", [("message", b"a\nb\n\nc")]),
    (b"data: YHOO\ndata: +2\ndata: 10\n\n", [("message", b"YHOO\n+2\n10")]),
    (
        b": a comment\n\ndata: first\nid: 1\n\ndata:second\nid\n\ndata:  third\n\n",
        [("message", b"first"), ("message", b"second"), ("message", b" third")],
    ),
    (b"event: control\ndata: {}\n\n", [("control", b"{}")]),
    (b"data: {}\nevent: control\n\n", [("control", b"{}")]),
    (b"event: a\nevent: b\ndata: c\n\n", [("b", b"c")]),
    (b"event: a\nevent\ndata: c\n\n", [("message", b"c")]),
    (b"event: a\nevent:\ndata: c\n\n", [("message", b"c")]),
    (b"event: a\n\ndata: c\n\n", [("message", b"c")]),
    (b"event:  a \ndata: c\n\n", [(" a ", b"c")]),
    (b"event: \xc3\xbc\ndata: \xff\n\n", [("\u00fc", b"\xff")]),
    (b"data: a\rdata: b\r\r", [("message", b"a\nb")]),
    (b"data: a\r\ndata: b\r\n\r\n", [("message", b"a\nb")]),
    (b"data: a\rdata: b\ndata: c\r\n\n", [("message", b"a\nb\nc")]),
    (b"data: a\n\r", [("message", b"a")]),
    (b"data: a\r\n\rdata: b\n\r\ndata: c\r\r\n", [("message", b"a"), ("message", b"b"), ("message", b"c")]),
    (b"data: a\r\r\n\r\n", [("message", b"a")]),
    (b"\n\r\r\n\n", []),
    (b"\xef\xbb\xbfdata: a\n\n", [("message", b"a")]),
    (b"\xef\xbb\xbfevent: x\ndata: a\n\n", [("x", b"a")]),
    (b"\xef\xbb\xbf: c\ndata: a\n\n", [("message", b"a")]),
    (b"\xef\xbb\xbf\ndata: a\n\n", [("message", b"a")]),
    (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", [("message", b"b")]),
    (b"\n\xef\xbb\xbfdata: a\n\n", []),
    (b"\xef\xbbdata: a\n\n", []),
    (b"data: \xef\xbb\xbf\n\n", [("message", b"\xef\xbb\xbf")]),
    (b"id: 1\nretry: 10\nunknown: x\ndata: a\n\n", [("message", b"a")]),
    (b"id: 1\n\nretry: 3\n\nwhatever\n\n", []),
    (
        b"Data: a\nDATA: b\n data: c\ndata : d\ndat: e\ndata2: f\ndatadatadata: g\nevents: h\ndata: i\n\n",
        [("message", b"i")],
    ),
    (b":" + b"x" * 300 + b"\ndata: a\n\n", [("message", b"a")]),
    (b"x" * 300 + b":\ndata: a\n\n", [("message", b"a")]),
    (b"x" * 300 + b"\ndata: a\n\n", [("message", b"a")]),
    (b"::\n:data: b\ndata: a\n\n", [("message", b"a")]),
    (b"data: a:b: c\n\n", [("message", b"a:b: c")]),
    (b"data: \0\n\n", [("message", b"\0")]),
    (b"data: a\n\ndata: unfinished\n", [("message", b"a")]),
    (b"data: a\n\ndata: unfinished", [("message", b"a")]),
)


def parse(stream, size, kind=bytes, **options):
    """The events of `stream`, fed in pieces of `size`; parts of an event put together."""
    parser = Parser(**options)
    found = []
    part = b""
    for piece in pieces(stream, size):
        parser.feed(kind(piece))
        while (result := parser.next()) is not NEED_DATA:
            name, data = result
            part += data
            if not parser.more:
                found.append((name, part))
                part = b""
    return found


def test_the_grammar_whole_and_in_pieces():
    for stream, expected in STREAMS:
        for kind in (bytes, bytearray, memoryview):
            for size in (1, 2, 3, 5, 1000):
                found = parse(stream, size, kind)
                assert found == expected, (stream, size, found)


def test_several_streams_of_events_behind_one_another():
    stream = b""
    events = []
    for one, expected in STREAMS:
        if one.endswith((b"\n\n", b"\r\r")) and not one.startswith(b"\xef"):
            stream += one
            events += expected
    for size in (1, 7, 64, 100000):
        assert parse(stream, size) == events


def test_parts_of_a_long_event():
    for stream, expected in STREAMS:
        if b"data: {}\nevent" in stream:
            continue  # its name comes after its data
        for limit in (8, 9):
            for size in (1, 4, 1000):
                assert parse(stream, size, limit=limit, partial=True) == expected, (stream, limit, size)
    parser = Parser(4, True)
    parser.feed(b"event: data\ndata: 123456789\ndata: abc\ndata: \ndata: \n\n")
    assert parser.next() == ("data", b"1234") and parser.more
    assert parser.next() == ("data", b"5678") and parser.more
    assert parser.next() == ("data", b"9\nab") and parser.more
    assert parser.next() == ("data", b"c\n\n") and not parser.more
    assert parser.next() is NEED_DATA and not parser.more
    parser.feed(b"data: 1234\n\ndata: 1234\ndata\n\n")
    assert parser.next() == ("message", b"1234") and not parser.more
    assert parser.next() == ("message", b"1234") and parser.more
    assert parser.next() == ("message", b"\n") and not parser.more


def test_an_event_over_the_limit_is_an_error():
    table = (
        b"data: 12345\n\n",
        b"data: 1234\ndata\n\n",
        b"data: 12\ndata: 34\n\n",
        b"data\n" * 10,
        b"data: " + b"x" * 1000,
        b"event: 12345\ndata: a\n\n",
        b"event: " + b"x" * 1000,
    )
    for stream in table:
        for size in (1, 2, 2000):
            with raises(SSEError, "events are limited to 4 bytes"):
                parse(stream, size, limit=4)
    with raises(SSEError, "events are limited to 4 bytes"):
        parse(b"event: 12345\n", 1, limit=4, partial=True)
    for stream in (
        b"data: 1234\n\n",
        b"data: 1\ndata: 23\n\ndata: 4\ndata: 23\n\n",
        b"event: 1234\ndata: 1234\n\n",
    ):
        assert parse(stream, 3, limit=4)
    parser = Parser(4)
    parser.feed(b"data: 12345\n\n")
    with raises(SSEError, "limited"):
        parser.next()
    parser.feed(b"data: 1\n\n")
    with raises(SSEError, "ended by an earlier error"):
        parser.next()
    with raises(SSEError, "name is not UTF-8"):
        parse(b"event: \xff\ndata: a\n\n", 100)
    assert issubclass(SSEError, ValueError)


def test_one_buffer_serves_again():
    buffer = bytearray(b"data: a")
    parser = Parser()
    parser.feed(memoryview(buffer))
    assert parser.next() is NEED_DATA
    buffer[:] = b"bc\n\ndat"
    parser.feed(buffer)
    name, data = parser.next()
    assert (name, data) == ("message", b"abc")
    assert parser.next() is NEED_DATA
    assert len(data) == 0  # it was the parser's own
    buffer[:] = b"a: d"  # and the piece was let go
    parser.feed(buffer)
    parser.feed(b"\n\n")  # too early, and still right
    assert parser.next() == ("message", b"d")


def test_encoding():
    assert event("data", "a") == b"event: data\ndata:a\n\n"
    assert event("data", "") == b"event: data\ndata:\n\n"
    assert event("x", "\u00fc\n\r\r\nz\n") == b"event: x\ndata:\xc3\xbc\ndata:\ndata:\ndata:z\ndata:\n\n"
    assert event("x", b" a") == b"event: x\ndata:  a\n\n"
    assert data_event(b"[1,\r\n2]", False) == b"event: data\ndata:[1,\ndata:2]\n\n"
    assert data_event(b"\x00\xff\n", True) == b"event: data\ndata:AP8K\n\n"
    assert data_event(b"", True) == b"event: data\ndata:\n\n"
    for name in ("a\nb", "a\rdata: b"):
        with raises(ValueError, "must be one line"):
            event(name, "")


def test_control_events():
    assert control_event("1_2") == b'event: control\ndata:{"streamNextOffset":"1_2"}\n\n'
    assert control_event("1_2", "77", True, False) == (
        b'event: control\ndata:{"streamNextOffset":"1_2","streamCursor":"77","upToDate":true}\n\n'
    )
    assert control_event("1_2", None, True, True) == (
        b'event: control\ndata:{"streamNextOffset":"1_2","upToDate":true,"streamClosed":true}\n\n'
    )
    import json

    for token in (
        '"',
        "\\",
        "\n",
        "\r\n\r\n",
        'x","streamClosed":true,"y":"',
        "\0\x1f",
        "\u00fc",
        "</script>",
    ):
        stream = control_event(token, token)
        [(name, data)] = parse(stream, 5)
        assert name == "control"
        assert json.loads(data.decode()) == {"streamNextOffset": token, "streamCursor": token}


def test_no_payload_forges_an_event():
    ends = (b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r", b"\n\r\n", b"\r\r\n")
    for one in ends:
        for other in ends:
            payload = b"a" + one + b"event: control" + other + b"data: {}" + one + other + b": c" + other
            expected = payload.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            for size in (1, 3, 1000):
                stream = data_event(payload, False) + control_event("1")
                assert parse(stream, size) == [("data", expected), ("control", b'{"streamNextOffset":"1"}')]


def test_binary_payloads_round_trip():
    payload = bytes(range(256)) * 3
    for length in (0, 1, 2, 3, 4, 47, 48, 49, 768):
        stream = data_event(payload[:length], True)
        [(_, data)] = parse(stream, 11)
        assert decode_base64(data) == (payload[:length], b"")
        parser = Parser(10, True)
        parser.feed(stream)
        found = rest = b""
        while (result := parser.next()) is not NEED_DATA:
            decoded, rest = decode_base64(result[1], rest)
            found += decoded
        assert (found, rest) == (payload[:length], b"")
    assert decode_base64(b"AP8K\nAP\n8") == (b"\x00\xff\n", b"AP8")
    assert decode_base64(b"K", b"AP8") == (b"\x00\xff\n", b"")


def test_parts_keep_one_bytearray():
    # It is emptied and filled again; on MicroPython it keeps its memory, so only views are allocated.
    import gc

    stream = data_event(b"x" * 700, True) + control_event("1_2", "3", True)
    parser = Parser(256, True)
    buffer = bytearray(100)
    first = None
    free = [0, 0]
    for number in range(60):
        for piece in pieces(stream, 100):
            buffer[: len(piece)] = piece
            parser.feed(memoryview(buffer)[: len(piece)])
            while (result := parser.next()) is not NEED_DATA:
                first = first or result[1]
                assert result[1] is first
        gc.collect()
        if hasattr(gc, "mem_free"):
            free[number > 5] = gc.mem_free()
    assert free[1] >= free[0] - 256, free
