"""Request heads: what the strict grammar accepts, what it leaves to others, and that it never half-reads (RFC 9112)."""

from ds_core.server import heads

GET = b"GET /v1/stream/a?offset=-1 HTTP/1.1\r\nHost: example.org\r\n\r\n"


def head(*lines):
    return b"\r\n".join(lines) + b"\r\n\r\n"


def with_fields(*fields):
    return head(b"POST /a HTTP/1.1", b"Host: h", *fields)


def test_a_plain_head():
    parsed = heads.parse(GET)
    assert (parsed.method, parsed.target, parsed.length) == ("GET", "/v1/stream/a?offset=-1", 0)
    assert parsed.headers == {"host": "example.org"}


def test_names_are_lowered_and_values_stripped():
    parsed = heads.parse(with_fields(b"Producer-ID:  p 1 ", b"X-Empty:", b"CONTENT-LENGTH: 0012"))
    assert parsed.length == 12
    assert parsed.headers == {"host": "h", "producer-id": "p 1", "x-empty": "", "content-length": "0012"}


def test_fields_that_nobody_else_sends_keep_no_others_out():
    for transport in (False, True):
        for number in range(1000):
            assert heads.parse(with_fields(b"X-Junk-%d: 1" % number), transport)
        assert len(heads._known[transport]) <= 256
        heads.parse(GET, transport)
        if heads._IS_PRINTABLE is not None:
            assert heads._known[transport]["Host: example.org"] == ("host", "example.org")
        else:
            assert not heads._known[transport]  # memory is scarce there


def test_fields_that_are_long_or_change_each_time_are_not_kept():
    for field in (b"X: " + b"x" * 300, b"Producer-Seq: 17", b"stream-seq: 17", b'If-None-Match: "1"'):
        assert heads.parse(with_fields(field), True)
        assert field.decode() not in heads._known[True]


def test_what_one_kind_of_server_accepts_another_does_not():
    for field in (b"Connection: close", b"Expect: 100-continue", b"Transfer-Encoding: chunked"):
        for _ in range(2):
            assert heads.parse(with_fields(field), True)
            assert heads.parse(with_fields(field)) is None


def test_a_field_that_comes_twice_is_left_to_others_however_it_is_written():
    for fields in ((b"X: 1", b"X: 1"), (b"X: 1", b"x: 1"), (b"X: 1", b"x:2"), (b"Host: h", b"host: h")):
        assert heads.parse(with_fields(*fields)) is None


def test_a_colon_in_a_value_is_its_own():
    assert heads.parse(with_fields(b"X: a: b::c")).headers["x"] == "a: b::c"


def test_every_proper_prefix_and_every_extension_is_left_alone():
    for size in range(len(GET)):
        assert heads.parse(GET[:size]) is None, size
    for more in (b"\r\n", b"x", b"GET / HTTP/1.1\r\n\r\n", b"body\r\n\r\n", b"\r\n\r\n", b"\n"):
        assert heads.parse(GET + more) is None, more
    assert heads.parse(b"\r\n" + GET) is None


def test_request_lines_that_are_left_to_others():
    for line in (
        b"GET / HTTP/1.0", b"GET / HTTP/2", b"GET / http/1.1", b"GET / HTTP/1.1 ",
        b"GET  / HTTP/1.1", b" GET / HTTP/1.1",
        b"GET /", b"GET", b"", b"GET HTTP/1.1", b"GET /a b HTTP/1.1", b"GET\t/ HTTP/1.1", b"GET /\tHTTP/1.1",
        b"GET /a\tb HTTP/1.1", b"GET http://h/ HTTP/1.1", b"OPTIONS * HTTP/1.1", b"CONNECT h:80 HTTP/1.1",
        b"G-T / HTTP/1.1", b"G1 / HTTP/1.1", b" / HTTP/1.1", b"GET  HTTP/1.1", b"GET /\x00 HTTP/1.1",
        b"GET /\x7f HTTP/1.1", b"GET /\xc3\xa9 HTTP/1.1", b"GET /\xff HTTP/1.1", b"GET / HTTP/1.1\r",
        b"GET /\rHTTP/1.1",
        b"GET /\n HTTP/1.1", b"G\xc3\x8bT / HTTP/1.1",
    ):  # fmt: skip
        assert heads.parse(head(line, b"Host: h")) is None, line


def test_fields_that_are_left_to_others():
    for field in (
        b"no colon", b": no name", b"name : space", b" folded: x", b"\tfolded: x", b" folded", b"na me: x",
        b"na\tme: x",
        b"name\x00: x", b"n(ame: x", b"n\xc3\xa4me: x", b"name: \x00", b"name: a\x01b", b"name: \x7f", b"name: \x1b[0m",
        b"name: caf\xc3\xa9", b"name: \xff", b"name: a\rb", b"name: a\nb: c", b"name: a\n b", b"\rname: x",
        b"name: x\r", b"name: a\tb", b"name:\ta", b"name: a\t",
        b"name: \x0b", b"name: \x0c", b"name: a\r\n folded", b"", b"name: x\r\n",
    ):  # fmt: skip
        assert heads.parse(with_fields(field)) is None, field
        assert heads.parse(with_fields(field), True) is None, field


def test_bare_line_ends_never_separate():
    for text in (
        GET.replace(b"\r\n", b"\n"),
        GET.replace(b"\r\n", b"\r"),
        GET.replace(b"1.1\r\n", b"1.1\n"),
        GET.replace(b".org\r\n\r\n", b".org\n\r\n"),
        GET.replace(b".org\r\n\r\n", b".org\r\n\n"),
        GET.replace(b".org\r\n\r\n", b".org\n\n"),
    ):
        assert heads.parse(text) is None, text


def test_a_host_is_needed_and_no_field_may_come_twice():
    assert heads.parse(head(b"GET / HTTP/1.1")) is None
    assert heads.parse(head(b"GET / HTTP/1.1", b"X: y")) is None
    for field in (b"Host: h", b"hOST: other", b"Content-Length: 1\r\nContent-Length: 1", b"X: 1\r\nx: 2"):
        assert heads.parse(with_fields(field)) is None, field


def test_content_lengths():
    for value, length in ((b"0", 0), (b"7", 7), (b"007", 7), (b"999999999999", 999999999999)):
        assert heads.parse(with_fields(b"Content-Length: " + value)).length == length
    for value in (
        b"", b"-1", b"+1", b"1.0", b"0x1", b"1e3", b"1, 1", b"1,1", b"1 1", b"one", b"1_0", b"1" * 13, b"\xd9\xa3",
        b"\xc2\xb2",
    ):  # fmt: skip
        assert heads.parse(with_fields(b"Content-Length: " + value)) is None, value


def test_what_concerns_the_connection_is_another_authoritys():
    for field in (
        b"Connection: keep-alive", b"Connection: close", b"Transfer-Encoding: chunked", b"Expect: 100-continue",
        b"Upgrade: websocket", b"TE: trailers", b"Trailer: x",
    ):  # fmt: skip
        assert heads.parse(with_fields(field)) is None, field


def test_where_there_is_no_other_authority_the_unambiguous_is_accepted():
    for field in (b"Connection: keep-alive", b"connection: Close", b"EXPECT: 100-Continue"):
        parsed = heads.parse(with_fields(field, b"Content-Length: 3"), transport=True)
        assert parsed.length == 3, field
        assert parsed.headers[field.split(b":")[0].decode().lower()] == field.split(b": ")[1].decode()
    assert heads.parse(with_fields(b"Transfer-Encoding: Chunked"), transport=True).length == heads.CHUNKED
    for fields in (
        (b"Transfer-Encoding: chunked", b"Content-Length: 3"),
        (b"Content-Length: 3", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: gzip, chunked",),
        (b"Transfer-Encoding: chunked, chunked",),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: identity",),
        (b"Transfer-Encoding:",),
        (b"Transfer-Encoding : chunked",),
        (b"Transfer-Encoding: \x0bchunked",),
        (b"Connection: upgrade",),
        (b"Connection: close, content-length",),
        (b"Upgrade: h2c",),
        (b"TE: trailers",),
        (b"Trailer: x",),
        (b"Expect: 200-ok",),
    ):
        assert heads.parse(with_fields(*fields), transport=True) is None, fields
