from ds_core.client.backoff import Backoff


def test_delays_double_up_to_the_most_with_up_to_half_of_jitter():
    for low, random in ((True, lambda n: n - 1), (False, lambda n: 0)):
        backoff = Backoff(random, 100, 1000)
        found = [backoff.delay() for _ in range(6)]
        whole = [100, 200, 400, 800, 1000, 1000]
        assert found == ([ms // 2 for ms in whole] if low else whole)


def test_an_answer_starts_anew():
    backoff = Backoff(lambda n: 0, 100, 1000)
    backoff.delay()
    backoff.delay()
    backoff.reset()
    assert backoff.delay() == 100


def test_retry_after_is_the_least_and_a_date_counts_as_nothing():
    backoff = Backoff(lambda n: 0, 100, 1000)
    assert backoff.delay("7") == 7000
    assert backoff.delay("0") == 200
    assert backoff.delay("Wed, 21 Oct 2026 07:28:00 GMT") == 400
    assert backoff.delay("99999999999999999999") == 3600000


def test_retry_after_of_other_digits_counts_as_nothing():
    for text in ("\xb2", "1\xb3", "\u0664", "-5", "1_0", "9" * 5000):
        ms = Backoff(lambda n: 0, 100, 1000).delay(text)
        assert ms == (3600000 if text[0] == "9" else 100)


def test_no_overflow_after_many_failures():
    backoff = Backoff(lambda n: 0, 500, 60000)
    for _ in range(200):
        assert backoff.delay() <= 60000
