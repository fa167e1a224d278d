"""Exactly-once appends of applications: many callers, one producer, batches, several of these under way.

A producer is the device's outbox in RAM. Whoever waits for an acknowledgement first sends, what others have put in
meanwhile with it, until its own records are acknowledged; then another one who waits goes on. So there is no task or
thread of its own, in whichever way one waits, and nobody sends for the others for ever.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ds_core.client.backoff import Backoff
from ds_core.client.errors import Disconnected, StreamError
from ds_core.client.memory import MemoryStore
from ds_core.client.refusals import OutboxFull, Timeout
from ds_core.client.writer import AGAIN, Writer
from ds_micro import run
from ds_micro.closing import closing
from ds_micro.net import now
from ds_micro.outbox import Outbox
from ds_micro.stream import random

from .hints import Helpful, helpful
from .lines import Result

if TYPE_CHECKING:
    from .handles import Handle
    from .lines import Line


class _Store(MemoryStore):
    """One that is filled by others while somebody sends from it. `longest`: bytes of a record that can be kept."""

    def __init__(self, *args: Any) -> None:
        self.lock = threading.RLock()
        super().__init__(*args)
        self.longest = self._limit - self._json

    def append(self, record: bytes) -> bool:
        with self.lock:
            return super().append(record)

    def batch(self, i: int) -> Any:
        with self.lock:
            return super().batch(i)

    def done(self) -> None:
        with self.lock:
            super().done()

    def discard(self) -> int:
        with self.lock:
            return super().discard()


class _Writer(Writer):
    """Sends up to a record's number, and says which were acknowledged, and of which batches that is not known."""

    def __init__(self, store: _Store, acknowledged: Callable[[int, Result], None], *args: Any) -> None:
        super().__init__(store, *args)
        self._batches = store
        self._acknowledged = acknowledged
        self.left = 0  # how many records of the oldest are to be sent
        self._asked: list[Any] = []
        self.unsure: list[Any] = []  # batches of which an answer was lost: the stream may have them

    def request(self, under_way: int = 0) -> Any:
        with self._batches.lock:
            before = sum(batch.count for batch in self._batches._batches[:under_way])
        batch = super().request(under_way) if before < self.left else None
        if batch is not None:
            self._asked.append(batch)
        return batch

    def broken(self, retry_after: str | None = None) -> None:
        self.unsure += [each for each in self._asked if each not in self.unsure]
        self._asked.clear()
        super().broken(retry_after)

    def answer(self, batch: Any, status: int, headers: dict[str, str]) -> int:
        count = batch.count
        self._asked = [each for each in self._asked if each is not batch]
        outcome = super().answer(batch, status, headers)
        if outcome < AGAIN:
            self.unsure = [each for each in self.unsure if each is not batch]
            self.left -= count
            self._acknowledged(count, Result(status, headers))
        return outcome


class _Wait:
    """Somebody who waits for the records `first` to `last`, counted from 1 on."""

    def __init__(self, first: int, last: int) -> None:
        self.first = first
        self.last = last
        self.event: Any = None
        self.result: Result | None = None
        self.error: StreamError | None = None


class _Producer(Helpful):
    elsewhere: ClassVar[dict[str, str]] = {"send": "put() keeps a record, append() has it acknowledged"}

    def __init__(
        self, stream: Handle, id: str, batch_bytes: int, limit: int, in_flight: int, epoch: int | None
    ) -> None:
        self.id = id
        self._stream = stream
        self._limits = (limit, batch_bytes, in_flight)
        self._epoch = random(0xFFFFFF) if epoch is None else epoch
        if limit < 1 or batch_bytes < 1:
            raise ValueError("limit, batch_bytes: from 1 on")
        self._box: Any = None
        self._lock = threading.RLock()
        self._waits: list[_Wait] = []
        self._sending = False
        self._put = self._gone = self._flushed = 0  # records taken, acknowledged or refused, and told by flush
        self._error: StreamError | None = None  # of records that nobody waited for
        self._make(stream.content_type or "text/plain")  # what is wrong is told here
        if stream.content_type is None:
            self._box = None

    def _make(self, content_type: str) -> None:
        limit, size, depth = self._limits
        if self._stream._link._settings.proxy:
            depth = 1  # not every proxy knows of several requests at once
        shape = Outbox.__new__(Outbox)
        line = self._stream._link._line()
        line.about(self._stream.url, self._stream._target, content_type)
        shape.__init__(None, line, self.id, limit, "refuse", 1, size, 0, 0, self._epoch, depth)  # type: ignore[misc]
        store = _Store(depth, self._epoch, content_type, line._type == "json", limit, size, 0, "refuse")
        shape.store = store
        shape.writer = _Writer(store, self._acknowledged, self.id, Backoff(random), depth)
        self._line = line  # it encodes
        self._box = shape

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r} of {self._stream.url}, {self.pending} pending>"

    @property
    def pending(self) -> int:
        """How many records are not acknowledged yet."""
        return self._put - self._gone

    def _keep(self, records: list[bytes]) -> _Wait:
        """Keep the first of these, as many as there is room for, and take them off: to wait for."""
        with self._lock:
            first = self._put + 1
            while records and self._box.store.append(records[0]):
                self._put += 1
                del records[0]
            return self._wait(first, self._put)

    def _wait(self, first: int, last: int) -> _Wait:
        """A place for what becomes of these records, to be given to `_acknowledge` or taken out of `_waits`."""
        wait = _Wait(first, last)
        with self._lock:
            self._waits.append(wait)
        return wait

    def _encoded(self, values: tuple[Any, ...], raw: bool) -> list[bytes]:
        """All of them, or none: what can't be kept is told before anything is."""
        if not values:
            raise ValueError("nothing to append")
        if raw:
            records = [bytes(value) if isinstance(value, (bytearray, memoryview)) else value for value in values]
            for record in records:
                if not isinstance(record, bytes):
                    raise TypeError(f"raw values are bytes, not {type(record).__name__}")
                if self._line._type == "json":
                    json.loads(record)  # or it would spoil the batch that others' are in
        else:
            records = [self._line.encode(value) for value in values]
        most = self._box.store.longest
        for record in records:
            if not 0 < len(record) <= most:
                raise ValueError(f"a record has 1 to {most} bytes (see limit)")
        return records

    def _put_now(self, values: tuple[Any, ...], raw: bool) -> None:
        if self._box is None:
            raise RuntimeError(
                "the stream's content type is not known yet: name it, session.stream(path, content_type), or append()"
            )
        records = self._encoded(values, raw)
        self._forget(self._keep(records))
        if records:
            text = f"no room for the last {len(records)}, {self.pending} records wait: flush()"
            raise OutboxFull(text, url=self._stream.url)

    async def _known(self) -> None:
        """Find out the stream's content type, once for all who are here first."""
        if self._box is None:
            await self._stream._head()
            with self._lock:
                if self._box is None:
                    self._make(self._stream.content_type or "")

    async def _append(self, values: tuple[Any, ...], raw: bool, timeout: float) -> Result:
        until = now() + int(timeout * 1000)
        await self._known()
        records = self._encoded(values, raw)
        while True:
            wait = self._keep(records)
            if wait.last < wait.first:  # no room: until there is
                self._forget(wait)
                oldest = self._wait(self._gone + 1, self._gone + 1)
                try:
                    await self._acknowledge(oldest, until)
                except StreamError as exc:
                    if exc is not oldest.error:  # what refuses others makes room
                        text = f"no room in time: the last {len(records)} of this call are not kept"
                        raise OutboxFull(text, url=self._stream.url) from exc
                continue
            result = await self._acknowledge(wait, until)
            if not records:
                assert result is not None, "nobody was told of these records"
                return result

    async def _flush(self, timeout: float) -> None:
        if self._box is not None:
            first, self._flushed = self._flushed + 1, self._put
            await self._acknowledge(self._wait(first, self._put), now() + int(timeout * 1000))
        error, self._error = self._error, None
        if error:
            raise error

    async def _acknowledge(self, wait: _Wait, until: int) -> Result | None:
        """Wait until these records are acknowledged, and send while nobody else does; the answer to the last of them,
        None where there were none. Raises what refused them."""
        waiting = self._stream._link._waiting
        last = wait.last
        try:
            while self._gone < last and not wait.error:
                with self._lock:
                    wait.event = waiting.event()
                    mine = not self._sending and self._gone < last
                    self._sending = self._sending or mine
                if mine:
                    try:
                        await self._send(last, until)
                    finally:
                        with self._lock:
                            self._sending = False
                elif self._gone < last and not wait.error and not await waiting.wait(wait.event, until - now()):
                    raise self._late()
        finally:
            self._forget(wait)
        if wait.error:
            raise wait.error
        return wait.result

    def _forget(self, wait: _Wait) -> None:
        """Wait no more; another one who waits goes on."""
        with self._lock:
            self._waits.remove(wait)
            for other in self._waits[:1]:
                if other.event is not None:
                    other.event.set()

    async def _send(self, last: int, until: int) -> None:
        refused = await self._lead(lambda box: box._flush(until), last) is None
        if self._gone < last and not refused:
            raise self._late()

    def _late(self) -> StreamError:
        why = self._box.error
        text = "not acknowledged in time, and kept: what is appended next sends it again"
        if why:
            text += f"; {why}"
        return Timeout(text, url=self._stream.url)

    async def _lead(self, flow: Callable[[Any], Coroutine[Any, Any, Any]], last: int) -> Any:
        """An outbox's flow, on a line of the pool's. None: a batch was refused for good, dropped, and told to those who
        wait for it.
        """
        box = self._box
        pool = self._stream._link._requests
        line: Line = await pool.take(self._stream.url)
        try:
            line.about(self._stream.url, self._stream._target, box.store._type)
            box._stream = line
            box.writer.left = last - self._gone
            try:
                return await flow(box)
            except Disconnected:
                raise  # nobody knows: kept
            except StreamError as exc:
                if not box.store.records:
                    raise
                oldest = box.store._batches[0]
                if oldest in box.writer.unsure:
                    box.writer.unsure.remove(oldest)
                    exc.add_note("the answer to an earlier attempt was lost: the stream may have this batch")
                self._refused(box.store.discard(), exc)
                return None
        finally:
            pool.give(line)

    def _acknowledged(self, count: int, result: Result) -> None:
        with self._lock:
            self._gone += count
            for wait in self._waits:
                if wait.last <= self._gone and not wait.result:
                    wait.result = result
                    if wait.event is not None:
                        wait.event.set()

    def _refused(self, count: int, error: StreamError) -> None:
        with self._lock:
            first = self._gone + 1
            self._gone += count
            told = False
            for wait in self._waits:
                if wait.first <= self._gone and wait.last >= first:
                    wait.error = error
                    told = True
                    if wait.event is not None:
                        wait.event.set()
            if not told:
                self._error = error

    async def _seal(self, timeout: float) -> None:
        until = now() + int(timeout * 1000)
        await self._known()
        await self._acknowledge(self._wait(1, self._put), until)
        with self._lock:
            if self._sending:
                raise RuntimeError("appends are under way")
            self._sending = True
        try:
            if not await self._lead(lambda box: closing(box, until), self._put):
                raise self._late()
        finally:
            with self._lock:
                self._sending = False


@helpful
class Producer(_Producer):
    """Exactly-once appends to a stream, for threads: `stream.producer(id)`, `id` being nobody else's for this stream.

    `append` returns when the server has it. Appends of several threads go out together, in batches of `batch_bytes`,
    `in_flight` at once. When one raises a Timeout or Disconnected, its records are kept, and whatever is appended or
    flushed next sends them again, as the same batch; when one raises a refusal (TooLarge, Closed, NotFound, ...), its
    batch is dropped, and was not written; unless an answer to it had been lost before, and the stream was closed or
    deleted since: then nobody knows, and a note on the error says so. What can't be kept (too long, not of the stream's
    type) is a ValueError or TypeError, and nothing of that call is. OutboxFull: there was no room in time; it says what
    is not kept. `put` returns at once; up to `limit` bytes wait. Records die with the process: what must survive is for
    `ds_micro.Outbox`.
    """

    def append(self, *values: Any, raw: bool = False, timeout: float = 30) -> Result:
        """Append these values, and wait until the server has them; `offset` is after the batch they were in."""
        return run(self._append(values, raw, timeout))

    def put(self, *values: Any, raw: bool = False) -> None:
        """Keep these values, for the next `append` or `flush`. OutboxFull: too many wait."""
        self._put_now(values, raw)

    def flush(self, timeout: float = 30) -> None:
        """Wait until the server has all that was put."""
        run(self._flush(timeout))

    def seal(self, timeout: float = 30) -> None:
        """Send what waits, and close the stream for good, exactly once. Closed: somebody else has closed it."""
        run(self._seal(timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.flush()


@helpful
class AsyncProducer(_Producer):
    """As `Producer`, for the tasks of an event loop. One that is cancelled while it waits leaves its records there."""

    async def append(self, *values: Any, raw: bool = False, timeout: float = 30) -> Result:
        """As `Producer.append`."""
        return await self._append(values, raw, timeout)

    def put(self, *values: Any, raw: bool = False) -> None:
        """As `Producer.put`; not to be awaited."""
        self._put_now(values, raw)

    async def flush(self, timeout: float = 30) -> None:
        """As `Producer.flush`."""
        await self._flush(timeout)

    async def seal(self, timeout: float = 30) -> None:
        """As `Producer.seal`."""
        await self._seal(timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.flush()
