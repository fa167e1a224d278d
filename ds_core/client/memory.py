"""A Writer's store in RAM: batches of records, lost with the power (see ds_core.client.writer)."""

from ds_core.wire.kinds import kind_of

_OPEN = {"json": b"[", "cbor": b"", "bytes": b""}


class _Batch:
    def __init__(self, kind: int, content_type: str) -> None:
        self._json = kind
        self._data = bytearray()
        self._at = 0
        self.type = content_type
        self.epoch = self.seq = -1
        self.count = 0

    @property
    def length(self) -> int:
        return len(self._data) + self._json

    def add(self, record: bytes) -> None:
        if self._json:
            record = (b"," if self.count else b"[") + record
        self._data.extend(record)  # all of it or, without memory, nothing
        self.count += 1

    def readinto(self, view: memoryview) -> int:
        part = memoryview(self._data)[self._at : self._at + len(view)]
        n = len(part)
        view[:n] = part
        if n < len(view) and self._at + n < self.length:
            view[n] = 93  # ]
            n += 1
        self._at += n
        return n


class MemoryStore:
    """`limit` bytes in all, `size` bytes or `count` records to a batch (0: no limit).

    The oldest `keep` batches, which may be under way, are never dropped. `full` ("drop-oldest", "drop-newest",
    "refuse") decides when there is no room; `dropped` counts records. `epoch` and `content_type` are of the batches;
    `json` says that a batch is one array: ValueError where the content type says otherwise.
    """

    def __init__(
        self,
        keep: int,
        epoch: int,
        content_type: str,
        json: bool,
        limit: int,
        size: int,
        count: int,
        full: str,
        _: int = 0,
    ) -> None:
        if json != (kind_of(content_type) == "json"):
            raise ValueError("json=%s: the records are of %s" % (json, content_type or "no content type"))
        self._epoch = epoch
        self._seq = 0  # of the oldest batch
        self._type = content_type
        self._json = 1 if json else 0
        self._limit = limit
        self._size = size
        self._count = count
        self._full = full
        self._keep = keep
        self._batches: list[_Batch] = []
        self._sealed = 0  # how many of them may not grow
        self.bytes = self.records = self.dropped = 0

    def append(self, record: bytes) -> bool:
        """False when it was dropped, or is refused, for want of room."""
        need = len(record) + self._json
        if not record or need > self._limit:
            raise ValueError("a record has 1 to %d bytes (see limit)" % (self._limit - self._json))
        while self.bytes + need > self._limit:
            at = max(self._keep, 0)
            if self._full != "drop-oldest" or at >= len(self._batches):
                if self._full != "refuse":
                    self.dropped += 1
                return False
            self.dropped += self._batches[at].count
            self._remove(at)
        last = self._batches[-1] if self._batches else None
        if (
            last is None
            or self._sealed == len(self._batches)
            or (self._count and last.count >= self._count)
            or (last.length + need > self._size)
        ):
            last = _Batch(self._json, self._type)
            last.add(record)
            self._batches.append(last)
        else:
            last.add(record)
        self.bytes += need
        self.records += 1
        return True

    def ready(self) -> bool:
        """Whether a batch is full."""
        if len(self._batches) > 1:
            return True
        return bool(self._batches) and 0 < self._count <= self._batches[0].count

    def batch(self, i: int) -> _Batch | None:
        """The i-th oldest batch, which takes no more records from now on; None when there is none."""
        if i >= len(self._batches):
            return None
        batch = self._batches[i]
        if i >= self._sealed:
            self._sealed = i + 1
        batch._at = 0
        batch.epoch = self._epoch
        batch.seq = self._seq + i
        return batch

    def done(self) -> None:
        """The oldest batch was accepted: forget it."""
        self._seq += 1
        self._remove(0)

    def discard(self) -> int:
        """Drop the oldest batch; how many records that were.

        Nobody may know whether the server has its number. Where the next ones cannot have been sent they get an epoch
        of their own; else theirs stay, and the server tells whether it misses one.
        """
        if not self._batches:
            return 0
        count = self._batches[0].count
        self.dropped += count
        if self._sealed > 1:
            self._seq += 1
        else:
            self.claim(self._epoch + 1)
        self._remove(0)
        return count

    def claim(self, epoch: int) -> None:
        """Number all batches anew, from (epoch, 0) on."""
        self._epoch = epoch
        self._seq = 0

    def close(self) -> None:
        """Nothing to do; a store on flash has."""

    def _remove(self, i: int) -> None:
        batch = self._batches.pop(i)
        if i < self._sealed:
            self._sealed -= 1
        self.bytes -= len(batch._data)
        self.records -= batch.count
