"""What CPython decodes in machine code (`ds_micro.batches`) is what the device's decoders make of the same bytes.

Held against each other feed by feed: values and their types, errors and their texts, what is pending, wherever the
bytes are cut and whatever they are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from hypothesis import example, given, settings, strategies as st

from ds_core.client import jsonitems
from ds_core.wire import cbor
from ds_core.wire.cbor import Simple, Tag, undefined
from ds_micro import quick_cbor, quick_json

Outcome = list[tuple[list[object], str, int]]


def one_by_one(module: Any, pieces: list[bytes], **limits: int) -> Outcome:
    """What the device's decoder makes of each piece: values, an error, bytes pending."""
    decoder = module.Decoder(**limits)
    found: Outcome = []
    for piece in pieces:
        values: list[object] = []
        decoder.feed(memoryview(piece))
        try:
            while (value := decoder.next()) is not module.NEED_DATA:
                values.append(value)
        except (ValueError, RecursionError) as exc:
            return [*found, (values, f"{type(exc).__name__}: {exc}", 0)]
        found.append((values, "", decoder.pending))
    return found


def in_batches(module: Any, pieces: list[bytes], **limits: int) -> Outcome:
    """The same of the quick decoder. Its buffer is used again, as a connection's is."""
    decoder = module.Decoder(**limits)
    found: Outcome = []
    for piece in pieces:
        values: list[object] = []
        buffer = bytearray(piece)
        decoder.feed(memoryview(buffer))
        try:
            while batch := decoder.many():
                values += batch
        except (ValueError, RecursionError) as exc:
            return [*found, (values, f"{type(exc).__name__}: {exc}", 0)]
        buffer[:] = b"\xff" * len(buffer)
        found.append((values, "", decoder.pending))
    return found


def same(one: object, other: object) -> bool:
    """Equal in type, value and the order of maps; NaN equals NaN, 0.0 does not equal -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float) and isinstance(other, float):
        return (math.isnan(one) and math.isnan(other)) or repr(one) == repr(other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))  # type: ignore[arg-type]
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))  # type: ignore[attr-defined]
    if isinstance(one, Tag):
        return one.tag == other.tag and same(one.value, other.value)  # type: ignore[attr-defined]
    return one == other


def hold(plain: Any, quick: Any, data: bytes, sizes: list[int], **limits: int) -> Outcome:
    pieces = []
    rest = data
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    pieces.append(rest)
    expected = one_by_one(plain, pieces, **limits)
    found = in_batches(quick, pieces, **limits)
    assert same(found, expected), (data, sizes, found, expected)
    return found


CUTS = st.lists(st.integers(0, 30), max_size=20)
LIMITS = st.sampled_from((65536, 65536, 40, 9, 3))

# JSON

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.one_of(st.integers(), st.integers(-5, 5), st.floats())
JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=10,
)
SPACES = st.sampled_from(("", "", "", " ", "\n", "\r\n", "\t "))


@st.composite
def json_arrays(draw: Callable[..., Any]) -> bytes:
    """Arrays of values as peers may write them, back to back as live events are."""
    out = ""
    for values in draw(st.lists(st.lists(JSON_VALUES, max_size=6), min_size=1, max_size=3)):
        ascii_only = draw(st.booleans())
        texts = [json.dumps(value, ensure_ascii=ascii_only) for value in values]
        out += draw(SPACES) + "["
        out += ",".join(draw(SPACES) + text + draw(SPACES) for text in texts)
        out += draw(SPACES if not texts else st.just("")) + "]" + draw(SPACES)
    return out.encode()


TOKENS = st.sampled_from(
    [
        *(bytes([byte]) for byte in b'[]{},:" \\\n0-1eE.+u'),
        *(b"[", b",", b",", b"]", b'"', b'""', b'{"":', b"null", b"true", b"nul", b"NaN", b"-Infinity", b"01", b"1."),
        *(b"-0.0", b"1e999", b"12345678901234567890", b'"\\ud83d\\ude00"', b'"\\ud83d"', b'"\\u00e9"', b'"\\x"'),
        *("é".encode(), "\ufeff".encode(), b"\xc3", b"\xff", b"\0"),
    ]
)


@given(json_arrays(), CUTS, LIMITS)
@example('[{"t":21.5},"żółw",1]'.encode(), [7, 8, 1], 65536)
@example(b'["\\ud83d\\ude00",1,"\\ud83d"]', [], 65536)
def test_json_that_is_right(data: bytes, sizes: list[int], limit: int) -> None:
    hold(jsonitems, quick_json, data, sizes, max_bytes=limit)


@settings(max_examples=400)
@given(st.lists(TOKENS, max_size=30).map(b"".join), CUTS, LIMITS)
@example(b"[1 2]", [], 65536)
@example(b"[1}],2]", [], 65536)
@example(b'[{]},"a" "b"]', [3], 65536)
@example(b"[1,]", [], 65536)
@example(b'["\xc3","', [], 65536)
@example(b"[" + b"9" * 5000 + b"]", [], 65536)
def test_json_that_is_not(data: bytes, sizes: list[int], limit: int) -> None:
    hold(jsonitems, quick_json, b"[1,2,3," + data, sizes, max_bytes=limit)
    hold(jsonitems, quick_json, data, sizes, max_bytes=limit)


@given(json_arrays(), st.integers(0, 200), st.binary(min_size=1, max_size=1), CUTS)
def test_json_with_one_wrong_byte(data: bytes, at: int, byte: bytes, sizes: list[int]) -> None:
    at %= len(data)
    hold(jsonitems, quick_json, data[:at] + byte + data[at + 1 :], sizes)


def test_json_nested_more_deeply_than_the_interpreter_goes() -> None:
    for depth in (900, 100_000):
        data = b"[1," + b"[" * depth + b"]" * depth + b"]"
        values, error, _ = in_batches(quick_json, [data], max_bytes=1 << 20)[0]
        assert values[0] == 1
        assert error.partition(":")[0] == ("ValueError" if depth > 1000 else "")


# CBOR

INTEGERS = st.one_of(st.integers(), st.integers(-70, 70))
FLOATS = st.one_of(st.floats(), st.floats(width=32), st.floats(width=16))
SIMPLE = st.one_of(st.integers(0, 19), st.integers(32, 255)).map(Simple)
BINARY = st.binary(max_size=12)
SCALARS = st.one_of(st.none(), st.booleans(), INTEGERS, FLOATS, TEXT, BINARY, SIMPLE, st.just(undefined))
TAGS = st.one_of(st.sampled_from([*quick_cbor._KNOWN, 6, 24, 70000]), st.integers(0, (1 << 64) - 1))
KEYS = st.one_of(INTEGERS, TEXT, st.binary(max_size=5), st.booleans(), st.tuples(INTEGERS, TEXT), SIMPLE, FLOATS)
CBOR_VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4), st.builds(Tag, TAGS, inner)
    ),
    max_leaves=10,
)
BYTES = st.sampled_from(
    [bytes([byte]) for byte in range(256)]
    + [b"\x9f", b"\xbf", b"\x5f", b"\x7f", b"\xff", b"\x61a", b"\x41b", b"\x82", b"\xa1", b"\xa2\x07\x01\xe7\x02"] * 8
    + [b"\xa1\xa0\x01", b"\xa1\x80\x01", b"\xc1\x80", b"\xc2\x41\x05", b"\xd8\x1c\x01", b"\xd9\x01\x02\x80"] * 4
)


@settings(max_examples=300)
@given(st.lists(CBOR_VALUES, max_size=6), CUTS, LIMITS)
@example([{1: 2.5}, {"a": [1, {"b": b"x"}]}, Tag(1, 2), Tag(2, b"\1"), Tag(4, [1, 2])], [3, 9], 65536)
def test_cbor_that_is_right(values: list[object], sizes: list[int], limit: int) -> None:
    data = b"".join(map(cbor.encode, values))
    hold(cbor, quick_cbor, data, sizes, max_bytes=limit)


@settings(max_examples=600)
@given(st.one_of(st.binary(max_size=40), st.lists(BYTES, max_size=25).map(b"".join)), CUTS, LIMITS)
@example(b"\x01\x7f\x61\xc3\x61\xa9\xff", [], 65536)
@example(b"\xa2\x07\x01\xe7\x02", [], 65536)
@example(b"\xa1\xa0\x01\xa1\x80\x01", [], 65536)
@example(b"\x9b" + b"\xff" * 8, [], 65536)
@example(b"\x5b\x7f" + b"\xff" * 7, [3], 65536)
def test_cbor_of_any_bytes(data: bytes, sizes: list[int], limit: int) -> None:
    hold(cbor, quick_cbor, data, sizes, max_bytes=limit)
    hold(cbor, quick_cbor, b"\x01\x02" + data, sizes, max_bytes=limit)


@given(st.lists(CBOR_VALUES, min_size=1, max_size=6), st.integers(0, 200), st.integers(0, 255), CUTS)
def test_cbor_with_one_wrong_byte(values: list[object], at: int, byte: int, sizes: list[int]) -> None:
    data = bytearray(b"".join(map(cbor.encode, values)))
    data[at % len(data)] = byte
    hold(cbor, quick_cbor, bytes(data), sizes)


@pytest.mark.parametrize("wrap", [b"\x81", b"\xa1\x01", b"\xd6", b"\xc1", b"\x9f", b"\xd8\x1d"])
@pytest.mark.parametrize("core", [b"\x01", b"\x5f\x41a\xff", b"\xc1\x01", b"\x7f\xff"])
def test_cbor_as_deep_as_it_may_be(wrap: bytes, core: bytes) -> None:
    for depth in range(26, 36):
        ends = b"\xff" * depth if wrap == b"\x9f" else b""
        hold(cbor, quick_cbor, b"\x05" + wrap * depth + core + ends + b"\x06", [])


def test_cbor_counts_as_before() -> None:
    data = b"".join(map(cbor.encode, [{"n": n, "t": n / 7} for n in range(1000)]))
    decoder = quick_cbor.Decoder()
    for at in range(0, len(data), 999):
        decoder.feed(data[at : at + 999])
        while decoder.many():
            pass
        assert 0 <= decoder.pending < 30
    assert (decoder.items, decoder.consumed) == (1000, len(data))
    decoder.end()


def test_a_tag_that_cbor2_will_know_one_day_is_still_a_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick_cbor, "_TAGS", {})  # as if it knew all of these only since then
    values = [Tag(37, b"x" * 16), Tag(0, "2013-03-21T20:04:00Z"), {"at": Tag(1, 5)}, Tag(30, [1, 3]), Tag(258, [1])]
    assert cbor2.loads(cbor.encode(values[0])) != values[0]
    found = hold(cbor, quick_cbor, b"".join(map(cbor.encode, values)), [])
    assert found[0][0] == values
