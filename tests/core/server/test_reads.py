"""Reads: where they start, whether they wait, where a chunk ends and what the answer says (protocol section 6)."""

from portable import raises

from ds_core.server import offsets, reads, requests, responses, stream
from ds_core.server.errors import ProtocolError
from ds_core.wire import names
from ds_core.wire.media import BYTES, CBOR, JSON

URL = "/v1/stream/a"
NOW = stream.Now(1000.0, 1750000000.0)


def make(content_type="text/plain", tail=10, **attributes):
    state = stream.Stream(3, "a", content_type)
    state.tail = tail
    for name in attributes:
        setattr(state, name, attributes[name])
    state.publish()
    return state


def get(query="", **headers):
    return requests.parse("GET", URL + query, {name.replace("_", "-"): headers[name] for name in headers})


def plan(state, asked):
    return reads.plan(stream.View(state, NOW, 8), asked.offset, asked.live is not None)[0]


def token(position):
    return offsets.token(3, position)


def headers_of(response):
    found = {name.lower(): value for name, value in response.headers}
    assert len(found) == len(response.headers), response.headers
    return found


def test_where_a_read_starts_and_whether_it_waits():
    for query, closed, start, waits in (
        ("", False, 0, False),
        ("?offset=-1", False, 0, False),
        ("?offset=now", False, 10, False),
        ("?offset=" + token(4), False, 4, False),
        ("?offset=" + token(10), False, 10, False),
        ("?live=long-poll&offset=-1", False, 0, False),
        ("?live=long-poll&offset=now", False, 10, True),
        ("?live=sse&offset=" + token(10), False, 10, True),
        ("?live=sse&offset=" + token(9), False, 9, False),
        ("?live=long-poll&offset=now", True, 10, False),
        ("?live=sse&offset=" + token(10), True, 10, False),
    ):
        found = plan(make(closed=closed), get(query))
        assert (found.start, found.tail, found.waits) == (start, 10, waits), query


def test_readers_see_only_what_is_durable():
    state = make()
    state.tail, state.closed = 99, True
    found = plan(state, get("?offset=now&live=sse"))
    assert (found.start, found.tail, found.closed, found.waits) == (10, 10, False, True)
    with raises(ProtocolError, "beyond the tail"):
        plan(state, get("?offset=" + token(11)))
    state.publish()
    assert plan(state, get("?offset=" + token(11))).tail == 99


def test_trimmed_streams_start_at_their_earliest_position():
    state = make(start=4)
    assert plan(state, get()).start == 4
    with raises(ProtocolError) as caught:
        plan(state, get("?offset=" + token(3)))
    assert caught.value.status == 410


def test_a_read_begins_between_messages():
    for kind, data, good in ((JSON, b'1,[2,3],"a",', (0, 2, 8, 12)), (CBOR, b"\x01\x82\x01\x02", (0, 1, 4))):
        for at in range(len(data) + 1):
            try:
                reads.check_start(kind, (100, data), 100 + at)
                assert at in good, at
            except ProtocolError as error:
                assert at not in good and error.status == 400, at
    for at in range(4):
        reads.check_start(BYTES, (100, b"abc"), 100 + at)


def test_a_chunk_takes_whole_appends_when_they_fit():
    # (kind, start, limit, the append that holds start + limit as (first, end), its bytes) -> the chunk's end
    data = b'1,[2,3],"a",'
    for kind, start, limit, last, given, end in (
        (BYTES, 0, 100, (80, 120), None, 80),
        (BYTES, 0, 100, (100, 120), None, 100),
        (BYTES, 0, 100, (0, 500), None, 100),
        (BYTES, 50, 100, (50, 500), None, 150),
        (BYTES, 50, 100, (0, 500), None, 150),
        (BYTES, 50, 100, (0, 120), None, 120),
        (BYTES, 50, 0, (50, 500), None, 51),
        (JSON, 0, 10, (6, 12), None, 6),
        (JSON, 0, 9, (0, 12), None, None),
        (JSON, 0, 9, (0, 12), data, 8),
        (JSON, 0, 1, (0, 12), data, 2),
        (JSON, 102, 3, (100, 112), data, 108),
        (JSON, 102, 9, (100, 112), data, 108),
        (JSON, 102, 10, (100, 112), data, 112),
        (CBOR, 0, 2, (0, 4), b"\x01\x82\x01\x02", 1),
        (CBOR, 1, 1, (0, 4), b"\x01\x82\x01\x02", 4),
    ):
        assert reads.chunk_end(kind, start, limit, last, given) == end, (kind, start, limit, last)


def test_following_the_chunks_reads_everything_once():
    appends = [(0, b"1,"), (2, b'[2,3],"a",'), (12, b"4,5,6,7,"), (20, b'"' + b"x" * 30 + b'",')]
    data = b"".join([piece for _, piece in appends])
    for kind in (JSON, BYTES):
        for limit in range(1, 60):
            at = 0
            rounds = 0
            while at < len(data):
                end = len(data)
                for first, piece in appends:
                    if first <= at + limit < first + len(piece):
                        end = reads.chunk_end(kind, at, limit, (first, first + len(piece)), piece)
                assert at < end, (kind, limit, at)
                if kind == BYTES:
                    assert end - at <= limit
                at = end
                rounds += 1
            assert at == len(data) and rounds <= len(data)


def test_catch_up_answers():
    data = b"0123456789"
    for query, closed, end, up_to_date, shows_closed in (
        ("", False, 10, True, False),
        ("", False, 6, False, False),
        ("", True, 6, False, False),
        ("", True, 10, True, True),
        ("?offset=" + token(10), False, 10, True, False),
        ("?offset=" + token(10), True, 10, True, True),
    ):
        found = plan(make(closed=closed), get(query))
        position = found.position(end)
        response = reads.answer(get(query), position, data[found.start : end], "7", responses.PUBLIC)
        headers = headers_of(response)
        assert (response.status, response.body) == (200, data[found.start : end])
        assert position.size() == len(response.body)
        assert headers[names.NEXT_OFFSET] == token(end)
        assert headers.get(names.UP_TO_DATE) == ("true" if up_to_date else None)
        assert headers.get(names.CLOSED) == ("true" if shows_closed else None)
        assert headers["cache-control"] == responses.PUBLIC
        assert headers["content-type"] == "text/plain"
        assert names.STREAM_CURSOR not in headers


def test_forks_made_one_after_the_other_share_offsets_but_not_etags():
    tags = []
    for id in (8, 9):
        state = make()
        state.id = id
        position = plan(state, get()).position(10)
        assert dict(position.headers())[names.NEXT_OFFSET] == token(10)
        tags.append(position.etag())
    assert tags[0] != tags[1]


def test_etags_vary_with_range_and_end():
    found = plan(make(), get())
    ended = plan(make(closed=True), get())
    later = plan(make(), get("?offset=" + token(4)))
    tags = [found.position(10).etag(), found.position(6).etag(), ended.position(10).etag(), later.position(10).etag()]
    for index in range(len(tags)):
        assert tags[index] not in tags[:index]
        assert tags[index][0] == tags[index][-1] == '"'
    assert ended.position(6).etag() == found.position(6).etag()


def test_what_the_client_has_is_304():
    position = plan(make(), get()).position(10)
    tag = position.etag()
    for given, status in (
        (tag, 304), ("W/" + tag, 304), ('"x", ' + tag, 304), (tag + ' , "y"', 304), ("*", 304),
        ('"x"', 200), (tag[1:-1], 200), ("", 200), (tag[:-1] + ':c"', 200),
    ):  # fmt: skip
        response = reads.answer(get(if_none_match=given), position, b"0123456789", "7", responses.PUBLIC)
        assert response.status == status, given
        assert response.body == (b"" if status == 304 else b"0123456789")
        assert headers_of(response)["etag"] == tag


def test_offset_now_may_not_be_kept_by_caches():
    for content_type, body in (("text/plain", b""), ("application/json", b"[]"), ("application/cbor-seq", b"")):
        for closed in (False, True):
            asked = get("?offset=now", if_none_match="*")
            found = plan(make(content_type, closed=closed), asked)
            response = reads.answer(asked, found.position(10), b"", "7", responses.PUBLIC)
            headers = headers_of(response)
            assert (response.status, response.body, headers["cache-control"]) == (200, body, "no-store")
            assert headers[names.UP_TO_DATE] == "true" and "etag" not in headers
            assert headers.get(names.CLOSED) == ("true" if closed else None)


def test_long_poll_answers():
    asked = get("?live=long-poll&offset=" + token(4))
    found = plan(make("application/json"), asked)
    response = reads.answer(asked, found.position(10), b"[1],2,", "7", responses.PRIVATE)
    headers = headers_of(response)
    assert (response.status, response.body) == (200, b"[[1],2]")
    assert (headers[names.STREAM_CURSOR], headers["cache-control"]) == ("7", responses.PRIVATE)

    for closed in (False, True):
        asked = get("?live=long-poll&offset=now", if_none_match="*")
        found = plan(make("application/json", closed=closed), asked)
        response = reads.answer(asked, found.position(10), b"", "7", responses.PUBLIC)
        headers = headers_of(response)
        assert (response.status, response.body) == (204, b"")
        assert (headers[names.NEXT_OFFSET], headers[names.UP_TO_DATE]) == (token(10), "true")
        assert headers["cache-control"] == "no-store" and "etag" not in headers
        assert headers.get(names.CLOSED) == ("true" if closed else None)


def test_sse_batches():
    def batch(content_type, end, data, closed=False, query="?live=sse&offset=-1"):
        found = plan(make(content_type, closed=closed), get(query))
        return reads.events(found.position(end), data, "7").decode()

    def lines(text):
        # One optional space after the colon is no part of a value.
        return [line.replace(": ", ":", 1) if ":" in line else line for line in text.split("\n")]

    assert lines(batch("application/json", 10, b"[1],{},33,"))[:2] == ["event:data", "data:[[1],{},33]"]
    text = lines(batch("text/plain", 10, b"a\nb\r\nc"))
    assert text[:5] == ["event:data", "data:a", "data:b", "data:c", ""]
    assert text[5] == "event:control"
    for part in ('"streamNextOffset":"%s"' % token(10), '"streamCursor":"7"', '"upToDate":true'):
        assert part in text[6]
    assert "streamClosed" not in text[6]

    text = lines(batch("application/cbor-seq", 6, b"\x01\x82\x01\x02\x03\xf6", closed=True))
    assert text[:2] == ["event:data", "data:AYIBAgP2"]
    assert "upToDate" not in text[4] and "streamClosed" not in text[4] and "streamCursor" in text[4]

    text = lines(batch("text/plain", 10, b"0123456789", closed=True))
    assert '"streamClosed":true' in text[4] and '"upToDate":true' in text[4] and "streamCursor" not in text[4]

    # Nothing to send: the control event comes alone.
    for content_type in ("text/plain", "application/json", "application/cbor-seq"):
        text = lines(batch(content_type, 10, b"", query="?live=sse&offset=now"))
        assert text[0] == "event:control" and "event:data" not in text
