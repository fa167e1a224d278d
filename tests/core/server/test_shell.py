# The shell over dicts: what it asks of storage, and what comes of it turn by turn.
from portable import raises

from ds_core.server import clock, responses, rows, shell, storage, stream


class Store:
    """Keeps rows and not Streams, as a database would."""

    def __init__(self):
        self.rows, self.last = {}, 0
        self.appends, self.producers = {}, {}
        self.log = []

    def load(self, key):
        for row in self.rows.values():
            if key in (row[0], row[1]):
                return rows.stream(row)
        return None

    def producer(self, id, name):
        return self.producers.get((id, name))

    def newest(self):
        return self.last

    def pieces(self, id, start, end):
        return [each for each in self.appends.get(id, []) if each[0] < end and start < each[0] + len(each[1])]

    def commit(self, changes):
        self.log.append(changes)
        for each in changes.drops:
            del self.rows[each.id]
            self.appends.pop(each.id, None)
            for key in [key for key in self.producers if key[0] == each.id]:
                del self.producers[key]
        for each in changes.puts:
            self.rows[each.id] = rows.row(each)
        if changes.data:
            id, at, data = changes.data
            self.appends.setdefault(id, []).append((at, data))
        if changes.producer:
            id, name, epoch, seq = changes.producer
            self.producers[id, name] = (epoch, seq)
        if changes.newest is not None:
            self.last = changes.newest


class Site:
    def __init__(self, **options):
        self.time = stream.Now(100, 2000000000)
        self.store = Store()
        self.shell = shell.Shell(lambda: self.time, lambda: 0.5, **options)

    def turn(self, exchange):
        return storage.run(exchange.next(), self.store)

    def ask(self, method, target, body=b"", **headers):
        exchange = self.begin(method, target, body, **headers)
        said = self.turn(exchange)
        assert exchange.done, said
        return said

    def begin(self, method, target, body=b"", **headers):
        pairs = [(name.replace("_", "-").upper().encode(), str(value).encode()) for name, value in headers.items()]
        return self.shell.exchange(method, target, pairs, body, "http://h")

    def status(self, *args, **headers):
        return self.ask(*args, **headers).status


def header(response, name):
    for each, value in response.headers:
        if each.lower() == name.lower():
            return value
    return None


def code(response):
    return (response.status, response.body.decode().split('"code": "')[1].split('"')[0])


S = "/v1/stream/s"
F = "/v1/stream/f"
T = "text/plain"


def test_a_stream_lives():
    site = Site()
    assert site.status("OPTIONS", "/anything") == 204
    assert site.status("PUT", S, b"one ", content_type=T) == 201
    assert site.status("PUT", S, content_type=T) == 200
    said = site.ask("POST", S, b"two", content_type=T)
    assert said.status == 204
    assert header(said, "Stream-Next-Offset") == "0000000000000001_0000000000000007"
    assert site.ask("GET", S).body == b"one two"
    assert site.ask("GET", S + "?offset=now").body == b""
    assert header(site.ask("HEAD", S), "stream-next-offset") == "0000000000000001_0000000000000007"
    assert site.status("DELETE", S) == 204
    assert code(site.ask("GET", S)) == (404, "STREAM_NOT_FOUND")
    assert not site.store.rows and not site.store.appends
    assert site.status("PUT", S) == 201
    assert header(site.ask("HEAD", S), "stream-next-offset") == "0000000000000002_0000000000000000"
    assert code(site.ask("GET", S + "?offset=0000000000000001_0000000000000001")) == (410, "OFFSET_GONE")
    assert code(site.ask("GET", S + "?offset=0000000000000003_0000000000000001")) == (400, "INVALID_OFFSET")


def test_what_is_wrong_with_a_request_is_answered_in_its_turn():
    site = Site()
    exchange = site.begin("PATCH", S)
    assert exchange.command is None and not exchange.done
    said = site.turn(exchange)
    assert (said.status, exchange.done, exchange.length) == (405, True, len(said.body))
    exchange = site.begin("HEAD", "/v1/stream/none")
    said = site.turn(exchange)
    assert (said.status, said.body, exchange.length) == (404, b"", None)
    assert site.begin("DELETE", S).command.path == "s"


def test_producers_are_exactly_once():
    site = Site()
    site.ask("PUT", S, content_type=T)
    for seq, status in ((0, 200), (0, 204), (1, 200), (3, 409), (1, 204)):
        said = site.ask(
            "POST", S, b"%d" % seq, content_type=T, producer_id="a b", producer_epoch="7", producer_seq=str(seq)
        )
        assert said.status == status, seq
    assert site.ask("GET", S).body == b"01"
    site.ask("DELETE", S)
    assert not site.store.producers


def test_a_stream_that_is_handed_out_is_never_changed():
    site = Site()
    site.ask("PUT", S, content_type=T)
    kept = site.store.load("s")
    site.store.load = lambda key: kept
    site.ask("POST", S, b"x", content_type=T, stream_closed="true")
    assert (kept.tail, kept.closed) == (0, False)
    assert (site.store.log[-1].puts[0].tail, site.store.log[-1].puts[0].closed) == (1, True)


def test_forks_read_through_and_release():
    site = Site()
    site.ask("PUT", "/v1/stream/a", b"0123456789", content_type=T)
    site.ask("POST", "/v1/stream/a", b"abcdef", content_type=T)
    at = "0000000000000001_%016d"
    a = "/v1/stream/a"
    said = site.ask("PUT", "/v1/stream/b", stream_forked_from=a, stream_fork_offset=at % 10, stream_fork_sub_offset=3)
    assert said.status == 201
    site.ask("POST", "/v1/stream/b", b"XYZ", content_type=T)
    assert site.ask("GET", "/v1/stream/b").body == b"0123456789abcXYZ"
    site.ask("PUT", "/v1/stream/c", b"!", stream_forked_from="/v1/stream/b", stream_fork_offset=at % 4)
    assert site.ask("GET", "/v1/stream/c").body == b"0123!"
    for path in "ab":
        assert site.status("DELETE", "/v1/stream/" + path) == 204
        assert site.status("GET", "/v1/stream/" + path) == 410
        assert site.status("PUT", "/v1/stream/" + path) == 409
    assert site.ask("GET", "/v1/stream/c").body == b"0123!"
    assert site.status("DELETE", "/v1/stream/c") == 204
    assert [each.path for each in site.store.log[-1].drops] == ["c", "b", "a"]
    assert not site.store.log[-1].puts and not site.store.rows and not site.store.appends


def test_a_forks_checks_come_in_the_protocols_order():
    site = Site()
    site.ask("PUT", S, b"data", content_type=T)
    site.ask("DELETE", S)
    site.ask("PUT", S, b"data", content_type=T)
    gone = {"stream_forked_from": S, "stream_fork_offset": "0000000000000001_0000000000000002"}
    site.ask("PUT", F, content_type="text/html")
    assert code(site.ask("PUT", F, **gone)) == (409, "STREAM_EXISTS")
    assert code(site.ask("PUT", "/v1/stream/g", content_type="text/html", **gone)) == (409, "CONTENT_TYPE_MISMATCH")
    assert code(site.ask("PUT", "/v1/stream/g", **gone)) == (410, "OFFSET_GONE")
    site.ask("PUT", "/v1/stream/h", stream_forked_from=S)
    site.ask("DELETE", S)
    assert code(site.ask("PUT", "/v1/stream/g", **gone)) == (409, "SOURCE_GONE")


def test_a_fork_in_place_of_one_that_expired_counts_once():
    site = Site()
    site.ask("PUT", S, b"x", content_type=T)
    site.ask("PUT", F, stream_forked_from=S, stream_ttl=10)
    site.time = stream.Now(111, 2000000000)
    assert site.status("PUT", F, stream_forked_from=S) == 201
    assert site.store.load("s").forks == 1
    site.ask("DELETE", F)
    assert site.store.load("s").forks == 0


def test_chunks_end_where_appends_do():
    site = Site(chunk=5)
    site.ask("PUT", S, b"[1,2]", content_type="application/json")
    for body in (b"[3]", b"[40,50,60]"):
        site.ask("POST", S, body, content_type="application/json")
    seen = []
    offset = "-1"
    while True:
        said = site.ask("GET", S + "?offset=" + offset)
        seen.append(said.body)
        offset = header(said, "stream-next-offset")
        if header(said, "stream-up-to-date"):
            break
    assert seen == [b"[1,2]", b"[3]", b"[40]", b"[50]", b"[60]"]
    assert site.ask("GET", S + "?max-bytes=0").body == b"[1]"
    inside = "0000000000000001_%016d"
    assert site.status("GET", S + "?offset=" + inside % 2) == 200
    assert site.status("GET", S + "?offset=" + inside % 3) == 400


def test_a_long_poll_is_planned_again():
    site = Site(long_poll=20)
    site.ask("PUT", S, b"old", content_type=T)
    exchange = site.begin("GET", S + "?offset=now&live=long-poll")
    wait = site.turn(exchange)
    assert isinstance(wait, storage.Wait) and not exchange.done
    assert (wait.id, wait.tail, wait.seconds) == (1, 3, 20)
    site.time = stream.Now(105, 2000000005)
    assert site.turn(exchange).seconds == 15  # woken too early
    site.ask("POST", S, b"new", content_type=T)
    site.ask("POST", S, b"er", content_type=T)
    said = site.turn(exchange)
    assert (said.status, said.body, exchange.done) == (200, b"newer", True)
    exchange = site.begin("GET", S + "?offset=now&live=long-poll")
    site.turn(exchange)
    site.time = stream.Now(125, 2000000025)
    assert site.turn(exchange).status == 204
    exchange = site.begin("GET", S + "?offset=now&live=long-poll")
    site.turn(exchange)
    site.ask("DELETE", S)
    assert site.turn(exchange).status == 404


def test_a_wait_ends_when_the_stream_expires():
    site = Site()
    site.ask("PUT", S, content_type=T, stream_ttl=7)
    exchange = site.begin("GET", S + "?offset=-1&live=long-poll")
    assert site.turn(exchange).seconds == 7
    site.time = stream.Now(107, 2000000007)
    assert site.turn(exchange).status == 404


def test_reads_renew_a_ttl_once():
    site = Site()
    site.ask("PUT", S, content_type=T, stream_ttl=50)
    site.time = stream.Now(110, 2000000010)
    exchange = site.begin("GET", S + "?offset=-1&live=long-poll")
    site.turn(exchange)
    assert site.store.load("s").deadline == 160
    site.time = stream.Now(120, 2000000020)
    site.turn(exchange)
    assert site.store.load("s").deadline == 160
    assert not storage.run(site.shell.sweep("s"), site.store)
    site.time = stream.Now(160, 2000000060)
    assert storage.run(site.shell.sweep("s"), site.store)
    assert not site.store.rows


def test_an_event_stream():
    site = Site(sse=40)
    assert site.status("GET", S + "?offset=-1&live=sse") == 404
    site.ask("PUT", S, b"one", content_type=T)
    exchange = site.begin("GET", S + "?offset=-1&live=sse")
    head = site.turn(exchange)
    assert isinstance(head, responses.Response) and head.status == 200
    assert exchange.length is None and not exchange.done
    batch = site.turn(exchange)
    assert b"data:one\n" in batch and b'"upToDate":true' in batch
    wait = site.turn(exchange)
    assert (wait.tail, wait.seconds) == (3, shell.QUIET)
    site.time = stream.Now(100 + shell.QUIET, 2000000000 + shell.QUIET)
    assert site.turn(exchange) == b":\n\n"
    site.ask("POST", S, b"two", content_type=T, stream_closed="true")
    batch = site.turn(exchange)
    assert b"data:two\n" in batch and b'"streamClosed":true' in batch and exchange.done


def test_an_event_stream_ends_with_its_time_and_with_its_stream():
    site = Site(sse=40)
    site.ask("PUT", S, content_type=T)
    exchange = site.begin("GET", S + "?offset=now&live=sse")
    site.turn(exchange)
    assert b"event: control" in site.turn(exchange)
    site.time = stream.Now(140, 2000000040)
    assert site.turn(exchange) == b"" and exchange.done
    exchange = site.begin("GET", S + "?offset=now&live=sse")
    site.turn(exchange)
    site.turn(exchange)
    site.ask("DELETE", S)
    assert site.turn(exchange) == b"" and exchange.done


def test_a_root_of_ones_own():
    site = Site(root="/logs")
    said = site.ask("PUT", "/logs/a/b%20c", b"x", content_type=T)
    assert (said.status, header(said, "location")) == (201, "http://h/logs/a/b%20c")
    assert site.status("GET", "/v1/stream/a/b%20c") == 404
    assert site.status("PUT", "/logs/f", stream_forked_from="/logs/a/b%20c") == 201
    assert site.status("PUT", "/logs/g", stream_forked_from="/v1/stream/a/b%20c") == 404
    assert site.ask("GET", "/logs/f").body == b"x"
    with raises(ValueError, "beginning of a URL's path"):
        shell.Shell(None, None, "logs/")


def test_headers_come_in_any_shape():
    for headers in ({"Stream-TTL": "5"}, [("STREAM-ttl", "5")], [(b"stream-ttl", b"5")]):
        assert storage.given(headers) == {"stream-ttl": "5"}
    assert storage.given([("A", "1"), ("a", "2")]) == {"a": "1, 2"}
    assert storage.given([(b"a", b"\xe9")]) == {"a": "\xe9"}


def test_a_row_holds_all_of_a_stream():
    found = stream.Stream(9, "a/b", "application/json")
    found.incarnation, found.start, found.tail, found.closed = 2, 3, 40, True
    found.closed_by = ("a b c", 1, 22)
    found.stream_seq, found.ttl, found.deadline = "z", 10, 55.5
    found.lineage, found.fork_spec, found.forks, found.deleted = ((2, 5), (4, 7)), "spec", 3, True
    found.publish()
    again = rows.stream(rows.row(found))
    assert rows.row(again) == rows.row(found) and len(rows.row(found)) == len(rows.COLUMNS)
    for name in rows.COLUMNS + ("kind", "visible_tail", "visible_closed"):
        assert getattr(again, name) == getattr(found, name), name
        assert getattr(found.copy(), name) == getattr(found, name), name
    with raises(ValueError, "columns"):
        rows.stream((1, 2))


def test_a_store_that_lacks_bytes_is_told():
    site = Site()
    site.ask("PUT", S, b"data", content_type=T)
    site.store.appends.clear()
    with raises(AssertionError, "ends at 0"):
        site.ask("GET", S)


def test_a_clock_goes_on_from_what_was_saved():
    ticks = [5.0]
    wall = clock.BUILT + 1000
    first = clock.Clock(0.0, 0.0, lambda: ticks[0], lambda: wall + ticks[0])
    ticks[0] = 15.0
    saved = first.now()
    assert saved.steady == 10.0
    ticks[0] = 3.0  # another process
    again = clock.Clock(saved.steady, saved.wall, lambda: ticks[0], lambda: wall + 100)
    ticks[0] = 4.0
    assert again.now().steady == 11.0


def test_awaited_calls_are_the_same():
    class Later:
        async def load(self, key):
            return None

    site = Site()
    steps = storage.run_async(storage.load("s"), Later())
    with raises(StopIteration) as caught:
        steps.send(None)
    assert caught.value.value is None
    assert site.status("GET", S) == 404


def test_an_event_stream_shows_characters_whole_where_appends_meet():
    euro = "\u20ac".encode()
    for first, second, limit in ((b"ab" + euro[:1], euro[1:] + b"cd", 4), (b"a\r", b"\nb", 4), (euro[:2], euro[2:], 4)):
        site = Site()
        site.ask("PUT", S, first, content_type=T)
        site.ask("POST", S, second, content_type=T)
        exchange = site.begin("GET", S + "?offset=-1&live=sse&max-bytes=" + str(limit))
        site.turn(exchange)
        text = b""
        while b"upToDate" not in text:
            text += site.turn(exchange)
        data = [line[5:].lstrip() for line in text.split(b"\n") if line[:5] == b"data:" and b"streamNext" not in line]
        for each in data:
            assert each.decode() is not None
        assert b"".join(data) == (first + second).replace(b"\r\n", b""), text
