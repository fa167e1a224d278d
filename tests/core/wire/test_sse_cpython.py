"""Server-sent events with arbitrary payloads and arbitrary cuts (Hypothesis)."""

from __future__ import annotations

import json

from hypothesis import example, given, strategies as st

from ds_core.wire.sse import NEED_DATA, Parser, control_event, data_event, decode_base64, event

# Mostly what means something to the grammar.
TOKENS = st.sampled_from(
    [
        b"\r",
        b"\n",
        b"\r\n",
        b":",
        b" ",
        b"data",
        b"event",
        b"id",
        b"data: ",
        b"event: control\n",
        b"\xef\xbb\xbf",
        b"x",
    ]
)
PAYLOADS = st.one_of(st.binary(), st.lists(TOKENS, max_size=30).map(b"".join))
CUTS = st.lists(st.integers(0, 40), max_size=40)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """`data` in pieces of these sizes, the rest in one."""
    found = []
    for size in sizes:
        found.append(data[:size])
        data = data[size:]
    return [*found, data]


def parse(chunks: list[bytes], **options: object) -> list[tuple[str, bytes]]:
    parser = Parser(**options)  # type: ignore[arg-type]
    found = []
    part = b""
    for number, chunk in enumerate(chunks):
        parser.feed((bytes, bytearray, memoryview)[number % 3](chunk))
        while (result := parser.next()) is not NEED_DATA:
            name, data = result
            part += data
            if not parser.more:
                found.append((name, part))
                part = b""
    return found


def lines_joined(payload: bytes) -> bytes:
    return payload.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


@given(st.lists(PAYLOADS, max_size=4), CUTS)
def test_text_arrives_with_its_lines_and_nothing_else(payloads: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(data_event(payload, False) + control_event("1_2", "3", True) for payload in payloads)
    control = b'{"streamNextOffset":"1_2","streamCursor":"3","upToDate":true}'
    expected = []
    for payload in payloads:
        expected += [("data", lines_joined(payload)), ("control", control)]
    assert parse(cut(stream, sizes)) == expected
    assert parse(cut(stream, sizes), limit=7, partial=True) == expected


@given(st.binary(max_size=300), CUTS, st.integers(7, 50))
def test_bytes_arrive_exactly(payload: bytes, sizes: list[int], limit: int) -> None:
    stream = data_event(payload, True)
    [(name, data)] = parse(cut(stream, sizes))
    assert (name, *decode_base64(data)) == ("data", payload, b"")
    parser = Parser(limit, partial=True)
    found = rest = b""
    for chunk in cut(stream, sizes):
        parser.feed(chunk)
        while (result := parser.next()) is not NEED_DATA:
            decoded, rest = decode_base64(result[1], rest)
            found += decoded
    assert (found, rest) == (payload, b"")


@given(PAYLOADS, CUTS)
@example(b"\xef\xbb\xbfdata\r\n\r", [3, 5])
def test_any_stream_reads_alike_however_it_is_cut(stream: bytes, sizes: list[int]) -> None:
    try:
        whole = parse([stream])
    except ValueError as exc:
        assert "not UTF-8" in str(exc)
        return
    assert parse(cut(stream, sizes)) == whole
    assert whole == reference(stream)


def reference(stream: bytes) -> list[tuple[str, bytes]]:
    """The HTML standard's interpretation of an event stream, line by line, on whole data."""
    stream = lines_joined(stream.removeprefix(b"\xef\xbb\xbf"))
    found = []
    name = b""
    data: list[bytes] = []
    for line in stream.split(b"\n")[:-1]:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data:
                found.append((name.decode() or "message", b"\n".join(data)))
            name, data = b"", []
        elif field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return found


@given(st.text(), st.none() | st.text(), st.booleans(), st.booleans(), CUTS)
def test_control_data_is_json(
    offset: str, cursor: str | None, up_to_date: bool, closed: bool, sizes: list[int]
) -> None:
    [(name, data)] = parse(cut(control_event(offset, cursor, up_to_date, closed), sizes))
    expected: dict[str, object] = {"streamNextOffset": offset}
    if cursor is not None:
        expected["streamCursor"] = cursor
    if up_to_date:
        expected["upToDate"] = True
    if closed:
        expected["streamClosed"] = True
    assert name == "control" and json.loads(data) == expected


@given(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), st.text())
def test_names_and_text_arrive(name: str, text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    [(found, data)] = parse([event(name, text)])
    assert found == (name or "message")
    assert data.decode() == lines_joined(text.encode()).decode()
