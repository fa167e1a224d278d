"""Header values: numbers, flags and instants (protocol sections 1, 3 and 5)."""

from portable import raises

from ds_core.server import fields
from ds_core.server.errors import ProtocolError
from ds_core.server.producers import MAX_NUMBER

SINGLE = 1.0 + 2.0**-30 == 1.0  # this interpreter's floats are single precision


def refused(function, *args):
    with raises(ProtocolError) as caught:
        function(*args)
    assert caught.value.status == 400, args


def test_decimals():
    for text, value in (("0", 0), ("7", 7), ("007", 7), ("9007199254740991", MAX_NUMBER)):
        assert fields.decimal(text, "Producer-Seq", MAX_NUMBER) == value
    for text in (
        "", " ", "-1", "+1", "1.0", "1e3", "0x1", "1_0", " 1", "1 ", "one", "٣", "²", "1,1",
        "9007199254740992", "9" * 17, "0" * 17,
    ):  # fmt: skip
        refused(fields.decimal, text, "Producer-Seq", MAX_NUMBER)


def test_the_error_names_the_header_and_its_limit():
    with raises(ProtocolError, "Producer-Epoch must be a decimal integer from 0 to 9007199254740991"):
        fields.decimal("x", "Producer-Epoch", MAX_NUMBER)


def test_seconds_have_no_leading_zeros():
    for text in ("0", "1", "60", "999999999999"):
        assert fields.seconds(text) == int(text)
    for text in ("00", "01", "060", "-1", "+60", "60.0", "6e1", "", "60s", "1000000000000"):
        refused(fields.seconds, text)


def test_flags_are_true_or_as_if_absent():
    for text in ("true", "True", "TRUE", "tRuE"):
        assert fields.flag(text) is True
    for text in (None, "", "false", "1", "yes", " true", "truee", "true,true"):
        assert fields.flag(text) is False


def test_instants():
    for text, seconds in (
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01Z", 1),
        ("1969-12-31T23:59:59Z", -1),
        ("2000-02-29T12:00:00Z", 951825600),
        ("2001-09-09T01:46:40Z", 1000000000),
        ("2024-10-09T00:00:00Z", 1728432000),
        ("2024-12-31T23:59:60Z", 1735689600),  # a leap second is the next second
        ("2026-06-30T14:30:00+02:00", 1782822600),
        ("2026-06-30T12:30:00+00:00", 1782822600),
        ("2026-06-30T07:00:00-05:30", 1782822600),
        ("2026-06-30t12:30:00z", 1782822600),
        ("2026-06-30 12:30:00Z", 1782822600),
        ("2026-06-30T12:30:00.5Z", 1782822600.5),
        ("2026-06-30T12:30:00.250000000000Z", 1782822600.25),
        ("2100-02-28T23:59:59Z", 4107542399),
        ("9999-12-31T23:59:59Z", 253402300799),
    ):
        if SINGLE and isinstance(seconds, float):
            seconds = int(seconds) + 1  # never early
        assert fields.instant(text) == seconds, text
        # Whole seconds are ints, exact where floats are single precision: the next second is another one.
        if isinstance(seconds, int):
            assert isinstance(fields.instant(text), int)
    assert fields.instant("2026-06-30T12:30:01Z") - fields.instant("2026-06-30T12:30:00.000Z") == 1


def test_what_is_no_instant():
    for text in (
        "", "tomorrow", "1782822600", "2026-06-30", "2026-06-30T12:30:00", "2026-06-30T12:30Z",
        "2026-06-30T12:30:00 Z", "2026-06-30T12:30:00.Z", "2026-06-30T12:30:00,5Z", "2026-06-30T12:30:00+0200",
        "2026-06-30T12:30:00+02", "2026-06-30T12:30:00+24:00", "2026-06-30T12:30:00+02:60",
        "2026-06-30X12:30:00Z", "2026/06/30T12:30:00Z", "26-06-30T12:30:00Z", "2026-6-30T12:30:00Z ",
        "2026-00-30T12:30:00Z", "2026-13-30T12:30:00Z", "2026-06-00T12:30:00Z", "2026-06-31T12:30:00Z",
        "2026-02-29T12:30:00Z", "2100-02-29T12:30:00Z", "2026-06-30T24:30:00Z", "2026-06-30T12:60:00Z",
        "2026-06-30T12:30:61Z", "-026-06-30T12:30:00Z", "2026-06-30T12:30:00ZZ", "2026-06-30T12:30:-1Z",
        "Tue, 30 Jun 2026 12:30:00 GMT", "٢٠٢٦-06-30T12:30:00Z",
    ):  # fmt: skip
        refused(fields.instant, text)
