"""Creation: idempotency, forks, recipes, lineage and whose bytes a range is (protocol sections 3 and 8)."""

from portable import raises

from ds_core.server import create, messages, offsets, requests, stream
from ds_core.server.errors import ProtocolError
from ds_core.wire import names

URL = "/v1/stream/a"
NOW = stream.Now(1000.0, 1750000000.0)
PARSERS = messages.Parsers()


def make(content_type="application/json", data=b"", **attributes):
    state = stream.Stream(3, "src", content_type)
    state.tail = len(data)
    for name in attributes:
        setattr(state, name, attributes[name])
    state.publish()
    return state


def put(body=b"", **headers):
    return requests.parse("PUT", URL, {name.replace("_", "-"): headers[name] for name in headers}, "http://h", body)


def fork(body=b"", **headers):
    return put(body, stream_forked_from="/v1/stream/src", **headers)


def do(state, asked, source=None, piece=None, fresh=8):
    return create.create(stream.View(state, NOW, fresh, source, piece), asked, PARSERS)


def refused(status, code, *args, **others):
    with raises(ProtocolError) as caught:
        do(*args, **others)
    assert (caught.value.status, caught.value.code) == (status, code)
    return caught.value


def headers_of(response):
    return {name.lower(): value for name, value in response.headers}


def test_a_new_stream():
    response, change = do(None, put(b"[1, 2]", content_type="application/json; v=1", stream_ttl="60"))
    assert (response.status, response.body) == (201, b"")
    headers = headers_of(response)
    assert headers["location"] == "http://h/v1/stream/a"
    assert headers["content-type"] == "application/json; v=1"
    assert headers[names.NEXT_OFFSET] == offsets.token(8, 4)
    assert names.CLOSED not in headers
    state = change.stream
    assert (state.id, state.incarnation, state.path, state.tail, change.data) == (8, 8, "a", 4, b"1,2,")
    assert (state.ttl, state.deadline, state.visible_tail, change.source) == (60, 1060.0, 0, None)


def test_a_stream_without_a_type_is_bytes():
    change = do(None, put(b"[1"))[1]
    assert (change.stream.content_type, change.data) == ("application/octet-stream", b"[1")


def test_a_stream_born_closed():
    response, change = do(None, put(b"all there is", stream_closed="true", content_type="text/plain"))
    assert headers_of(response)[names.CLOSED] == "true"
    assert change.stream.closed and change.stream.closed_by is None


def test_an_empty_array_creates_an_empty_stream():
    response, change = do(None, put(b"[]", content_type="application/json"))
    assert (response.status, change.data, change.stream.tail) == (201, b"", 0)


def test_a_wrong_body_creates_nothing():
    refused(400, "INVALID_JSON", None, put(b"[1", content_type="application/json"))
    refused(400, "INVALID_CBOR", None, put(b"\x83\x01", content_type="application/cbor-seq"))


def test_the_same_request_again_is_200_and_changes_nothing():
    for first, again in (
        ({}, {}),
        ({}, {"content_type": "application/octet-stream"}),
        ({"content_type": "text/plain"}, {"content_type": "TEXT/PLAIN; charset=utf-8"}),
        ({"stream_ttl": "60"}, {"stream_ttl": "60"}),
        ({"stream_closed": "true"}, {"stream_closed": "True"}),
        ({"stream_closed": "no"}, {}),
        ({"stream_expires_at": "2030-01-01T12:00:00Z"}, {"stream_expires_at": "2030-01-01T12:00:00Z"}),
        ({"stream_expires_at": "2030-01-01T12:00:00Z"}, {"stream_expires_at": "2030-01-01T14:00:00+02:00"}),
    ):
        state = do(None, put(b"first", **first))[1].stream
        response, change = do(state, put(b"anything", **again))
        assert (response.status, change) == (200, None), (first, again)
        headers = headers_of(response)
        assert headers[names.NEXT_OFFSET] == offsets.token(8, 5)
        assert headers["content-type"] == state.content_type
        assert headers["location"] == "http://h/v1/stream/a"
        assert headers.get(names.CLOSED) == ("true" if state.closed else None)


def test_another_configuration_is_409():
    for first, again in (
        ({}, {"content_type": "text/plain"}),
        ({"content_type": "text/plain"}, {}),
        ({}, {"stream_ttl": "60"}),
        ({"stream_ttl": "60"}, {}),
        ({"stream_ttl": "60"}, {"stream_ttl": "61"}),
        ({"stream_ttl": "60"}, {"stream_expires_at": "2030-01-01T12:00:00Z"}),
        ({"stream_expires_at": "2030-01-01T12:00:00Z"}, {"stream_expires_at": "2030-01-01T12:00:01Z"}),
        ({"stream_expires_at": "2030-01-01T12:00:00Z"}, {}),
        ({}, {"stream_closed": "true"}),
        ({"stream_closed": "true"}, {}),
        ({}, {"stream_forked_from": "/v1/stream/src"}),
    ):
        state = do(None, put(**first))[1].stream
        refused(409, "STREAM_EXISTS", state, put(**again), source=make())


def test_the_409_says_what_is_there():
    state = do(None, put(content_type="text/plain", stream_ttl="60", stream_closed="true"))[1].stream
    error = refused(409, "STREAM_EXISTS", state, put())
    assert "text/plain, Stream-TTL 60, closed" in error.message


def test_a_fork_inherits():
    source = make(data=b"1,2,", ttl=60, deadline=1.0e9, closed=True, stream_seq="x", start=2)
    response, change = do(None, fork(b"[9]"), source)
    state = change.stream
    assert response.status == 201
    assert (state.id, state.incarnation, state.content_type) == (8, 3, "application/json")
    assert (state.start, state.tail, change.data, change.source) == (2, 6, b"9,", 3)
    assert headers_of(response)[names.NEXT_OFFSET] == offsets.token(3, 6)
    assert (state.closed, state.stream_seq) == (False, None)
    assert (state.ttl, state.deadline) == (60, 1060.0)
    assert state.lineage == ((3, 4),)
    for name in headers_of(response):
        assert "fork" not in name


def test_a_forks_own_life_limit_wins():
    source = make(ttl=60, deadline=2000.0)
    state = do(None, fork(stream_ttl="10"), source)[1].stream
    assert (state.ttl, state.deadline, state.expires_at) == (10, 1010.0, None)
    state = do(None, fork(stream_expires_at="2030-01-01T12:00:00Z"), source)[1].stream
    assert (state.ttl, state.deadline, state.expires_at) == (None, None, "2030-01-01T12:00:00Z")
    source = make(expires_at="2031-01-01T12:00:00Z", expires=1.9e9)
    state = do(None, fork(), source)[1].stream
    assert (state.ttl, state.expires_at) == (None, "2031-01-01T12:00:00Z")


def test_the_same_fork_again():
    source = make(data=b"1,2,", ttl=60, deadline=2000.0)
    state = do(None, fork(content_type="application/json"), source)[1].stream
    # The source has moved on, or is gone: what was asked is still the same.
    for source_now in (source, make(data=b"1,2,3,"), None, make(deleted=True, forks=1)):
        for content_type in ({}, {"content_type": "application/json"}):
            response, change = do(state, fork(**content_type), source_now)
            assert (response.status, change) == (200, None)
    for other in (
        fork(stream_ttl="60"),
        fork(stream_fork_offset="-1"),
        fork(content_type="text/plain"),
        fork(stream_closed="true"),
        put(stream_forked_from="/v1/stream/other"),
        put(content_type="application/json"),
        put(content_type="application/json", stream_ttl="60"),
    ):
        refused(409, "STREAM_EXISTS", state, other, source)
    state = do(None, fork(b"[3]", stream_closed="true"), source)[1].stream
    assert do(state, fork(b"[3]", stream_closed="true"), source)[0].status == 200
    refused(409, "STREAM_EXISTS", state, fork(b"[3]"), source)


def test_refused_forks():
    data = b'1,[2,3],"a",'
    piece = (0, data)
    json = {"data": data}
    at_2 = offsets.token(3, 2)
    for source, piece_, asked, status, code in (
        (None, None, fork(), 404, "SOURCE_NOT_FOUND"),
        (make(ttl=1, deadline=0.0), None, fork(), 404, "SOURCE_NOT_FOUND"),
        (make(deleted=True, forks=1), None, fork(), 409, "SOURCE_GONE"),
        (make(ttl=1, deadline=0.0, forks=1), None, fork(), 409, "SOURCE_GONE"),
        (make(), None, fork(content_type="text/plain"), 409, "CONTENT_TYPE_MISMATCH"),
        (make(**json), None, fork(stream_fork_offset=offsets.token(3, 13)), 400, "INVALID_OFFSET"),
        (make(**json), None, fork(stream_fork_offset=offsets.token(9, 0)), 400, "INVALID_OFFSET"),
        (make(**json), None, fork(stream_fork_offset=offsets.token(2, 0)), 410, "OFFSET_GONE"),
        (make(**json), piece, fork(stream_fork_offset=offsets.token(3, 1)), 400, "INVALID_OFFSET"),
        (make(**json), None, fork(stream_fork_offset=at_2), 400, "INVALID_OFFSET"),
        (make(**json), (2, b""), fork(stream_fork_offset=at_2, stream_fork_sub_offset="1"), 400, "INVALID_OFFSET"),
        (make(**json), piece, fork(stream_fork_offset="-1", stream_fork_sub_offset="4"), 400, "INVALID_OFFSET"),
        (make(**json), None, fork(stream_fork_offset="now", stream_fork_sub_offset="1"), 400, "INVALID_OFFSET"),
        (make(), None, fork(b"[1"), 400, "INVALID_JSON"),
    ):
        refused(status, code, None, asked, source=source, piece=piece_)


def test_where_a_fork_leaves_its_source():
    data = b'1,[2,3],"a",'
    for headers, at in (
        ({}, 12),
        ({"stream_fork_offset": "now"}, 12),
        ({"stream_fork_offset": "-1"}, 0),
        ({"stream_fork_offset": offsets.token(3, 2)}, 2),
        ({"stream_fork_offset": offsets.token(3, 12)}, 12),
        ({"stream_fork_offset": "-1", "stream_fork_sub_offset": "0"}, 0),
        ({"stream_fork_offset": "-1", "stream_fork_sub_offset": "1"}, 2),
        ({"stream_fork_offset": "-1", "stream_fork_sub_offset": "3"}, 12),
        ({"stream_fork_offset": offsets.token(3, 2), "stream_fork_sub_offset": "1"}, 8),
    ):
        source = make(data=data)
        asked = fork(**headers)
        first = create.fork_position(source, asked, 8)
        state = do(None, asked, source, (0, data) if first < 12 else None)[1].stream
        assert (state.tail, state.lineage) == (at, ((3, at),)), headers


def test_a_fork_may_leave_where_the_tail_was():
    asked = fork(stream_fork_offset=offsets.token(3, 2))
    assert do(None, asked, make(data=b"1,2,3,"), (2, b""))[1].stream.tail == 2


def test_a_fork_of_bytes_may_leave_anywhere():
    source = make("text/plain", b"abcdefgh")
    asked = fork(stream_fork_offset=offsets.token(3, 4), stream_fork_sub_offset="3")
    # The append at the offset is "efgh", from position 4 on.
    assert do(None, asked, source, (4, b"efgh"))[1].stream.tail == 7


def test_whose_bytes_a_range_is():
    root = make(data=b"x" * 100)
    child = make(data=b"x" * 150, id=4, lineage=create.lineage(root, 40))
    grandchild = make(data=b"x" * 200, id=5, lineage=create.lineage(child, 90))
    early = make(data=b"x" * 50, id=6, lineage=create.lineage(child, 30))
    assert (child.lineage, grandchild.lineage) == (((3, 40),), ((3, 40), (4, 90)))
    assert early.lineage == ((3, 30), (4, 30)), "a fork before its parent's own bytes"
    for state, start, end, expected in (
        (root, 0, 100, [(3, 0, 100)]),
        (child, 0, 150, [(3, 0, 40), (4, 40, 150)]),
        (child, 40, 41, [(4, 40, 41)]),
        (child, 39, 40, [(3, 39, 40)]),
        (grandchild, 0, 200, [(3, 0, 40), (4, 40, 90), (5, 90, 200)]),
        (grandchild, 40, 90, [(4, 40, 90)]),
        (grandchild, 50, 95, [(4, 50, 90), (5, 90, 95)]),
        (early, 0, 50, [(3, 0, 30), (6, 30, 50)]),
        (early, 7, 7, []),
    ):
        assert create.owners(state, start, end) == expected, (state.id, start, end)


def test_a_chain_of_forks_ends_at_its_bound_with_what_is_right():
    source = make(lineage=tuple([(id, 0) for id in range(create.MOST_ANCESTORS - 1)]), id=500)
    view = stream.View(None, NOW, 501, source)
    _, change = create.create(view, fork(), PARSERS)
    assert len(change.stream.lineage) == create.MOST_ANCESTORS
    deepest = change.stream
    deepest.path = "src"
    with raises(ProtocolError) as caught:
        create.create(stream.View(None, NOW, 502, deepest), fork(), PARSERS)
    error = caught.value
    assert (error.status, error.code) == (409, "FORK_TOO_DEEP") and str(create.MOST_ANCESTORS) in error.message
    # The same request as one that succeeded is told so again, at any depth.
    answer, change = create.create(stream.View(deepest, NOW, 502, deepest), fork(), PARSERS)
    assert (answer.status, change) == (200, None)
