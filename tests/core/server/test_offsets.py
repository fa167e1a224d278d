"""Offsets: minting, reading, and which position a token names in which stream (protocol section 2)."""

from portable import raises

from ds_core.server import offsets
from ds_core.server.errors import ProtocolError
from ds_core.wire import names

LAST = offsets.MAX_POSITION


def test_a_token_reads_back_as_what_it_was_minted_from():
    for pair in ((0, 0), (1, 0), (1, 1), (7, 123456), (12345678, 2**40), (LAST, LAST)):
        assert offsets.parse(offsets.token(*pair)) == pair


def test_tokens_sort_like_positions_and_are_safe_in_urls():
    positions = (0, 1, 9, 10, 11, 99, 100, 65535, 65536, 2**31, 2**53, LAST)
    tokens = [offsets.token(3, position) for position in positions]
    assert tokens == sorted(tokens)
    for token in tokens:
        assert len(token) < 256
        for char in ",&=?/ %":
            assert char not in token
        assert token not in (names.START, names.NOW)


def test_sentinels():
    assert offsets.parse("-1") == offsets.START
    assert offsets.parse("0000000000000000_0000000000000000") == offsets.START
    assert offsets.parse("now") == names.NOW


def test_what_was_never_handed_out_is_400():
    good = offsets.token(1, 2)
    for text in (
        "", " ", "0", "1", "-2", "NOW", "Now", "-1 ", " -1", "--1", "+1", "null",
        good[:-1], good + "0", good + " ", " " + good[1:], good.replace("_", "-"), good.replace("_", "0"),
        good[:16] + "_" + "-000000000000001", "+" + good[1:], "0x" + good[2:],
        "٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠_0000000000000000", "²" + good[1:],
        good + "," + good, good[:15] + "\n" + good[16:], "_" * 33, "9" * 33,
    ):  # fmt: skip
        with raises(ProtocolError, "offset must be") as caught:
            offsets.parse(text)
        assert caught.value.status == 400, text
        assert caught.value.code == "INVALID_OFFSET"


def at(offset, incarnation=5, earliest=0, tail=100, newest=9):
    return offsets.position(offset, incarnation, earliest, tail, newest)


def test_positions_of_this_stream():
    for position in (0, 1, 50, 100):
        assert at((5, position)) == position
    assert at((5, 0), tail=0) == 0


def test_the_start_is_the_earliest_position_of_any_incarnation():
    assert at(offsets.START) == 0
    assert at(offsets.START, earliest=40) == 40
    assert at(offsets.START, tail=0) == 0


def test_refused_positions():
    for offset, earliest, status, code in (
        ((5, 101), 0, 400, "INVALID_OFFSET"),
        ((5, LAST), 0, 400, "INVALID_OFFSET"),
        ((4, 0), 0, 410, "OFFSET_GONE"),
        ((4, 1000), 0, 410, "OFFSET_GONE"),
        ((1, 0), 0, 410, "OFFSET_GONE"),
        ((0, 7), 0, 400, "INVALID_OFFSET"),  # incarnations count from 1
        ((10, 0), 0, 400, "INVALID_OFFSET"),
        ((LAST, LAST), 0, 400, "INVALID_OFFSET"),
        ((5, 39), 40, 410, "OFFSET_TRIMMED"),
        ((5, 0), 40, 410, "OFFSET_TRIMMED"),
    ):
        with raises(ProtocolError) as caught:
            at(offset, earliest=earliest)
        assert (caught.value.status, caught.value.code) == (status, code), offset


def test_what_was_trimmed_says_where_to_resume():
    with raises(ProtocolError) as caught:
        at((5, 39), earliest=40)
    assert caught.value.headers == ((names.EARLIEST_OFFSET, offsets.token(5, 40)),)
    assert at((5, 40), earliest=40) == 40
