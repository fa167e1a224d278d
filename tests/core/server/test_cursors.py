"""Cursors move forward and make readers' URLs differ (protocol section 6)."""

from ds_core.server.cursors import EPOCH, INTERVAL, next_cursor


def test_readers_of_one_interval_share_a_cursor():
    for seconds, cursor in ((0, "0"), (19.9, "0"), (20, "1"), (39, "1"), (3600, "180")):
        assert next_cursor(EPOCH + seconds, None, 0.5) == cursor


def test_a_clock_before_the_epoch_counts_as_the_epoch():
    for wall in (0, -5, EPOCH - 1):
        assert next_cursor(wall, None, 0.0) == "0"


def test_a_cursor_from_the_past_is_replaced_by_the_present():
    now = EPOCH + 1000 * INTERVAL
    for given in ("0", "999", "0999"):
        assert next_cursor(now, given, 0.9) == "1000"


def test_a_cursor_of_now_or_the_future_moves_on_by_up_to_an_hour():
    now = EPOCH + 1000 * INTERVAL
    for given in (1000, 1001, 5000, 10**14):
        for random in (0.0, 0.25, 0.999999):
            step = int(next_cursor(now, str(given), random)) - given
            assert 1 <= step <= 3600 // INTERVAL
    assert next_cursor(now, "1000", 0.0) != next_cursor(now, "1000", 0.9)


def test_what_is_no_number_counts_as_absent():
    for given in ("", "abc", "-1", "1.5", "1e9", "²", " 1000", "9" * 16, "9" * 5000):
        assert next_cursor(EPOCH + 1000 * INTERVAL, given, 0.5) == "1000", given
