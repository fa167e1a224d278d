"""Messages: bodies to stored bytes and back, boundaries, cuts and skips (protocol section 10)."""

from portable import raises

from ds_core.server import messages
from ds_core.server.errors import ProtocolError
from ds_core.wire.media import BYTES, CBOR, JSON

PARSERS = messages.Parsers()
# Three items of 1, 4 and 2 bytes: 1, [1, 2, 3], -100
ITEMS = b"\x01" + b"\x83\x01\x02\x03" + b"\x38\x63"
# Three messages stored as 2, 6 and 4 bytes.
STORED = b'1,[2,3],"a",'


def test_bytes_are_stored_and_shown_as_they_are():
    for body in (b"", b"a", b"\x00\xff[,]"):
        assert messages.stored_form(BYTES, body, PARSERS) == body
        assert messages.body(BYTES, body) == body


def test_json_is_stored_message_by_message_and_shown_as_one_array():
    for body, stored, shown in (
        (b"1", b"1,", b"[1]"),
        (b' {"a" : 1} ', b'{"a" : 1},', b'[{"a" : 1}]'),
        (b'[1, [2,3] ,\n"a"]', STORED, b'[1,[2,3],"a"]'),
        (b"[[]]", b"[],", b"[[]]"),
        (b"[]", b"", b"[]"),
        (b" [ ] ", b"", b"[]"),
    ):
        assert messages.stored_form(JSON, body, PARSERS) == stored
        assert messages.body(JSON, stored) == shown


def test_what_was_appended_in_parts_is_shown_as_one():
    parts = [messages.stored_form(JSON, body, PARSERS) for body in (b"1", b"[2, 3]", b'{"a":[]}')]
    assert messages.body(JSON, b"".join(parts)) == b'[1,2,3,{"a":[]}]'


def test_cbor_sequences_are_stored_as_they_are():
    for body in (ITEMS, b"\x01", b"\xf6\xf6", b"\x9f\x01\xff", b"\xa1\x61a\x61b", b"\xd8\x18\x41\x00"):
        assert messages.stored_form(CBOR, body, PARSERS) == body
        assert messages.body(CBOR, body) == body


def test_bodies_of_the_wrong_kind_are_400():
    for kind, bodies, code in (
        (JSON, (b"", b"x", b"[1,", b"1 2", b"\xff", b"\x01"), "INVALID_JSON"),
        (CBOR, (b"\x83\x01", b"\x61", b"\xff", b"\x1c", b"\x01\x18", b"\x61\xff", b"\x5f\x61a\xff"), "INVALID_CBOR"),
    ):
        for body in bodies:
            with raises(ProtocolError) as caught:
                messages.stored_form(kind, body, PARSERS)
            assert (caught.value.status, caught.value.code) == (400, code), body


def test_a_shell_can_lend_its_own_parsers():
    class Lent(messages.Parsers):
        def split_json(self, body):
            if body == b"bad":
                raise ValueError("this is why")
            return [b"one", b"two"]

        def check_cbor(self, body):
            raise ValueError("no CBOR today")

    assert messages.stored_form(JSON, b"anything", Lent()) == b"one,two,"
    with raises(ProtocolError, "this is why"):
        messages.stored_form(JSON, b"bad", Lent())
    with raises(ProtocolError, "no CBOR today"):
        messages.stored_form(CBOR, ITEMS, Lent())
    assert messages.stored_form(BYTES, b"raw", Lent()) == b"raw"


def test_what_was_split_may_be_stored_again():
    # A backend may run a decision twice; the shell may have split its body before.
    found = [b"1", b"2"]

    class Once(messages.Parsers):
        def split_json(self, body):
            return found

    for _ in range(2):
        assert messages.stored_form(JSON, b"[1,2]", Once()) == b"1,2,"


def test_the_size_shown_is_known_without_the_bytes():
    for kind, stored in ((JSON, STORED), (JSON, b"1,"), (JSON, b""), (BYTES, b"abc"), (BYTES, b""), (CBOR, ITEMS)):
        assert messages.body_size(kind, len(stored)) == len(messages.body(kind, stored))


def test_where_messages_end():
    assert list(messages.ends(BYTES, b"abcde")) == [5]
    assert list(messages.ends(JSON, STORED)) == [2, 8, 12]
    assert list(messages.ends(CBOR, ITEMS)) == [1, 5, 7]
    for kind in (JSON, CBOR):
        assert list(messages.ends(kind, b"")) == []


def test_what_was_stored_is_readable_however_deep_it_is_nested():
    # A shell's own parser may admit what the pure one would refuse.
    deep = b"[" * 500 + b"]" * 500 + b","
    assert list(messages.ends(JSON, deep + b"1,")) == [1001, 1003]
    deep = b"\x81" * 500 + b"\x01"
    assert list(messages.ends(CBOR, deep + b"\x01")) == [501, 502]


def test_boundaries():
    for kind, data, expected in (
        (BYTES, b"abc", (0, 1, 2, 3)),
        (JSON, STORED, (0, 2, 8, 12)),
        (CBOR, ITEMS, (0, 1, 5, 7)),
    ):
        found = tuple([at for at in range(len(data) + 1) if messages.is_boundary(kind, data, at)])
        assert found == expected


def test_a_chunk_ends_between_messages_and_has_at_least_one():
    for kind, data, at, limit, end in (
        (BYTES, b"abcdef", 0, 4, 4),
        (BYTES, b"abcdef", 4, 4, 6),
        (BYTES, b"abcdef", 2, 0, 3),
        (JSON, STORED, 0, 1, 2),
        (JSON, STORED, 0, 2, 2),
        (JSON, STORED, 0, 7, 2),
        (JSON, STORED, 0, 8, 8),
        (JSON, STORED, 0, 11, 8),
        (JSON, STORED, 0, 12, 12),
        (JSON, STORED, 0, 99, 12),
        (JSON, STORED, 2, 1, 8),
        (JSON, STORED, 2, 6, 8),
        (JSON, STORED, 2, 10, 12),
        (JSON, STORED, 8, 0, 12),
        (CBOR, ITEMS, 0, 3, 1),
        (CBOR, ITEMS, 1, 3, 5),
        (CBOR, ITEMS, 1, 6, 7),
    ):
        assert messages.cut(kind, data, at, limit) == end, (kind, at, limit)


def test_skipping_messages_or_bytes_within_an_append():
    for kind, data, at, count, end in (
        (BYTES, b"abcdef", 0, 1, 1),
        (BYTES, b"abcdef", 2, 4, 6),
        (BYTES, b"abcdef", 2, 5, None),
        (JSON, STORED, 0, 1, 2),
        (JSON, STORED, 0, 3, 12),
        (JSON, STORED, 0, 4, None),
        (JSON, STORED, 2, 1, 8),
        (JSON, STORED, 8, 2, None),
        (CBOR, ITEMS, 0, 2, 5),
        (CBOR, ITEMS, 5, 1, 7),
        (CBOR, ITEMS, 5, 2, None),
    ):
        assert messages.skip(kind, data, at, count) == end, (kind, at, count)
