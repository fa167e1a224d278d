"""Which bytes and texts are UTF-8, the same on every interpreter."""

import json

from portable import raises

from ds_core.wire import utf8

GOOD = (
    b"", b"abc", b"\x00\x7f", b"\xc2\x80", b"\xdf\xbf", b"\xe0\xa0\x80", b"\xed\x9f\xbf", b"\xee\x80\x80",
    b"\xef\xbf\xbf", b"\xf0\x90\x80\x80", b"\xf4\x8f\xbf\xbf", b"\xed\x9f\xbf" * 3,
)  # fmt: skip
# What one interpreter or the other takes, and RFC 3629 does not.
BAD = (
    b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf",
    b"\xf4\x90\x80\x80", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xed\xb8\x80\xed\xa0\xbd", b"\xed\xa0\xbdx\xed\xb8\x80",
    b"\xed\xa0\xbd\xed\xa0\xbd\xed\xb8\x80", b"x\xed\xa0\xbd",
)  # fmt: skip
PAIR = b"\xed\xa0\xbd\xed\xb8\x80"  # U+1F600 in halves


def test_good_bytes_stay_as_they_are():
    for data in GOOD:
        assert utf8.strict(data) == data
        assert utf8.is_strict(data, 0, len(data))
        utf8.check(data)
        assert utf8.encode(data.decode()) == data


def test_bad_bytes_are_refused():
    for data in BAD:
        with raises(ValueError):
            utf8.strict(data)
        assert not utf8.is_strict(data, 0, len(data))


def test_the_halves_of_a_pair_are_joined():
    for before in (b"", b"a", b"\xc3\xa9", b"\xed\x9f\xbf"):
        for after in (b"", b"b", PAIR):
            data = before + PAIR + after
            assert utf8.strict(data) == data.replace(PAIR, b"\xf0\x9f\x98\x80")
    for high, low, code in ((0xD800, 0xDC00, 0x10000), (0xDBFF, 0xDFFF, 0x10FFFF), (0xD83D, 0xDE00, 0x1F600)):
        halves = bytes([0xED, 0x80 | high >> 6 & 63, 0x80 | high & 63, 0xED, 0x80 | low >> 6 & 63, 0x80 | low & 63])
        assert utf8.strict(halves) == chr(code).encode()


def test_a_text_from_json_is_what_it_means():
    assert utf8.encode(json.loads('"\\ud83d\\ude00"')) == b"\xf0\x9f\x98\x80"
    for text in ('"\\ud83d"', '"\\ude00"', '"\\ude00\\ud83d"'):
        with raises(ValueError):
            utf8.encode(json.loads(text))
