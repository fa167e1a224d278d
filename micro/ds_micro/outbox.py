"""Exactly-once appends that survive power cuts: records wait in an outbox until the server has them.

The store is on a file system (ds_micro.flash says what is guaranteed) or, without a folder, in RAM; the writer machine
decides what to send (ds_core.client.writer); this file carries its requests over a stream's connection.
"""

from ds_core.client.backoff import Backoff
from ds_core.client.errors import Disconnected, Fenced, OutboxFull, Timeout, error_for
from ds_core.client.writer import AGAIN, DONE, DUPLICATE, FENCED, Writer
from ds_micro.net import ticks_diff, ticks_ms
from ds_micro.stream import random


class Box:
    """See `ds_micro.Outbox` for the parameters. `error`: why the last flush left something, `writer`: its counts."""

    def __init__(
        self,
        path,
        stream,
        producer,
        limit=65536,
        when_full="drop-oldest",
        sync_every=1,
        segment=0,
        count=0,
        age=0,
        epoch=None,
        in_flight=1,
    ):
        if when_full not in ("drop-oldest", "drop-newest", "refuse") or not producer or sync_every < 1:
            raise ValueError("bad when_full, producer or sync_every")
        if epoch is None:
            epoch = random(1 << 30)
        segment = segment or max(256, min(4096, limit // 16))
        json = stream._type == "json"
        if path:
            if in_flight != 1:
                raise ValueError("an outbox on flash has one batch in flight")
            from ds_micro.flash import FlashStore

            self.store = FlashStore(
                path, epoch, stream.content_type, json, limit, segment, count, when_full, sync_every
            )
        else:
            from ds_core.client.memory import MemoryStore

            self.store = MemoryStore(
                epoch, stream.content_type, json, limit, segment, count, when_full, in_flight
            )
        self._stream = stream
        self._refuse = when_full == "refuse"
        self._age = int(age * 1000)
        self._born = None
        self._later = ticks_ms()
        self.writer = Writer(self.store, producer, Backoff(random), in_flight)
        self.error = None

    @property
    def dropped(self):
        """How many records were dropped for want of room, or discarded."""
        return self.store.dropped

    @property
    def records(self):
        """How many records wait."""
        return self.store.records

    def append(self, value, raw=False):
        """Keep one record (`raw`: already encoded). On flash, and `sync_every=1`, it is safe when this returns.

        False when it was dropped ("drop-newest"); raises OutboxFull ("refuse"), ValueError when it is too long.
        """
        kept = self.store.append(value if raw else self._stream.encode_one(value))
        if not kept and self._refuse:
            raise OutboxFull("no room in the outbox")
        if self._born is None:
            self._born = ticks_ms()
        return kept

    def due(self):
        """Whether a batch is full, by size or count, or its oldest record older than `age` seconds."""
        return self.store.ready() or (
            self._age > 0 and self._born is not None and ticks_diff(ticks_ms(), self._born) >= self._age
        )

    def discard(self):
        """Drop the oldest batch, after flush() raised that the server will not have it."""
        self.store.discard()

    async def flush(self, timeout=30):
        """Send what waits, for at most `timeout` seconds; how many records are left.

        0: everything is on the server. Otherwise `error` says why, or the server asked for a pause. Raises what a retry
        cannot mend (Unauthorized, NotFound, Closed, BadRequest, Fenced, ...); the records are kept.
        """
        stream = self._stream
        writer = self.writer
        start = ticks_ms()
        limit = int(timeout * 1000)
        waiting = []
        self.error = None
        try:
            while True:
                left = limit - ticks_diff(ticks_ms(), start)
                pause = ticks_diff(self._later, ticks_ms())
                if pause > 0:
                    if pause >= left:
                        break
                    await stream._conn.sleep(pause)
                    left -= pause
                stream._until = ticks_ms() + left
                reused = False
                try:
                    batch = writer.request()
                    if batch:
                        reused = await stream._send("POST", writer.headers(batch), batch, more=bool(waiting))
                        waiting.append(batch)
                        if not writer.full:
                            continue
                    if not waiting:
                        self._born = None
                        break
                    status = await stream._answer()
                    headers = stream._parser.headers
                    text = await stream._text()
                except Disconnected as exc:
                    waiting.clear()
                    self.error = exc
                    writer.broken()
                    if not reused or stream._heard or isinstance(exc, Timeout):
                        self._later = ticks_ms() + writer.delay
                    continue
                outcome = writer.answer(waiting.pop(0), status, headers)
                if outcome in (DONE, DUPLICATE):
                    self.error = None
                    continue
                if waiting:
                    waiting.clear()
                    stream.drop()
                error = error_for(status, headers, text, stream.url)
                if outcome == FENCED:
                    raise Fenced(error.message, status, "Fenced", stream.url)
                if outcome != AGAIN:
                    raise error
                self.error = error
                self._later = ticks_ms() + writer.delay
        finally:
            stream._until = None
            if waiting:
                stream.drop()
        return self.store.records
