"""JSON numbers and text that are exact whatever the interpreter's json does."""

import struct

from portable import raises

from ds_core.client import exactjson, jsonitems
from ds_core.wire import cbor_values

SINGLE = 1.0 + 2.0**-30 == 1.0  # this interpreter's floats are single precision
# The bits of floats, and the shortest text of each.
SINGLES = (
    (0x00000000, "0.0"), (0x3F800000, "1.0"), (0xC1AC0000, "-21.5"), (0x3DCCCCCD, "0.1"), (0x7F7FFFFF, "3.4028235e38"),
    (0x00000001, "1e-45"), (0x00800000, "1.1754944e-38"), (0x4EBEBC20, "1600000000.0"),
)  # fmt: skip
DOUBLES = (
    (0x0000000000000000, "0.0"), (0x3FF0000000000000, "1.0"), (0xC035800000000000, "-21.5"),
    (0x3FB999999999999A, "0.1"), (0x7FEFFFFFFFFFFFFF, "1.7976931348623157e308"), (0x0000000000000001, "5e-324"),
    (0x0010000000000000, "2.2250738585072014e-308"), (0x000FFFFFFFFFFFFF, "2.225073858507201e-308"),
    (0x41D9D2A8D2500000, "1732944713.25"), (0x4340000000000000, "9007199254740992.0"),
    (0x3FD5555555555555, "0.3333333333333333"), (0x444B1AE4D6E2EF50, "1e21"),
    (0x3CB0000000000000, "2.220446049250313e-16"),
)  # fmt: skip


def bits(value):
    return int.from_bytes(struct.pack(">f" if SINGLE else ">d", value), "big")


def test_every_text_of_a_float_means_it():
    for raw, text in SINGLES if SINGLE else DOUBLES:
        value = struct.unpack(">f" if SINGLE else ">d", raw.to_bytes(4 if SINGLE else 8, "big"))[0]
        assert bits(exactjson.float_of(text)) == raw, text
        assert bits(exactjson.float_of(exactjson.text_of(value))) == raw, text
        assert exactjson.loads(exactjson.dumps(value)) == value


def test_a_text_means_the_nearest_float():
    if SINGLE:
        return
    for text, expected in (
        ("9007199254740993.0", 9007199254740992.0),  # a tie: to the even one
        ("9007199254740993.0000000001", 9007199254740994.0),
        ("9007199254740995.0", 9007199254740996.0),
        ("2.4703282292062327e-324", 0.0),
        ("2.4703282292062328e-324", 5e-324),
        ("1e-400", 0.0),
        ("1E2", 100.0),
        ("1.5e+3", 1500.0),
        ("-0.0", 0.0),
    ):
        assert exactjson.float_of(text) == expected, text
    assert exactjson.float_of("1e309") == exactjson.float_of("1e999999999") == float("inf")


def test_values_of_all_kinds():
    for value in (
        [], {}, [1.5, [2.5, {"a": -0.25}]], {"a": [0.1], "b": "~0.1", "c": None, "d": True}, "1.5", ["^1.5", "~x"],
        {"~": 1.5}, "a\\\"1.5", 12345678901234567890, -1.5,
    ):  # fmt: skip
        assert exactjson.loads(exactjson.dumps(value)) == value, value
    assert exactjson.loads(' { "x" : 1.50 , "y" : [ -2.5e-1 , 3 ] } ') == {"x": 1.5, "y": [-0.25, 3]}
    for value in (float("inf"), -float("inf"), float("nan")):
        with raises(ValueError):
            exactjson.dumps([value])


def test_the_items_of_an_array_are_exact():
    decoder = jsonitems.Decoder()
    decoder.feed(b'[0.1, "\\ud83d\\ude00", 1e2]')
    assert decoder.next() == 0.1
    assert decoder.next() == b"\xf0\x9f\x98\x80".decode()
    assert decoder.next() == 100.0
    for body in (b'["\\ud83d"]', b'["\xed\xa0\xbd\xed\xb8\x80"]', b'["\xc0\x80"]'):
        decoder = jsonitems.Decoder()
        decoder.feed(body)
        with raises(ValueError):
            decoder.next()


def test_whole_doubles_are_exact_where_floats_are_single():
    for value, expected in (
        (0x41D9D2A8D2000000, 1732944712),  # a time in seconds
        (0xC1D9D2A8D2000000, -1732944712),
        (0x7E37E43C8800759C, int(1e300) if not SINGLE else None),
        (0x7FEFFFFFFFFFFFFF, (2**53 - 1) << 971),
    ):
        found = cbor_values.double(value, 0.5)
        assert expected is None or found == expected
        assert isinstance(found, int)
    # Those that single precision has, and fractions, are what the interpreter made of them.
    for value in (0x3FF0000000000000, 0x4170000000000000, 0x3FB999999999999A, 0x41D9D2A8D2500000, 0x7FF0000000000000):
        assert cbor_values.double(value, 0.5) == 0.5


def test_integers_of_any_size():
    for value in (10**5000, -(10**5000) + 1, 7**7000, 1 << 20000, 10**650 - 1, 1 << 2000, -1 << 2000, 0):
        text = exactjson.dumps({"a": [value, True, "\u00e9\n"]})
        assert exactjson.loads(text) == {"a": [value, True, "\u00e9\n"]}
    assert exactjson.dumps(10**5000) == "1" + "0" * 5000
    assert exactjson.dumps(-(10**5000) - 12) == "-1" + "0" * 4998 + "12"


def test_what_is_nested_too_deeply_is_an_error_of_the_text():
    for inside in ("1", '"\\u0041"', '{"a":1.5}'):
        decoder = jsonitems.Decoder(max_bytes=65536)
        decoder.feed(("[" + "[" * 3000 + inside + "]" * 3000 + "]").encode())
        try:
            assert decoder.next() != 1  # where the interpreter does it
        except ValueError as exc:
            assert "nested" in str(exc)


def test_what_json_has_no_word_for():
    for value in ({1: 2.5}, {None: 1}, [{(1,): 0.5}], {1.5, 2}, b"a", [object()]):
        with raises(TypeError):
            exactjson.dumps(value)
