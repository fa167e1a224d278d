"""What happens to a subscription: (subscription, event, now, chance) -> a step to store, and then to do (protocol
section 9).

| phase | it is | ends with |
| --- | --- | --- |
| IDLE | asleep; `due`: not to be woken before then | pending work |
| SENDING | a webhook's request is on its way, under a lease | its answer; `due`, the end of the lease |
| BACKOFF | a webhook that could not be reached | `due` |
| WOKEN | its event is on the wake stream (or to be put there at `due`), waiting to be claimed | a claim |
| LEASED | a worker has it until `due` | done, release, `due` |

Each wake has a generation of its own, one more than the last, and a wake id; both fence what comes late. A failed
delivery ends the lease, and the backoff alone decides when the next wake is. Cursors only ever rise.

Nothing here changes a subscription: a `Step` is made, stored in one transaction with the event that it may put on the
wake stream, and then applied. A step for what is not so any more is None, and nothing happens.
"""

from .. import offsets
from ..errors import ProtocolError
from .config import WEBHOOK
from .state import ABSENT, BACKOFF, IDLE, LEASED, NONE, SENDING, WOKEN, Chance, Link, State, Step, Subscription

TYPE_CHECKING = False  # type checkers take this name for true; MicroPython has no collections.abc
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..stream import Now

_FIRST_RETRY, _LONGEST_RETRY, _SPREAD = 1.0, 60.0, 0.2
_JITTER = 5.0
_LONGEST_ERROR = 300


# Streams


def created(
    subscription: Subscription, found: "Iterable[tuple[str, str | None]]"
) -> "dict[str, Link | None]":
    """The links of a new subscription, of streams that match or are named, with their tails: no history is replayed."""
    links: "dict[str, Link | None]" = {}
    config = subscription.config
    for path, tail in found:
        explicit, glob = path in config.streams, tail is not None and config.matches(path)
        if explicit or glob:
            links[path] = Link(explicit, glob, ABSENT if tail is None else tail, tail)
    return links


def followed(subscription: Subscription, found: "Iterable[tuple[str, str | None]]") -> Step:
    """Streams are added by name; one that is followed already keeps its cursor."""
    links: "dict[str, Link | None]" = {}
    for path, tail in found:
        link = subscription.links.get(path)
        if link is None:
            links[path] = Link(True, False, ABSENT if tail is None else tail, tail)
        elif not link.explicit:
            links[path] = Link(True, link.glob, link.acked, link.tail)
    return Step(subscription.state, links)


def left(subscription: Subscription, path: str) -> "Step | None":
    """A stream is not followed by name any more."""
    link = subscription.links.get(path)
    if link is None or not link.explicit:
        return None
    kept = Link(False, True, link.acked, link.tail) if link.glob else None
    return Step(subscription.state, {path: kept})


def gone(subscription: Subscription, path: str) -> "Step | None":
    """A stream was deleted: it is followed no more, and nobody is woken for that."""
    return Step(subscription.state, {path: None}) if path in subscription.links else None


def appended(subscription: Subscription, path: str, tail: str) -> "Step | None":
    """A stream has a new tail. One that matches and was not followed is from here on, from its beginning.

    Tails are the streams' own, and not stored with a subscription. `settled` says whether this wakes it.
    """
    link = subscription.links.get(path)
    if link is not None:
        link.tail = tail
        return None
    if not subscription.config.matches(path):
        return None
    return Step(subscription.state, {path: Link(False, True, NONE, tail)})


def expired(subscription: Subscription, path: str) -> None:
    """A stream has run out. It is followed on, should it come back, and nothing of it is pending: ask `settled`."""
    link = subscription.links.get(path)
    if link is not None:
        link.tail = None


# Wakes


def settled(subscription: Subscription, now: "Now", chance: Chance) -> "Step | None":
    """What is next, to be asked after every step and whenever a tail has moved or gone: one that sleeps and has work is
    woken; one that waits to be claimed and has none any more sleeps, so that what comes then wakes it anew."""
    state = subscription.state
    works = subscription.pending() is not None
    if (state.phase == IDLE and state.due is None and works) or (state.phase == WOKEN and not works):
        return _rest(subscription, state, {}, now, chance)
    return None


def _rest(
    subscription: Subscription, state: State, links: "dict[str, Link | None]", now: "Now", chance: Chance
) -> Step:
    """What comes of a state when nobody holds it: asleep, or woken at once where there is work and it may be."""
    state = state.but(phase=IDLE, wake_id=None, holder=None, due=None, announced=False)
    path = subscription.pending(links)
    if path is None:
        return Step(state, links)
    interval = subscription.config.min_interval_ms / 1000
    if interval and state.woken_at is not None and now.steady < state.woken_at + interval:
        return Step(state.but(due=state.woken_at + interval), links)
    return _wake(subscription, state, links, path, now, chance)


def _wake(
    subscription: Subscription,
    state: State,
    links: "dict[str, Link | None]",
    path: str,
    now: "Now",
    chance: Chance,
) -> Step:
    config = subscription.config
    state = state.but(generation=state.generation + 1, wake_id=chance.wake_id, holder=None, woken_at=now.steady)
    if config.type == WEBHOOK:
        state = state.but(phase=SENDING, due=now.steady + config.lease_ttl_ms / 1000, announced=False)
        return Step(state, links, deliver=True)
    return Step(state.but(phase=WOKEN, due=None, announced=True, **_WELL), links, announce=path)


def unannounced(subscription: Subscription, step: Step, error: str, now: "Now", chance: Chance) -> Step:
    """A step without its event, which the wake stream does not take: it can be claimed all the same, and unless that is
    what happens here the event is tried again."""
    state = step.state.but(announced=False)
    if state.phase == WOKEN:
        before = subscription.state
        state = state.but(failures=before.failures, failing_since=before.failing_since)
        state = _failed(state, error, now, chance)
    return Step(state, step.links)


def _failed(state: State, error: str, now: "Now", chance: Chance) -> State:
    failures = state.failures + 1
    pause = min(_FIRST_RETRY * 2 ** min(failures - 1, 10), _LONGEST_RETRY)
    pause *= 1 + _SPREAD * (2 * chance.share - 1)
    since = now.wall if state.failing_since is None else state.failing_since
    return state.but(failures=failures, error=error[:_LONGEST_ERROR], failing_since=since, due=now.steady + pause)


_WELL = {"failures": 0, "error": None, "failing_since": None}


def started(subscription: Subscription, now: "Now", chance: Chance) -> "Step | None":
    """After a start. What was being sent may have arrived, so its lease goes on; who has work is woken, not all at
    once."""
    state = subscription.state
    if state.phase == SENDING:
        return Step(state.but(phase=LEASED))
    if state.phase == IDLE and state.due is None and subscription.pending() is not None:
        return Step(state.but(due=now.steady + chance.share * _JITTER))
    return None


def timed(subscription: Subscription, now: "Now", chance: Chance) -> "Step | None":
    """`due` has come."""
    state = subscription.state
    if state.due is None or now.steady < state.due:
        return None
    if state.phase == SENDING:
        return _undelivered(state, "no answer before the lease ended", now, chance)
    path = subscription.pending()
    if state.phase == WOKEN and path is not None:
        return Step(state.but(due=None, announced=True, **_WELL), announce=path)
    return _rest(subscription, state, {}, now, chance)


# Deliveries


def snapshot(subscription: Subscription) -> "dict[str, str]":
    """The tails that a wake shows, by path."""
    links = subscription.links
    return {path: links[path].tail or links[path].acked for path in links}


def delivered(
    subscription: Subscription,
    generation: int,
    done: bool,
    shown: "dict[str, str]",
    now: "Now",
    chance: Chance,
) -> "Step | None":
    """The webhook answered 2xx; `done`: it has processed all that it was `shown`."""
    state = subscription.state
    if state.phase != SENDING or state.generation != generation:
        return None
    if not done:
        return Step(state.but(phase=LEASED, **_WELL))
    links: "dict[str, Link | None]" = {}
    for path in shown:
        link = subscription.links.get(path)
        if link is not None and shown[path] > link.acked:
            links[path] = link.at(shown[path])
    return _rest(subscription, state.but(**_WELL), links, now, chance)


def undelivered(
    subscription: Subscription, generation: int, error: str, now: "Now", chance: Chance
) -> "Step | None":
    """The webhook could not be reached, or answered anything but 2xx."""
    state = subscription.state
    if state.phase != SENDING or state.generation != generation:
        return None
    return _undelivered(state, error, now, chance)


def _undelivered(state: State, error: str, now: "Now", chance: Chance) -> Step:
    return Step(_failed(state, error, now, chance).but(phase=BACKOFF, wake_id=None, holder=None))


# Workers


def claim(subscription: Subscription, worker: str, now: "Now", chance: Chance) -> Step:
    """A worker takes it. Raises ProtocolError 409."""
    state = subscription.state
    if state.phase == LEASED:
        raise Held(str(state.holder), state.generation)
    path = subscription.pending()
    if path is None:
        raise ProtocolError(409, "NO_PENDING_WORK", "there is nothing to do in this subscription's streams")
    step = Step(state) if state.phase == WOKEN else _wake(subscription, state, {}, path, now, chance)
    due = now.steady + subscription.config.lease_ttl_ms / 1000
    step.state = step.state.but(phase=LEASED, holder=worker, due=due)
    return step


class Held(ProtocolError):
    """409 ALREADY_CLAIMED: `holder` has it, under `generation`."""

    def __init__(self, holder: str, generation: int) -> None:
        super().__init__(409, "ALREADY_CLAIMED", "%s holds this subscription" % holder)
        self.holder = holder
        self.generation = generation


def check_fence(subscription: Subscription, named: int, generation: object, wake_id: object) -> None:
    """Raise 409 FENCED unless a token's generation (`named`), and what the request says, are those of the lease."""
    state = subscription.state
    if (
        state.phase not in (SENDING, LEASED)
        or state.wake_id is None
        or wake_id != state.wake_id
        or isinstance(generation, bool)
        or generation != state.generation
        or named != state.generation
    ):
        raise ProtocolError(409, "FENCED", "this wake is over: its lease ended, or another one came after it")


def ack(
    subscription: Subscription, acks: "Iterable[tuple[str, str]]", done: bool, now: "Now", chance: Chance
) -> Step:
    """Cursors go up to these offsets, all or none. The lease goes on for its whole length, or, `done`, is over.

    The fence is `check_fence`'s. Raises ProtocolError 409.
    """
    links: "dict[str, Link | None]" = {}
    for path, offset in acks:
        link = links.get(path) or subscription.links.get(path)
        if link is None:
            raise _wrong_offset("%s is not followed by this subscription" % path)
        if not _is_offset(offset) or not link.acked <= offset <= (link.tail or link.acked):
            raise _wrong_offset(
                "%s: an offset from %s, its cursor, to %s, its tail, can be acknowledged"
                % (path, link.acked, link.tail or link.acked)
            )
        links[path] = link.at(offset)
    if done:
        return _rest(subscription, subscription.state.but(**_WELL), links, now, chance)
    due = now.steady + subscription.config.lease_ttl_ms / 1000
    return Step(subscription.state.but(due=due), links)


def release(subscription: Subscription, now: "Now", chance: Chance) -> Step:
    """The worker gives it back, and nothing is acknowledged. The fence is `check_fence`'s."""
    return _rest(subscription, subscription.state, {}, now, chance)


def _is_offset(text: str) -> bool:
    try:
        return isinstance(offsets.parse(text), tuple) and text != NONE
    except ProtocolError:
        return False


def _wrong_offset(message: str) -> ProtocolError:
    return ProtocolError(409, "INVALID_OFFSET", message)
