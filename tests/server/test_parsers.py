"""The fast parsers say what the core's own say: same verdicts, same messages."""

from __future__ import annotations

import json
import random
import tracemalloc
from typing import Any

import cbor2
import pytest
from hypothesis import example, given, strategies as st

from ds_core.server.messages import Parsers
from ds_core.wire import media
from ds_trio_server import parsers
from ds_trio_server.parsers import FastParsers, Parsed

FAST, PURE = FastParsers(), Parsers()

texts = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(["[", "]", ",", '"', "\\", "\u2028", "\0"])
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
cbor_values = st.recursive(
    st.none() | st.booleans() | numbers | texts | st.binary(max_size=8) | st.integers(0, 2**80),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(texts | st.integers(), inner, max_size=4)
        | st.builds(cbor2.CBORTag, st.sampled_from([0, 1, 2, 4, 24, 28, 29, 35, 55799, 70000]), inner)
    ),
    max_leaves=12,
)


def json_outcome(parser: Parsers, body: bytes) -> list[bytes] | None:
    try:
        return parser.split_json(body)
    except ValueError as error:
        assert str(error)
        return None


def cbor_outcome(parser: Parsers, body: bytes) -> bool:
    try:
        parser.check_cbor(body)
    except ValueError as error:
        assert str(error)
        return False
    return True


@st.composite
def spoilt(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Bytes that were right, with a few changes."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            del data[at : at + draw(st.integers(1, 3))]
        elif kind == 1:
            data[at:at] = draw(st.binary(max_size=3))
        elif kind == 2:
            data[at:at] = draw(st.sampled_from([*b'[],{}" -0', 0xFF])).to_bytes(1, "big")
        elif at < len(data):
            data[at] = draw(st.integers(0, 255))
    return bytes(data)


json_bodies = st.builds(
    lambda value, indent, ascii: json.dumps(value, indent=indent, ensure_ascii=ascii).encode(),
    json_values,
    st.sampled_from([None, 0, 1, "\t"]),
    st.booleans(),
)
cbor_bodies = st.lists(cbor_values, min_size=1, max_size=4).map(lambda items: b"".join(map(cbor2.dumps, items)))


@given(spoilt(json_bodies))
@example(b"")
@example(b" \n")
@example(b"\xef\xbb\xbf[1]")
@example(b"[1]\x00")
@example(b'"\\ud800"')
@example(b'"\xed\xa0\x80"')
@example(b'"\\q"')
@example(b'"\\u12g4"')
@example(b'"\x1f"')
@example(b'"\x7f"')
@example(b"[1,]")
@example(b"[,1]")
@example(b'{"a":1,}')
@example(b"{1:2}")
@example(b"01")
@example(b"-")
@example(b"1.")
@example(b".5")
@example(b"1e")
@example(b"1e+")
@example(b"+1")
@example(b"1E400")
@example(b"-0")
@example(b"NaN")
@example(b"[Infinity]")
@example(b"nul")
@example(b"truefalse")
@example(b"1 2")
@example(b"[1][2]")
@example(b"\x0b1")
@example(b"[ [] , {} ]")
@example(b'[[1,[2,"],"]]]')
@example(b"[1] x")
@example(b"9" * 5000)
def test_json_is_split_alike(body: bytes) -> None:
    assert json_outcome(FAST, body) == json_outcome(PURE, body)


@given(spoilt(cbor_bodies) | st.binary(max_size=12))
@example(b"")
@example(b"\xff")
@example(b"\x01\xff")
@example(b"\x9f\xff\xff")
@example(b"\x9f")
@example(b"\x18\x17")
@example(b"\x1c")
@example(b"\x1f")
@example(b"\xf8\x10")
@example(b"\xf8\x20")
@example(b"\xf9\x7e\x00")
@example(b"\xfc")
@example(b"\x61\xff")
@example(b"\x62\xed\xa0")
@example(b"\x7f\x61a\x41b\xff")
@example(b"\x7f\x61\xc3\x61\xa9\xff")
@example(b"\x5f\x5f\x41a\xff\xff")
@example(b"\xbf\x01\xff")
@example(b"\xbf\x01\x02\xff")
@example(b"\xa1\x01")
@example(b"\xa1\x80\x01")
@example(b"\xa1\xa0\x01")
@example(b"\xa2\x01\x01\x01\x01")
@example(b"\xc0\x61x")
@example(b"\xc2\x01")
@example(b"\xd8\x1d\x05")
@example(b"\xd8\x1c\x81\xd8\x1d\x00")
@example(b"\xd8\x23\x61(")
@example(b"\xc1")
@example(b"\xc1\xff")
@example(b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff")
@example(b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff")
@example(b"\xbb\x80\x00\x00\x00\x00\x00\x00\x00")
@example(b"\xd9\x01\x02\x82\x01\x02")
def test_cbor_is_judged_alike(body: bytes) -> None:
    assert cbor_outcome(FAST, body) is cbor_outcome(PURE, body)


@pytest.mark.parametrize("opening", [b"\x81", b"\xa1\x00", b"\x9f", b"\xc1", b"\x82\x00"])
def test_cbor_may_be_nested_as_deep_for_both(opening: bytes) -> None:
    for depth in range(1, 200):
        body = opening * depth + b"\x00" + (b"\xff" * depth if opening == b"\x9f" else b"")
        assert cbor_outcome(FAST, body) is cbor_outcome(PURE, body), depth
    assert cbor_outcome(FAST, opening * 16 + b"\x00" + (b"\xff" * 16 if opening == b"\x9f" else b""))


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_json_may_be_nested_as_deep_for_both(opening: bytes, closing: bytes) -> None:
    for depth in (*range(1, 300), 2000, 100_000):
        body = b"[" + opening * depth + b"1" + closing * depth + b"]"
        assert json_outcome(FAST, body) == json_outcome(PURE, body), depth


def test_large_bodies_are_judged_alike() -> None:
    rng = random.Random(5)
    items = [cbor2.dumps([rng.random(), "x" * rng.randrange(100), {"k": rng.randrange(1 << 70)}]) for _ in range(3000)]
    body = b"".join(items)
    for data in (body, body[:-1], body + b"\xff", body + b"\x00" * 10, b"\x80" * 100_000, b"\x80" * 100_000 + b"\x81"):
        assert cbor_outcome(FAST, data) is cbor_outcome(PURE, data)
    values: list[Any] = [[rng.random(), "x" * rng.randrange(100), {"k": None}] for _ in range(3000)]
    text = json.dumps(values).encode()
    for data in (text, text[:-1], text + b"]", text[:-1] + b",]"):
        assert json_outcome(FAST, data) == json_outcome(PURE, data)


def test_one_append_has_a_limited_number_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsers, "MAX_MESSAGES", 10)
    assert FAST.split_json(b"[" + b"1," * 9 + b"1]") == [b"1"] * 10
    with pytest.raises(ValueError, match="at most 10 messages"):
        FAST.split_json(b"[" + b"1," * 10 + b"1]")
    # Before it has made a list of them all.
    tracemalloc.start()
    with pytest.raises(ValueError, match="at most 10 messages"):
        FAST.split_json(b"[" + b"10," * 100_000 + b"1]")
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    # Commas are not messages.
    assert FAST.split_json(b'[[1,2,3,4,5,6,7,8,9,10,11],",,,,,,,,"]') == [b"[1,2,3,4,5,6,7,8,9,10,11]", b'",,,,,,,,"']


@given(spoilt(json_bodies))
def test_without_the_fast_splitter_all_is_the_same(body: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parsers, "msgspec", None)
        without = json_outcome(FAST, body)
    assert without == json_outcome(FAST, body)


@pytest.mark.parametrize(
    ("kind", "body"),
    [(media.JSON, b"[1,2]"), (media.JSON, b"[1,"), (media.CBOR, b"\x01"), (media.CBOR, b"\x81"), (media.BYTES, b"x")],
)
def test_what_was_parsed_ahead_of_time_is_what_comes_out(kind: int, body: bytes) -> None:
    known = Parsed(FAST)
    known.parse(kind, body)
    if kind == media.JSON:
        assert json_outcome(known, body) == json_outcome(FAST, body)
    elif kind == media.CBOR:
        assert cbor_outcome(known, body) is cbor_outcome(FAST, body)
