"""Messages of any kind: boundaries, cuts and skips agree with each other, and a read shows what was appended."""

from __future__ import annotations

import itertools
import json

import cbor2
from hypothesis import given, strategies as st

from ds_core.server import messages
from ds_core.wire.media import BYTES, CBOR, JSON

PARSERS = messages.Parsers()
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=9)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def appends(draw: st.DrawFn) -> tuple[int, bytes, list[int]]:
    """(kind, the stored bytes of an append, every position where a reader may begin)."""
    kind = draw(st.sampled_from([BYTES, JSON, CBOR]))
    if kind == BYTES:
        data = draw(st.binary(min_size=1, max_size=60))
        return kind, data, list(range(len(data) + 1))
    values = draw(st.lists(VALUES, min_size=1, max_size=8))
    if kind == JSON:
        parts = [json.dumps(value).encode() for value in values]
        data = messages.stored_form(kind, b"[" + b" , ".join(parts) + b"]", PARSERS)
        parts = [part + b"," for part in parts]
    else:
        parts = [cbor2.dumps(value) for value in values]
        data = messages.stored_form(kind, b"".join(parts), PARSERS)
    assert data == b"".join(parts)
    return kind, data, [sum(map(len, parts[:count])) for count in range(len(parts) + 1)]


@given(appends())
def test_boundaries_are_where_messages_meet(append: tuple[int, bytes, list[int]]) -> None:
    kind, data, places = append
    assert [at for at in range(len(data) + 1) if messages.is_boundary(kind, data, at)] == places
    assert list(messages.ends(kind, data)) == (places[1:] if kind != BYTES else [len(data)])
    assert not messages.is_boundary(kind, data, len(data) + 1) or kind == BYTES


@given(appends(), st.data())
def test_a_cut_takes_as_many_messages_as_fit_and_at_least_one(
    append: tuple[int, bytes, list[int]], data: st.DataObject
) -> None:
    kind, stored, places = append
    at = data.draw(st.sampled_from(places[:-1]))
    limit = data.draw(st.integers(0, len(stored) + 5))
    end = messages.cut(kind, stored, at, limit)
    assert end in places and end > at
    following = places[places.index(at) + 1]
    assert end - at <= limit or end == following
    later = [place for place in places if place > end]
    assert not later or later[0] - at > limit or (limit == 0 and end == following)


@given(appends(), st.data())
def test_a_skip_counts_messages(append: tuple[int, bytes, list[int]], data: st.DataObject) -> None:
    kind, stored, places = append
    index = data.draw(st.integers(0, len(places) - 1))
    count = data.draw(st.integers(1, len(places) + 2))
    expected = places[index + count] if index + count < len(places) else None
    assert messages.skip(kind, stored, places[index], count) == expected


@given(st.lists(st.lists(VALUES, min_size=1, max_size=4), max_size=5))
def test_a_read_shows_every_message_that_was_appended(batches: list[list[object]]) -> None:
    stored = b"".join(messages.stored_form(JSON, json.dumps(batch).encode(), PARSERS) for batch in batches)
    assert json.loads(messages.body(JSON, stored)) == [value for batch in batches for value in batch]
    assert messages.body_size(JSON, len(stored)) == len(messages.body(JSON, stored))
    stored = b"".join(messages.stored_form(CBOR, b"".join(map(cbor2.dumps, batch)), PARSERS) for batch in batches)
    sizes = [0, *messages.ends(CBOR, stored)]
    found = [cbor2.loads(stored[start:end]) for start, end in itertools.pairwise(sizes)]
    assert found == [value for batch in batches for value in batch]
