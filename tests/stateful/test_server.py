"""The whole server over HTTP against a small model, on both stores: random commands, sent in all ways, with restarts.

`DS_TEST_EXAMPLES=2000 pytest --timeout=0 tests/stateful` looks longer. Time is the test's; whatever has expired
is swept at once, so that every answer is determined.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ds_trio_server.config import Config
from ds_trio_server.store.base import Store
from ds_trio_server.store.memory import MemoryStore
from ds_trio_server.store.sqlite import engine
from tests.store.rig import Time

from .served import ROOT, WAYS, Answer, Client, Served

EXAMPLES = int(os.environ.get("DS_TEST_EXAMPLES", "40"))
NAMES = ("a", "b", "c")
TYPES = ("text/plain", "application/json", "application/cbor-seq")
TTL = 100
SLACK = max(1.0, TTL / 8)

PATHS = st.sampled_from(NAMES)
WAY = st.sampled_from(WAYS + ("plain",) * 3)
PRODUCERS = st.sampled_from(["none", "next", "next", "next", "last", "gap", "old", "new", "any"])
TTLS = st.sampled_from([None, TTL])
RARELY = st.sampled_from([False] * 5 + [True])


class Model:
    """One stream: the messages of each append, and the token each append ended at."""

    def __init__(self, kind: str, incarnation: str) -> None:
        self.kind = kind
        self.incarnation = incarnation
        self.appends: list[list[bytes]] = []
        self.tokens = [f"{incarnation}_{'0' * 16}"]
        self.closed = False
        self.closed_by: tuple[str, int, int] | None = None
        self.producers: dict[str, tuple[int, int]] = {}
        self.ttl: int | None = None
        self.deadline = 0.0
        # A deadline that a restart has read from the disk may run late.
        self.late = 0.0
        self.parent: Model | None = None
        self.fork_spec: object = None
        self.forks = 0
        self.deleted = False

    def messages(self, since: int) -> list[bytes]:
        return [message for append in self.appends[since:] for message in append]


class Machine(RuleBasedStateMachine):
    """Commands to the server, and what must come of them."""

    durable = False

    @initialize(kinds=st.lists(st.sampled_from(TYPES), min_size=2, max_size=2), ttl=TTLS)
    def start(self, kinds: list[str], ttl: int | None) -> None:
        self.time = Time()
        self.folder = Path(tempfile.mkdtemp()) if self.durable else None
        self.models: dict[str, Model] = {}
        self.graves: list[str] = []
        self.count = 0
        self.serve()
        for path, kind in zip(NAMES, kinds, strict=False):
            self.create(path, "plain", kind, ttl, 1, False)

    def serve(self) -> None:
        def make() -> Store:
            return MemoryStore(self.time.clock()) if self.folder is None else engine.SQLiteStore(self.folder)

        # The store makes its clock when it opens, from what it saved.
        with mock.patch.object(engine, "Clock", self.time.clock):
            self.server = Served(make, Config(long_poll_timeout=0.05))
        self.client = Client(self.server.port)
        self.other = Client(self.server.port)

    def teardown(self) -> None:
        if hasattr(self, "server"):
            self.client.close()
            self.other.close()
            try:
                self.server.stop()
            finally:
                if self.folder is not None:
                    shutil.rmtree(self.folder, ignore_errors=True)

    # What is known

    def state(self, path: str) -> tuple[Model | None, int | None]:
        """The stream if it can be used, else the status that says why not."""
        model = self.models.get(path)
        if model is None:
            return None, 404
        return (None, 410) if model.deleted else (model, None)

    def bury(self, model: Model) -> None:
        while True:
            (path,) = [path for path, found in self.models.items() if found is model]
            del self.models[path]
            if model.parent is None:
                self.graves.append(model.tokens[-1])
                return
            model = model.parent
            model.forks -= 1
            if model.forks or not model.deleted:
                return

    def renewed(self, model: Model) -> None:
        if model.ttl is not None:
            model.deadline, model.late = self.time.tick + TTL, 0.0

    def body(self, kind: str, count: int) -> tuple[bytes, list[bytes]]:
        """A body of so many messages, and the messages."""
        numbers = range(self.count, self.count + count)
        self.count += count
        if kind == "text/plain":
            text = b"".join(b"%d," % number for number in numbers)
            return text, [text] if text else []
        if kind == "application/json":
            found = [b'{"n": %d}' % number for number in numbers]
            return b"[" + b" , ".join(found) + b"]", found
        found = [b"\x1a" + number.to_bytes(4, "big") for number in numbers]
        return b"".join(found), found

    def added(self, model: Model, messages: list[bytes], answer: Answer) -> None:
        after = answer.headers["stream-next-offset"]
        if messages:
            assert after > model.tokens[-1]
            model.appends.append(messages)
            model.tokens.append(after)
        else:
            assert after == model.tokens[-1]

    def some(self, data: st.DataObject) -> str:
        """Mostly a path with a stream that can be used."""
        usable = [path for path in NAMES if self.state(path)[0] is not None]
        return data.draw(PATHS if not usable or data.draw(RARELY) else st.sampled_from(usable))

    # Creating and ending

    @rule(
        path=PATHS, way=WAY, kind=st.sampled_from(TYPES), ttl=TTLS,
        count=st.sampled_from([0, 0, 1, 3]), closes=RARELY,
    )  # fmt: skip
    def create(self, path: str, way: str, kind: str, ttl: int | None, count: int, closes: bool) -> None:
        body, messages = self.body(kind, count)
        headers: dict[str, Any] = {"content_type": kind, "stream_ttl": ttl}
        if closes:
            headers["stream_closed"] = "true"
        answer = self.client.ask(way, "PUT", path, body, **headers)
        model = self.models.get(path)
        if model is not None:
            same = (model.kind, model.ttl, model.closed, model.fork_spec) == (kind, ttl, closes, None)
            assert answer.status == (200 if same and not model.deleted else 409), answer
            return
        assert answer.status == 201, answer
        token = answer.headers["stream-next-offset"]
        model = self.models[path] = Model(kind, token.partition("_")[0])
        assert all(model.incarnation != grave.partition("_")[0] for grave in self.graves), "an offset is used twice"
        model.ttl, model.closed = ttl, closes
        self.renewed(model)
        self.added(model, messages, answer)

    @rule(path=PATHS, way=WAY, ttl=TTLS, data=st.data())
    def fork(self, path: str, way: str, ttl: int | None, data: st.DataObject) -> None:
        source = self.some(data)
        if path == source:
            return
        origin, _ = self.state(source)
        index = data.draw(st.integers(0, len(origin.appends)) | st.none()) if origin is not None else None
        offset = None if index is None or origin is None else origin.tokens[index]
        answer = self.client.ask(
            way, "PUT", path, b"", stream_forked_from=ROOT + source, stream_fork_offset=offset, stream_ttl=ttl
        )
        fork_spec = (source, offset, ttl)
        model = self.models.get(path)
        if model is not None:
            # "The tail" and the tail's offset are two recipes, and so is the start of any stream.
            same = (model.fork_spec, model.closed, model.deleted) == (fork_spec, False, False)
            assert answer.status == (200 if same else 409), answer
            return
        if origin is None:
            assert answer.status == (404 if source not in self.models else 409), answer
            return
        assert answer.status == 201, answer
        index = len(origin.appends) if index is None else index
        model = self.models[path] = Model(origin.kind, origin.incarnation)
        model.appends, model.tokens = list(origin.appends[:index]), list(origin.tokens[: index + 1])
        model.ttl, model.fork_spec, model.parent = ttl or origin.ttl, fork_spec, origin
        self.renewed(model)
        origin.forks += 1
        assert answer.headers["stream-next-offset"] == model.tokens[-1]

    @rule(data=st.data(), way=WAY)
    def delete(self, data: st.DataObject, way: str) -> None:
        path = self.some(data)
        model, status = self.state(path)
        answer = self.client.ask(way, "DELETE", path)
        assert answer.status == (status or 204), answer
        if model is not None:
            model.deleted = True
            if not model.forks:
                self.bury(model)

    # Appending

    @rule(
        data=st.data(),
        way=WAY,
        appends=st.lists(
            st.tuples(
                st.sampled_from([1, 1, 2, 3, 0]), RARELY, PRODUCERS, st.sampled_from([0, 0, 1, 2]), st.booleans()
            ),
            min_size=1,
            max_size=5,
        ),
    )
    def append(self, data: st.DataObject, way: str, appends: list[tuple[int, bool, str, int, bool]]) -> None:
        path = self.some(data)
        for count, closes, who, retries, vanish in appends:
            self.append_one(path, data, way, count, closes, who, retries, vanish)

    def append_one(
        self, path: str, data: st.DataObject, way: str, count: int, closes: bool, who: str, retries: int, vanish: bool
    ) -> None:
        model, status = self.state(path)
        kind = model.kind if model is not None else TYPES[0]
        body, messages = self.body(kind, count) if count else (b"", [])
        producer = self.producer(who, model, data)
        headers: dict[str, Any] = {"content_type": kind}
        if closes:
            headers["stream_closed"] = "true"
        if producer is not None:
            headers |= dict(zip(("producer_id", "producer_epoch", "producer_seq"), producer, strict=True))
        times = 1 + (retries if producer is not None else 0)
        expected, stores = (status or 0, False) if model is None else self.expect(model, messages, closes, producer)
        unknown = False
        for number in range(times):
            if producer is not None and vanish and number < times - 1:
                # Whether this one arrives before its retry nobody knows; both are one append.
                self.client.send(way, "POST", path, body, **headers)
                self.client.vanish()
                unknown = True
                continue
            answer = self.client.ask(way, "POST", path, body, **headers)
            if unknown and stores:
                assert answer.status in (expected, 204), answer
            else:
                assert answer.status == expected, answer
            if model is None or answer.status >= 300:
                continue
            self.renewed(model)
            if stores:
                self.added(model, messages, answer)
                if producer is not None:
                    model.producers[producer[0]] = producer[1:]
                if closes:
                    model.closed, model.closed_by = True, producer
            assert answer.headers["stream-next-offset"] == model.tokens[-1]
            if producer is not None and answer.status < 300:
                assert int(answer.headers["producer-epoch"]) == producer[1]
            expected, stores = self.expect(model, messages, closes, producer)
            unknown = False

    def producer(self, wanted: str, model: Model | None, data: st.DataObject) -> tuple[str, int, int] | None:
        if wanted == "none":
            return None
        name = data.draw(st.sampled_from("pq"))
        if wanted == "any":
            return name, data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))
        epoch, last = model.producers.get(name, (1, -1)) if model is not None else (1, -1)
        return name, *{
            "next": (epoch, last + 1),
            "last": (epoch, max(last, 0)),
            "gap": (epoch, last + 2),
            "old": (max(epoch - 1, 0), last + 1),
            "new": (epoch + 1, data.draw(st.integers(0, 1))),
        }[wanted]

    def expect(
        self, model: Model, messages: list[bytes], closes: bool, producer: tuple[str, int, int] | None
    ) -> tuple[int, bool]:
        """(status, whether it changes the stream), as sections 4 and 5 tell it."""
        known = model.producers.get(producer[0]) if producer is not None else None
        if producer is not None and known is not None and producer[1] < known[0]:
            return 403, False
        if model.closed:
            retry = producer == model.closed_by if producer is not None else closes and not messages
            return (204 if retry else 409), False
        if not messages and not closes:
            return 400, False
        if producer is not None:
            epoch, last = known or (producer[1], -1)
            if producer[1] > epoch and producer[2] != 0:
                return 400, False
            if producer[1] == epoch and producer[2] <= last:
                return 204, False
            if producer[1] == epoch and producer[2] > last + 1:
                return 409, False
        return (200 if producer is not None and messages else 204), True

    # Reading

    @rule(data=st.data(), way=WAY, limit=st.sampled_from([None, 1, 7, 40, 100]))
    def read(self, data: st.DataObject, way: str, limit: int | None) -> None:
        path = self.some(data)
        model, status = self.state(path)
        index = data.draw(st.integers(0, len(model.appends))) if model is not None else 0
        token = model.tokens[index] if model is not None else "-1"
        if index == 0 and data.draw(st.booleans()):
            token = "-1"
        bodies: list[bytes] = []
        while True:
            answer = self.client.ask(way, "GET", f"{path}?offset={token}" + (f"&max-bytes={limit}" if limit else ""))
            if model is None:
                assert answer.status == status, answer
                return
            assert answer.status == 200 and answer.headers["content-type"] == model.kind, answer
            bodies.append(answer.body)
            done = answer.headers.get("stream-up-to-date") == "true"
            assert answer.headers.get("stream-closed") == ("true" if done and model.closed else None)
            if done:
                break
            assert answer.headers["stream-next-offset"] > token or token == "-1"
            token = answer.headers["stream-next-offset"]
        assert answer.headers["stream-next-offset"] == model.tokens[-1]
        self.renewed(model)
        self.check(model, index, bodies)

    def check(self, model: Model, since: int, bodies: list[bytes]) -> None:
        wanted = model.messages(since)
        if model.kind == "application/json":
            values = [value for body in bodies for value in json.loads(body)]
            assert values == [json.loads(message) for message in wanted]
            inside = b",".join(body[1:-1] for body in bodies if body != b"[]")
            assert inside == b",".join(wanted), "not byte for byte"
        else:
            assert b"".join(bodies) == b"".join(wanted)

    @rule(data=st.data(), way=WAY, count=st.sampled_from([0, 1, 2]), closes=RARELY)
    def long_poll(self, data: st.DataObject, way: str, count: int, closes: bool) -> None:
        path = self.some(data)
        model, status = self.state(path)
        if model is None:
            answer = self.client.ask(way, "GET", f"{path}?offset=-1&live=long-poll")
            assert answer.status == status, answer
            return
        index = data.draw(st.integers(0, len(model.appends)))
        self.other.send(way, "GET", f"{path}?offset={model.tokens[index]}&live=long-poll")
        self.renewed(model)
        appended = index == len(model.appends) and not model.closed and count > 0
        if appended:
            body, messages = self.body(model.kind, count)
            headers = {"stream_closed": "true"} if closes else {}
            answer = self.client.ask("plain", "POST", path, body, content_type=model.kind, **headers)
            assert answer.status == 204, answer
            self.added(model, messages, answer)
            model.closed = closes
            model.closed_by = None
        answer = self.other.answer("GET")
        if answer.status == 204:
            # Its time was up, or the end had come before it.
            assert index == len(model.appends) - appended, answer
            assert answer.headers["stream-up-to-date"] == "true"
            if not appended:
                assert (answer.headers.get("stream-closed") == "true") == model.closed
                assert answer.headers["stream-next-offset"] == model.tokens[-1]
            return
        assert answer.status == 200, answer
        self.check(model, index, [answer.body])
        assert answer.headers["stream-next-offset"] == model.tokens[-1]
        assert (answer.headers.get("stream-closed") == "true") == model.closed

    @rule(data=st.data())
    def events(self, data: st.DataObject) -> None:
        path = self.some(data)
        model, status = self.state(path)
        index = data.draw(st.integers(0, len(model.appends))) if model is not None else 0
        token = model.tokens[index] if model is not None else "-1"

        def enough(name: str, data: bytes) -> bool:
            return name == "control" and "upToDate" in json.loads(data)

        found = self.other.events(f"{path}?offset={token}&live=sse", enough)
        if model is None or isinstance(found, Answer):
            assert isinstance(found, Answer) and found.status == status, found
            return
        self.renewed(model)
        last = json.loads(found[-1][1])
        assert last["streamNextOffset"] == model.tokens[-1]
        assert last.get("streamClosed", False) == model.closed
        if model.kind != "application/cbor-seq":  # which comes as base64
            self.check(model, index, [data for name, data in found if name == "data"])

    @rule(path=PATHS, way=WAY, data=st.data())
    def read_where_another_stream_was(self, path: str, way: str, data: st.DataObject) -> None:
        if self.graves:
            _, status = self.state(path)
            answer = self.client.ask(way, "GET", f"{path}?offset={data.draw(st.sampled_from(self.graves))}")
            assert answer.status == (status or 410), answer

    # Time, and the end of the process

    @rule(seconds=st.sampled_from([1, 60, 60, TTL - 1, TTL]))
    def time_passes(self, seconds: int) -> None:
        self.time.tick += seconds
        # After a restart a stream may live on a little, or not: that moment is skipped.
        while vague := [model for model in self.models.values() if self.vague(model)]:
            self.time.tick = max(model.deadline + model.late for model in vague)
        # What has expired frees what it was forked from when it is swept or looked at, not before.
        self.server.sweep()
        for path in NAMES:
            self.other.ask("plain", "HEAD", path)
        for model in list(self.models.values()):
            if model.ttl is not None and not model.deleted and self.time.tick >= model.deadline + model.late:
                model.deleted = True
                if not model.forks and model in self.models.values():
                    self.bury(model)

    def vague(self, model: Model) -> bool:
        ends = model.deadline + model.late
        return model.ttl is not None and not model.deleted and model.deadline <= self.time.tick < ends

    @precondition(lambda self: self.durable)
    @rule()
    def restart(self) -> None:
        self.client.close()
        self.other.close()
        self.server.stop()
        self.serve()
        for model in self.models.values():
            model.late = SLACK

    @invariant()
    def heads_say_what_the_model_says(self) -> None:
        for path in NAMES:
            model, status = self.state(path)
            answer = self.other.ask("plain", "HEAD", path)
            assert answer.status == (status or 200), (path, answer)
            if model is not None:
                assert answer.headers["stream-next-offset"] == model.tokens[-1]
                assert answer.headers["content-type"] == model.kind
                assert (answer.headers.get("stream-closed") == "true") == model.closed
                assert answer.headers.get("stream-ttl") == (None if model.ttl is None else str(model.ttl))


class Durable(Machine):
    """The same over SQLite, with restarts."""

    durable = True


Machine.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None)
Durable.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None)
TestMemory = Machine.TestCase
TestSQLite = Durable.TestCase
