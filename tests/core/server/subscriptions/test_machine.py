# What happens to subscriptions, step by step: the shell that stores and applies is a few lines here.
from portable import raises

from ds_core.server import offsets
from ds_core.server.errors import ProtocolError
from ds_core.server.stream import Now
from ds_core.server.subscriptions import machine
from ds_core.server.subscriptions.config import Config
from ds_core.server.subscriptions.state import ABSENT, BACKOFF, IDLE, LEASED, NONE, SENDING, WOKEN, Chance, Subscription


def at(position, incarnation=1):
    return offsets.token(incarnation, position)


class World:
    """One subscription, with a clock and ids that count."""

    def __init__(self, kind="pull-wake", found=(), **given):
        body = {"type": kind, "pattern": "site/*"}
        body.update(given)
        if kind == "webhook":
            body["webhook"] = {"url": "https://ops.example/wake"}
        else:
            body["wake_stream"] = "wakes"
        self.it = Subscription(Config("pumps", body), 2000000000.5)
        self.steady = 100.0
        self.count = 0
        self.events = []
        self.sent = []
        self.refuses = None
        self.share = 0.5
        for path, link in machine.created(self.it, found).items():
            self.it.links[path] = link

    def args(self):
        self.count += 1
        return Now(self.steady, 2000000000 + self.steady), Chance("w_%d" % self.count, self.share)

    def do(self, step):
        if step is None:
            return None
        if step.announce is not None and self.refuses:
            step = machine.unannounced(self.it, step, self.refuses, *self.args())
        self.it.apply(step)
        if step.announce is not None:
            self.events.append((step.state.generation, step.announce))
        if step.deliver:
            self.sent.append((step.state.generation, machine.snapshot(self.it)))
        self.do(machine.settled(self.it, *self.args()))
        return step

    def append(self, path, tail):
        self.do(machine.appended(self.it, path, tail))
        self.do(machine.settled(self.it, *self.args()))

    def pass_time(self, seconds):
        self.steady += seconds
        return self.do(machine.timed(self.it, *self.args()))

    def claim(self, worker="w"):
        self.do(machine.claim(self.it, worker, *self.args()))
        return self.it.state.generation, self.it.state.wake_id

    def ack(self, held, acks=(), done=False):
        machine.check_fence(self.it, held[0], held[0], held[1])
        return self.do(machine.ack(self.it, acks, done, *self.args()))

    @property
    def phase(self):
        return self.it.state.phase


def code(function, *args):
    try:
        function(*args)
    except ProtocolError as error:
        return error.status, error.code
    return None


def test_history_is_not_replayed_but_a_late_match_is_from_its_beginning():
    world = World(found=[("site/a", at(7)), ("other", at(3)), ("wakes", at(1))])
    assert {path: link.acked for path, link in world.it.links.items()} == {"site/a": at(7)}
    assert world.phase == IDLE and not world.events
    world.append("site/b", at(4))
    assert world.it.links["site/b"].acked == NONE and world.it.links["site/b"].glob
    assert world.events == [(1, "site/b")] and world.phase == WOKEN
    world.append("site/b/c", at(4))
    world.append("other", at(9))
    assert sorted(world.it.links) == ["site/a", "site/b"]


def test_named_streams_are_followed_before_they_are_there():
    world = World(found=[("x/y", None), ("site/a", at(2))], streams=["x/y", "site/a"])
    assert world.it.links["x/y"].acked == ABSENT and world.it.links["x/y"].explicit
    assert world.it.links["site/a"].explicit and world.it.links["site/a"].glob
    world.append("x/y", at(0, 9))
    assert world.phase == WOKEN  # it is there: its offsets are greater than none
    world.do(machine.left(world.it, "site/a"))
    assert not world.it.links["site/a"].explicit and world.it.links["site/a"].glob
    world.do(machine.left(world.it, "x/y"))
    assert "x/y" not in world.it.links
    assert machine.left(world.it, "x/y") is None and machine.left(world.it, "site/a") is None
    world.do(machine.followed(world.it, [("site/a", at(5)), ("n", None)]))
    assert world.it.links["site/a"].explicit and world.it.links["site/a"].acked == at(2)
    assert world.it.links["n"].acked == ABSENT


def test_one_wake_at_a_time_and_one_event_for_each_generation():
    world = World(found=[("site/a", at(0))])
    for tail in range(1, 6):
        world.append("site/a", at(tail))
    assert world.events == [(1, "site/a")]
    held = world.claim()
    world.append("site/a", at(6))
    assert world.events == [(1, "site/a")] and world.phase == LEASED
    step = world.ack(held, [("site/a", at(5))], True)
    assert world.events == [(1, "site/a"), (2, "site/a")] and step.state.phase == WOKEN
    held = world.claim()
    world.ack(held, [("site/a", at(6))])
    assert world.phase == LEASED
    world.ack(held, [], True)
    assert world.phase == IDLE and world.it.state.generation == 2


def test_claims_are_refused_while_one_holds_it_or_nothing_is_to_be_done():
    world = World(found=[("site/a", at(0))])
    assert code(world.claim) == (409, "NO_PENDING_WORK")
    world.append("site/a", at(1))
    world.claim("one")
    for worker in ("one", "two"):
        with raises(machine.Held) as caught:
            world.claim(worker)
        assert (caught.value.holder, caught.value.generation) == ("one", 1)
    world.do(machine.gone(world.it, "site/a"))
    world.pass_time(30)
    assert world.phase == IDLE and code(world.claim) == (409, "NO_PENDING_WORK")


def test_whatever_is_late_is_fenced():
    world = World(found=[("site/a", at(0))])
    world.append("site/a", at(3))
    first = world.claim()
    world.pass_time(29)
    world.ack(first)  # the heartbeat: a whole lease more
    world.pass_time(29)
    world.ack(first)
    world.pass_time(30)
    assert world.events == [(1, "site/a"), (2, "site/a")] and world.phase == WOKEN
    assert code(world.ack, first, [("site/a", at(3))]) == (409, "FENCED")
    second = world.claim()
    assert second[0] == 2 and code(world.ack, first, [], True) == (409, "FENCED")
    for named, generation, wake in (
        (2, 2, first[1]), (2, 1, second[1]), (1, 2, second[1]), (2, None, second[1]), (2, 2, None), (2, "2", second[1]),
        (2, 2.5, second[1]), (2, True, second[1]), (2, [], {}),
    ):  # fmt: skip
        assert code(machine.check_fence, world.it, named, generation, wake) == (409, "FENCED"), (named, generation)
    world.ack(second, [("site/a", at(3))], True)
    assert code(world.ack, second, [], True) == (409, "FENCED")


def test_acks_are_within_the_stream_and_all_or_none():
    world = World(found=[("site/a", at(2)), ("site/b", at(5))])
    world.append("site/a", at(9))
    held = world.claim()
    for acks in (
        [("site/a", at(1))], [("site/a", at(10))], [("site/a", "-1")], [("site/a", "now")], [("site/a", "")],
        [("site/a", at(3) + "x")], [("site/c", at(3))], [("site/a", at(4)), ("site/b", at(6))],
        [("site/a", at(4)), ("site/a", at(3))], [("site/a", at(3, 2))],
    ):  # fmt: skip
        assert code(world.ack, held, acks) == (409, "INVALID_OFFSET"), acks
        assert world.it.links["site/a"].acked == at(2)
    world.ack(held, [("site/a", at(2)), ("site/a", at(4)), ("site/b", at(5))])
    assert world.it.links["site/a"].acked == at(4)


def test_a_webhook_that_is_done_has_seen_what_it_was_shown_and_no_more():
    world = World("webhook", [("site/a", at(0))])
    world.append("site/a", at(1))
    assert world.phase == SENDING and world.sent == [(1, {"site/a": at(1)})]
    world.append("site/a", at(2))
    assert len(world.sent) == 1
    world.do(machine.delivered(world.it, 1, True, world.sent[0][1], *world.args()))
    assert world.it.links["site/a"].acked == at(1)
    assert world.phase == SENDING and world.sent[1] == (2, {"site/a": at(2)})
    # A callback within the wake has acknowledged more than the answer to its request was shown.
    held = (2, world.it.state.wake_id)
    world.append("site/a", at(3))
    world.ack(held, [("site/a", at(3))])
    world.do(machine.delivered(world.it, 2, True, world.sent[1][1], *world.args()))
    assert world.it.links["site/a"].acked == at(3) and world.phase == IDLE
    # An answer that comes after its lease touches nothing.
    for late in (
        machine.delivered(world.it, 2, True, {"site/a": at(3)}, *world.args()),
        machine.undelivered(world.it, 2, "late", *world.args()),
        machine.delivered(world.it, 3, True, {}, *world.args()),
    ):
        assert late is None


def test_the_backoff_alone_decides_when_a_failed_delivery_is_made_again():
    world = World("webhook", [("site/a", at(0))], lease_ttl_ms=1000)
    world.append("site/a", at(1))
    pauses = []
    for turn in range(10):
        world.share = 0.5
        generation = world.it.state.generation
        held = (generation, world.it.state.wake_id)
        if turn % 2:
            world.do(machine.undelivered(world.it, generation, "502 Bad Gateway", *world.args()))
        else:
            world.pass_time(1.0)  # no answer: the lease ends
        assert world.phase == BACKOFF and world.it.state.failures == turn + 1
        assert code(world.ack, held) == (409, "FENCED")
        world.append("site/a", at(2 + turn))
        assert world.phase == BACKOFF
        pauses.append(world.it.state.due - world.steady)
        assert world.pass_time(pauses[-1] - 0.01) is None
        world.pass_time(0.02)
        assert world.phase == SENDING and world.it.state.generation == generation + 1
    assert [round(pause, 6) for pause in pauses] == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert world.it.state.error == "502 Bad Gateway" and world.it.state.failing_since < 2000000110
    world.do(machine.delivered(world.it, world.it.state.generation, False, {}, *world.args()))
    assert (world.it.state.failures, world.it.state.error, world.it.state.failing_since) == (0, None, None)
    for share, pause in ((0, 0.8), (1, 1.2)):
        world.share = share
        world.pass_time(1.0)
        assert world.phase == SENDING  # nothing was said within the lease: the next wake, at once
        world.do(machine.undelivered(world.it, world.it.state.generation, "x" * 1000, *world.args()))
        assert abs(world.it.state.due - world.steady - pause) < 1e-6 and len(world.it.state.error) == 300
        world.pass_time(pause + 0.001)
        world.do(machine.delivered(world.it, world.it.state.generation, False, {}, *world.args()))


def test_a_wake_stream_that_takes_no_event_delays_it_and_loses_nothing():
    world = World(found=[("site/a", at(0))])
    world.refuses = "wakes is closed"
    world.append("site/a", at(1))
    assert world.phase == WOKEN and not world.it.state.announced and world.it.state.failures == 1
    for pause in (1, 2, 4):
        world.pass_time(pause + 0.001)
        assert not world.events and world.it.state.generation == 1
    assert world.it.state.failures == 4 and world.it.state.error == "wakes is closed"
    # It can be claimed all the same; a lease does not end for a want of an event.
    held = world.claim()
    world.pass_time(29)
    assert world.phase == LEASED
    world.pass_time(2)
    assert world.phase == WOKEN and world.it.state.generation == 2
    world.refuses = None
    world.pass_time(61)
    assert world.events == [(2, "site/a")] and world.it.state.failures == 0 and world.it.state.due is None
    assert code(world.ack, held) == (409, "FENCED")


def test_a_claim_that_makes_its_own_wake_keeps_its_lease_when_the_event_is_refused():
    world = World(found=[("site/a", at(0))], min_interval_ms=60000)
    world.append("site/a", at(1))
    world.ack(world.claim(), [], True)
    assert world.phase == IDLE and world.it.state.due == 160
    world.refuses = "full"
    held = world.claim()
    assert held[0] == 2 and world.phase == LEASED and world.it.state.due == 130
    world.ack(held, [("site/a", at(1))], True)
    assert world.phase == IDLE and world.it.state.due is None


def test_radios_may_sleep_from_one_wake_to_the_next():
    world = World(found=[("site/a", at(0))], min_interval_ms=60000)
    world.append("site/a", at(1))
    world.pass_time(5)
    world.ack(world.claim(), [("site/a", at(1))], True)
    world.append("site/a", at(2))
    assert world.phase == IDLE and len(world.events) == 1
    # Nothing was due until there was work; from then on the interval decides.
    assert world.it.state.due == 160
    world.append("site/a", at(3))
    world.pass_time(54.9)
    assert world.phase == IDLE
    world.pass_time(0.2)
    assert world.phase == WOKEN and len(world.events) == 2
    world.pass_time(100)
    world.ack(world.claim(), [], True)
    assert len(world.events) == 3, "the interval was over"


def test_release_acknowledges_nothing_and_wakes_again():
    world = World(found=[("site/a", at(0))])
    world.append("site/a", at(1))
    held = world.claim()
    machine.check_fence(world.it, held[0], *held)
    world.do(machine.release(world.it, *world.args()))
    assert world.phase == WOKEN and world.it.state.generation == 2
    assert world.it.links["site/a"].acked == at(0) and code(world.ack, held) == (409, "FENCED")


def test_streams_that_end_are_not_pending_for_ever():
    world = World(found=[("site/a", at(0)), ("site/b", at(0))])
    world.append("site/a", at(1))
    machine.expired(world.it, "site/a")
    machine.expired(world.it, "nobody's")
    world.do(machine.settled(world.it, *world.args()))
    assert world.phase == IDLE and code(world.claim) == (409, "NO_PENDING_WORK")
    assert "site/a" in world.it.links
    world.append("site/a", at(1, 5))  # another one at its path: its own event, for who has seen the first may be gone
    assert [generation for generation, _ in world.events] == [1, 2]
    world.claim()
    world.do(machine.gone(world.it, "site/a"))
    assert machine.gone(world.it, "site/a") is None
    world.pass_time(30)
    assert world.phase == IDLE and "site/a" not in world.it.links


def test_after_a_start_leases_go_on_and_who_has_work_is_woken():
    world = World("webhook", [("site/a", at(0))])
    assert machine.started(world.it, *world.args()) is None
    world.append("site/a", at(1))
    held = (1, world.it.state.wake_id)
    world.do(machine.started(world.it, *world.args()))
    assert world.phase == LEASED
    world.ack(held, [("site/a", at(1))], True)
    assert world.phase == IDLE
    world.it.links["site/a"].tail = at(2)  # what came while nobody looked
    world.share = 0.4
    world.do(machine.started(world.it, *world.args()))
    assert world.phase == IDLE and world.it.state.due == world.steady + 2
    world.pass_time(2)
    assert world.phase == SENDING and world.it.state.generation == 2


def test_a_tail_that_moves_while_a_step_is_stored_is_not_forgotten():
    world = World(found=[("site/a", at(0))])
    world.append("site/a", at(1))
    held = world.claim()
    machine.check_fence(world.it, held[0], *held)
    step = machine.ack(world.it, [("site/a", at(1))], True, *world.args())
    assert machine.appended(world.it, "site/a", at(2)) is None  # on its way to the disk meanwhile
    world.do(step)
    assert world.phase == WOKEN and world.it.links["site/a"].tail == at(2)
