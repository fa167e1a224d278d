"""Whatever the strict head parser accepts, h11 reads identically: no request can be smuggled between the two."""

from __future__ import annotations

import h11
from hypothesis import example, given, settings, strategies as st

from ds_core.server import heads

ENDS = st.sampled_from(
    [b"\r\n"] * 30 + [b"\n", b"\r", b"\r\r\n", b"\r\n\r\n", b"\r\n ", b"\r\n\t", b"\x0b", b"\x85", b""]
)
METHODS = st.sampled_from(
    [b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"get", b"G-T", b"", b"GET\t", b"OPTIONS", b"CONNECT"]
)
TARGETS = st.sampled_from(
    [
        b"/",
        b"/v1/stream/a",
        b"/a?b=c&d=%20",
        b"//a",
        b"/a#b",
        b"*",
        b"http://h/a",
        b"h:80",
        b"/a\tb",
        b"/\x00",
        b"/\x7f",
    ]
    + [b"/\xc3\xa9", b"/\xff", b"", b"a", b"/a b", b"/\\", b'/"<>^`{|}']
)
VERSIONS = st.sampled_from(
    [b"HTTP/1.1"] * 12 + [b"HTTP/1.0", b"HTTP/2", b"http/1.1", b"HTTP/1.1 ", b" HTTP/1.1", b"", b"HTTP/11"]
)
SPACES = st.sampled_from([b" "] * 12 + [b"  ", b"\t", b"", b" \t"])
NAMES = st.sampled_from(
    [
        b"Host",
        b"host",
        b"HOST",
        b"Content-Length",
        b"content-length",
        b"Content-Type",
        b"Producer-Id",
        b"X",
        b"x",
        b"A-_.~",
    ]
    + [b"Transfer-Encoding", b"Connection", b"Expect", b"Upgrade", b"TE", b"Trailer", b"Cookie", b"a!#$%&'*+-.^_`|~"]
    + [
        b"",
        b"a b",
        b"a\t",
        b" a",
        b"\ta",
        b"a\x00",
        b"a:",
        b"a(",
        b"\xc3\xa4",
        b"Content-Length ",
        b"Content_Length",
        b"a\r",
    ]
)
COLONS = st.sampled_from([b": "] * 12 + [b":", b" :", b"\t: ", b":\t", b":  ", b"", b" ", b"::"])
VALUES = st.sampled_from(
    [
        b"h",
        b"example.org:80",
        b"0",
        b"5",
        b"05",
        b"+5",
        b"-5",
        b"5, 5",
        b"5,5",
        b"5 5",
        b"0x5",
        b"5_0",
        b"9" * 12,
        b"9" * 13,
    ]
    + [b"\xd9\xa3", b"chunked", b"Chunked", b"gzip, chunked", b"chunked\x0b", b"identity", b"keep-alive", b"close"]
    + [b"100-continue", b"upgrade", b"text/plain; a=b", b"", b" ", b"a ", b" a", b"a\tb", b"\ta", b"a\t", b"a\x00b"]
    + [
        b"a\x01",
        b"\x7f",
        b"caf\xc3\xa9",
        b"\xff",
        b"a\rb",
        b"a\nb: c",
        b"a\r\n b",
        b"a\r\nX: y",
        b"\x1b",
        b"a:b",
        b"\x85",
    ]
) | st.binary(max_size=6)
FIELD = st.builds(lambda name, colon, value, end: name + colon + value + end, NAMES, COLONS, VALUES, ENDS)
HOST = st.sampled_from(
    [b"Host: h\r\n"] * 12 + [b"", b"Host: h\r\nHost: h\r\n", b"Host : h\r\n", b"Host: h\n", b" Host: h\r\n"]
)


@st.composite
def nasty(draw: st.DrawFn) -> bytes:
    """Heads in which everything that can be odd sometimes is; most of the parts are right most of the time."""
    line = draw(METHODS) + draw(SPACES) + draw(TARGETS) + draw(SPACES) + draw(VERSIONS) + draw(ENDS)
    fields = draw(st.lists(FIELD, max_size=4))
    fields.insert(draw(st.integers(0, len(fields))), draw(HOST))
    return line + b"".join(fields) + draw(ENDS)


@st.composite
def nearly_right(draw: st.DrawFn) -> bytes:
    """A right head with one edit."""
    head = bytearray(b"POST /v1/stream/a?b=c HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nX-Other: a b\r\n\r\n")
    at = draw(st.integers(0, len(head)))
    byte = draw(st.sampled_from(b'\r\n\t :,;\x00\x0b\x0c\x1f\x7f\x80\xff05aA-+"(') | st.integers(0, 255))
    if draw(st.booleans()):
        head.insert(at, byte)
    elif at < len(head):
        head[at] = byte
    return bytes(head)


def same_as_h11(head: bytes, transport: bool) -> heads.RequestHead | None:
    parsed = heads.parse(head, transport)
    if parsed is None:
        return None
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(head)
    request = connection.next_event()
    assert isinstance(request, h11.Request), (head, request)
    assert request.method == parsed.method.encode()
    assert request.target == parsed.target.encode()
    assert request.http_version == b"1.1"
    expected = {name.decode(): value.decode() for name, value in request.headers}
    assert len(expected) == len(request.headers), "h11 saw a field twice"
    assert parsed.headers == expected
    follow = connection.next_event()
    if parsed.length == heads.CHUNKED:
        assert follow is h11.NEED_DATA or follow is h11.PAUSED
        connection.receive_data(b"3\r\nabc\r\n0\r\n\r\n")
        assert body_of(connection) == b"abc"
    elif parsed.length == 0:
        assert isinstance(follow, h11.EndOfMessage)
    else:
        assert follow is h11.NEED_DATA or follow is h11.PAUSED
        if parsed.length < 1000:
            connection.receive_data(b"x" * parsed.length + b"GET ")
            assert body_of(connection) == b"x" * parsed.length
            assert connection.trailing_data[0] == b"GET "
    return parsed


def body_of(connection: h11.Connection) -> bytes:
    body = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data), event
        body += bytes(event.data)
    return body


@settings(max_examples=1000)
@given(nasty(), st.booleans())
@example(b"GET /a\tb HTTP/1.1\r\nHost: h\r\n\r\n", False)
@example(b"GET / HTTP/1.1\r\nHost: h\r\nX: a\tb\r\n\r\n", False)
@example(b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", True)
def test_odd_heads(head: bytes, transport: bool) -> None:
    same_as_h11(head, transport)


@settings(max_examples=500)
@given(nearly_right(), st.booleans())
def test_heads_with_one_edit(head: bytes, transport: bool) -> None:
    same_as_h11(head, transport)


TOKEN = st.text(
    "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=1, max_size=12
)
PRINTABLE = st.text([chr(code) for code in range(0x21, 0x7F)], max_size=12)
ODD = {"transfer-encoding", "expect", "upgrade", "connection", "trailer", "te", "content-length", "host"}


@given(
    st.sampled_from(["GET", "PUT", "POST", "HEAD", "DELETE", "OPTIONS"]),
    PRINTABLE.map(lambda text: "/" + text),
    st.dictionaries(TOKEN.map(str.lower).filter(lambda name: name not in ODD), PRINTABLE, max_size=5),
    st.none() | st.integers(0, 999),
)
def test_every_plain_head_is_accepted(method: str, target: str, fields: dict[str, str], length: int | None) -> None:
    if length is not None:
        fields = {**fields, "content-length": str(length)}
    lines = [
        f"{method} {target} HTTP/1.1",
        "Host: h",
        *(f"{name.title()}:  {value} " for name, value in fields.items()),
    ]
    parsed = same_as_h11("\r\n".join([*lines, "", ""]).encode(), False)
    assert parsed is not None
    assert (parsed.method, parsed.target, parsed.length) == (method, target, length or 0)
    assert parsed.headers == {"host": "h", **fields}


def test_no_secret_is_kept() -> None:
    """Heads are remembered line by line; a token is not, however it is sent."""
    for name in ("Authorization", "AUTHORIZATION", "authorization", "Proxy-Authorization", "Cookie"):
        for transport in (False, True):
            head = heads.parse(f"GET / HTTP/1.1\r\nHost: h\r\n{name}: Bearer s3cret\r\n\r\n".encode(), transport)
            assert head is not None and head.headers[name.lower()] == "Bearer s3cret"
    assert "s3cret" not in repr(heads._known)
