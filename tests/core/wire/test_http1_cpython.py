"""Random responses, in random pieces, through buffers of random size; and random noise."""

from hypothesis import given, settings, strategies as st

from ds_core.wire.http1 import END, HEAD, NEED_DATA, BadMessage, ResponseParser

TOKEN = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12)
VALUE = st.text("".join(map(chr, range(33, 127))), max_size=30)


@st.composite
def responses(draw):
    """(bytes of a response, its body)."""
    body = draw(st.binary(max_size=600))
    framed = draw(st.sampled_from(["length", "chunked", "none"]))
    status = 200
    fields = draw(st.lists(st.tuples(TOKEN.map("x-".__add__), VALUE), max_size=5))
    if framed == "length":
        fields.append(("Content-Length", str(len(body))))
        wire = body
    elif framed == "chunked":
        fields.append(("Transfer-Encoding", "chunked"))
        wire = b""
        at = 0
        while at < len(body):
            n = draw(st.integers(1, len(body) - at))
            wire += b"%x%s\r\n" % (n, draw(st.sampled_from([b"", b";a=b", b";"]))) + body[at : at + n] + b"\r\n"
            at += n
        wire += b"0\r\n" + draw(st.sampled_from([b"", b"Trailer: x\r\n"])) + b"\r\n"
    else:
        status, body, wire = 204, b"", b""
    head = "HTTP/1.1 %d x\r\n" % status + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n"
    return head.encode() + wire, body


def parse(data, cuts, size, count):
    parser = ResponseParser(bytearray(size))
    bodies = []
    at = 0
    for _ in range(count):
        parser.begin()
        body = b""
        while (got := parser.poll()) is not END:
            if got is NEED_DATA:
                space = parser.space()
                piece = data[at : at + min(len(space), next(cuts))]
                space[: len(piece)] = piece
                at += len(piece)
                parser.received(len(piece))
            elif got is not HEAD:
                body += bytes(got)
        bodies.append(body)
    assert not parser.pending and at == len(data)
    return bodies


@settings(max_examples=200, deadline=None)
@given(st.lists(responses(), min_size=1, max_size=4), st.integers(128, 1024), st.randoms(use_true_random=False))
def test_any_split_reads_the_same(found, size, random):
    data = b"".join(one for one, _ in found)

    def cuts():
        while True:
            yield random.choice((1, 2, 3, 50, 1000))

    assert parse(data, cuts(), size, len(found)) == [body for _, body in found]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=20), st.sampled_from([b"\r\n", b"HTTP/1.1 200 OK\r\n", b"a: b\r\n",
       b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n", b"0\r\n", b"\n"])), max_size=12))
def test_noise_is_read_or_refused_alike_whole_and_byte_by_byte(parts):
    data = b"".join(parts)
    outcomes = []
    for step in (1, 10000):
        parser = ResponseParser(bytearray(4096))
        parser.begin()
        body = b""
        at = 0
        try:
            while (got := parser.poll()) is not END:
                if got is NEED_DATA:
                    space = parser.space()
                    piece = data[at : at + min(step, len(space))]
                    space[: len(piece)] = piece
                    at += len(piece)
                    parser.received(len(piece))
                elif got is not HEAD:
                    body += bytes(got)
            outcomes.append((parser.status, parser.headers, body, parser.keep_alive))
        except BadMessage as exc:
            outcomes.append(type(exc))
    assert outcomes[0] == outcomes[1]
