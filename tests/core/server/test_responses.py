"""Responses: the bytes of heads, refusals and preflights (protocol sections 1 and 11)."""

import json

from ds_core.server import responses
from ds_core.server.errors import ProtocolError, bad_request
from ds_core.wire import names

REQUEST_HEADERS = (
    names.STREAM_SEQ, names.TTL, names.EXPIRES_AT, names.CLOSED, names.FORKED_FROM, names.FORK_OFFSET,
    names.FORK_SUB_OFFSET, names.PRODUCER_ID, names.PRODUCER_EPOCH, names.PRODUCER_SEQ,
    "content-type", "authorization", "if-none-match",
)  # fmt: skip
RESPONSE_HEADERS = (
    names.NEXT_OFFSET, names.UP_TO_DATE, names.CLOSED, names.STREAM_CURSOR, names.SSE_DATA_ENCODING, names.TTL,
    names.EXPIRES_AT, names.PRODUCER_EPOCH, names.PRODUCER_SEQ, names.EXPECTED_SEQ, names.RECEIVED_SEQ,
    names.EARLIEST_OFFSET, "etag", "location", "content-type", "content-encoding", "vary", "retry-after",
)  # fmt: skip


def lines(head):
    assert head.endswith(b"\r\n\r\n") and head.count(b"\r\n\r\n") == 1
    return head.decode().split("\r\n")[:-2]


def listed(value):
    return [name.strip().lower() for name in value.split(",")]


def test_a_head():
    found = lines(responses.encode_head(200, [("ETag", '"x"')], "date: now\r\n", True, 5))
    assert found[0] == "HTTP/1.1 200 OK"
    for line in ("ETag: \"x\"", "content-length: 5", "date: now", "x-content-type-options: nosniff",
                 "cross-origin-resource-policy: cross-origin", "access-control-allow-origin: *"):  # fmt: skip
        assert line in found, line


def test_every_header_a_browser_needs_to_read_is_exposed():
    for line in lines(responses.encode_head(200, [], "", True, 0)):
        name, _, value = line.partition(": ")
        if name == "access-control-expose-headers":
            for header in RESPONSE_HEADERS:
                assert header in listed(value), header
            return
    raise AssertionError("nothing is exposed")


def test_what_a_head_leaves_out():
    for status in (204, 304):
        assert "content-length" not in responses.encode_head(status, [], "", True, 0).decode()
    assert "content-length" not in responses.encode_head(200, [], "", True, None).decode()
    without = responses.encode_head(200, [], "", False, 0).decode()
    assert "access-control" not in without and "nosniff" in without


def test_every_status_that_is_used_has_a_phrase():
    for status in (
        200, 201, 204, 304, 400, 401, 403, 404, 405, 408, 409, 410, 411, 413, 414, 429, 431, 500, 503, 507,
    ):  # fmt: skip
        assert lines(responses.encode_head(status, [], "", True, 0))[0].startswith("HTTP/1.1 %d " % status)


def test_preflights_allow_what_clients_send():
    response = responses.preflight()
    assert (response.status, response.body) == (204, b"")
    headers = {name.lower(): value for name, value in response.headers}
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
        assert method.lower() in listed(headers["access-control-allow-methods"])
    for name in REQUEST_HEADERS:
        assert name in listed(headers["access-control-allow-headers"]), name


def test_refusals_are_json_with_the_errors_own_headers():
    error = ProtocolError(409, "CODE", 'say "no"\\\n\x00 é € 😀', (("X-Why", "because"),))
    response = responses.refusal(error)
    assert response.status == 409
    assert ("X-Why", "because") in response.headers
    assert ("Content-Type", "application/json") in response.headers
    found = json.loads(response.body)["error"]
    assert found["code"] == "CODE"
    for char in response.body:
        assert 32 <= char < 127
    # MicroPython's json does not join surrogate pairs; the text up to there must be the same everywhere.
    assert found["message"].startswith('say "no"\\\n\x00 é € ')


def test_a_bad_request_is_400():
    error = bad_request("why")
    assert (error.status, error.code, error.message, error.headers) == (400, "INVALID_REQUEST", "why", ())
    assert bad_request("why", "CODE").code == "CODE"


def test_append_answers():
    after = (names.NEXT_OFFSET, "x")
    assert responses.appended(204, after, None).headers == [after]
    response = responses.appended(200, after, (3, 4), True)
    assert response.headers == [
        after, (names.PRODUCER_EPOCH, "3"), (names.PRODUCER_SEQ, "4"), (names.CLOSED, "true"),
    ]  # fmt: skip
    assert response.body == b""


def test_sse_heads():
    assert responses.sse(False).headers == [
        ("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache"), ("X-Accel-Buffering", "no"),
    ]  # fmt: skip
    assert (names.SSE_DATA_ENCODING, "base64") in responses.sse(True).headers
