"""What the five storage calls promise (`ds_core.server.storage`), as tests for a store of your own.

Copy this file beside your tests; it needs pytest and ds_core, nothing else. Give it your store in fixtures:

    from contract import *  # all tests, and the fixtures that you don't write

    @pytest.fixture
    def run(tmp_path):
        with MyStore(tmp_path / "streams.db") as store:
            yield store.run  # run(steps) -> what they come to, in one transaction

Of an awaited store, `run` is `lambda steps: asyncio.run(store.run(steps))` or what your test plugin has for it. There
are two fixtures more: `run_all`, several runs at once, where your program does that in threads or tasks; and `reopen`,
for a store that outlives its process: both are described where their defaults are. What a decision never asks (of the
bytes of a stream that is gone, say) a store may answer as it likes.
"""

import random

import pytest

from ds_core.server import responses, rows, shell, storage, stream


@pytest.fixture
def run():
    """`run(steps)` runs them over the store, in one transaction, and returns what they come to."""
    raise NotImplementedError("write a fixture `run` for your store")


@pytest.fixture
def run_all(run):
    """`run_all([steps, ...])` runs them all, at once where a program does, and lists what they come to."""
    return lambda many: [run(steps) for steps in many]


@pytest.fixture
def reopen():
    """`reopen()` closes the store and opens it again, as after a restart, and returns the new `run`."""
    pytest.skip("nothing is kept beyond the process")


def made(id, path="s", tail=0, **state):
    """A stream as a decision might have left it."""
    found = stream.Stream(id, path, "text/plain")
    found.tail = tail
    for name, value in state.items():
        setattr(found, name, value)
    found.publish()
    return found


def commit(run, puts=(), drops=(), data=None, producer=None, newest=None):
    """Keep this, and nothing else, in one run."""
    changes = storage.Changes(stream.Now(1.5, 2000000000.25))
    changes.puts, changes.drops = list(puts), list(drops)
    changes.data, changes.producer, changes.newest = data, producer, newest

    def steps():
        yield ("commit", changes)

    run(steps())


def pieces(run, id, start, end):
    """What the call gives, as it is."""

    def steps():
        return [(at, bytes(data)) for at, data in (yield ("pieces", id, start, end))]

    return run(steps())


def test_at_first_there_is_nothing(run):
    assert run(storage.load("s")) is None and run(storage.load(1)) is None
    assert run(storage.newest()) == 0


def test_a_stream_comes_back_as_it_was(run):
    full = made(
        9007199254740991, "grüße/a b/'%_\U0001f600", 9999999999999999, incarnation=3, start=5, closed=True,
        closed_by=("a producer's id", 9007199254740991, 0), stream_seq="a'é", ttl=999999999999, deadline=12345.678,
        expires_at="2030-01-01T00:00:00.5Z", expires=1893456000.5, lineage=((3, 10), (4, 20)), fork_spec="x 1 2",
        forks=7, deleted=True,
    )  # fmt: skip
    plain = made(1, "S")
    commit(run, [full, plain], newest=full.id)
    for kept in (full, plain):
        for key in (kept.id, kept.path):
            found = run(storage.load(key))
            assert found is not None and rows.row(found) == rows.row(kept)
            assert (found.visible_tail, found.visible_closed) == (kept.tail, kept.closed)
            assert found.kind == kept.kind
    assert run(storage.load("s")) is None, "paths differ by case"


def test_a_stream_takes_the_place_of_what_it_was(run):
    commit(run, [made(1), made(2, "other")], newest=2)
    before = run(storage.load("s"))
    commit(run, [made(1, tail=5, closed=True)])
    found = run(storage.load(1))
    assert (found.tail, found.closed) == (5, True) and run(storage.load("s")).tail == 5
    assert (before.tail, before.closed) == (0, False), "what was handed out was changed"
    assert run(storage.load("other")).tail == 0


def test_ids_are_never_given_twice(run):
    commit(run, [made(7)], newest=7)
    assert run(storage.newest()) == 7
    commit(run, [made(7, tail=3)], data=(7, 0, b"abc"))
    assert run(storage.newest()) == 7
    commit(run, drops=[made(7, tail=3)])
    assert run(storage.newest()) == 7


def test_pieces_are_whole_appends_in_order(run):
    rng = random.Random(1)
    appends, at = [], 10  # as of a fork, whose own bytes begin where it left
    commit(run, [made(4, tail=10), made(5, "other", 3)], data=(5, 0, b"not"), newest=5)
    for size in (1, 3, 1, 5000, 2, 70_000, 1, 1, 400_000, 8):
        data = rng.randbytes(size)
        commit(run, [made(4, tail=at + size)], data=(4, at, data))
        appends.append((at, data))
        at += size
    marks = [place for start, data in appends for place in (start, start + len(data) - 1)]
    for start in marks:
        for end in [start + 1, *(mark for mark in marks if mark > start), at]:
            expected = [(first, data) for first, data in appends if first < end and start < first + len(data)]
            assert pieces(run, 4, start, end) == expected, (start, end)


def test_producers_belong_to_a_stream(run):
    commit(run, [made(1), made(2, "t")], newest=2)
    for id, name, epoch, seq in [(1, "p", 0, 0), (1, "p", 0, 1), (1, "P", 5, 9007199254740991), (2, "p é'", 7, 0)]:
        commit(run, [made(id, "s" if id == 1 else "t")], producer=(id, name, epoch, seq))
    assert tuple(run(storage.producer(1, "p"))) == (0, 1)
    assert tuple(run(storage.producer(1, "P"))) == (5, 9007199254740991)
    assert tuple(run(storage.producer(2, "p é'"))) == (7, 0)
    assert run(storage.producer(2, "p")) is None


def test_all_of_a_stream_goes_and_another_takes_its_path(run):
    commit(run, [made(1, tail=3)], data=(1, 0, b"old"), producer=(1, "p", 0, 0), newest=1)
    commit(run, [made(2, tail=5)], [made(1, tail=3)], data=(2, 0, b"newer"), newest=2)
    assert run(storage.load(1)) is None and run(storage.load("s")).id == 2
    assert run(storage.producer(2, "p")) is None
    assert pieces(run, 2, 0, 5) == [(0, b"newer")]


def test_a_commit_is_whole_or_nothing(run):
    commit(run, [made(1)], newest=1)
    try:
        commit(run, [made(1, tail=1)], data=(1, 0, b"x"), producer=(1, "p", 0, object()), newest=9)
    except Exception:
        assert run(storage.load(1)).tail == 0 and run(storage.newest()) == 1, "a part of what failed was kept"
        assert run(storage.producer(1, "p")) is None
        commit(run, [made(1, tail=1)], data=(1, 0, b"y"))
        assert pieces(run, 1, 0, 1) == [(0, b"y")]


def test_runs_come_one_after_the_other(run, run_all):
    site = Site()
    run(site.ask("PUT", "/v1/stream/s", {"content-type": "text/plain"}))
    for seq in range(5):
        headers = {"content-type": "text/plain", "producer-epoch": "0", "producer-seq": str(seq)}
        many = [
            site.ask("POST", "/v1/stream/s", {**headers, "producer-id": name}, b"%s%d " % (name.encode(), seq))
            for name in "abcdef"
            for _ in range(4)
        ]
        statuses = [said[0] for said in run_all(many)]
        assert (statuses.count(200), statuses.count(204)) == (6, 18), statuses
    _, _, body = run(site.ask("GET", "/v1/stream/s", {}))
    assert sorted(body.split()) == sorted(b"%s%d" % (name.encode(), seq) for name in "abcdef" for seq in range(5))


def test_what_was_kept_outlives_the_process(run, reopen):
    site = Site()
    run(site.ask("PUT", "/v1/stream/s", {"content-type": "text/plain", "stream-ttl": "1000"}, b"first "))
    posted = {"content-type": "text/plain", "producer-id": "p", "producer-epoch": "0", "producer-seq": "0"}
    run(site.ask("POST", "/v1/stream/s", posted, b"second"))
    run(site.ask("PUT", "/v1/stream/gone", {}))
    run(site.ask("DELETE", "/v1/stream/gone", {}))
    kept = rows.row(run(storage.load("s")))
    run = reopen()
    assert rows.row(run(storage.load("s"))) == kept
    assert run(site.ask("GET", "/v1/stream/s", {}))[2] == b"first second"
    assert run(site.ask("POST", "/v1/stream/s", posted, b"second"))[0] == 204
    assert run(storage.newest()) == 2


@pytest.mark.parametrize("seed", range(10))
def test_random_requests_are_answered_as_over_dicts(run, seed):
    """Streams, forks of forks, producers, TTLs that pass, deletions: every answer is what a `Model` gives."""
    rng, site, model = random.Random(seed), Site(), Model()
    offsets = ["-1", "now"]
    for number in range(150):
        path = "/v1/stream/" + rng.choice("abcde")
        kind = rng.choice(["PUT", "fork"] * 2 + ["POST", "POST", "POST", "GET", "GET", "HEAD", "DELETE", "wait"])
        body = rng.choice([b"", b"x", b"hello", b"y" * 300])
        headers = {"content-type": "text/plain"}
        if rng.random() < 0.2 and kind in ("PUT", "fork"):
            headers["stream-ttl"] = "10"
        if kind == "fork":
            headers["stream-forked-from"] = "/v1/stream/" + rng.choice("abcde")
            if rng.random() < 0.6:
                headers["stream-fork-offset"] = rng.choice(offsets[-8:])
                headers["stream-fork-sub-offset"] = rng.choice("00124")
        elif kind == "POST" and rng.random() < 0.5:
            headers |= {"producer-id": rng.choice("pq"), "producer-epoch": "0", "producer-seq": rng.choice("012")}
        elif kind == "GET":
            path += f"?offset={rng.choice(offsets[-8:])}&max-bytes={rng.choice([1, 4, 1000])}"
        elif kind == "wait":
            site.seconds += rng.choice([1, 6])
            name = path.rpartition("/")[2]
            assert run(site.shell.sweep(name)) == storage.run(site.shell.sweep(name), model)
            continue
        asked = ("PUT" if kind == "fork" else kind, path, headers, body)
        expected = storage.run(site.ask(*asked), model)
        assert run(site.ask(*asked)) == expected, (number, asked)
        offsets += [value for name, value in expected[1] if name.lower() == "stream-next-offset"]


class Site:
    """A shell at a time that stands still, unless `seconds` is moved."""

    def __init__(self):
        self.seconds = 1000
        self.shell = shell.Shell(lambda: stream.Now(self.seconds, 2000000000 + self.seconds), lambda: 0.5)

    def ask(self, method, target, headers, body=b""):
        """Steps to status, headers and body of the answer to a request that doesn't wait."""
        said = yield from self.shell.exchange(method, target, headers, body, "http://h").next()
        assert isinstance(said, responses.Response)
        return said.status, said.headers, said.body


class Model:
    """The five calls over dicts, in the fewest words."""

    def __init__(self):
        self.streams, self.appends, self.producers, self.last = {}, {}, {}, 0

    def load(self, key):
        return next((each for each in self.streams.values() if key in (each.id, each.path)), None)

    def producer(self, id, name):
        return self.producers.get((id, name))

    def newest(self):
        return self.last

    def pieces(self, id, start, end):
        return [(at, data) for at, data in self.appends.get(id, ()) if at < end and start < at + len(data)]

    def commit(self, changes):
        for each in changes.drops:
            del self.streams[each.id]
        self.streams |= {each.id: each for each in changes.puts}
        if changes.data:
            self.appends.setdefault(changes.data[0], []).append(changes.data[1:])
        if changes.producer:
            self.producers[changes.producer[:2]] = changes.producer[2:]
        self.last = changes.newest or self.last


__all__ = [name for name in globals() if name.startswith("test_")] + ["reopen", "run", "run_all"]
