"""Exactly-once appends: which batch to send next, and what the server's answer means (protocol sections 4 and 5).

A batch is one POST. Its (epoch, seq) is fixed before it is first sent and kept until it is answered, so that a retry is
the same request and the server drops it if it had it. The batches live in a store (in RAM or on flash), oldest first:

    store.batch(i)      the i-th oldest batch, sealed from now on; None when there is none. It has epoch, seq, count,
                        length and type (attributes), and readinto(view), which begins anew with each call of batch()
    store.done()        the oldest was accepted: forget it
    store.claim(epoch)  number all batches anew: (epoch, 0), (epoch, 1), ...; durable before it returns

A fresh store starts with a random epoch. Were it always 0, a device whose flash was erased would send sequence
numbers that the server has seen, and have new records dropped as duplicates.

An answer counts only when it is this batch's: a server echoes the request's epoch, and the batch's seq (of a duplicate:
the last one that it has). An answer to another request, which came late or twice, says nothing about this one.

Limits: two devices under one producer id take the id from each other; a batch of which the answer was lost, and whose
id was then taken, is sent once more. The server's memory of a producer is assumed to last: a gap (409, the server
expects less than we ask for) means it lost batches it had acknowledged; these are gone here too, so the rest goes on
under a new epoch, and `gaps` counts it.
"""

# What an answer means for the oldest batch:
#   DONE       the server has it
#   DUPLICATE  it had it, from an earlier attempt
#   AGAIN      send the same batch again, `delay` ms later
#   REFUSED    the caller must change something; the batch is kept
#   FENCED     refused, for somebody else uses the producer id
DONE, DUPLICATE, AGAIN, REFUSED, FENCED = range(1, 6)


class Writer:
    """`depth`: how many batches may be under way at once, on one connection, in order (1 on a device).

    `delay` is how many ms to wait before the next `request()`, 0 for none. Counts: `sent` batches acknowledged,
    `duplicates` of these, `claims` of an epoch within some 16 batches, `gaps`.

    What an answer means for the oldest batch is DONE (the server has it), DUPLICATE (it had it before), AGAIN (send it
    again, `delay` ms later), REFUSED (the caller must change something; it is kept) or FENCED (somebody else uses the
    producer id).
    """

    def __init__(self, store, producer: str, backoff, depth: int = 1) -> None:  # type: ignore[no-untyped-def]
        self._store = store
        self._producer = producer
        self._backoff = backoff
        self._depth = depth
        self.delay = self.sent = self.duplicates = self.claims = self.gaps = self._since = 0

    def request(self, under_way: int = 0):  # type: ignore[no-untyped-def]
        """The batch to send after those `under_way`, or None while there is none or `depth` are under way."""
        return self._store.batch(under_way) if under_way < self._depth else None

    def headers(self, batch) -> tuple[tuple[str, object], ...]:  # type: ignore[no-untyped-def]
        """The headers of its request."""
        return (
            ("Content-Type", batch.type),
            ("Producer-Id", self._producer),
            ("Producer-Epoch", batch.epoch),
            ("Producer-Seq", batch.seq),
            ("Content-Length", batch.length),
        )

    def broken(self, retry_after: str | None = None) -> None:
        """The connection broke, or the server asked to come later: send all that was under way again."""
        self.delay = self._backoff.delay(retry_after)

    def answer(self, batch, status: int, headers: dict[str, str]) -> int:  # type: ignore[no-untyped-def]
        """The answer to the oldest batch under way. After anything but DONE and DUPLICATE, close the connection if
        others are under way: their answers mean nothing any more. After AGAIN without a reason to wait (408, 429, 5xx)
        close it in any case: what came was an answer to something else.
        """
        if status in (200, 201) and headers.get("producer-epoch") == str(batch.epoch):
            if headers.get("producer-seq") == str(batch.seq):
                return self._done(DONE)
        from ds_core.client.verdicts import verdict

        return verdict(self, batch, status, headers, self._depth)

    def _done(self, how: int) -> int:
        self._store.done()
        self._backoff.reset()
        self.sent += 1
        self.delay = 0
        return how
