"""Fuzzes the reader of responses: any cut reads alike, in any buffer, and h11 reads the same or refuses; and heads of
requests, out of which nothing breaks.

    python tests/fuzz/fuzz_http1.py -max_total_time=60 tests/fuzz/corpus/http1

Needs `pip install atheris`. The first byte chooses how the rest is cut, the second the size of the buffer.
test_corpus.py runs the corpus without atheris.
"""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path

if __name__ == "__main__":
    import atheris

    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    instrumented = atheris.instrument_imports(include=["ds_core"])
else:
    instrumented = contextlib.nullcontext()

import h11

with instrumented:
    from ds_core.wire.http1 import END, HEAD, NEED_DATA, BadMessage, ResponseParser, Truncated, request_head

BIG = 1 << 16
KEEP = (b"stream-", b"content-type:")


def responses(data: bytes, step: int, size: int, keep: tuple[bytes, ...]) -> list[object]:
    """All responses that `data` is, then what ended them."""
    parser = ResponseParser(bytearray(size), keep)
    found: list[object] = []
    at = 0
    while True:
        parser.begin()
        body = b""
        try:
            while (got := parser.poll()) is not END:
                if got is NEED_DATA:
                    space = parser.space()
                    assert len(space)
                    piece = data[at : at + min(step, len(space))]
                    space[: len(piece)] = piece
                    at += len(piece)
                    parser.received(len(piece))
                elif got is not HEAD:
                    assert len(got)
                    body += bytes(got)
        except Truncated:
            return [*found, "truncated"]
        except BadMessage as exc:
            return [*found, str(exc)]
        found.append((parser.status, parser.headers, body, parser.keep_alive))
        assert parser.status >= 200
        if not parser.keep_alive:
            return [*found, "closed"]


def theirs(data: bytes) -> tuple[int, bytes] | str:
    """The first response as h11 reads it."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=BIG)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "h")]))
    connection.send(h11.EndOfMessage())
    status, body = 0, b""
    try:
        connection.receive_data(data)
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(b"")
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return status, body
            elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                return "closed"
    except h11.RemoteProtocolError as exc:
        # Of a body that is cut it says so, in one of these ways; of a head, only that the peer has closed.
        cut = re.search(r"without sending complete|closed connection|unexpectedly", str(exc))
        return "truncated" if cut else "refused"


def one_response(data: bytes, step: int, size: int) -> None:
    whole = responses(data, BIG, BIG, (b"",))
    for cut in (1, step):
        assert responses(data, cut, BIG, (b"",)) == whole
    small = responses(data, BIG, size, KEEP)
    for cut in (1, step):
        assert responses(data, cut, size, KEEP) == small
    for one, other in zip(whole, small, strict=False):
        if isinstance(one, tuple) and isinstance(other, tuple):
            assert (one[0], one[2], one[3]) == (other[0], other[2], other[3])
            assert other[1] == {name: one[1][name] for name in other[1]}
    if not re.search(rb"(?<!\r)\n", data):  # h11 takes a bare LF for the end of a line
        first, reading = whole[0], theirs(data)
        if isinstance(first, tuple) and isinstance(reading, tuple):
            assert (first[0], first[2]) == reading
        elif isinstance(first, tuple):
            assert reading != "truncated", (first, reading)
        elif isinstance(reading, tuple):
            assert first != "truncated", (first, reading)


def one_request(data: bytes) -> None:
    words = data.decode("latin-1").split("\n\n", 3)
    target, host, name, value = (words + ["x"] * 3)[:4]
    try:
        head = request_head("GET", target, host, [(name, value)])
    except ValueError:
        return
    assert head.count(b"\r\n") == head.count(b"\n") == head.count(b"\r") == 4 and head.endswith(b"\r\n\r\n")
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=BIG)
    connection.receive_data(head)
    with contextlib.suppress(h11.RemoteProtocolError):
        request = connection.next_event()
        assert request.target == target.encode() and len(request.headers) == 2


def one_input(data: bytes) -> None:
    step = data[0] % 16 + 1 if data else 1
    size = data[1] + 40 if len(data) > 1 else 40
    one_response(data[2:], step, size)
    one_request(data[2:])


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
