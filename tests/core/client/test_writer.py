"""The writer, its RAM store and a model of a server's producer rules (protocol section 5), wired together in memory."""

from portable import raises

from ds_core.client.backoff import Backoff
from ds_core.client.memory import MemoryStore
from ds_core.client.verdicts import number
from ds_core.client.writer import AGAIN, DONE, DUPLICATE, FENCED, REFUSED, Writer


class Server:
    """One stream; `state` is producer id -> [epoch, last seq]."""

    def __init__(self):
        self.bodies = []
        self.state = {}

    def post(self, headers, body):
        name = headers["Producer-Id"]
        epoch = headers["Producer-Epoch"]
        seq = headers["Producer-Seq"]
        assert headers["Content-Length"] == len(body) > 0
        known = self.state.get(name)
        if known and epoch < known[0]:
            return 403, {"producer-epoch": str(known[0])}
        if known and epoch == known[0]:
            if seq <= known[1]:
                return 204, {"producer-epoch": str(epoch), "producer-seq": str(known[1])}
            if seq > known[1] + 1:
                return 409, {"producer-expected-seq": str(known[1] + 1), "producer-received-seq": str(seq)}
        elif seq:
            return (400, {}) if known else (409, {"producer-expected-seq": "0", "producer-received-seq": str(seq)})
        self.state[name] = [epoch, seq]
        self.bodies.append(body)
        return 200, {"producer-epoch": str(epoch), "producer-seq": str(seq)}


def make(epoch=5, limit=10000, size=100, count=0, full="drop-oldest", depth=1, json=False):
    store = MemoryStore(depth, epoch, "application/json" if json else "text/plain", json, limit, size, count, full)
    return store, Writer(store, "p", Backoff(lambda n: 0, 100, 1000), depth)


def body_of(batch, step=7):
    out = b""
    view = memoryview(bytearray(step))
    while True:
        n = batch.readinto(view)
        if not n:
            return out
        out += bytes(view[:n])


def send(writer, server):
    """One exchange: the outcome, or None when there is nothing to send."""
    batch = writer.request()
    if batch is None:
        return None
    status, headers = server.post(dict(writer.headers(batch)), body_of(batch))
    return writer.answer(batch, status, headers)


def test_batches_by_size_and_count():
    for size, count, expected in ((6, 0, [b"aabbcc", b"dd"]), (100, 2, [b"aabb", b"ccdd"]), (100, 0, [b"aabbccdd"])):
        store, writer = make(size=size, count=count)
        server = Server()
        for record in (b"aa", b"bb", b"cc", b"dd"):
            assert store.append(record)
        while send(writer, server):
            pass
        assert server.bodies == expected
        assert store.records == store.bytes == 0
        assert writer.sent == len(expected)


def test_json_batches_are_arrays():
    store, writer = make(json=True, size=8)
    server = Server()
    for record in (b"1", b"22", b"[3]", b"4"):
        store.append(record)
    while send(writer, server):
        pass
    assert b"".join(server.bodies) in (b"[1,22][[3],4]", b"[1,22,[3]][4]", b"[1,22][[3]][4]")


def test_a_lost_answer_is_not_a_second_append():
    store, writer = make()
    server = Server()
    store.append(b"x")
    batch = writer.request()
    server.post(dict(writer.headers(batch)), body_of(batch))
    writer.broken()
    assert writer.delay == 100
    store.append(b"y")  # goes into the next batch, not into the one that was sent
    assert send(writer, server) == DUPLICATE
    assert send(writer, server) == DONE
    assert send(writer, server) is None
    assert server.bodies == [b"x", b"y"]
    assert writer.duplicates == 1 and writer.delay == 0


def test_only_depth_batches_are_under_way():
    store, writer = make(count=1, depth=2)
    for record in (b"a", b"b", b"c"):
        store.append(record)
    first, second = writer.request(), writer.request(1)
    assert writer.request(2) is None
    assert (first.seq, second.seq) == (0, 1)


def test_batches_under_way_are_all_sent_again_after_a_break():
    for accepted in range(4):
        for answered in range(accepted + 1):
            store, writer = make(count=1, depth=3)
            server = Server()
            for record in (b"a", b"b", b"c", b"d"):
                store.append(record)
            batches = [writer.request(n) for n in range(3)]
            answers = [server.post(dict(writer.headers(b)), body_of(b)) for b in batches[:accepted]]
            for batch, answer in list(zip(batches, answers))[:answered]:
                assert writer.answer(batch, answer[0], answer[1]) == DONE
            writer.broken()
            while send(writer, server):
                pass
            assert server.bodies == [b"a", b"b", b"c", b"d"], (accepted, answered)


def test_a_newer_epoch_is_claimed_and_nothing_is_lost():
    store, writer = make(epoch=5, count=1)
    server = Server()
    server.state["p"] = [9, 41]
    for record in (b"a", b"b"):
        store.append(record)
    assert send(writer, server) == AGAIN
    assert send(writer, server) == DONE
    assert send(writer, server) == DONE
    assert server.bodies == [b"a", b"b"]
    assert server.state["p"] == [10, 1]


def test_an_erased_device_that_reuses_its_epoch_loses_nothing():
    store, writer = make(epoch=5)
    server = Server()
    server.state["p"] = [5, 41]  # of its former life
    store.append(b"a")
    assert send(writer, server) == AGAIN  # a "duplicate" of what it cannot have sent
    assert send(writer, server) == DONE
    assert server.bodies == [b"a"]


def test_a_server_that_lost_its_memory_of_us_is_told_a_new_epoch():
    store, writer = make(count=1)
    server = Server()
    for record in (b"a", b"b"):
        store.append(record)
    assert send(writer, server) == DONE
    server.state.clear()
    assert send(writer, server) == AGAIN
    assert writer.gaps == 1
    assert send(writer, server) == DONE
    assert server.bodies == [b"a", b"b"]


def test_only_an_answer_to_this_batch_counts():
    """What comes late, or twice, or through a proxy that mixes things up, is no acknowledgement, whatever it says."""
    first = {"producer-epoch": "5", "producer-seq": "3"}
    mine = {"producer-epoch": "5", "producer-seq": "4"}
    beyond = {"producer-expected-seq": "5", "producer-received-seq": "4"}
    for status, headers in (
        (200, first),  # of the batch before
        (201, first),
        (204, first),
        (200, {"producer-epoch": "5", "producer-seq": "5"}),
        (200, {"producer-epoch": "4", "producer-seq": "4"}),
        (204, {"producer-epoch": "6", "producer-seq": "4"}),
        (204, {"producer-epoch": "4", "producer-seq": "9"}),
        (200, {"producer-seq": "4"}),
        (204, {"producer-seq": "4"}),
        (202, mine),  # not yet
        (206, mine),
        (204, {"producer-epoch": "5", "producer-seq": "3", "stream-closed": "true"}),
        (403, {"producer-epoch": "5"}),  # of before we claimed this one
        (403, {"producer-epoch": "0"}),
        (409, beyond),  # a server says 204 to what it has
        (409, {"producer-expected-seq": "3", "producer-received-seq": "3"}),
    ):
        store, writer = make(count=1)
        server = Server()
        for record in (b"a", b"b", b"c", b"d", b"e", b"f"):
            store.append(record)
        for _ in range(4):
            assert send(writer, server) == DONE
        batch = writer.request()
        assert (batch.epoch, batch.seq) == (5, 4)
        assert writer.answer(batch, status, headers) == AGAIN, (status, headers)
        assert writer.delay == 100 and store.records == 2 and writer.claims == writer.gaps == 0
        while send(writer, server):
            pass
        assert server.bodies == [b"a", b"b", b"c", b"d", b"e", b"f"]
    # The one that the server waits for, and refuses: it has a reason of its own.
    assert writer.answer(batch, 409, {"producer-expected-seq": "4", "producer-received-seq": "4"}) == REFUSED
    # Of four under way, the last that the server has may be any of them.
    for last in range(4):
        store, writer = make(count=1, depth=4)
        for record in (b"a", b"b", b"c", b"d"):
            store.append(record)
        assert writer.answer(writer.request(), 204, {"producer-epoch": "5", "producer-seq": str(last)}) == DUPLICATE


def test_two_devices_with_one_id_are_told():
    store, writer = make()
    store.append(b"a")
    for _ in range(5):
        batch = writer.request()
        assert writer.answer(batch, 403, {"producer-epoch": str(batch.epoch + 7)}) == AGAIN
    batch = writer.request()
    assert writer.answer(batch, 403, {"producer-epoch": str(batch.epoch + 7)}) == FENCED
    assert store.records == 1


def test_what_each_answer_means():
    for status, headers, outcome, delay in (
        (200, {"producer-epoch": "5", "producer-seq": "0"}, DONE, 0),
        (200, {}, REFUSED, 0),
        (204, {}, REFUSED, 0),
        (301, {}, REFUSED, 0),
        (201, {"producer-epoch": "5", "producer-seq": "0"}, DONE, 0),
        (204, {"producer-epoch": "5", "producer-seq": "0"}, DUPLICATE, 0),
        (400, {}, REFUSED, 0),
        (401, {}, REFUSED, 0),
        (403, {}, REFUSED, 0),
        (404, {}, REFUSED, 0),
        (409, {}, REFUSED, 0),
        (409, {"stream-closed": "true"}, REFUSED, 0),
        (410, {}, REFUSED, 0),
        (413, {}, REFUSED, 0),
        (307, {}, REFUSED, 0),
        (408, {}, AGAIN, 100),
        (429, {"retry-after": "3"}, AGAIN, 3000),
        (500, {}, AGAIN, 100),
        (502, {}, AGAIN, 100),
        (503, {"retry-after": "1"}, AGAIN, 1000),
        (507, {}, AGAIN, 100),
    ):
        store, writer = make()
        store.append(b"a")
        batch = writer.request()
        assert writer.answer(batch, status, headers) == outcome, status
        assert writer.delay == delay, status
        assert store.records == (0 if outcome in (DONE, DUPLICATE) else 1), status
        if outcome in (AGAIN, REFUSED):
            again = writer.request()
            assert (again.epoch, again.seq, body_of(again)) == (batch.epoch, batch.seq, b"a")


def test_a_refused_batch_can_be_discarded_and_its_number_goes_on():
    store, writer = make(count=1)
    server = Server()
    store.append(b"poison")
    store.append(b"a")
    batch = writer.request()
    assert writer.answer(batch, 400, {}) == REFUSED
    store.discard()
    assert send(writer, server) == DONE
    assert server.bodies == [b"a"] and server.state["p"][1] == 0
    assert store.dropped == 1


def test_discarding_when_nothing_waits_does_nothing():
    store, writer = make()
    assert store.discard() == 0 and store.dropped == 0
    server = Server()
    store.append(b"a")
    assert send(writer, server) == DONE
    assert store.discard() == 0
    store.append(b"b")
    assert send(writer, server) == DONE and server.bodies == [b"a", b"b"]


def test_a_discarded_batch_that_the_server_had_takes_no_other_with_it():
    for depth in (1, 3):
        for lost in (True, False):
            store, writer = make(count=1, depth=depth)
            server = Server()
            for record in (b"a", b"b", b"c"):
                store.append(record)
            batch = writer.request()
            if lost:
                server.post(dict(writer.headers(batch)), body_of(batch))  # and nobody hears of it
            if depth > 1:
                assert writer.request(1)  # the next one is under way as well
            writer.broken()
            assert store.discard() == 1 and store.dropped == 1
            outcomes = []
            while writer.request():
                outcomes.append(send(writer, server))
            assert server.bodies == ([b"a"] if lost else []) + [b"b", b"c"], (depth, lost, outcomes)


def test_a_record_is_not_taken_for_the_request_that_closed_the_stream():
    store, writer = make(count=1)
    store.append(b"late")
    batch = writer.request()
    headers = {"producer-epoch": "5", "producer-seq": "0", "stream-closed": "true"}
    assert writer.answer(batch, 204, headers) == REFUSED and store.records == 1


def test_beyond_the_last_epoch_is_none():
    store, writer = make()
    store.append(b"a")
    batch = writer.request()
    for epoch in (2**52 - 1, 2**53 - 2, 2**53 - 1, 2**53):
        assert writer.answer(batch, 403, {"producer-epoch": str(epoch)}) == FENCED
        assert writer.request().epoch == 5
    assert writer.answer(batch, 403, {"producer-epoch": "1" + "0" * 5000}) == REFUSED
    assert writer.answer(batch, 403, {"producer-epoch": str(2**52 - 2)}) == AGAIN
    assert writer.request().epoch == 2**52 - 1
    store.discard()
    store.append(b"b")
    assert writer.request().epoch == 2**52  # which a server takes


def test_only_the_digits_0_to_9_are_a_number():
    store, writer = make()
    store.append(b"a")
    batch = writer.request()
    for text in ("\xb2", "1\xb9", "\u0664", "-1", "+1", " 1", "1_0", ""):
        assert number({"x": text}, "x") == -1
        for status in (200, 204, 403, 409):
            for name in ("producer-seq", "producer-epoch", "producer-expected-seq", "producer-received-seq"):
                headers = {"producer-epoch": "5", "producer-expected-seq": "3", "producer-received-seq": "0"}
                headers[name] = text
                assert writer.answer(batch, status, headers) in (AGAIN, REFUSED)
    assert number({"x": "007"}, "x") == 7


def test_dropping_the_oldest_keeps_the_sequence_and_what_is_under_way():
    store, writer = make(limit=5, count=1)
    server = Server()
    for record in (b"a", b"b", b"c", b"d", b"e"):
        assert store.append(record)
    first = writer.request()  # may be accepted: never dropped
    for record in (b"f", b"g"):
        assert store.append(record)
    assert store.dropped == 2
    server.post(dict(writer.headers(first)), body_of(first))
    writer.broken()
    while send(writer, server):
        pass
    assert server.bodies == [b"a", b"d", b"e", b"f", b"g"]


def test_dropping_the_newest_and_refusing():
    for full, dropped in (("drop-newest", 2), ("refuse", 0)):
        store, writer = make(limit=3, count=1, full=full)
        server = Server()
        assert [store.append(record) for record in (b"a", b"b", b"c", b"d", b"e")] == [True, True, True, False, False]
        assert store.dropped == dropped
        while send(writer, server):
            pass
        assert server.bodies == [b"a", b"b", b"c"]


def test_a_record_longer_than_everything_is_not_kept():
    store, _ = make(limit=10, size=4)
    for record in (b"aaa", b"bbb", b"ccc"):
        store.append(record)
    for record in (b"x" * 11, b""):
        with raises(ValueError):
            store.append(record)
    assert (store.records, store.dropped) == (3, 0)  # and nothing had to go for it


def test_two_devices_that_take_the_id_in_turns_are_told_as_well():
    server = Server()
    (store, writer), (other_store, other) = make(), make(epoch=8)
    told = 0
    for n in range(20):
        for records, sender in ((store, writer), (other_store, other)):
            records.append(b"%d" % n)
            while True:
                outcome = send(sender, server)
                if outcome is None:
                    break
                told += outcome == FENCED
    assert told > 2
    assert sorted(server.bodies) == sorted([b"%d" % n for n in range(20)] * 2)  # nothing is lost all the same


def test_an_unanswered_request_is_our_own_bug():
    _, writer = make()
    with raises(AttributeError):
        writer.headers(None)
