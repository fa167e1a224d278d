"""Exactly once, whatever happens: the reader and the writer against model servers, with random cuts and faults
(Hypothesis)."""

from __future__ import annotations

import json

from hypothesis import given, settings, strategies as st

from ds_core.client.backoff import Backoff
from ds_core.client.memory import MemoryStore
from ds_core.client.reader import LIVE, NEED_DATA, OVER, Reader
from ds_core.client.writer import AGAIN, DONE, DUPLICATE, FENCED, Writer
from ds_core.wire import cbor, sse

CBOR, JSON, TEXT, BINARY = "application/cbor-seq", "application/json", "text/plain", "application/octet-stream"

VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-1000, 1 << 33), st.text('aü\\"]},', max_size=9)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text("kü", max_size=2), inner, max_size=3)),
    max_leaves=6,
)


# --------------------------------------------------------------------------------
# Reading


class Cursor:
    def __init__(self, offset: str = "-1", items: int = 0) -> None:
        self.offset = offset
        self.items = items


class Stream:
    """A stream that grows to `items`, then is closed. It answers with as many items as it likes, each time."""

    def __init__(self, content_type: str, items: list[bytes], draw) -> None:  # type: ignore[no-untyped-def]
        self.type = content_type
        self.items = items
        self.visible = 0
        self.quiet = 4  # so often nothing new comes
        self.draw = draw

    def join(self, start: int, end: int) -> bytes:
        part = self.items[start:end]
        return b"[" + b",".join(part) + b"]" if self.type == JSON else b"".join(part)

    def get(self, query: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        start = int(query["offset"], 16) if query["offset"] != "-1" else 0
        least = max(self.visible, start)
        if self.quiet and self.draw(st.booleans()):
            self.quiet -= 1
        else:
            least = min(least + 1, len(self.items))
        self.visible = self.draw(st.integers(least, len(self.items)))
        if query.get("live") == "sse":
            return self.events(start)
        end = self.draw(st.integers(min(start + 1, self.visible), self.visible))
        headers = {"content-type": self.type, "stream-next-offset": f"{end:x}"}
        if end == self.visible:
            headers["stream-up-to-date"] = "true"
            if end == len(self.items):
                headers["stream-closed"] = "true"
        if "live" in query:
            headers["stream-cursor"] = "7"
            if start == end:
                return 204, headers, b""
        return 200, headers, self.join(start, end)

    def events(self, start: int) -> tuple[int, dict[str, str], bytes]:
        binary = self.type in (CBOR, BINARY)
        headers = {"content-type": "text/event-stream"}
        if binary:
            headers["stream-sse-data-encoding"] = "base64"
        body = b""
        while True:
            end = self.draw(st.integers(min(start + 1, self.visible), self.visible))
            if end > start:
                body += sse.data_event(self.join(start, end), binary)
            body += sse.control_event(f"{end:x}", "7", end == self.visible, end == len(self.items))
            start = end
            if end == self.visible:
                return 200, headers, body


def bodies(content_type: str, values: list[object]) -> list[bytes]:
    if content_type == CBOR:
        return [cbor.encode(value) for value in values]
    if content_type == JSON:
        return [json.dumps(value, ensure_ascii=False).encode() for value in values]
    return [json.dumps(value).encode() for value in values]


@settings(max_examples=200)
@given(st.data(), st.sampled_from([CBOR, JSON, TEXT, BINARY]), st.lists(VALUES, max_size=12))
def test_every_item_is_read_once(data: st.DataObject, content_type: str, values: list[object]) -> None:
    stream = Stream(content_type, bodies(content_type, values), data.draw)
    live = data.draw(st.sampled_from([None, "long-poll", "sse", "auto"]))
    faults = data.draw(st.lists(st.sampled_from(["", "", "cut", "cut", "reset", "refused"]), max_size=12))
    got: list[object] = []
    cursor = Cursor()
    reader = Reader(cursor, live)
    saved = Cursor()
    for turn in range(100):
        if reader.state == OVER:
            if saved.offset == f"{len(values):x}":
                break
            reader = Reader(Cursor(saved.offset, saved.items), live)  # to the tail only: later, there is more
        fault = faults[turn] if turn < len(faults) else ""
        asked_live = reader.state == LIVE
        status, headers, body = stream.get({name: str(value) for name, value in reader.query()})
        assert asked_live == ("live" in dict(reader.query()))
        if fault == "refused":
            continue
        reader.head(status, headers)
        cut = data.draw(st.integers(0, len(body))) if fault else len(body)
        at = 0
        while at < cut:
            piece = body[at : min(cut, at + data.draw(st.sampled_from([1, 2, 5, 100])))]
            at += len(piece)
            buffer = bytearray(piece)
            reader.feed(memoryview(buffer))
            while (item := reader.next()) is not NEED_DATA:
                got.append(item)
                saved = Cursor(reader.cursor.offset, reader.cursor.items)
            buffer[:] = bytes(len(buffer))  # as a device's, it is used again
        if not fault:
            reader.end()
            saved = Cursor(reader.cursor.offset, reader.cursor.items)
        elif fault == "reset":
            reader = Reader(Cursor(saved.offset, saved.items), live)
    else:
        raise AssertionError("no end")
    if content_type in (CBOR, JSON):
        assert got == values
    else:
        assert b"".join(got) == b"".join(stream.items)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------
# Writing


class Appended:
    """A stream's producer rules (protocol section 5), and what was appended."""

    def __init__(self) -> None:
        self.epoch = self.seq = -1
        self.data = b""
        self.accepted = 0

    def post(self, headers: dict[str, object], body: bytes) -> tuple[int, dict[str, str]]:
        epoch, seq = int(str(headers["Producer-Epoch"])), int(str(headers["Producer-Seq"]))
        assert headers["Content-Length"] == len(body) > 0
        if epoch < self.epoch:
            return 403, {"producer-epoch": str(self.epoch)}
        if epoch > self.epoch:
            if seq:
                return (400, {}) if self.epoch >= 0 else (409, {"producer-expected-seq": "0"})
        elif seq <= self.seq:
            return 204, {"producer-epoch": str(epoch), "producer-seq": str(self.seq)}
        elif seq > self.seq + 1:
            return 409, {"producer-expected-seq": str(self.seq + 1), "producer-received-seq": str(seq)}
        self.epoch, self.seq = epoch, seq
        self.data += body
        self.accepted += 1
        return 200, {"producer-epoch": str(epoch), "producer-seq": str(seq)}


@settings(max_examples=200)
@given(st.data(), st.integers(1, 4), st.integers(1, 40), st.integers(0, 3), st.booleans())
def test_every_record_is_appended_once(data: st.DataObject, depth: int, size: int, count: int, taken: bool) -> None:
    store = MemoryStore(depth, 5, "text/plain", False, 1 << 20, size, count, "refuse")
    writer = Writer(store, "p", Backoff(lambda n: n - 1, 10, 1000), depth)
    server = Appended()
    if taken:
        server.epoch, server.seq = 9, 3  # as left by somebody else
    appended = stolen = 0
    expected = b""
    actions = data.draw(st.lists(st.sampled_from(["append", "send", "lose", "busy", "steal"]), max_size=30))
    for action in [*actions, *["send"] * 200]:
        if action == "append":
            record = b"%d," % appended
            appended += 1
            assert store.append(record)
            expected += record
            continue
        if action == "steal" and server.accepted == writer.sent:
            # Fences us. Not while an answer is lost: its batch would be sent once more.
            # (Two that claim the same epoch at once are one producer to a server: give each its own id.)
            server.epoch, server.seq = server.epoch + 10, 0
            stolen += 1
        under_way: list[object] = []
        answers = []
        while batch := writer.request(len(under_way)):
            under_way.append(batch)
            body = bytearray(batch.length)
            assert batch.readinto(memoryview(body)) == batch.length
            if action == "busy" and data.draw(st.booleans()):
                answers.append((data.draw(st.sampled_from([408, 429, 500, 503, 507])), {"retry-after": "1"}))
            else:
                answers.append(server.post(dict(writer.headers(batch)), bytes(body)))
            if action == "lose" and data.draw(st.booleans()):
                break  # those behind it never left
        if not under_way:
            if action == "send" and not store.records:
                break
            continue
        heard = data.draw(st.integers(0, len(answers) - 1)) if action == "lose" else len(answers)
        for batch, answer in zip(under_way[:heard], answers[:heard], strict=True):
            outcome = writer.answer(batch, *answer)
            assert outcome in (DONE, DUPLICATE, AGAIN) or outcome == FENCED and stolen + taken > 5
            if outcome in (AGAIN, FENCED):
                break  # and the connection is closed, whatever else was said on it
        else:
            if heard < len(answers):
                writer.broken()
    # What is still open goes out now.
    while batch := writer.request():
        body = bytearray(batch.length)
        batch.readinto(memoryview(body))
        outcome = writer.answer(batch, *server.post(dict(writer.headers(batch)), bytes(body)))
        assert outcome in (DONE, DUPLICATE, AGAIN) or outcome == FENCED and stolen + taken > 5
    assert server.data == expected
    assert store.records == store.bytes == store.dropped == writer.gaps == 0
