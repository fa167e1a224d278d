from ds_core.client import errors, refusals
from ds_core.client.refusals import error_for


def test_each_status_has_its_class():
    for status, kind, retry in (
        (400, errors.BadRequest, False),
        (401, errors.Unauthorized, False),
        (403, errors.Forbidden, False),
        (404, errors.NotFound, False),
        (408, errors.Busy, True),
        (409, errors.Conflict, False),
        (410, errors.Gone, False),
        (413, errors.TooLarge, False),
        (418, errors.StreamError, False),
        (429, errors.Busy, True),
        (500, errors.ServerError, True),
        (503, errors.Busy, True),
        (507, errors.NoSpace, True),
        (599, errors.ServerError, True),
    ):
        error = error_for(status, {}, b"why", "http://h/s")
        assert error.__class__ is kind, status
        assert (error.status, error.message, error.url, error.retry) == (status, "why", "http://h/s", retry)
        assert str(status) in str(error) and "why" in str(error) and "http://h/s" in str(error)


def test_a_closed_stream_is_its_own_error():
    assert error_for(409, {"stream-closed": "TRUE"}, b"", "").__class__ is errors.Closed
    assert error_for(409, {"stream-closed": "no"}, b"", "").__class__ is errors.Conflict


def test_the_servers_code_and_message_are_taken_from_json():
    text = '{"error": {"code": "too_old", "message": "trimmed"}}'
    error = error_for(410, {}, text.encode(), "")
    assert (error.code, error.message) == ("too_old", "trimmed")
    assert "now" in str(error)  # the hint
    for text in ("{", '{"a": 1}', '{"error": 1}', "[]", '{"error": {"code": "x"}}'):
        assert error_for(400, {}, text.encode(), "").status == 400


def test_what_a_server_says_may_be_nested_too_deeply():
    for body in (b'{"error":' + b"[" * 3000, b'{"a":' * 3000, b'{"error":' + b"[" * 3000 + b"]" * 3000 + b"}"):
        assert error_for(400, {}, body, "http://h/s").__class__ is errors.BadRequest


def test_retry_after_is_kept():
    assert error_for(503, {"retry-after": "3"}, b"", "").retry_after == "3"


def test_what_the_network_says_is_told_in_words():
    for exc, found, text in (
        (OSError(-2), "Disconnected", "name was not found"),
        (OSError(-202), "Disconnected", "name was not found"),
        (OSError(-9984, "CERT_VERIFY_FAILED"), "Disconnected", "CERT_VERIFY_FAILED"),
        (OSError(101), "Disconnected", "101"),
        (OSError(104), "Disconnected", "104"),
        (OSError(110), "Timeout", "no progress in time"),
        (OSError("silent"), "Disconnected", "silent"),
    ):
        error = refusals.failure(exc, "http://h/s")
        assert error.__class__ is getattr(refusals, found) and error.retry and error.url == "http://h/s"
        assert text in str(error) and str(error) == str(error).strip(), error
        assert text == "name was not found" or "name" not in str(error), error
    other = ValueError("ours")
    assert refusals.failure(other, "") is other


def test_a_success_that_is_not_the_streams_is_a_bad_response():
    for status in (200, 201, 204):
        error = refusals.error_for(status, {}, b"<html>welcome", "http://h/s")
        assert error.__class__ is errors.BadResponse and error.status == status and not error.retry
    error = refusals.error_for(301, {"location": "https://h/s"}, b"", "http://h/s")
    assert error.__class__ is errors.StreamError and "https://h/s" in str(error)
