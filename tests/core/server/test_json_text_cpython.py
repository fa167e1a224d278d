"""The splitter against CPython's json: the same texts are JSON, and messages are what was sent, byte for byte.

Known and wanted differences: half a surrogate pair is no text, NaN and Infinity are no JSON, a byte order mark is none,
numbers have any length, and nesting is limited to MAX_DEPTH.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from ds_core.server import json_text

SPACE = st.text(" \t\r\n", max_size=3).map(str.encode)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20
)
# Pieces that make texts which are nearly JSON.
TOKENS = st.sampled_from(
    [
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b'"',
        b"\\",
        b"\\u",
        b"\\ud83d\\ude00",
        b"\\ud83d",
        b"\\uDe00",
        b"\\\\",
        b"0",
        b"1",
        b"-",
        b"+",
        b".",
        b"e",
        b"E9",
    ]
    + [
        b"true",
        b"false",
        b"null",
        b"NaN",
        b"Infinity",
        b" ",
        b"\n",
        b"\t",
        b"\x00",
        b"\x0b",
        b'""',
        b'"a"',
        b'"a":',
        b"1.5",
    ]
    + [
        b"a",
        b"\xc3\xa9",
        b"\xe2\x82\xac",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"/",
        b"'",
        b"//",
        b"\xc2\xa0",
        b"00",
    ]
)


def constant(name: str) -> None:
    raise ValueError(name)


def parse(text: bytes) -> object:
    value = json.loads(text.decode("utf-8"), parse_int=str, parse_float=str, parse_constant=constant)
    json.dumps(value, ensure_ascii=False).encode()  # UnicodeEncodeError, a ValueError: half a surrogate pair
    return value


def agree(text: bytes) -> None:
    try:
        expected = parse(text)
    except (ValueError, RecursionError):
        with pytest.raises(ValueError):
            json_text.split(text)
        return
    try:
        found = json_text.split(text)
    except ValueError as error:
        assert "nested deeper" in str(error)
        assert text.count(b"[") + text.count(b"{") > json_text.MAX_DEPTH
        return
    assert [parse(message) for message in found] == (expected if isinstance(expected, list) else [expected])
    at = 0
    for message in found:
        assert message == message.strip(b" \t\r\n")
        at = text.index(message, at) + len(message)


@st.composite
def spaced(draw: st.DrawFn) -> bytes:
    """JSON with whitespace wherever it may stand, in any of json's spellings."""
    value = draw(VALUES)
    separators = (draw(SPACE).decode() + "," + draw(SPACE).decode(), draw(SPACE).decode() + ":" + draw(SPACE).decode())
    text = json.dumps(
        value, ensure_ascii=draw(st.booleans()), separators=separators, indent=draw(st.none() | st.just(1))
    )
    return draw(SPACE) + text.encode("utf-8", "surrogatepass") + draw(SPACE)


@given(spaced())
def test_json_is_split(text: bytes) -> None:
    agree(text)


@given(st.lists(TOKENS, max_size=20).map(b"".join))
def test_what_is_nearly_json(text: bytes) -> None:
    agree(text)


@given(spaced(), st.data())
def test_json_with_one_thing_changed(text: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    size = data.draw(st.integers(0, 3))
    agree(text[:at] + data.draw(TOKENS | st.just(b"")) + text[at + size :])


@given(st.binary(max_size=40))
def test_any_bytes(text: bytes) -> None:
    agree(text)


@given(st.integers(120, 140), st.sampled_from([(b"[", b"]"), (b'{"a":', b"}")]))
def test_nesting_around_the_limit(depth: int, kind: tuple[bytes, bytes]) -> None:
    agree(kind[0] * depth + b"1" + kind[1] * depth)


@given(st.lists(VALUES, max_size=5), SPACE)
def test_messages_are_the_bytes_that_were_sent(values: list[object], space: bytes) -> None:
    texts = [json.dumps(value).encode() for value in values]
    assert json_text.split(b"[" + (space + b"," + space).join(texts) + space + b"]") == texts
