"""Exactly-once appends that survive power cuts: records wait in an outbox until the server has them.

The store is on a file system (ds_micro.flash says what is guaranteed) or, without a folder, in RAM; the writer machine
decides what to send (ds_core.client.writer); this file carries its requests over a stream's connection.
"""

from ds_core.client.writer import AGAIN, FENCED, Writer
from ds_micro.net import ticks_add, ticks_diff, ticks_ms
from ds_micro.stream import Backoff, Disconnected, random


class Outbox:
    """`Outbox(path, stream, producer, ...)`: `path` is a folder of its own (made in one that exists), or None for RAM.

    `limit` bytes in all; `when_full` "drop-oldest", "drop-newest" or "refuse"; `sync_every` records are made
    durable at once (1: each). A batch is full with `segment` bytes or `count` records, and due when its oldest
    record is `age` seconds old. `epoch`: of a new outbox. `in_flight`: batches under way at once (in RAM only).

    `error`: why the last flush left something; `writer` has counts; and the store's `records` (waiting), `dropped`
    (for want of room), `discard()` (drop the oldest batch, after flush() raised that the server will not have it),
    `close()`.
    """

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
        if when_full not in ("drop-oldest", "drop-newest", "refuse") or not producer or path and in_flight > 1:
            raise ValueError("when_full, producer or in_flight")
        if epoch is None:
            epoch = random(0xFFFFFF)
        segment = segment or max(256, min(4096, limit // 16))
        if path:
            from ds_micro.flash import FlashStore as Store
        else:
            from ds_core.client.memory import MemoryStore as Store
        self.store = Store(
            path or in_flight,
            epoch,
            stream.content_type,
            stream._type == "json",
            limit,
            segment,
            count,
            when_full,
            sync_every,
        )
        self._stream = stream
        self._refuse = when_full == "refuse"
        self._age = age
        self._born = None
        self._later = ticks_ms()
        self.writer = Writer(self.store, producer, Backoff(random), in_flight)
        self.error = None

    def __getattr__(self, name):
        return getattr(self.store, name)

    def append(self, value, raw=False):
        """Keep one record (`raw`: already encoded). On flash, and `sync_every=1`, it is safe when this returns.

        False when it was dropped ("drop-newest"); raises OutboxFull ("refuse"), ValueError when it is too long.
        """
        kept = self.store.append(value if raw else self._stream.encode(value))
        if self._refuse and not kept:
            from ds_core.client.refusals import OutboxFull

            raise OutboxFull("no room in the outbox")
        if self._born is None:
            self._born = ticks_ms()
        return kept

    def due(self):
        """Whether a batch is full, by size or count, or its oldest record older than `age` seconds."""
        if self.store.ready():
            return True
        return self._age > 0 and self._born is not None and ticks_diff(ticks_ms(), self._born) >= self._age * 1000

    def flush(self, timeout=30):
        """Send what waits, for at most `timeout` seconds; how many records are left.

        0: everything is on the server. Otherwise `error` says why, or the server asked for a pause. Raises what a retry
        cannot mend (Unauthorized, NotFound, Closed, BadRequest, Fenced, ...); the records are kept.
        """
        return self._stream._run(self._flush(int(timeout * 1000)))

    async def _flush(self, limit):
        stream = self._stream
        writer = self.writer
        waiting = []
        self.error = None
        stream._until = ticks_add(ticks_ms(), limit)
        try:
            while True:
                now = ticks_ms()
                pause = ticks_diff(self._later, now)
                if not 0 < pause <= 3600000:
                    pause = 0  # no delay is longer: the clock went round since
                if pause >= ticks_diff(stream._until, now):
                    break
                if pause:
                    await stream._conn.sleep(pause)
                try:
                    batch = writer.request(len(waiting))
                    if batch:
                        await stream._send("POST", writer.headers(batch), batch, (), waiting)
                        waiting.append(batch)
                        continue
                    if not waiting:
                        self._born = None
                        break
                    status = await stream._answer()
                    headers = stream._parser.headers
                    text = await stream._text()
                except Disconnected as exc:
                    del waiting[:]
                    self.error = exc
                    writer.broken()
                    if not stream._dead:
                        self._later = ticks_add(ticks_ms(), writer.delay)
                    continue  # a kept connection was found dead: at once, on a new one
                outcome = writer.answer(waiting.pop(0), status, headers)
                self.error = None
                if outcome < AGAIN:
                    continue
                if waiting:
                    del waiting[:]
                    stream.drop()
                from ds_core.client.refusals import error_for

                self.error = error_for(status, headers, text, stream.url, outcome == FENCED)
                if outcome != AGAIN:
                    raise self.error
                self._later = ticks_add(ticks_ms(), writer.delay)
        finally:
            stream._until = None
            if waiting:
                stream.drop()
        return self.store.records
