"""The core, applied to a store, against a trivially simple model of the protocol under random commands.

The model knows lists of messages and nothing of positions, incarnations, lineages or stored forms: offsets are
tokens it was given. Whatever sequence of creates, forks, appends, closes, deletes, expiries and reads: status codes,
contents, producers' verdicts and the order of offsets are those of the model.
"""

from __future__ import annotations

import json

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ds_core.server import create, decide, reads, requests, stream
from ds_core.server.errors import ProtocolError
from ds_core.wire import names

PATHS = st.sampled_from("abcd")
RARELY = st.integers(0, 5).map(lambda number: number == 5)
TYPES = ["application/json", "text/plain"]
TTL = 60


class Shell:
    """A store in memory as a backend would build it: every stream has its own bytes, forks read their ancestors'."""

    def __init__(self) -> None:
        self.clock = 1000.0
        self.paths: dict[str, stream.Stream] = {}
        self.ids: dict[int, stream.Stream] = {}
        self.appends: dict[int, list[tuple[int, bytes]]] = {}
        self.producers: dict[tuple[int, str], tuple[int, int]] = {}
        self.newest = 0

    def view(self, path: str) -> stream.View:
        return stream.View(self.paths.get(path), stream.Now(self.clock, 1.7e9), self.newest + 1)

    def piece(self, state: stream.Stream, at: int) -> tuple[int, bytes] | None:
        for owner, _, end in create.owners(state, at, state.tail)[:1]:
            for first, data in self.appends[owner]:
                if first <= at < first + len(data):
                    return first, data[: end - first]
        return None

    def range(self, state: stream.Stream, start: int, end: int) -> bytes:
        found = b""
        for owner, low, high in create.owners(state, start, end):
            for first, data in self.appends[owner]:
                found += data[max(0, low - first) : max(0, high - first)]
        assert len(found) == end - start
        return found

    def do(self, command):
        needs = decide.needs(command)
        view = self.view(needs.path)
        if needs.producer is not None and view.stream is not None:
            view.producer = self.producers.get((view.stream.id, needs.producer))
        if needs.source is not None:
            view.source = self.paths.get(needs.source)
            if stream.condition(view.source, view.now) in (stream.OPEN, stream.CLOSED):
                view.piece = self.piece(view.source, create.fork_position(view.source, command, view.fresh))
        response, change = decide.decide(view, command)
        self.apply(view.stream, change)
        return response

    def apply(self, state, change) -> None:
        if isinstance(change, stream.Created):
            if state is not None:
                self.release(state)
            state = change.stream
            self.newest = state.id
            self.paths[state.path] = self.ids[state.id] = state
            self.appends[state.id] = [(state.tail - len(change.data), change.data)]
            if change.source is not None:
                self.ids[change.source].forks += 1
        elif isinstance(change, stream.Removed):
            state.deleted = True
            if not change.soft:
                self.release(state)
        elif change is not None:
            if isinstance(change, stream.Appended):
                self.appends[state.id].append((change.at, change.data))
                if change.producer is not None:
                    self.producers[(state.id, change.producer[0])] = change.producer[1:]
            change.apply(state)
        if change is not None:
            state.publish()

    def release(self, state: stream.Stream) -> None:
        assert state.forks == 0
        del self.paths[state.path], self.ids[state.id], self.appends[state.id]
        if state.lineage:
            source = self.ids[state.lineage[-1][0]]
            source.forks -= 1
            if source.deleted and not source.forks:
                self.release(source)

    def sweep(self) -> None:
        for state in list(self.paths.values()):
            if self.paths.get(state.path) is state:
                self.apply(state, stream.expire(self.view(state.path))[1])

    def read(self, path: str, offset: str, limit: int) -> tuple[list[bytes], object]:
        """The bodies of all responses up to the tail, and the last one."""
        bodies = []
        while True:
            command = requests.parse("GET", f"/v1/stream/{path}?offset={offset}", {})
            view = self.view(path)
            plan, change = reads.plan(view, command.offset, command.live is not None)
            self.apply(view.stream, change)
            piece = self.piece(plan.stream, plan.start)
            if piece is not None:
                reads.check_start(plan.stream.kind, piece, plan.start)
            end = plan.tail
            last = self.piece(plan.stream, plan.start + limit)
            if last is not None:
                first, data = last
                found = reads.chunk_end(plan.stream.kind, plan.start, limit, (first, first + len(data)), data)
                assert found is not None and plan.start < found <= end
                assert found - plan.start <= limit or first <= plan.start, "more than was asked, and needlessly"
                end = found
            position = plan.position(end)
            response = reads.answer(command, position, self.range(plan.stream, plan.start, end), "1", "public")
            assert len(response.body) == position.size()
            bodies.append(response.body)
            following = header(response, names.NEXT_OFFSET)
            if header(response, names.UP_TO_DATE):
                return bodies, response
            assert following > offset or offset == "-1"
            offset = following


class Model:
    """One stream: its appends as lists of messages, and the token each append ended at."""

    def __init__(self, content_type: str, start: str) -> None:
        self.content_type = content_type
        self.appends: list[list[bytes]] = []
        self.tokens = [start]
        self.closed = False
        self.closed_by: tuple[str, int, int] | None = None
        self.producers: dict[str, tuple[int, int]] = {}
        self.seq: str | None = None
        self.ttl: int | None = None
        self.deadline = 0.0
        self.forks = 0
        self.deleted = False
        self.parent: Model | None = None
        self.family = object()

    def messages(self, start: int = 0) -> list[bytes]:
        return [message for append in self.appends[start:] for message in append]


def header(response, name):
    return next((value for key, value in response.headers if key.lower() == name), None)


class Protocol(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.shell = Shell()
        self.models: dict[str, Model] = {}
        self.graves: list[tuple[object, str]] = []
        self.serial = 0

    # What the model says about a path

    def model(self, path: str) -> tuple[Model | None, int | None]:
        """The model at a path when it can be used; else None and the status (404 or 410)."""
        model = self.models.get(path)
        if model is None:
            return None, 404
        if model.deleted:
            return None, 410
        if model.ttl is not None and self.shell.clock >= model.deadline:
            return None, 410 if model.forks else 404
        return model, None

    def bury(self, model: Model) -> None:
        for path in [path for path, other in self.models.items() if other is model]:
            del self.models[path]
        self.graves += [(model.family, token) for token in model.tokens]
        if model.parent is not None:
            model.parent.forks -= 1
            if model.parent.deleted and not model.parent.forks:
                self.bury(model.parent)

    def bodies(self, content_type: str, count: int) -> tuple[bytes, list[bytes]]:
        """A body that was never sent before, and the messages it holds."""
        self.serial += 1
        if content_type == "text/plain":
            body = b"<%d>" % self.serial * count
            return body, [body]
        parts = [b'{"n": [%d, "%s"]}' % (self.serial, b"x" * part) for part in range(count)]
        return b" [" + b", ".join(parts) + b"]\n", parts

    def attempt(self, command):
        try:
            return self.shell.do(command)
        except ProtocolError as error:
            return error

    # Commands

    @initialize(kind=st.sampled_from(TYPES))
    def begin(self, kind: str) -> None:
        self.create("a", kind, 2, False, False)
        self.create("b", kind, 0, False, True)

    @rule(path=PATHS, kind=st.sampled_from(TYPES), count=st.integers(0, 3), closed=RARELY, ttl=st.booleans())
    def create(self, path: str, kind: str, count: int, closed: bool, ttl: bool) -> None:
        body, messages = self.bodies(kind, count) if count else (b"", [])
        headers = {"content-type": kind}
        if closed:
            headers["stream-closed"] = "true"
        if ttl:
            headers["stream-ttl"] = str(TTL)
        answer = self.attempt(requests.parse("PUT", f"/v1/stream/{path}", headers, "http://h", body))
        model, status = self.model(path)
        if status == 410:
            assert answer.status == 409
        elif model is not None:
            same = (
                model.parent is None
                and model.content_type == kind
                and model.closed == closed
                and (model.ttl is not None) == ttl
            )
            assert answer.status == (200 if same else 409)
            if same:
                assert header(answer, names.NEXT_OFFSET) == model.tokens[-1]
        else:
            assert answer.status == 201
            if path in self.models:
                self.bury(self.models[path])
            self.models[path] = model = Model(kind, "-1")
            model.closed = closed
            if messages:
                model.appends.append(messages)
                model.tokens.append(header(answer, names.NEXT_OFFSET))
            else:
                model.tokens[0] = header(answer, names.NEXT_OFFSET)
            if ttl:
                model.ttl, model.deadline = TTL, self.shell.clock + TTL

    @rule(path=PATHS, data=st.data(), count=st.integers(0, 2))
    def fork(self, path: str, data: st.DataObject, count: int) -> None:
        source = self.some_path(data)
        origin, origin_status = self.model(source)
        headers = {"stream-forked-from": f"/v1/stream/{source}"}
        index = None
        if origin is not None and not data.draw(RARELY):
            index = data.draw(st.integers(0, len(origin.appends)))
            headers["stream-fork-offset"] = origin.tokens[index]
        body, messages = self.bodies(origin.content_type, count) if origin is not None and count else (b"", [])
        existing, status = self.model(path)
        if existing is not None:
            return  # whether it is the same request is a table's business, not the model's
        answer = self.attempt(requests.parse("PUT", f"/v1/stream/{path}", headers, "http://h", body))
        if status == 410:
            assert answer.status == 409
        elif origin is None:
            assert answer.status == (409 if origin_status == 410 else 404)
        else:
            assert answer.status == 201
            if path in self.models:
                self.bury(self.models[path])
            self.models[path] = model = Model(origin.content_type, origin.tokens[0])
            index = len(origin.appends) if index is None else index
            model.appends = list(origin.appends[:index])
            model.tokens = list(origin.tokens[: index + 1])
            model.family, model.parent, model.ttl = origin.family, origin, origin.ttl
            model.deadline = self.shell.clock + TTL
            origin.forks += 1
            self.added(model, messages, answer)

    def added(self, model: Model, messages: list[bytes], answer) -> None:
        """Messages were accepted: offsets only grow, and only when something was stored."""
        after = header(answer, names.NEXT_OFFSET)
        if messages:
            assert after > model.tokens[-1] or model.tokens[-1] == "-1"
            model.appends.append(messages)
            model.tokens.append(after)
        elif model.tokens[-1] != "-1":
            assert after == model.tokens[-1]

    @rule(
        data=st.data(),
        appends=st.lists(
            st.tuples(
                st.sampled_from([1, 2, 3, 0]),
                RARELY,
                st.sampled_from(["next", "last", "none", "next", "gap", "old", "new", "any"]),
                st.none() | st.sampled_from(["1", "2", "3", "30", "4"]),
            ),
            min_size=1,
            max_size=5,
        ),
    )
    def append(self, data: st.DataObject, appends: list[tuple[int, bool, str, str | None]]) -> None:
        path = self.some_path(data)
        for count, closes, producer, seq in appends:
            self.append_one(path, count, closes, self.producer(producer, self.model(path)[0], data), seq)

    def append_one(self, path, count, closes, producer, seq) -> None:
        model, status = self.model(path)
        kind = model.content_type if model is not None else TYPES[0]
        body, messages = self.bodies(kind, count) if count else (b"", [])
        headers = {"content-type": kind}
        if closes:
            headers["stream-closed"] = "true"
        if producer is not None:
            headers["producer-id"], headers["producer-epoch"], headers["producer-seq"] = map(str, producer)
        if seq is not None:
            headers["stream-seq"] = seq
        answer = self.attempt(requests.parse("POST", f"/v1/stream/{path}", headers, body=body))

        expected = status
        stores = False
        if model is not None:
            expected, stores = self.expect(model, messages, closes, producer, seq)
        assert answer.status == expected, (answer.status, expected)
        if model is None or (expected is not None and expected >= 300):
            return
        if model.ttl is not None:
            model.deadline = self.shell.clock + TTL
        if stores:
            self.added(model, messages, answer)
            if producer is not None:
                model.producers[producer[0]] = producer[1:]
            if seq is not None:
                model.seq = seq
            if closes:
                model.closed, model.closed_by = True, producer
        assert (header(answer, names.CLOSED) == "true") == model.closed or not stores and not model.closed_by

    def some_path(self, data: st.DataObject) -> str:
        """Mostly one with a stream that can be used."""
        usable = [path for path in "abcd" if self.model(path)[0] is not None]
        return data.draw(PATHS if not usable or data.draw(RARELY) else st.sampled_from(usable))

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

    def expect(self, model, messages, closes, producer, seq) -> tuple[int, bool]:
        """(status, whether it changes the stream), as section 4 tells it."""
        known = model.producers.get(producer[0]) if producer is not None else None
        if known is not None and producer[1] < known[0]:
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
        if seq is not None and model.seq is not None and seq <= model.seq:
            return 409, False
        return (200 if producer is not None and messages else 204), True

    @rule(path=PATHS, really=RARELY)
    def delete(self, path: str, really: bool) -> None:
        if not really:
            return
        answer = self.attempt(requests.parse("DELETE", f"/v1/stream/{path}", {}))
        model, status = self.model(path)
        assert answer.status == (status or 204)
        if model is not None:
            model.deleted = True
            if not model.forks:
                self.bury(model)

    @rule(seconds=st.sampled_from([1, 20, 20, TTL - 1, TTL]))
    def time_passes(self, seconds: int) -> None:
        self.shell.clock += seconds

    @rule()
    def sweep(self) -> None:
        self.shell.sweep()
        for model in list(self.models.values()):
            if not model.deleted and model.ttl is not None and self.shell.clock >= model.deadline:
                model.deleted = True
                if not model.forks and model in self.models.values():
                    self.bury(model)

    # Reading

    @rule(data=st.data(), limit=st.integers(1, 80))
    def read(self, data: st.DataObject, limit: int) -> None:
        path = self.some_path(data)
        model, status = self.model(path)
        index = data.draw(st.integers(0, len(model.appends))) if model is not None else 0
        offset = model.tokens[index] if model is not None else "-1"
        if index == 0 and data.draw(st.booleans()):
            offset = "-1"
        try:
            bodies, last = self.shell.read(path, offset, limit)
        except ProtocolError as error:
            assert error.status == status
            return
        assert model is not None and last.status == 200
        if model.content_type == "text/plain":
            assert b"".join(bodies) == b"".join(model.messages(index))
        else:
            found = [value for body in bodies for value in json.loads(body)]
            assert found == [json.loads(message) for message in model.messages(index)]
            inside = b",".join(body[1:-1] for body in bodies)
            assert inside == b",".join(model.messages(index)), "byte for byte"
        assert (header(last, names.CLOSED) == "true") == model.closed
        if model.tokens[-1] != "-1":
            assert header(last, names.NEXT_OFFSET) == model.tokens[-1]
        if model.ttl is not None:
            model.deadline = self.shell.clock + TTL

    @rule(path=PATHS, data=st.data())
    def read_with_an_offset_of_a_stream_that_is_gone(self, path: str, data: st.DataObject) -> None:
        model, status = self.model(path)
        graves = [token for family, token in self.graves if model is None or family is not model.family]
        if not graves:
            return
        offset = data.draw(st.sampled_from(graves))
        if offset == "-1":
            return
        try:
            self.shell.read(path, offset, 100)
        except ProtocolError as error:
            assert error.status == (status or 410)
        else:
            raise AssertionError("bytes of a stream that is gone")

    @invariant()
    def heads_say_what_the_model_says(self) -> None:
        for path in ("a", "b", "c", "d"):
            answer = self.attempt(requests.parse("HEAD", f"/v1/stream/{path}", {}))
            model, status = self.model(path)
            assert answer.status == (status or 200)
            if model is not None:
                assert (header(answer, names.CLOSED) == "true") == model.closed
                assert header(answer, "content-type") == model.content_type
                if model.tokens[-1] != "-1":
                    assert header(answer, names.NEXT_OFFSET) == model.tokens[-1]

    @invariant()
    def nothing_is_kept_that_no_one_can_reach(self) -> None:
        assert set(self.shell.paths) == set(self.models)
        assert set(self.shell.ids) == set(self.shell.appends) == {state.id for state in self.shell.paths.values()}
        for path, model in self.models.items():
            assert self.shell.paths[path].forks == model.forks


Protocol.TestCase.settings = settings(max_examples=250, stateful_step_count=40)
test_the_core_follows_the_model = Protocol.TestCase
