"""HTTP/1.1 pieces: whole, byte by byte, in a small buffer, and with the next response behind."""

from portable import raises

from ds_core.wire import http1
from ds_core.wire.chunked import ChunkedDecoder
from ds_core.wire.http1 import END, HEAD, NEED_DATA, BadMessage, ResponseParser, Truncated


def read(data, step=0, method="GET", size=256, keep=(b"",), eof=True, count=1):
    """Read `count` responses from `data`, `step` bytes at a time: a list of (status, headers, body, keep_alive)."""
    parser = ResponseParser(bytearray(size), keep)
    out = []
    at = 0
    for _ in range(count):
        parser.begin(method == "HEAD")
        body = b""
        while True:
            got = parser.poll()
            if got is NEED_DATA:
                space = parser.space()
                piece = data[at : at + min(step or len(space), len(space))]
                if not piece and not eof:
                    return out
                space[: len(piece)] = piece
                at += len(piece)
                parser.received(len(piece))
            elif got is HEAD:
                status = parser.status
            elif got is END:
                break
            else:
                body += bytes(got)
        out.append((status, parser.headers, body, parser.keep_alive))
    return out


PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nStream-Next-Offset: 0_5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nX: y\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nDate: x\r\n\r\nhello"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\nProducer-Seq: 7\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"


def test_bodies_end_where_they_should_whatever_the_steps():
    for step in (0, 1, 2, 3, 7, 100):
        for data, body, alive in (
            (PLAIN, b"hello", True),
            (CHUNKED, b"hello world", True),
            (UNTIL_CLOSE, b"hello", False),
            (NO_CONTENT, b"", True),
            (INTERIM + PLAIN, b"hello", True),
            (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi", False),
            (b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nhi", b"hi", False),
            (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi", b"hi", True),
            (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", b"", True),
            (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 50\r\n\r\n", b"", True),
        ):
            found = read(data, step)
            assert found[0][2] == body, (data, step)
            assert found[0][3] == alive, (data, step)


def test_names_are_lower_case_and_values_stripped():
    headers = read(b"HTTP/1.1 204 x\r\nAbC: \t v w\t \r\nEmpty:\r\n\r\n")[0][1]
    assert headers == {"abc": "v w", "empty": ""}


def test_repeated_fields_are_joined():
    assert read(b"HTTP/1.1 204 x\r\na: 1\r\nA: 2\r\n\r\n")[0][1] == {"a": "1, 2"}


def test_responses_follow_each_other():
    data = PLAIN + CHUNKED + NO_CONTENT + PLAIN
    for step in (0, 1, 5):
        found = read(data, step, count=4, eof=False)
        assert [one[2] for one in found] == [b"hello", b"hello world", b"", b"hello"]


def test_the_answer_to_head_has_no_body():
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    assert [one[2] for one in read(data + data, method="HEAD", count=2)] == [b"", b""]
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert read(data, method="HEAD")[0][2] == b""


def test_a_close_before_the_end_is_never_a_success():
    for data in (PLAIN, CHUNKED, NO_CONTENT, INTERIM + PLAIN):
        for cut in range(len(data)):
            with raises(Truncated):
                read(data[:cut])
    with raises(Truncated):
        read(b"HTTP/1.1 200 OK\r\n\r")


def test_body_pieces_are_slices_of_the_buffer():
    parser = ResponseParser(bytearray(256))
    parser.begin()
    parser.space()[: len(PLAIN)] = PLAIN
    parser.received(len(PLAIN))
    assert parser.poll() is HEAD
    piece = parser.poll()
    parser.view[len(PLAIN) - 1] = 0x21
    assert bytes(piece) == b"hell!"
    assert parser.poll() is END
    assert not parser.pending and not parser.busy


def test_bad_heads_are_refused():
    for head in (
        b"HTTP/2 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 099 x\r\n\r\n",
        b"HTTP/1.1 +20 x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nname : x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\nc: d\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\rc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: \0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na(b: c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
    ):
        for step in (0, 1):
            try:
                read(head, step)
            except Truncated:
                assert False, (head, step)
            except BadMessage:
                continue
            assert False, (head, step)


def test_bad_chunks_are_refused():
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for body in (
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\na\r\n",
        b"0x1\r\na\r\n",
        b"1_0\r\n",
        b" 1\r\na\r\n",
        b"1 \r\na\r\n",
        b"1\na\r\n0\r\n\r\n",
        b"1\r\nab\r\n0\r\n\r\n",
        b"1\r\na\n0\r\n\r\n",
        b"1\r\na\r\r\n0\r\n\r\n",
        b"1;a\nb\r\na\r\n0\r\n\r\n",
        b"1;a\rb\r\na\r\n0\r\n\r\n",
        b"ffffffffff\r\n",
        b"0\r\n: x\nb\r\n\r\n",
        b"0\r\na: b\0\r\n\r\n",
        # Trailers that are no field lines: space before the colon, no colon, no name, folded.
        b"0\r\nX : a\r\n\r\n",
        b"0\r\njunk\r\n\r\n",
        b"0\r\n: a\r\n\r\n",
        b"0\r\nX: a\r\n b\r\n\r\n",
        b"0\r\nX: a\r\n\tY: b\r\n\r\n",
        b"0\r\n X: a\r\n\r\n",
        b"0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"0\r\nX(: a\r\n\r\n",
        b"0\r\nX\xe9: a\r\n\r\n",
        # Space after a size is nothing before an extension only.
        b"1\t\r\na\r\n0\r\n\r\n",
        b"1 a;b\r\na\r\n0\r\n\r\n",
        b" ;b\r\na\r\n0\r\n\r\n",
        b"0 \r\n\r\n",
        b"1;" + b"x" * 20000 + b"\r\n",
        b"0\r\n" + b"a: b\r\n" * 4000 + b"\r\n",
    ):
        for step in (0, 1):
            try:
                read(head + body, step)
            except Truncated:
                assert False, (body[:20], step)
            except BadMessage:
                continue
            assert False, (body[:20], step)


def test_space_before_an_extension_and_trailers_are_read():
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for body in (
        b"2 ;a\r\nhi\r\n0\r\n\r\n",
        b"2 \t ; a = b\r\nhi\r\n0 ;c\r\n\r\n",
        b"2\r\nhi\r\n0\r\nX-Sum:\r\n~!#$%&'*+-.^_`|9Z:  : a b\tc \xe9\r\n\r\n",
    ):
        for step in (0, 1, 3):
            assert read(head + body, step)[0][2] == b"hi", (body, step)


def test_a_chunked_body_can_be_read_on_its_own():
    data = b"3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\nGET / HTTP/1.1"
    for step in (1, 2, 5, 100):
        decoder = ChunkedDecoder()
        out = b""
        used = 0
        while not decoder.done:
            n, piece = decoder.feed(memoryview(data)[used : used + step])
            assert n or piece
            used += n
            out += bytes(piece or b"")
        assert out == b"abc0123456789"
        assert data[used:] == b"GET / HTTP/1.1"


def test_a_head_is_bounded():
    data = b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1000 + b"\r\n"
    with raises(BadMessage):
        read(data)


def test_a_line_longer_than_the_buffer_counts_only_when_it_is_wanted():
    long = b"X-Long: " + b"v" * 1000 + b"\r\n"
    data = b"HTTP/1.1 200 OK\r\n" + long + b"Content-Length: 2\r\n" + long + b"\r\nhi"
    for step in (0, 1, 3):
        found = read(data + data, step, keep=(b"etag:",), count=2)
        assert [one[2] for one in found] == [b"hi", b"hi"]
        assert found[0][1] == {"content-length": "2"}
    with raises(BadMessage):
        read(data, keep=(b"x-long:",))
    with raises(BadMessage):
        read(b"HTTP/1.1 200 " + b"O" * 300 + b"\r\n\r\n", keep=())
    with raises(BadMessage):
        read(b"HTTP/1.1 200 OK\r\nX: " + b"v" * 70000 + b"\r\n\r\n", keep=())


def test_what_a_long_line_has_in_its_middle_is_no_field():
    keep = (b"stream-", b"location:")
    for at in range(20, 100):
        for text in (b"stream-next: 1", b"location: a", b"content-length: 7", b"\r", b"\n"):
            long = b"x-long: " + b"a" * at + text + b"b" * 200
            data = b"HTTP/1.1 200 OK\r\n" + long + b"\r\nstream-a: 5\r\ncontent-length: 0\r\n\r\n"
            for step in (0, 1, 7):
                parser = ResponseParser(bytearray(64), keep)
                parser.begin()
                left = data
                while parser.poll() is NEED_DATA:
                    space = parser.space()
                    n = min(step or len(left), len(left), len(space))
                    space[:n] = left[:n]
                    left = left[n:]
                    parser.received(n)
                assert parser.headers == {"stream-a": "5", "content-length": "0"}


def test_a_length_has_only_the_digits_0_to_9():
    for text in ("\xb2", "1\xb9", "-1", "+1", "1_0", "1 0", "9" * 16, "9" * 5000):
        head = b"HTTP/1.1 200 OK\r\ncontent-length: " + bytes([ord(char) for char in text]) + b"\r\n\r\n"
        with raises(ValueError) as caught:
            read(head, size=8192)
        # (MicroPython has no text of bytes that are not UTF-8.)
        assert isinstance(caught.value, BadMessage) or isinstance(caught.value, UnicodeError) and max(text) > "~"


def test_requests():
    head = http1.request_head("POST", "/v1/stream/a?b=c", "host:1", [("A", "b"), ("N", 5)])
    assert head == b"POST /v1/stream/a?b=c HTTP/1.1\r\nHost: host:1\r\nA: b\r\nN: 5\r\n\r\n"
    for target, host, headers in (
        ("", "h", ()),
        ("x", "h", ()),
        ("/a b", "h", ()),
        ("/a\r\nX: y", "h", ()),
        ("/a", "h\r\nX: y", ()),
        ("/a", "h", [("A", "b\r\nC: d")]),
        ("/a", "h", [("A\r\n", "b")]),
        ("/a", "h", [("A", "b\0")]),
    ):
        with raises(ValueError):
            http1.request_head("GET", target, host, headers)
