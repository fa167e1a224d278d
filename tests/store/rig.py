"""A store in hand: commands in, answers out, on a clock that the test turns."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import trio

from ds_core.server import create, reads, requests, stream, targets
from ds_core.server.decide import Needs, needs
from ds_core.server.messages import Parsers
from ds_core.server.offsets import START, token
from ds_core.server.responses import Response
from ds_core.server.stream import Stream
from ds_trio_server.clock import BUILT, Clock
from ds_trio_server.store.base import WINDOW, Store
from ds_trio_server.store.sqlite import committer, queues, schema

PARSERS = Parsers()
WALL = BUILT + 1000.0


class Time:
    """What the store's clock reads."""

    def __init__(self) -> None:
        self.tick = 50.0

    def clock(self, steady: float = 0.0, wall: float = 0.0) -> Clock:
        """A clock that goes on from saved readings, as the store makes it when it opens."""
        return Clock(steady, wall, lambda: self.tick, lambda: WALL + self.tick)


def make_older(folder: Path, version: int) -> None:
    """Turn the file of a closed store into one of an earlier version."""
    db = sqlite3.connect(folder / schema.FILE)
    for older in range(schema.VERSION - 1, version - 1, -1):
        db.executescript(_OLDER[older] + f"PRAGMA user_version = {older};")
    db.close()


_OLDER = {
    5: "ALTER TABLE times DROP COLUMN sum; ALTER TABLE staged DROP COLUMN sum; ALTER TABLE staged DROP COLUMN position;"
    " ALTER TABLE staged DROP COLUMN stream;",
    4: "DROP TRIGGER producers_are_counted; DROP TRIGGER producers_are_discounted; DROP TABLE producing;"
    " ALTER TABLE producers DROP COLUMN used;",
    3: "DROP TABLE staged; ALTER TABLE streams DROP COLUMN sum;",
}


def full() -> sqlite3.OperationalError:
    """What SQLite raises when the disk is full."""
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    error.sqlite_errorname = "SQLITE_FULL"
    return error


def narrow(patch: pytest.MonkeyPatch, row: int, step: int, small: int = 1 << 20) -> None:
    """Make rows, and the queue for small changes, so narrow that a test's bytes don't fit."""
    patch.setattr(schema, "INLINE_LIMIT", row // 2)
    patch.setattr(schema, "ROW_LIMIT", row)
    patch.setattr(queues, "_SMALL_BYTES", small)
    patch.setattr(committer, "STEP_BYTES", step)


class Soon(Store):
    """A store by its doors that never wait, wherever it lets one through."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.taken = 0
        for name in ("open", "close", "watch", "unwatch", "sweep", "verify", "paths", "usage", "now"):
            setattr(self, name, getattr(store, name))

    async def transact(self, needs: Needs, decide: Any) -> Any:
        if needs.source is not None:
            return await self._store.transact(needs, decide)
        outcome: list[tuple[Any, Exception | None]] = []
        finished = trio.Event()

        def done(response: Any, error: Exception | None) -> None:
            outcome.append((response, error))
            finished.set()

        try:
            self._store.transact_nowait(needs, decide, done)
        except trio.WouldBlock:
            return await self._store.transact(needs, decide)
        self.taken += 1
        await finished.wait()
        ((response, error),) = outcome
        if error is not None:
            raise error
        return response

    async def look(self, path: str, decide: Any) -> Any:
        try:
            return self._store.look_nowait(path, decide)
        except trio.WouldBlock:
            return await self._store.look(path, decide)

    async def read(self, stream: Stream, start: int, end: int) -> list[bytes]:
        stop = min(end, start + WINDOW)
        try:
            found = self._store.read_nowait(stream, start, stop)
            assert sum(map(len, found)) == stop - start
            return found
        except trio.WouldBlock:
            return await self._store.read(stream, start, end)

    async def span(self, stream: Stream, position: int) -> tuple[int, int]:
        try:
            return self._store.span_nowait(stream, position)
        except trio.WouldBlock:
            return await self._store.span(stream, position)


# All of them are set in __init__.
Soon.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]


class Rig:
    """Does to a store what the gateway does, without HTTP."""

    def __init__(self, store: Store, time: Time) -> None:
        self.store = store
        self.time = time

    async def create(
        self, path: str, body: bytes = b"", content_type: str | None = "text/plain", **headers: Any
    ) -> Response:
        command = _command("PUT", path, body, content_type, headers)
        assert isinstance(command, requests.Create)
        piece = None
        if command.source is not None:

            def locate(view: stream.View) -> tuple[tuple[Stream, int] | None, None]:
                if view.stream is None or view.stream.deleted:
                    return None, None
                return (view.stream, create.fork_position(view.stream, command, view.fresh)), None

            found = await self.store.look(command.source, locate)
            if found is not None and found[1] < found[0].visible_tail:
                piece = await self.store.append_at(*found)
        return await self.store.transact(needs(command, piece), lambda view: create.create(view, command, PARSERS))

    async def fork(self, path: str, source: str, at: int | None = None, skip: int = 0, **headers: Any) -> Response:
        headers["stream_forked_from"] = f"/v1/stream/{source}"
        if at is not None:
            incarnation = (await self.stream(source)).incarnation
            headers["stream_fork_offset"] = token(incarnation, at)
        if skip:
            headers["stream_fork_sub_offset"] = skip
        return await self.create(path, content_type=None, **headers)

    async def append(
        self,
        path: str,
        body: bytes,
        content_type: str | None = "text/plain",
        producer: tuple[str, int, int] | None = None,
        **headers: Any,
    ) -> Response:
        if producer is not None:
            for name, value in zip(("producer_id", "producer_epoch", "producer_seq"), producer, strict=True):
                headers[name] = value
        command = _command("POST", path, body, content_type, headers)
        assert isinstance(command, requests.Append)
        return await self.store.transact(needs(command), lambda view: stream.append(view, command, PARSERS))

    async def close(self, path: str, body: bytes = b"") -> Response:
        return await self.append(path, body, stream_closed="true")

    async def delete(self, path: str) -> Response:
        return await self.store.transact(Needs(path), lambda view: stream.delete(view, requests.Delete(path)))

    async def head(self, path: str) -> Response:
        return await self.store.look(path, lambda view: stream.head(view, requests.Head(path)))

    async def stream(self, path: str) -> Stream:
        """The state that a reader gets. Renews nothing."""
        return await self.store.look(path, lambda view: (stream.require(view.stream, view.now), None))

    async def use(self, path: str) -> Stream:
        """The state that a reader gets, renewing a TTL as a read does."""
        return (await self.store.look(path, lambda view: reads.plan(view, START, False))).stream

    async def read(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        """The bytes of a range, window by window."""
        found = await self.stream(path)
        at = found.start if start is None else start
        end = found.visible_tail if end is None else end
        pieces: list[bytes] = []
        while at < end:
            window = await self.store.read(found, at, end)
            assert window and all(window)
            pieces += window
            at += sum(map(len, window))
        assert at == end
        return b"".join(pieces)

    async def spans(self, path: str) -> list[tuple[int, int]]:
        """The appends of a stream, as its readers see them."""
        found = await self.stream(path)
        spans: list[tuple[int, int]] = []
        at = found.start
        while at < found.visible_tail:
            span = await self.store.span(found, at)
            assert span == await self.store.span(found, span[1] - 1)
            spans.append(span)
            at = span[1]
        return spans

    async def trim(self, path: str, start: int) -> None:
        """What retention does."""
        found = await self.stream(path)
        await self.store.transact(Needs(path), lambda view: stream.trim(view, found.id, start))

    async def pass_time(self, seconds: float) -> None:
        self.time.tick += seconds

    async def sweep(self) -> int:
        """Sweep until there is nothing left to do, a little later: a store may put off what nobody sees."""
        await self.pass_time(3)
        removed = found = await self.store.sweep()
        while found:
            found = await self.store.sweep()
            removed += found
        return removed


class Watch:
    """Notes what a watcher is told."""

    def __init__(self, rig: Rig, found: Stream) -> None:
        self.start = found.visible_tail
        self.calls: list[tuple[int, bytes]] = []
        self.ended = False
        self.found = found
        rig.store.watch(found, self)

    def __call__(self, found: Stream, at: int, data: bytes) -> None:
        assert found.id == self.found.id
        if data:
            assert found.visible_tail == at + len(data), "told before readers may see it"
        self.ended = self.ended or found.visible_closed or found.deleted
        self.calls.append((at, data))

    def bytes(self) -> bytes:
        """All it was told, checked to be without gap and overlap."""
        at = self.start
        for begin, data in self.calls:
            if data:
                assert begin == at
                at += len(data)
        return b"".join(data for _, data in self.calls)


def _command(method: str, path: str, body: bytes, content_type: str | None, headers: dict[str, Any]) -> Any:
    fields = {name.replace("_", "-"): str(value) for name, value in headers.items() if value is not None}
    if content_type is not None:
        fields["content-type"] = content_type
    return requests.parse(method, targets.url_path(path), fields, "", body)


def header(response: Response, name: str) -> str | None:
    for found, value in response.headers:
        if found.lower() == name.lower():
            return value
    return None
