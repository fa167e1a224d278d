"""Exactly-once appends that survive power cuts: records wait in an outbox until the server has them.

The store is on a file system (ds_micro.flash says what is guaranteed) or, without a folder, in RAM; the writer machine
decides what to send (ds_core.client.writer); this file carries its requests over a stream's connection.
"""

from ds_core.client.writer import AGAIN, Writer
from ds_micro.net import now
from ds_micro.stream import Backoff, Disconnected, alone, random


class Outbox:
    """`Outbox(path, stream, producer, ...)`: `path` is a folder of its own (made in one that exists), or None for RAM.

    `limit` bytes in all; `when_full` "drop-oldest", "drop-newest" or "refuse"; `sync_every` records are made
    durable at once (1: each). A batch is full with `segment` bytes or `count` records, and due when its oldest
    record is `age` seconds old. `epoch`: of a new outbox. `in_flight`: batches under way at once (in RAM only).

    `error`: why the last flush left something; `writer` has counts; `records` wait, `dropped` had no room.
    `damaged`: bytes that could not be read at the start. A few after a power cut, of a record whose append() had not
    returned; more where flash has lost bits, from the damaged record to the end of its segment.

    `close()` makes everything durable, and lets the files and the folder go.

    `discard()` drops the oldest batch, after flush() raised that the server will not have it, and says how many records
    that were. `close_stream(timeout=30)` sends what waits and closes the stream, exactly once, whether answers are lost
    or the power fails in between; True: it is closed, else `error` says why not; Closed: somebody else has closed it.

    One Outbox per folder: the one that is opened last has it, and one that was opened before gets a RuntimeError. (On
    CPython a folder that another process has open is one at once.) One method at a time: another thread or a callback
    that comes in between gets a RuntimeError. (On asyncio a flush waits for the one before it, and append() is welcome
    at any time.)
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
        if epoch is None:
            epoch = random(0xFFFFFF)
        segment = segment or max(256, min(4096, limit // 16))
        bad = not (age >= 0 and 0 < len(producer) < 257 and min(producer) > "\x1f" and producer.strip() == producer)
        for n in (limit, segment, sync_every, in_flight, count, epoch):
            bad = bad or type(n) is not int or n < 0
        bad = bad or not limit * segment * sync_every * in_flight or epoch >> 52
        bad = bad or path and (in_flight > 1 or limit < 4 * segment or segment < 64)
        if bad or when_full not in ("drop-oldest", "drop-newest", "refuse") or not stream.content_type:
            from ds_micro.trouble import bad_outbox

            bad_outbox(stream, path, producer, when_full, limit, segment, epoch)
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
        self._age = age
        # When the oldest record came. What was here before is as old as can be.
        self._born = -age * 1000 if age and self.store.records else None
        self._later = 0
        self.writer = Writer(self.store, producer, Backoff(random), in_flight)
        self.error = None
        self._idle = [1]

    def __getattr__(self, name):
        if name not in ("records", "dropped"):
            from ds_micro.trouble import method

            return method(self, name)
        return getattr(self.store, name)

    _alone = _keep = alone

    if __debug__:  # not in what is compiled for a device

        def __repr__(self):
            return "<Outbox for %s, %d records>" % (self._stream.url, self.records)

    def append(self, value, raw=False):
        """Keep one record (`raw`: already encoded). On flash, and `sync_every=1`, it is safe when this returns.

        False when it was dropped ("drop-newest"); raises OutboxFull ("refuse"), ValueError when it is too long.
        """
        kept = self._keep(self.store.append, value if raw else self._stream.encode(value))
        if not kept:
            from ds_micro.retry import full

            full(self.store)
        if self._born is None:
            self._born = now()
        return kept

    def due(self):
        """Whether a batch is full, by size or count, or its oldest record older than `age` seconds."""
        return self.store.ready() or self._age > 0 and self._born is not None and now() - self._born >= self._age * 1000

    def flush(self, timeout=30):
        """Send what waits, for at most `timeout` seconds; how many records are left.

        0: everything is on the server. Otherwise `error` says why, or the server asked for a pause. Raises what a retry
        cannot mend (Unauthorized, NotFound, Closed, BadRequest, Fenced, ...); the records are kept.
        """
        # (+ 0: a text times 1000 is a text.)
        return self._alone(lambda: self._stream._run(self._flush(now() + int(timeout * 1000 + 0))))

    async def _flush(self, until):
        stream = self._stream
        writer = self.writer
        waiting = []
        self.error = None
        stream._until = until
        try:
            while True:
                pause = max(0, self._later - now())
                if pause >= until - now():
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
                    from ds_micro.retry import broken

                    broken(self, exc)
                    continue
                outcome = writer.answer(waiting.pop(0), status, headers)
                self.error = None
                if outcome < AGAIN:
                    continue
                if waiting:
                    del waiting[:]
                    stream.drop()
                if outcome > AGAIN or writer.delay:  # else at once, under another number
                    from ds_micro.retry import refused

                    refused(self, status, headers, text, outcome)
        finally:
            if waiting:
                stream.drop()
        return self.store.records
