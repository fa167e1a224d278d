"""Clocks that jump: nothing expires because of one, and no deadline is early."""

from __future__ import annotations

import shutil

import hypothesis
import pytest
from hypothesis import strategies as st

from ds_core.server import create, requests, stream
from ds_core.server.decide import Needs
from ds_core.server.messages import Parsers
from ds_trio_server.clock import BUILT, Clock
from ds_trio_server.store.base import StorageFull
from ds_trio_server.store.sqlite import engine
from ds_trio_server.store.sqlite.engine import SQLiteStore
from tests.store.rig import full

YEARS = 365.25 * 86400
TODAY = BUILT + 300 * 86400


class Machine:
    """A machine whose two clocks are set by hand."""

    def __init__(self, wall: float = TODAY) -> None:
        self.tick = 1000.0
        self.wall = wall

    def clock(self, steady: float = 0.0, wall: float = 0.0) -> Clock:
        return Clock(steady, wall, lambda: self.tick, lambda: self.wall)

    def pass_(self, seconds: float) -> None:
        self.tick += seconds
        self.wall += seconds


def test_a_new_store_believes_a_plausible_clock_at_once():
    assert Machine().clock().now().wall == TODAY


@pytest.mark.parametrize("boot", [0.0, BUILT - 1, BUILT + 50 * YEARS])
def test_a_machine_that_boots_in_another_age_lives_on_until_ntp_answers(boot):
    machine = Machine(boot)
    clock = machine.clock()
    assert clock.now().wall == BUILT
    machine.pass_(5)
    machine.wall = TODAY
    assert clock.now().wall == TODAY


@pytest.mark.parametrize("jump", [50 * YEARS, -50 * YEARS, -80 * YEARS, 2 * YEARS, 300 * 86400, 3600, -3600])
def test_a_jump_that_is_taken_back_moves_no_deadline(jump):
    machine = Machine()
    clock = machine.clock()
    before = clock.now()
    machine.wall += jump
    for _ in range(29):
        machine.pass_(1)
        now = clock.now()
    assert now.wall == before.wall + 29 and now.steady == before.steady + 29
    machine.wall -= jump
    assert clock.now().wall == before.wall + 29


@pytest.mark.parametrize("jump", [50 * YEARS, -50 * YEARS])
def test_a_jump_of_fifty_years_is_never_believed(jump):
    machine = Machine()
    clock = machine.clock()
    clock.now()
    machine.wall += jump
    for _ in range(400):
        machine.pass_(86400)
        now = clock.now()
    assert now.wall == pytest.approx(TODAY + 400 * 86400)


@pytest.mark.parametrize("jump", [50 * YEARS, -50 * YEARS])
def test_a_jump_while_the_server_was_off_is_not_believed(jump):
    machine = Machine()
    saved = machine.clock().now()
    machine.wall += jump
    machine.tick = 3.0
    clock = machine.clock(saved.steady, saved.wall)
    assert (clock.now().steady, clock.now().wall) == (saved.steady, saved.wall)


def test_a_clock_that_was_wrong_is_put_right_when_it_sticks_to_it():
    machine = Machine(TODAY + 90 * 86400)
    clock = machine.clock()
    machine.pass_(60)
    machine.wall -= 90 * 86400
    clock.now()
    machine.pass_(31)
    assert clock.now().wall == TODAY + 91


def test_a_weekend_off_is_believed_after_half_a_minute():
    machine = Machine()
    saved = machine.clock().now()
    machine.pass_(3 * 86400)
    machine.tick = 5.0
    clock = machine.clock(saved.steady, saved.wall)
    assert clock.now().wall == saved.wall
    machine.pass_(31)
    assert clock.now().wall == TODAY + 3 * 86400 + 31


def test_years_in_a_drawer_are_believed_after_a_day():
    machine = Machine()
    saved = machine.clock().now()
    machine.pass_(3 * YEARS)
    machine.tick = 5.0
    clock = machine.clock(saved.steady, saved.wall)
    clock.now()
    machine.pass_(86401)
    assert clock.now().wall == machine.wall


@hypothesis.given(
    st.lists(
        st.tuples(st.floats(0, 20), st.sampled_from([0.0, 50 * YEARS, -50 * YEARS, 1e5, -1e5, 700.0])), max_size=40
    )
)
def test_steady_time_is_the_time_that_passed_whatever_the_wall_clock_does(steps):
    machine = Machine()
    clock = machine.clock()
    began = clock.now()
    passed = 0.0
    for seconds, jump in steps:
        machine.pass_(seconds)
        passed += seconds
        machine.wall += jump
        now = clock.now()
        assert now.steady == pytest.approx(began.steady + passed)
        assert BUILT <= now.wall < BUILT + 20 * YEARS + 800


async def put(store, path, **headers):
    command = requests.parse("PUT", f"/v1/stream/{path}", {"content-type": "text/plain", **headers}, "", b"x")
    await store.transact(Needs(path), lambda view: create.create(view, command, Parsers()))


async def alive(store, path):
    return await store.look(path, lambda view: (stream.condition(view.stream, view.now) == stream.OPEN, None))


@pytest.mark.parametrize("jump", [50 * YEARS, -50 * YEARS])
async def test_streams_live_through_jumps_while_running_and_while_off(tmp_path, jump):
    machine = Machine()
    store = SQLiteStore(tmp_path, machine.clock())
    await store.open()
    await put(store, "ttl", **{"stream-ttl": "60"})
    # 2026-10-28 is TODAY.
    await put(store, "instant", **{"stream-expires-at": "2026-10-28T01:00:00Z"})
    machine.wall += jump
    for _ in range(59):
        machine.pass_(1)
        await store.sweep()
    assert await alive(store, "ttl") and await alive(store, "instant")
    saved = store.now()
    await store.close()
    machine.wall -= 2 * jump
    machine.tick = 10.0
    store = SQLiteStore(tmp_path, machine.clock(saved.steady, saved.wall))
    await store.open()
    await store.sweep()
    assert await alive(store, "ttl") and await alive(store, "instant")
    machine.wall = TODAY + 59
    machine.pass_(80)
    await store.sweep()
    assert not await alive(store, "ttl"), "time that passed counts"
    assert await alive(store, "instant")
    machine.pass_(3600)
    await store.sweep()
    assert not await alive(store, "instant"), "on a sane clock Expires-At works"
    await store.close()


async def test_the_clock_goes_on_where_the_last_process_left_it(tmp_path):
    machine = Machine()
    store = SQLiteStore(tmp_path, machine.clock())
    await store.open()
    await put(store, "instant", **{"stream-expires-at": "2026-10-28T01:00:00Z"})
    machine.pass_(61)
    await store.sweep()  # saves
    left = store.now()
    await store.close()
    store = SQLiteStore(tmp_path)
    await store.open()
    assert store.now().steady == pytest.approx(left.steady, abs=5)
    await store.close()


@pytest.mark.parametrize(("header", "value"), [("stream-expires-at", "2026-10-28T01:00:00Z"), ("stream-ttl", "3600")])
@pytest.mark.parametrize("earlier", [False, True])
async def test_a_clock_that_is_years_ahead_after_a_kill_deletes_nothing(tmp_path, monkeypatch, header, value, earlier):
    machine = Machine()
    monkeypatch.setattr(engine, "Clock", machine.clock)
    store = SQLiteStore(tmp_path / "data")
    await store.open()
    if earlier:  # nothing that ends by itself, so that nobody kept the time
        await put(store, "for good")
        machine.pass_(30 * 86400)
        machine.wall -= 30 * 86400
        for _ in range(40):
            machine.pass_(1)
            store.now()
    await put(store, "mortal", **{header: value})
    shutil.copytree(tmp_path / "data", tmp_path / "killed")
    await store.close()
    machine.wall += 8 * YEARS
    machine.tick = 10.0
    store = SQLiteStore(tmp_path / "killed")
    await store.open()
    for _ in range(100):
        machine.pass_(1)
        await store.sweep()
    assert await alive(store, "mortal"), "it is not believed at once"
    machine.wall -= 8 * YEARS
    await store.sweep()
    assert await alive(store, "mortal")
    machine.pass_(7200)
    await store.sweep()
    machine.pass_(3)
    assert not await alive(store, "mortal"), "with the right time it ends when it should"
    await store.close()


async def test_a_first_mortal_stream_that_finds_the_disk_full_keeps_the_time_with_the_next(tmp_path, monkeypatch):
    machine = Machine()
    store = SQLiteStore(tmp_path, machine.clock())
    await store.open()
    write = store._committer._write

    def failing(batch):
        raise full()

    monkeypatch.setattr(store._committer, "_write", failing)
    with pytest.raises(StorageFull):
        await put(store, "a", **{"stream-ttl": "60"})
    monkeypatch.setattr(store._committer, "_write", write)
    await put(store, "b", **{"stream-ttl": "60"})
    assert dict(store._db.reader.execute("SELECT name, value FROM meta"))["wall"] == pytest.approx(TODAY)
    await store.close()
