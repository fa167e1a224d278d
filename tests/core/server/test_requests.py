"""Requests to commands: everything that is wrong whatever the state of the stream (protocol sections 1 to 6 and 8)."""

from portable import raises

from ds_core.server import requests
from ds_core.server.errors import ProtocolError
from ds_core.wire import names

URL = "/v1/stream/a"
PRODUCER = {"producer-id": "p", "producer-epoch": "1", "producer-seq": "2"}


def refused(status, method, target=URL, headers=None, text=""):
    with raises(ProtocolError, text) as caught:
        requests.parse(method, target, headers or {})
    assert caught.value.status == status, (method, target, headers)
    return caught.value


def changed(headers, **changes):
    """A copy with changes; None removes. Underscores in names stand for hyphens."""
    result = dict(headers)
    for name, value in changes.items():
        name = name.replace("_", "-")
        if value is None:
            result.pop(name)
        else:
            result[name] = value
    return result


def test_methods_and_kinds():
    for method, kind in (
        ("PUT", requests.CREATE),
        ("POST", requests.APPEND),
        ("GET", requests.READ),
        ("HEAD", requests.HEAD),
        ("DELETE", requests.DELETE),
    ):
        command = requests.parse(method, URL + "/%62?x=1", {})
        assert (command.kind, command.path) == (kind, "a/b")
    for method in ("PATCH", "TRACE", "CONNECT", "get", "OPTIONS", "BREW"):
        error = refused(405, method)
        assert error.headers[0][0] == "Allow" and "POST" in error.headers[0][1]


def test_the_path_comes_first():
    for method in requests.METHODS:
        refused(404, method, "/elsewhere")
        refused(404, method, "/v1/stream/__ds/x")
        refused(400, method, "/v1/stream/a//b")


def test_a_plain_create():
    command = requests.parse("PUT", URL, {}, "http://h:1", b"body")
    assert command.location == "http://h:1/v1/stream/a"
    assert (command.content_type, command.ttl, command.expires_at) == (None, None, None)
    assert (command.closes, command.body, command.source, command.fork_spec) == (False, b"body", None, None)


def test_a_create_with_everything():
    headers = {"content-type": "text/plain; charset=utf-8", "stream-ttl": "60", "stream-closed": "TRUE"}
    command = requests.parse("PUT", "/v1/stream/caf%c3%a9", headers, "https://h")
    assert command.location == "https://h/v1/stream/caf%C3%A9"
    assert (command.content_type, command.ttl, command.closes) == ("text/plain; charset=utf-8", 60, True)
    command = requests.parse("PUT", URL, {"stream-expires-at": "2030-01-31T12:00:00Z"})
    assert command.expires_at == "2030-01-31T12:00:00Z"


def test_a_location_begins_with_a_host_that_is_one():
    for origin in ("http://a b", "http://user@a", "http://a/b", "http://", "http://a:x"):
        with raises(ProtocolError, "Host must be a host"):
            requests.parse("PUT", URL, {}, origin)


def test_wrong_creates():
    for headers in (
        {"content-type": "text"},
        {"content-type": "a/b/c"},
        {"stream-ttl": "-1"},
        {"stream-ttl": "060"},
        {"stream-ttl": "1.5"},
        {"stream-ttl": ""},
        {"stream-expires-at": "soon"},
        {"stream-expires-at": ""},
        {"stream-ttl": "60", "stream-expires-at": "2030-01-31T12:00:00Z"},
        {"stream-fork-offset": "-1"},
        {"stream-fork-sub-offset": "0"},
        {"stream-fork-sub-offset": "3"},
    ):
        refused(400, "PUT", headers=headers)


def test_forks():
    headers = {"stream-forked-from": "/v1/stream/src"}
    command = requests.parse("PUT", URL, headers)
    assert (command.source, command.fork_offset, command.fork_skip) == ("src", names.NOW, 0)

    offset = "0000000000000001_0000000000000009"
    command = requests.parse("PUT", URL, changed(headers, stream_fork_offset=offset, stream_fork_sub_offset="3"))
    assert (command.fork_offset, command.fork_skip) == ((1, 9), 3)

    # Zero is as if absent, so it needs no offset.
    assert requests.parse("PUT", URL, changed(headers, stream_fork_sub_offset="0")).fork_skip == 0


def test_a_forks_recipe_has_one_spelling():
    def fork_spec(**headers):
        return requests.parse("PUT", URL, changed({}, **headers)).fork_spec

    one = fork_spec(stream_forked_from="/v1/stream/a%20b")
    for other in ("/v1/stream/%61%20b", "http://host/v1/stream/a%20b", "/v1/stream/a%20b?x=1"):
        assert fork_spec(stream_forked_from=other) == one
    start = fork_spec(stream_forked_from="/v1/stream/s", stream_fork_offset="-1")
    assert start == fork_spec(
        stream_forked_from="/v1/stream/s",
        stream_fork_offset="0000000000000000_0000000000000000",
        stream_fork_sub_offset="0",
    )
    different = {
        one,
        start,
        fork_spec(stream_forked_from="/v1/stream/s"),
        fork_spec(stream_forked_from="/v1/stream/s", stream_ttl="60"),
        fork_spec(stream_forked_from="/v1/stream/s", stream_expires_at="2030-01-31T12:00:00Z"),
        fork_spec(stream_forked_from="/v1/stream/s", stream_fork_offset="-1", stream_fork_sub_offset="1"),
        fork_spec(stream_forked_from="/v1/stream/s", stream_fork_offset="0000000000000001_0000000000000001"),
    }
    assert len(different) == 7


def test_wrong_forks():
    for status, source, offset, skip in (
        (404, "src", None, None),
        (404, "/src", None, None),
        (400, "/v1/stream/a//b", None, None),
        (404, "/v1/stream/__ds/x", None, None),
        (400, "/v1/stream/s", "", None),
        (400, "/v1/stream/s", "9", None),
        (400, "/v1/stream/s", "-1", "-1"),
        (400, "/v1/stream/s", "-1", "x"),
        (400, "/v1/stream/s", "-1", ""),
        (400, "/v1/stream/s", None, "1"),
    ):
        headers = {"stream-forked-from": source}
        if offset is not None:
            headers["stream-fork-offset"] = offset
        if skip is not None:
            headers["stream-fork-sub-offset"] = skip
        with raises(ProtocolError) as caught:
            requests.parse("PUT", URL, headers)
        assert caught.value.status in (status, 400), headers


def test_appends():
    command = requests.parse("POST", URL, {}, body=b"x")
    assert (command.content_type, command.closes, command.producer, command.stream_seq) == (None, False, None, None)
    assert command.body == b"x"
    headers = changed(PRODUCER, content_type="text/plain", stream_closed="true", stream_seq="abc")
    command = requests.parse("POST", URL, headers)
    assert command.producer == ("p", 1, 2)
    assert (command.content_type, command.closes, command.stream_seq) == ("text/plain", True, "abc")


def test_a_producer_is_whole_or_absent():
    for names_left in (
        ("producer-id",), ("producer-epoch",), ("producer-seq",),
        ("producer-id", "producer-epoch"), ("producer-id", "producer-seq"), ("producer-epoch", "producer-seq"),
    ):  # fmt: skip
        refused(400, "POST", headers={name: PRODUCER[name] for name in names_left}, text="all or none")


def test_wrong_producers():
    for name, values in (
        ("producer-id", ("", "x" * 257)),
        ("producer-epoch", ("", "-1", "1.0", "x", "9007199254740992", "0x1")),
        ("producer-seq", ("", "-1", "1.0", "x", "9007199254740992", "1e3")),
    ):
        for value in values:
            headers = dict(PRODUCER)
            headers[name] = value
            refused(400, "POST", headers=headers)
    assert requests.parse("POST", URL, changed(PRODUCER, producer_id="x" * 256)).producer[0] == "x" * 256
    headers = changed(PRODUCER, producer_epoch="9007199254740991", producer_seq="9007199254740991")
    assert requests.parse("POST", URL, headers).producer == ("p", 9007199254740991, 9007199254740991)


def test_reads():
    for query, offset, live, cursor, most in (
        ("", (0, 0), None, None, None),
        ("?offset=-1", (0, 0), None, None, None),
        ("?offset=now", "now", None, None, None),
        ("?offset=now&live=sse", "now", "sse", None, None),
        ("?cursor=5&live=long-poll&offset=0000000000000001_0000000000000009", (1, 9), "long-poll", "5", None),
        ("?max-bytes=100", (0, 0), None, None, 100),
        ("?unknown=1&offset=-1&unknown=2", (0, 0), None, None, None),
    ):
        command = requests.parse("GET", URL + query, {})
        assert (command.offset, command.live, command.cursor, command.max_bytes) == (offset, live, cursor, most)
    assert requests.parse("GET", URL, {"if-none-match": '"x"'}).if_none_match == '"x"'


def test_wrong_reads():
    for query in (
        "offset=", "offset", "offset=5", "offset=-1&offset=-1", "offset=-1,now", "live=sse", "live=long-poll",
        "offset=-1&live=", "offset=-1&live=SSE", "offset=-1&live=poll", "max-bytes=-1", "max-bytes=x",
    ):  # fmt: skip
        refused(400, "GET", URL + "?" + query)


def test_only_a_read_looks_at_the_query():
    for method in ("PUT", "POST", "HEAD", "DELETE"):
        requests.parse(method, URL + "?offset=&offset=", {})


def test_a_packed_body_is_415() -> None:
    for method in ("PUT", "POST"):
        for coding in ("gzip", "GZIP", "deflate", "br", "gzip, identity"):
            error = refused(415, method, URL, {"content-encoding": coding}, "stored as they are sent")
            assert error.headers == (("Accept-Encoding", "identity"),)
        for coding in ("identity", "Identity", ""):
            requests.parse(method, URL, {"content-encoding": coding})
