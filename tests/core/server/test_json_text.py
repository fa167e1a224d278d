"""Splitting JSON text: what is JSON, where a message ends, where it goes wrong (RFC 8259, protocol section 10)."""

from portable import raises

from ds_core.server import json_text

# Single values that are JSON, after the JSON test suite's y_ files.
VALUES = (
    b"null", b"true", b"false", b"0", b"-0", b"1", b"-1", b"123", b"1.5", b"-0.0", b"0e1", b"0e+1", b"1E22", b"1E-2",
    b"1e+22", b"123.456e78", b"1e400", b"123456789012345678901234567890",
    b'""', b'"a"', b'"\\u0060\\u012a\\u12AB"', b'"\\uD801\\udc37"', b'"\\"\\\\\\/\\b\\f\\n\\r\\t"',
    b'"\\\\u0000"', b'"\\""', b'"\\u0000"', b'"\x7f"', b'"\xc2\x80"', b'"\xe2\x82\xac"', b'"\xf0\x9f\x98\x80"',
    b'"\xe2\x80\xa8"', b'"[1, 2]"', b'"//"',
    b"{}", b"{ }", b'{"":0}', b'{"a":"b","a":"b"}', b'{"a" : [ ] , "b":{"c":null}}', b'{"a]":"}"}', b'{"\\u0022":1}',
)  # fmt: skip

# What is not JSON, after its n_ files; none of them may be accepted anywhere.
NOT_JSON = (
    b"", b" ", b"\n", b"*", b"nul", b"nulll", b"nan", b"NaN", b"-NaN", b"Infinity", b"-Infinity", b"undefined",
    b"True", b"TRUE", b"tru", b"trueish", b"'a'", b"a", b"/* a */1", b"1 // a", b"1;", b"1 2", b"null null",
    b"\xef\xbb\xbf1", b"\xff", b'"\xff"', b'"\xc3"', b'"\xe2\x82"', b"1\x00", b"\x00", b"\x0c1", b"1\x0b", b"\xc2\xa01",
    b"+1", b"-", b"--1", b"01", b"-01", b"00", b".5", b"-.5", b"1.", b"1.e1", b"1e", b"1e+", b"1ea", b"1.5.5", b"0x1",
    b"1_000", b"1 000", b"0e", b"0.e1", b"2.e+3", b"9.e-", b"1e1.5", b"\xd9\xa3",
    b'"', b'"a', b'a"', b'"\\"', b'"\\', b'"\\x00"', b'"\\u"', b'"\\u00"', b'"\\u00g0"', b'"\\u+123"', b'"\\a"',
    b'"\\uD800"', b'"\\uDBFF"', b'"\\udc00"', b'"\\uDFFF"', b'"\\uD83D\\uD83D"', b'"\\ude00\\ud83d"',
    b'"\\ud83d\\u0041"',
    b'"\\ud83d\\\\ude00"', b'"\\ud83d \\ude00"', b'"\\ud83d\\ude0"', b'"\\ud83d\\n"', b'"\\ud83d', b'{"\\ud83d":1}',
    b'"\xed\xa0\xbd\xed\xb8\x80"', b'"\xed\xa0\x80"', b'"\xc0\x80"',
    b'"\n"', b'"\t"', b'"\r"', b'"\x00"', b'"\x1f"', b'"a""b"', b'"\\U0041"', b'"\\u 041"', b'"\\u004',
    b"[", b"]", b"[[]", b"[]]", b"[1", b"[1,", b"[1,]", b"[,1]", b"[1,,2]", b"[,]", b"[1 2]", b"[1:2]", b"[1}", b"[a]",
    b'["a', b"[1]x", b"[1],", b"[] []", b"[3[4]]", b"[1]]", b"[\"\x00\"]", b"[-]", b"[1,\n1\n,1", b"[*]", b"[<null>]",
    b"{", b"}", b"{a:1}", b"{1:1}", b"{'a':1}", b'{"a"}', b'{"a":}', b'{"a" 1}', b'{"a"::1}', b'{"a":1,}', b"{,}",
    b'{"a":1', b'{"a":1]', b'{"a":1 "b":2}', b'{"a":1,,"b":2}', b'{:1}', b'{"a":1}}', b'{"a":1}#', b"{null:null}",
    b'{"a":/*b*/1}', b"[{]}", b'{"a":[}', b'{"a',
)  # fmt: skip

SPACES = (b"", b" ", b"\t", b"\r\n", b" \n\t \r")


def test_one_value_is_one_message_as_it_was_sent():
    for value in VALUES:
        for space in SPACES:
            assert json_text.split(space + value + space) == [value], value


def test_an_array_is_its_elements_as_they_were_sent():
    for space in SPACES:
        for count in (1, 2, 3):
            text = b"[" + b",".join([space + b'{"a" :1}' + space] * count) + b"]"
            assert json_text.split(space + text + space) == [b'{"a" :1}'] * count
    text = b"[" + b",".join(VALUES) + b"]"
    assert json_text.split(text) == list(VALUES)


def test_only_one_level_is_flattened():
    assert json_text.split(b"[[1, 2],[ ],[[3]]]") == [b"[1, 2]", b"[ ]", b"[[3]]"]
    assert json_text.split(b"[[]]") == [b"[]"]


def test_an_empty_array_has_no_messages():
    for space in SPACES:
        assert json_text.split(space + b"[" + space + b"]" + space) == []


def test_the_number_of_messages_may_be_limited():
    assert json_text.split(b"[1,[2,3],4]", 3) == [b"1", b"[2,3]", b"4"]
    assert json_text.split(b"[]", 0) == []
    # What comes after one too many is not looked at.
    for text in (b"[1,2,3,4]", b"[1,2,3,oops"):
        with raises(ValueError, "at most 3 messages"):
            json_text.split(text, 3)


def test_what_is_not_json_is_refused_wherever_it_stands():
    for wrong in NOT_JSON:
        for text in (wrong, b" " + wrong + b"\n", b"[" + wrong + b",1]", b'{"a":' + wrong + b"}"):
            with raises(ValueError):
                json_text.split(text)


def test_every_prefix_of_a_value_is_incomplete():
    for value in (b'{"a": [1, "\\u00e9", true], "b": {}}', b'["x", {"y": null}]', b'"\\ud83d\\ude00"', b"false"):
        for size in range(len(value)):
            with raises(ValueError):
                json_text.split(value[:size])


def test_the_error_names_the_byte():
    for text, at in (
        (b"[1 2]", "byte 3:"),
        (b"[1,  x]", "byte 5:"),
        (b"  x", "byte 2:"),
        (b"[1]  x", "byte 5:"),
        (b'{"a" 1}', "byte 5:"),
        (b'{"a":1 "b"}', "byte 7:"),
        (b'"\\u00g0"', "byte 5:"),
        (b'"ab\n"', "byte 3:"),
        (b"1.", "byte 2 "),
        (b"[1,", "byte 3 "),
        (b"[1", "byte 2 "),
        (b'"ab', "byte 3 "),
    ):
        with raises(ValueError, at):
            json_text.split(text)


def test_nesting_is_limited_and_costs_no_recursion():
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        deep = opening * json_text.MAX_DEPTH + b"1" + closing * json_text.MAX_DEPTH
        assert json_text.value_end(deep, 0) == len(deep)
        assert json_text.split(b"[" + deep + b"]") == [deep]
        deeper = opening + deep + closing
        with raises(ValueError, "nested deeper than 128"):
            json_text.value_end(deeper, 0)
        assert json_text.value_end(deeper, 0, 1000) == len(deeper)
    with raises(ValueError, "nested deeper"):
        json_text.split(b"[" * 20000)


def test_a_value_ends_where_the_next_begins():
    text = b'1,{"a":[1]},"b,c",[],-2.5e3,'
    ends = []
    at = 0
    while at < len(text):
        at = json_text.value_end(text, at) + 1
        ends.append(at)
    assert ends == [2, 12, 18, 21, 28]
