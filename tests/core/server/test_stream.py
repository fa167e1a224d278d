"""A stream's decisions: every condition against every command, and which of several wrongs wins (sections 4 to 8)."""

from portable import raises

from ds_core.server import decide, offsets, reads, requests, stream
from ds_core.server.errors import ProtocolError
from ds_core.wire import names

URL = "/v1/stream/a"
NOW = stream.Now(1000.0, 1750000000.0)
LATER = stream.Now(1061.0, 1750000061.0)


class Kept(stream.Stream):
    """A stream with what a shell keeps beside it: the last (epoch, seq) of each producer."""

    producers = {}


def make(content_type="text/plain", data=b"hello", **attributes):
    state = Kept(3, "a", content_type)
    state.tail = len(data)
    for name in attributes:
        setattr(state, name, attributes[name])
    state.publish()
    return state


def post(body=b"x", content_type="text/plain", closes=False, producer=None, seq=None):
    headers = {}
    if content_type is not None:
        headers["content-type"] = content_type
    if closes:
        headers["stream-closed"] = "true"
    if producer is not None:
        headers["producer-id"] = producer[0]
        headers["producer-epoch"] = str(producer[1])
        headers["producer-seq"] = str(producer[2])
    if seq is not None:
        headers["stream-seq"] = seq
    return requests.parse("POST", URL, headers, body=body)


def command(method, **headers):
    return requests.parse(method, URL, {name.replace("_", "-"): headers[name] for name in headers})


def do(state, asked, now=NOW):
    producer = decide.needs(asked).producer
    known = state.producers.get(producer) if state is not None else None
    return decide.decide(stream.View(state, now, 4, producer=known), asked)


def apply(state, asked, now=NOW):
    response, change = do(state, asked, now)
    if change is not None:
        change.apply(state)
        state.publish()
        if change.producer is not None:
            state.producers = dict(state.producers)
            state.producers[change.producer[0]] = change.producer[1:]
    return response


def header(response, name):
    found = [value for key, value in response.headers if key.lower() == name]
    assert len(found) <= 1, found
    return found[0] if found else None


def outcome(state, asked, now=NOW):
    """(status, error code or None)."""
    try:
        if asked.kind == requests.READ:
            reads.plan(stream.View(state, now, 4), asked.offset, asked.live is not None)
            return 200, None
        return do(state, asked, now)[0].status, None
    except ProtocolError as error:
        return error.status, error.code


def test_every_condition_and_command():
    commands = (
        post(),
        post(b"", None, closes=True),
        post(closes=True),
        command("GET"),
        command("HEAD"),
        command("DELETE"),
        command("PUT", content_type="text/plain"),
        command("PUT", content_type="text/html"),
        command("PUT", content_type="text/plain", stream_closed="true"),
    )
    over = NOW.steady
    for name, state, expected in (
        #                               append  close  both  read  head  del  create: same  other  closed
        ("missing", lambda: None, (404, 404, 404, 404, 404, 404, 201, 201, 201)),
        ("open", make, (204, 204, 204, 200, 200, 204, 200, 409, 409)),
        ("closed", lambda: make(closed=True), (409, 204, 409, 200, 200, 204, 409, 409, 200)),
        ("expired", lambda: make(ttl=60, deadline=over), (404, 404, 404, 404, 404, 404, 201, 201, 201)),
        ("closed, expired", lambda: make(closed=True, deadline=over), (404, 404, 404, 404, 404, 404, 201, 201, 201)),
        ("out of date", lambda: make(expires=NOW.wall), (404, 404, 404, 404, 404, 404, 201, 201, 201)),
        ("expired, forks", lambda: make(deadline=over, forks=1), (410, 410, 410, 410, 410, 410, 409, 409, 409)),
        ("deleted, forks", lambda: make(deleted=True, forks=1), (410, 410, 410, 410, 410, 410, 409, 409, 409)),
    ):
        found = tuple([outcome(state(), asked)[0] for asked in commands])
        assert found == expected, (name, found)


def test_each_command_says_what_its_decision_must_be_shown():
    piece = (0, b"hello")
    headers = {"content-type": "text/plain", "stream-forked-from": "/v1/stream/b%20c", "stream-fork-offset": "-1"}
    for asked, expected in (
        (post(), ("a", None, None, None)),
        (post(producer=("p", 0, 0)), ("a", "p", None, None)),
        (command("HEAD"), ("a", None, None, None)),
        (command("DELETE"), ("a", None, None, None)),
        (command("PUT", content_type="text/plain"), ("a", None, None, None)),
        (requests.parse("PUT", URL, headers), ("a", None, "b c", piece)),
    ):
        found = decide.needs(asked, piece if expected[2] else None)
        assert (found.path, found.producer, found.source, found.piece) == expected, asked.kind


def test_a_producer_without_a_state_in_the_view_is_a_new_one():
    state = make()
    for known, producer, expected in (
        (None, ("p", 0, 0), (200, None)),
        (None, ("p", 0, 1), (409, "SEQUENCE_GAP")),
        ((0, 0), ("p", 0, 0), (204, None)),
        ((0, 0), ("p", 0, 1), (200, None)),
    ):
        view = stream.View(state, NOW, 4, producer=known)
        try:
            found = (decide.decide(view, post(producer=producer))[0].status, None)
        except ProtocolError as error:
            found = (error.status, error.code)
        assert found == expected, (known, producer)


def test_which_of_several_wrongs_wins():
    """Section 4's order. Each request has its own fault and all those that come later in the order."""
    stale = ("p", 1, 9)
    gap = ("p", 2, 9)
    state = {"producers": {"p": (2, 4)}, "stream_seq": "m"}
    wrong_json = {"body": b"{", "content_type": "text/html", "seq": "a"}
    for name, attributes, asked, status, code in (
        ("gone, stale, closed", {"deleted": True, "closed": True}, {"producer": stale}, 410, "STREAM_GONE"),
        ("expired, stale, closed", {"deadline": 1.0, "closed": True}, {"producer": stale}, 404, "STREAM_NOT_FOUND"),
        ("stale, closed, empty", {"closed": True}, {"producer": stale, "body": b""}, 403, "STALE_EPOCH"),
        ("stale, no type", {}, {"producer": stale, "content_type": None, "seq": "a"}, 403, "STALE_EPOCH"),
        ("stale, not JSON", {}, {"producer": stale, "body": b"{", "seq": "a"}, 403, "STALE_EPOCH"),
        ("closed, empty, gap", {"closed": True}, {"producer": gap, "body": b""}, 409, "STREAM_CLOSED"),
        ("closed, another type", {"closed": True}, wrong_json, 409, "STREAM_CLOSED"),
        ("closed, duplicate", {"closed": True}, {"producer": ("p", 2, 4)}, 409, "STREAM_CLOSED"),
        ("closed, bad start", {"closed": True}, {"producer": ("p", 3, 4)}, 409, "STREAM_CLOSED"),
        ("empty, no type, gap", {}, {"body": b"", "content_type": None, "producer": gap}, 400, "EMPTY_BODY"),
        ("empty, another type", {}, {"body": b"", "content_type": "text/html", "seq": "a"}, 400, "EMPTY_BODY"),
        ("empty, duplicate", {}, {"body": b"", "producer": ("p", 2, 4)}, 400, "EMPTY_BODY"),
        ("no type, not JSON, gap", {}, {"body": b"{", "content_type": None, "producer": gap}, 400, "INVALID_REQUEST"),
        ("type no type", {}, {"content_type": "text", "producer": gap}, 400, "INVALID_REQUEST"),
        ("another type, not JSON", {}, wrong_json, 409, "CONTENT_TYPE_MISMATCH"),
        ("another type, duplicate", {}, {"content_type": "a/b", "producer": ("p", 2, 4)}, 409, "CONTENT_TYPE_MISMATCH"),
        ("not JSON, gap", {}, {"body": b"{", "producer": gap, "seq": "a"}, 400, "INVALID_JSON"),
        ("not JSON, duplicate", {}, {"body": b"{", "producer": ("p", 2, 4)}, 400, "INVALID_JSON"),
        ("no messages, gap", {}, {"body": b"[]", "producer": gap}, 400, "EMPTY_BODY"),
        ("gap, old seq", {}, {"producer": gap, "seq": "a"}, 409, "SEQUENCE_GAP"),
        ("bad start, old seq", {}, {"producer": ("p", 3, 1), "seq": "a"}, 400, "INVALID_EPOCH_START"),
        ("unknown producer's gap", {}, {"producer": ("q", 0, 1), "seq": "a"}, 409, "SEQUENCE_GAP"),
        ("duplicate, old seq", {}, {"producer": ("p", 2, 3), "seq": "a"}, 204, None),
        ("old seq", {}, {"seq": "a"}, 409, "SEQUENCE_CONFLICT"),
        ("old seq, next of producer", {}, {"producer": ("p", 2, 5), "seq": "m"}, 409, "SEQUENCE_CONFLICT"),
        ("nothing", {}, {"producer": ("p", 2, 5), "seq": "n"}, 200, None),
    ):
        given = dict(state)
        given.update(attributes)
        request = {"body": b"1", "content_type": "application/json"}
        request.update(asked)
        found = outcome(make("application/json", b"1,", **given), post(**request))
        assert found == (status, code), (name, found)


def test_an_append_moves_the_tail_by_what_is_stored():
    for content_type, body, stored in (
        ("text/plain", b"world", b"world"),
        ("application/json", b' [1, {"a": 2}] ', b'1,{"a": 2},'),
        ("application/cbor-seq", b"\x01\x83\x01\x02\x03", b"\x01\x83\x01\x02\x03"),
    ):
        state = make(content_type, b"")
        response, change = do(state, post(body, content_type))
        assert (change.at, change.data) == (0, stored)
        assert state.tail == 0, "a decision changes nothing"
        assert header(response, names.NEXT_OFFSET) == offsets.token(3, len(stored))
        change.apply(state)
        assert (state.tail, state.visible_tail) == (len(stored), 0), "readers wait for the commit"
        state.publish()
        assert state.visible_tail == len(stored)


def test_content_types_are_compared_without_parameters_and_case():
    for given in ("text/plain", "TEXT/Plain", "text/plain; charset=utf-8", "text/plain;x=y"):
        assert outcome(make("text/plain; charset=us-ascii"), post(content_type=given)) == (204, None)


def test_refused_and_duplicate_requests_change_nothing():
    for asked in (
        post(b"{", "application/json", producer=("p", 0, 0)),
        post(b"[]", "application/json", producer=("p", 0, 0)),
        post(b"1", "application/json", producer=("p", 0, 1)),
        post(b"1", "text/plain", producer=("p", 0, 0)),
        post(b"1", "application/json", producer=("p", 0, 0), seq="a"),
    ):
        state = make("application/json", b"1,", stream_seq="m")
        with raises(ProtocolError):
            do(state, asked)
        assert (state.tail, state.producers, state.stream_seq, state.closed) == (2, {}, "m", False)
    state = make(producers={"p": (0, 3)})
    response, change = do(state, post(producer=("p", 0, 1), closes=True))
    assert (response.status, change, state.closed) == (204, None, False)
    assert header(response, names.PRODUCER_SEQ) == "3"
    assert header(response, names.CLOSED) is None


def test_a_producers_life():
    state = make()
    for producer, status, echoed in (
        (("p", 0, 0), 200, ("0", "0")),
        (("p", 0, 0), 204, ("0", "0")),
        (("p", 0, 1), 200, ("0", "1")),
        (("q", 5, 0), 200, ("5", "0")),
        (("p", 0, 2), 200, ("0", "2")),
        (("p", 0, 1), 204, ("0", "2")),
        (("p", 4, 0), 200, ("4", "0")),
        (("p", 4, 1), 200, ("4", "1")),
    ):
        response = apply(state, post(producer=producer))
        assert response.status == status
        assert (header(response, names.PRODUCER_EPOCH), header(response, names.PRODUCER_SEQ)) == echoed
        assert header(response, names.NEXT_OFFSET) == offsets.token(3, state.tail)
    assert state.tail == len(b"hello") + 6
    with raises(ProtocolError) as caught:
        do(state, post(producer=("p", 0, 3)))
    assert caught.value.headers == ((names.PRODUCER_EPOCH, "4"),)


def test_stream_seq_is_compared_as_bytes_and_shared_by_all_writers():
    state = make()
    for seq, status in (
        ("2", 204), ("10", 409), ("2", 409), ("20", 204), ("a", 204), ("Z", 409), ("aa", 204),
        ("\xe9", 204), ("z", 409),
    ):  # fmt: skip
        try:
            assert apply(state, post(seq=seq)).status == status, seq
        except ProtocolError as error:
            assert error.status == status, seq
    # An append without one leaves it as it is.
    apply(state, post())
    assert state.stream_seq == "\xe9"


def test_closing():
    state = make()
    response = apply(state, post(b"end", closes=True))
    assert (response.status, header(response, names.CLOSED)) == (204, "true")
    assert (state.tail, state.closed, state.closed_by) == (8, True, None)

    with raises(ProtocolError) as caught:
        do(state, post(b"end", closes=True))
    assert caught.value.headers == ((names.CLOSED, "true"), (names.NEXT_OFFSET, offsets.token(3, 8)))

    response, change = do(state, post(b"", None, closes=True))
    assert (response.status, change, header(response, names.CLOSED)) == (204, None, "true")
    assert header(response, names.NEXT_OFFSET) == offsets.token(3, 8)


def test_a_close_without_a_body_ignores_the_content_type():
    for content_type in (None, "text/html", "nonsense"):
        assert outcome(make(), post(b"", content_type, closes=True)) == (204, None)


def test_the_closing_producer_may_retry_with_any_body():
    state = make()
    assert apply(state, post(b"end", producer=("p", 0, 0), closes=True)).status == 200
    for body, closes in ((b"end", True), (b"other", True), (b"", True), (b"end", False)):
        response, change = do(state, post(body, producer=("p", 0, 0), closes=closes))
        assert (response.status, change, header(response, names.CLOSED)) == (204, None, "true")
        assert header(response, names.PRODUCER_SEQ) == "0"
    for producer in (("p", 0, 1), ("p", 1, 0), ("q", 0, 0)):
        assert outcome(state, post(producer=producer, closes=True)) == (409, "STREAM_CLOSED")
        assert outcome(state, post(b"", producer=producer, closes=True)) == (409, "STREAM_CLOSED")
    # A bare close without a producer asks for no more than what is.
    assert outcome(state, post(b"", None, closes=True)) == (204, None)


def test_a_producers_bare_close_is_204_and_counts():
    state = make(producers={"p": (0, 3)})
    response = apply(state, post(b"", None, producer=("p", 0, 4), closes=True))
    assert (response.status, header(response, names.PRODUCER_SEQ)) == (204, "4")
    assert (state.closed, state.closed_by, state.producers["p"], state.tail) == (True, ("p", 0, 4), (0, 4), 5)


def test_a_producers_duplicate_does_not_close():
    state = make(producers={"p": (0, 3)})
    assert outcome(state, post(b"", None, producer=("p", 0, 3), closes=True)) == (204, None)
    assert outcome(state, post(b"", None, producer=("p", 0, 9), closes=True)) == (409, "SEQUENCE_GAP")


def test_uses_renew_a_ttl_and_a_head_does_not():
    for asked, renews in (
        (post(), True),
        (post(b"", None, closes=True), True),
        (command("GET"), True),
        (requests.parse("GET", URL + "?offset=now&live=sse", {}), True),
        (command("HEAD"), False),
        (command("PUT", content_type="text/plain", stream_ttl="60"), False),
    ):
        state = make(ttl=60, deadline=NOW.steady + 5)
        if asked.kind == requests.READ:
            change = reads.plan(stream.View(state, NOW, 4), asked.offset, asked.live is not None)[1]
        else:
            change = do(state, asked)[1]
        assert (change is not None) == renews, asked.kind
        if renews:
            change.apply(state)
            assert state.deadline == NOW.steady + 60
    # Duplicates and repeated closes are uses, too.
    state = make(ttl=60, deadline=NOW.steady + 5, producers={"p": (0, 3)})
    assert do(state, post(producer=("p", 0, 3)))[1].deadline == NOW.steady + 60
    state = make(ttl=60, deadline=NOW.steady + 5, closed=True)
    assert do(state, post(b"", None, closes=True))[1].deadline == NOW.steady + 60


def test_an_expiry_instant_is_never_renewed():
    state = make(expires_at="2026-01-01T00:00:00Z", expires=NOW.wall + 60)
    assert do(state, post())[1].deadline is None
    assert reads.plan(stream.View(state, NOW, 4), offsets.START, False)[1] is None
    assert outcome(state, post()) == (204, None)
    assert outcome(state, post(), LATER) == (404, "STREAM_NOT_FOUND")


def test_each_life_limit_has_its_own_clock():
    # The wall clock jumps to tomorrow when NTP answers: a TTL only counts time that was seen to pass.
    jumped = stream.Now(NOW.steady + 1, NOW.wall + 86400)
    assert outcome(make(ttl=60, deadline=NOW.steady + 60), command("HEAD"), jumped) == (200, None)
    assert outcome(make(ttl=60, deadline=NOW.steady + 60), command("HEAD"), LATER) == (404, "STREAM_NOT_FOUND")
    waited = stream.Now(NOW.steady + 86400, NOW.wall + 1)
    assert outcome(make(expires=NOW.wall + 60), command("HEAD"), waited) == (200, None)


def test_a_ttl_of_zero_expires_at_once():
    response, change = do(None, command("PUT", content_type="text/plain", stream_ttl="0"))
    assert response.status == 201
    assert stream.condition(change.stream, NOW) == stream.MISSING


def test_head_says_what_readers_may_see():
    state = make(ttl=60, deadline=NOW.steady + 60)
    state.tail, state.closed = 99, True  # decided, not yet durable
    response, change = do(state, command("HEAD"))
    assert (response.status, response.body, change) == (200, b"", None)
    assert header(response, "content-type") == "text/plain"
    assert header(response, names.NEXT_OFFSET) == offsets.token(3, 5)
    assert header(response, names.TTL) == "60"
    assert header(response, names.CLOSED) is None
    assert header(response, "cache-control") == "no-store"
    state.publish()
    response, _ = do(state, command("HEAD"))
    assert header(response, names.NEXT_OFFSET) == offsets.token(3, 99)
    assert header(response, names.CLOSED) == "true"
    response, _ = do(make(expires_at="2030-01-01T00:00:00Z", expires=NOW.wall + 9), command("HEAD"))
    assert header(response, names.EXPIRES_AT) == "2030-01-01T00:00:00Z"
    assert header(response, names.TTL) is None


def test_deletes_are_soft_while_forks_live():
    for forks in (0, 1, 5):
        response, change = do(make(forks=forks), command("DELETE"))
        assert (response.status, change.soft) == (204, forks > 0)


def test_sweeps_remove_only_what_is_over():
    for state, soft in (
        (None, None),
        (make(), None),
        (make(closed=True), None),
        (make(deleted=True, forks=1), None),
        (make(ttl=60, deadline=NOW.steady + 0.1), None),
        (make(ttl=60, deadline=NOW.steady), False),
        (make(ttl=60, deadline=NOW.steady, forks=2), True),
        (make(expires=NOW.wall - 1), False),
    ):
        change = stream.expire(stream.View(state, NOW, 4))[1]
        assert (None if change is None else change.soft) == soft


def test_trimming_moves_the_start_forward_only_and_only_of_the_stream_it_was_meant_for():
    for state, id, start, trimmed in (
        (None, 3, 2, False),
        (make(), 4, 2, False),  # another stream is at the path by now
        (make(deleted=True, forks=1), 3, 2, False),
        (make(), 3, 0, False),
        (make(start=2), 3, 1, False),
        (make(start=2), 3, 2, False),
        (make(), 3, 6, False),  # beyond the tail
        (make(), 3, 5, True),
        (make(), 3, 2, True),
        (make(start=2, closed=True), 3, 4, True),
    ):
        change = stream.trim(stream.View(state, NOW, 4), id, start)[1]
        assert (change is not None) == trimmed, (id, start)
        if trimmed:
            change.apply(state)
            assert (state.start, state.tail) == (start, 5)
            assert reads.plan(stream.View(state, NOW, 4), offsets.START, False)[0].start == start
            early = requests.parse("GET", URL + "?offset=" + offsets.token(3, start - 1), {})
            with raises(ProtocolError, offsets.token(3, start)) as caught:
                reads.plan(stream.View(state, NOW, 4), early.offset, early.live is not None)
            assert caught.value.status == 410


def test_trimming_waits_for_what_is_durable():
    state = make()
    state.tail = 99
    assert stream.trim(stream.View(state, NOW, 4), 3, 50)[1] is None
