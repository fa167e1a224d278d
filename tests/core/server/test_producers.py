"""Producers: every state against every request (protocol section 5)."""

from portable import raises

from ds_core.server import producers
from ds_core.server.producers import ACCEPT, BAD_START, DUPLICATE, GAP, MAX_NUMBER, STALE
from ds_core.wire import names


def test_every_state_and_request():
    for state, epoch, seq, expected in (
        # unknown producer: any epoch, from the first sequence number on
        (None, 0, 0, ACCEPT),
        (None, 7, 0, ACCEPT),
        (None, MAX_NUMBER, 0, ACCEPT),
        (None, 0, 1, GAP),
        (None, 7, MAX_NUMBER, GAP),
        # older epoch, whatever the sequence number
        ((3, 4), 2, 0, STALE),
        ((3, 4), 2, 4, STALE),
        ((3, 4), 2, 5, STALE),
        ((3, 4), 0, MAX_NUMBER, STALE),
        # newer epoch
        ((3, 4), 4, 0, ACCEPT),
        ((3, 4), MAX_NUMBER, 0, ACCEPT),
        ((3, 4), 4, 1, BAD_START),
        ((3, 4), 4, 4, BAD_START),
        ((3, 4), 4, 5, BAD_START),
        # same epoch
        ((3, 4), 3, 0, DUPLICATE),
        ((3, 4), 3, 3, DUPLICATE),
        ((3, 4), 3, 4, DUPLICATE),
        ((3, 4), 3, 5, ACCEPT),
        ((3, 4), 3, 6, GAP),
        ((3, 4), 3, MAX_NUMBER, GAP),
        ((0, 0), 0, 0, DUPLICATE),
        ((0, 0), 0, 1, ACCEPT),
        ((0, MAX_NUMBER - 1), 0, MAX_NUMBER, ACCEPT),
        ((0, MAX_NUMBER), 0, MAX_NUMBER, DUPLICATE),
    ):
        assert producers.verdict(state, epoch, seq) == expected, (state, epoch, seq)


def test_accepting_the_same_request_twice_is_impossible():
    for state in (None, (0, 0), (0, 5), (2, 0), (2, 3)):
        for epoch in range(4):
            for seq in range(8):
                if producers.verdict(state, epoch, seq) == ACCEPT:
                    assert producers.verdict((epoch, seq), epoch, seq) == DUPLICATE
                    assert producers.verdict((epoch, seq), epoch, seq + 1) == ACCEPT


def test_the_errors_say_what_to_do_next():
    error = producers.stale((5, 9))
    assert (error.status, error.headers) == (403, ((names.PRODUCER_EPOCH, "5"),))

    error = producers.refuse(GAP, (5, 9), 12)
    assert error.status == 409
    assert error.headers == ((names.EXPECTED_SEQ, "10"), (names.RECEIVED_SEQ, "12"))

    error = producers.refuse(GAP, None, 3)
    assert error.headers == ((names.EXPECTED_SEQ, "0"), (names.RECEIVED_SEQ, "3"))

    error = producers.refuse(BAD_START, (5, 9), 3)
    assert error.status == 400
    with raises(type(error), "Producer-Seq 0"):
        raise error
