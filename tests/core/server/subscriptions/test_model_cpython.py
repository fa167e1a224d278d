"""Subscriptions driven at random, over storage that fails and networks that are late: what must always hold."""

from __future__ import annotations

from typing import Any

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ds_core.server import offsets
from ds_core.server.errors import ProtocolError
from ds_core.server.stream import Now
from ds_core.server.subscriptions import machine, records
from ds_core.server.subscriptions.config import PULL, WEBHOOK, Config
from ds_core.server.subscriptions.state import BACKOFF, IDLE, LEASED, SENDING, WOKEN, Chance, Step, Subscription

PATHS = ("site/a", "site/b", "site/deep/c", "named", "wakes", "elsewhere")
paths = st.sampled_from(PATHS)


class Subscriptions(RuleBasedStateMachine):
    """The shell is a few lines; what a power cut leaves is the records, and the streams."""

    @initialize(kind=st.sampled_from([PULL, WEBHOOK]), interval=st.sampled_from([0, 0, 20_000]))
    def begin(self, kind: str, interval: int) -> None:
        given: dict[str, object] = {
            "type": kind, "pattern": "site/*", "streams": ["named"], "wake_stream": "wakes",
            "webhook": {"url": "https://ops.example/"}, "lease_ttl_ms": 10_000, "min_interval_ms": interval,
        }  # fmt: skip
        self.it = Subscription(Config("s", given), 0.0)
        self.steady, self.count, self.share = 50.0, 0, 0.5
        self.tails: dict[str, tuple[int, int]] = {}
        self.generations: list[int] = []
        self.events: list[int] = []
        self.floor: dict[str, str] = {}
        self.requests: list[tuple[int, dict[str, str]]] = []
        self.held: list[tuple[int, str]] = []
        self.refuses = False
        self.it.links.update(machine.created(self.it, [("named", None)]))  # type: ignore[arg-type]

    def args(self) -> tuple[Now, Chance]:
        self.count += 1
        return Now(self.steady, 1e9 + self.steady), Chance(f"w{self.count}", self.share)

    def store(self, step: Step | None, lost: bool = False) -> None:
        if step is None or lost:
            return  # the commit failed: it never happened
        if step.announce is not None and self.refuses:
            step = machine.unannounced(self.it, step, "closed", *self.args())
        if step.state.generation != self.it.state.generation:
            assert step.state.generation == self.it.state.generation + 1
            self.generations.append(step.state.generation)
        for path, link in step.links.items():
            if link is None:
                self.floor.pop(path, None)
            else:
                assert link.acked >= self.floor.get(path, ""), "a cursor went back"
                self.floor[path] = link.acked
        if step.announce is not None:
            assert step.announce in step.links or step.announce in self.it.links
            self.events.append(step.state.generation)
        self.it.apply(step)
        if step.deliver:
            self.requests.append((step.state.generation, machine.snapshot(self.it)))
        if self.it.state.wake_id is not None:
            self.held.append((self.it.state.generation, self.it.state.wake_id))
        self.store(machine.settled(self.it, *self.args()))

    # Streams

    @rule(path=paths, size=st.integers(1, 3), lost=st.sampled_from([False, False, True]))
    def append(self, path: str, size: int, lost: bool) -> None:
        incarnation, tail = self.tails.get(path, (len(self.tails) + self.count + 1, 0))
        self.tails[path] = (incarnation, tail + size)
        self.store(machine.appended(self.it, path, offsets.token(*self.tails[path])), lost)
        if lost:
            # Nothing is wrong with the stream: whoever keeps the links looks again when it can.
            self.store(machine.appended(self.it, path, offsets.token(*self.tails[path])))
        self.store(machine.settled(self.it, *self.args()))

    @rule(path=paths)
    def delete(self, path: str) -> None:
        self.tails.pop(path, None)
        self.store(machine.gone(self.it, path))

    @rule(path=paths)
    def expire(self, path: str) -> None:
        self.tails.pop(path, None)
        machine.expired(self.it, path)
        self.store(machine.settled(self.it, *self.args()))

    @rule(path=paths)
    def follow(self, path: str) -> None:
        tail = offsets.token(*self.tails[path]) if path in self.tails else None
        if path != "wakes":
            self.store(machine.followed(self.it, [(path, tail)]))

    @rule(path=paths)
    def leave(self, path: str) -> None:
        self.store(machine.left(self.it, path))

    # Time, power

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 5.0, 9.99, 10.0, 60.0, 100.0]), share=st.floats(0, 1))
    def wait(self, seconds: float, share: float) -> None:
        self.steady += seconds
        self.share = share
        self.store(machine.timed(self.it, *self.args()))

    @rule(refuses=st.booleans())
    def wake_stream(self, refuses: bool) -> None:
        self.refuses = refuses

    @rule()
    def restart(self) -> None:
        old = self.it
        self.it = records.subscription(
            old.id, old.created, records.config_text(old.config), records.state_text(old.state)
        )
        for path, link in old.links.items():
            tail = offsets.token(*self.tails[path]) if path in self.tails else None
            self.it.links[path] = records.link(records.link_kind(link), link.acked, tail)
        self.store(machine.started(self.it, *self.args()))

    # Workers

    def attempt(self, *expected: str, make: Any) -> bool:
        try:
            self.store(make())
            return True
        except ProtocolError as error:
            assert error.code in expected, error
            return False

    @precondition(lambda self: self.it.config.type == PULL)
    @rule()
    def claim(self) -> None:
        if self.attempt(
            "ALREADY_CLAIMED", "NO_PENDING_WORK", make=lambda: machine.claim(self.it, "w", *self.args())
        ):
            assert self.it.state.phase == LEASED

    @rule(which=st.integers(0, 3), path=paths, part=st.sampled_from([0, 1, 2]), done=st.booleans())
    def ack(self, which: int, path: str, part: int, done: bool) -> None:
        if not self.held:
            return
        generation, wake_id = self.held[-1 - which % len(self.held)]
        state = self.it.state
        current = state.phase in (LEASED, SENDING) and (generation, wake_id) == (state.generation, state.wake_id)
        incarnation, tail = self.tails.get(path, (1, 0))
        acks = [(path, offsets.token(incarnation, max(0, tail + 1 - part)))] if part else []

        def make() -> Step:
            machine.check_fence(self.it, generation, generation, wake_id)
            assert current, "a wake that is over was not fenced"
            return machine.ack(self.it, acks, done, *self.args())

        self.attempt("FENCED", "INVALID_OFFSET", make=make)

    @precondition(lambda self: self.it.state.phase == LEASED)
    @rule()
    def release(self) -> None:
        self.store(machine.release(self.it, *self.args()))

    @rule(which=st.integers(0, 3), answer=st.sampled_from(["done", "taken", "failed"]))
    def answered(self, which: int, answer: str) -> None:
        if not self.requests:
            return
        generation, shown = self.requests[-1 - which % len(self.requests)]
        before = (self.it.state, {path: link.acked for path, link in self.it.links.items()})
        if answer == "failed":
            step = machine.undelivered(self.it, generation, "502", *self.args())
        else:
            step = machine.delivered(self.it, generation, answer == "done", shown, *self.args())
        if generation != before[0].generation or before[0].phase != SENDING:
            assert step is None, "an answer that was late touched the next wake"
        self.store(step)

    # What always holds

    @invariant()
    def one_generation_one_wake(self) -> None:
        if not hasattr(self, "it"):
            return
        assert self.generations == list(range(1, len(self.generations) + 1))
        assert len(set(self.events)) == len(self.events), "two events of one generation"

    @invariant()
    def nothing_is_pending_for_ever(self) -> None:
        if not hasattr(self, "it"):
            return
        state = self.it.state
        if state.phase == IDLE and self.it.pending() is not None:
            assert state.due is not None
        if state.phase in (SENDING, BACKOFF, LEASED):
            assert state.due is not None
        if state.phase == WOKEN:
            assert state.announced or state.due is not None
            assert self.it.pending() is not None
            assert self.it.config.type == PULL
        assert (state.wake_id is not None) == (state.phase in (SENDING, WOKEN, LEASED))
        assert "wakes" not in self.it.links and "site/deep/c" not in {
            path for path, link in self.it.links.items() if link.glob
        }


TestSubscriptions = Subscriptions.TestCase
TestSubscriptions.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
