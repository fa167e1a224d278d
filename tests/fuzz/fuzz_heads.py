"""Fuzzes the strict head parser: whatever it accepts, h11 reads identically, so nothing can be smuggled between them.

    python tests/fuzz/fuzz_heads.py -max_total_time=60 tests/fuzz/corpus/heads

Needs `pip install atheris`. Of the first byte, bit 0 asks for `transport` and bit 1 turns every LF into
CR LF, so that the fuzzer finds whole heads sooner. test_corpus.py runs the corpus without atheris.
"""

from __future__ import annotations

import contextlib
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
    from ds_core.server import heads

BODY = b"12345"
NEXT = b"GET / HTTP/1.1\r\n"


def body_of(connection: h11.Connection) -> bytes:
    body = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data), event
        body += bytes(event.data)
    return body


def one_input(data: bytes) -> None:
    flags = data[0] if data else 0
    head = data[1:]
    if flags & 2:
        head = head.replace(b"\n", b"\r\n")
    # A connection gives the parser what ends with the first empty line, and so does this.
    end = head.find(heads.END)
    if 0 <= end <= len(head) - len(heads.END):
        head = head[: end + len(heads.END)]
    parsed = heads.parse(head, bool(flags & 1))
    if parsed is None:
        return
    if not flags & 1:
        # Who obeys less accepts less, and nothing else.
        more = heads.parse(head, True)
        assert more is not None and more.headers == parsed.headers and more.length == parsed.length
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(head)
    request = connection.next_event()
    assert isinstance(request, h11.Request), (head, request)
    assert request.method == parsed.method.encode()
    assert request.target == parsed.target.encode()
    assert request.http_version == b"1.1"
    fields = {name.decode(): value.decode() for name, value in request.headers}
    assert len(fields) == len(request.headers), "h11 saw a field twice"
    # h11 lowers the case of this one value, which has none (RFC 9112 section 7).
    for found in (parsed.headers, fields):
        if "transfer-encoding" in found:
            found["transfer-encoding"] = found["transfer-encoding"].lower()
    assert parsed.headers == fields, (parsed.headers, fields)
    # Both see the next request begin at the same byte.
    if parsed.length == heads.CHUNKED:
        connection.receive_data(b"5\r\n" + BODY + b"\r\n0\r\n\r\n" + NEXT)
        assert body_of(connection) == BODY
    elif parsed.length <= len(BODY):
        body = BODY[: parsed.length]
        connection.receive_data(body + NEXT)
        assert body_of(connection) == body
    else:
        # Only what comes of the body is looked at: it may be a terabyte.
        connection.receive_data(BODY)
        event = connection.next_event()
        assert isinstance(event, h11.Data) and bytes(event.data) == BODY
        return
    assert connection.trailing_data[0] == NEXT


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
