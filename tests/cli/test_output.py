"""CBOR items as JSON lines and back, whatever the item."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import example, given, strategies as st

from ds_core.wire import cbor
from ds_trio_server.cli.notation import cbor_lines, item_of, json_lines, plain, printable
from ds_trio_server.cli.output import size

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text()
    | st.sampled_from(["$hex", "$tag", "$map", "\x9b", "\u2028", "\x00"])
    | st.binary()
    | st.sampled_from([cbor.undefined, cbor.Simple(0), cbor.Simple(99), cbor.Simple(255)])
)
keys = st.text() | st.integers() | st.binary() | st.booleans() | st.floats(allow_nan=False)
keys = keys | st.tuples(keys, keys) | st.builds(cbor.Tag, st.integers(4, 2**64 - 1), keys)
items = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(keys | st.sampled_from(["$hex", "$tag", "$value"]), inner, max_size=4)
        | st.builds(cbor.Tag, st.integers(4, 2**64 - 1), inner)
    ),
    max_leaves=15,
)


@given(items)
def test_every_item_survives_as_a_line_of_json(item: object) -> None:
    text = cbor_lines([item]).decode().removesuffix("\n")
    assert all(" " <= char < "\x7f" or char > "\x9f" for char in text)
    assert text.splitlines() == [text]

    def constant(name: str) -> object:
        pytest.fail(f"{name} is not JSON")

    assert cbor.encode(item_of(json.loads(text, parse_constant=constant))) == cbor.encode(item)


@given(items)
def test_what_was_encoded_elsewhere_survives_too(item: object) -> None:
    decoded = cbor.decode(cbor.encode(item))
    again = item_of(json.loads(cbor_lines([decoded])))
    assert cbor.encode(again) == cbor.encode(decoded)


def one(value: object) -> str:
    """One value as a line, with nothing but the standard library's encoder."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return re.sub("[\x7f-\x9f\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


# Texts with what stands between two values while many are encoded at once.
marks = st.sampled_from(["\x1e", "\x1e\x1e", '"\x1e"', ',"\\u001e",', "\n"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | marks,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3) | marks, inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(values, min_size=1, max_size=6))
def test_many_values_are_the_lines_of_each(batch: list[object]) -> None:
    assert json_lines(batch).decode() == "".join(map(one, batch))


@given(st.lists(items | marks, min_size=1, max_size=6))
@example([b"x", float("inf"), {"a": 1}])
@example([{"a": 1}, {"a": float("nan")}])
@example([{"a": 1}, {"$a": 1}, {1: 2}])
def test_many_items_are_the_lines_of_each(batch: list[object]) -> None:
    assert cbor_lines(batch).decode() == "".join(one(plain(item)) for item in batch)


def test_an_integer_may_have_any_number_of_digits() -> None:
    number = (1 << 20_000) - 1
    for lines in (json_lines, cbor_lines):
        first, second, _ = lines([[number, 1], {"a": 2}]).split(b"\n")
        assert first.startswith(b"[39802") and len(first) == 6021 + 4 and second == b'{"a":2}'
    with pytest.raises(ValueError, match="4300"):
        str(number)


@pytest.mark.parametrize(
    "text",
    [
        '{"$hex":"0"}',
        '{"$hex":1}',
        '{"$hex":"00","x":1}',
        '{"$tag":1}',
        '{"$tag":-1,"$value":1}',
        '{"$tag":true,"$value":1}',
        '{"$simple":"x"}',
        '{"$float":"1"}',
        '{"$float":[]}',
        '{"$map":[[1]]}',
        '{"$map":{"a":1}}',
        '{"$map":5}',
        '{"$unknown":1}',
    ],
)
def test_what_only_looks_like_it_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is none of"):
        item_of(json.loads(text))


def test_messages_are_one_line_that_no_terminal_acts_on() -> None:
    assert printable("a\nb\x1b[2J\x9b\tc") == "a b?[2J? c"


def test_sizes_for_people() -> None:
    assert [size(n) for n in (0, 999, 1000, 123_456, 10**7, 10**10)] == [
        *("0 B", "999 B", "1.0 KB", "123.5 KB", "10.0 MB", "10.0 GB"),
    ]
