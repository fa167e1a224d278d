"""What `ds append` sends: records from arguments, files and pipes, and the batches they travel in.

A pipe is never waited for while a batch could leave: what is there is sent, and while that is on its way more gathers.
So a slow pipe is live and a fast one fills its batches, without a setting for either.

`Batches` is a store for the client's writer (ds_core.client.writer). With a state file, a batch's number and extent are
on disk before it is first sent, and an input that is read again after a crash is cut the same way: what is sent again
under an old number is what was sent before. The file also has a checksum of all that was acknowledged, so that another
input is refused rather than skipped into.
"""

import math
import os
import select
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from zlib import crc32

from ds_core.wire import cbor

from . import saved
from .saved import SavedError

CHUNK = 1 << 16
Hold = AbstractContextManager[None, None]
"""Entered for as long as nothing may come between: a signal, here."""


class InputError(Exception):
    """The input is not what it was said to be."""


# Records out of bytes. A record is its bytes as they are appended; in `Raw`, any piece.


class Lines:
    """One record for each line, made by `encode`; `blank` lines count or not."""

    def __init__(self, encode: Callable[[bytes], bytes], blank: bool) -> None:
        self._encode = encode
        self._blank = blank
        self._begun: list[bytes] = []  # of a line that has no end yet: it may be long
        self.number = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        first, *lines = data.split(b"\n")
        self._begun.append(first)
        if lines:
            lines.insert(0, b"".join(self._begun))
            self._begun = [lines.pop()]
        return self._records(lines)

    def end(self) -> Iterator[bytes]:
        rest = b"".join(self._begun)
        return self._records([rest] if rest else [])

    def _records(self, lines: list[bytes]) -> Iterator[bytes]:
        for line in lines:
            self.number += 1
            if self._blank or line.strip():
                try:
                    yield self._encode(line)
                except (ValueError, TypeError, RecursionError) as exc:
                    raise InputError(f"line {self.number}: {exc}") from None


class Items:
    """One record for each CBOR item."""

    def __init__(self) -> None:
        self._decoder = cbor.Decoder(max_bytes=cbor.NO_LIMIT)
        self._data = bytearray()
        self._start = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        decoder = self._decoder
        decoder.feed(data)
        self._data += data
        at = 0
        try:
            while decoder.next() is not cbor.NEED_DATA:
                end = decoder.consumed - self._start
                yield bytes(self._data[at:end])
                at = end
        except cbor.CBORError as exc:
            raise InputError(f"not a sequence of CBOR items: {exc}") from None
        del self._data[:at]
        self._start += at

    def end(self) -> Iterator[bytes]:
        if self._data:
            raise InputError(f"the input ends within the CBOR item begun at byte {self._start}")
        yield from ()


class Raw:
    """Pieces as they come."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        return iter((data,) if data else ())

    def end(self) -> Iterator[bytes]:
        return iter(())


Splitter = Lines | Items | Raw


class Source:
    """`records` that are there already, then those of files, "-" being standard input.

    `total`: the files' size in bytes, if it is known; `taken`: how much of it was read. `close()` when done.
    """

    def __init__(self, files: Iterable[str], splitter: Callable[[], Splitter], records: Iterable[bytes] = ()) -> None:
        self._files = list(files)
        self._new_splitter = splitter
        self._fd = -1
        self._name = ""
        self._splitter = splitter()
        self._records = deque(records)
        self._trouble: InputError | None = None
        self.taken = 0
        self.total: int | None = 0
        for file in self._files:
            # All are looked at before anything is sent.
            size = self._size(file)
            self.total = None if size is None or self.total is None else self.total + size

    @staticmethod
    def _size(file: str) -> int | None:
        if file == "-":
            if sys.stdin is None:
                raise InputError("standard input is closed")
            size = os.fstat(0).st_size
        else:
            size = os.stat(file).st_size
            with open(file, "rb"):
                pass
        return size or None

    def _gather(self, records: Iterator[bytes]) -> None:
        # What comes before the trouble is still appended.
        if self._trouble is None:
            try:
                for record in records:
                    self._records.append(record)
            except InputError as exc:
                self._trouble = InputError(f"{self._name}: {exc}")
                self._files.clear()

    def next(self, wait: bool) -> bytes | None:
        """The next record; None when there is none at all, or, without `wait`, not yet. Raises InputError, OSError."""
        while not self._records:
            if self._trouble:
                raise self._trouble
            if self._fd < 0:
                if not self._files:
                    return None
                file = self._files.pop(0)
                self._fd = 0 if file == "-" else os.open(file, os.O_RDONLY)
                self._name = "standard input" if file == "-" else file
                self._splitter = self._new_splitter()
            if not wait and not select.select([self._fd], [], [], 0)[0]:
                return None
            data = os.read(self._fd, CHUNK)
            if data:
                self.taken += len(data)
                self._gather(self._splitter.feed(data))
            else:
                self.close()
                self._gather(self._splitter.end())
        return self._records.popleft()

    def put_back(self, record: bytes) -> None:
        self._records.appendleft(record)

    def close(self) -> None:
        if self._fd > 0:
            os.close(self._fd)
        self._fd = -1


class State:
    """The file that lets a run go on where another stopped.

    `done` units of the input (records; bytes of raw input) are acknowledged and have checksum `crc`; `pending` are the
    extents of the batches that came next, the first of which has number (`epoch`, `seq`).
    """

    def __init__(self, path: str, stream: str, producer: str, unit: str) -> None:
        self._path = path
        self._who = {"stream": stream, "producer": producer, "unit": unit}
        self.epoch: int | None = None
        self.seq = self.done = self.crc = 0
        self.pending: list[int] = []
        saved.load(path, "state file", self._who, self._take)

    def _take(self, found: dict[str, Any]) -> None:
        self.epoch, self.seq, self.done, self.crc = (int(found[key]) for key in ("epoch", "seq", "done", "crc"))
        self.pending = [int(size) for size in found["pending"]]

    def save(self) -> None:
        numbers = {"epoch": self.epoch, "seq": self.seq, "done": self.done, "crc": self.crc, "pending": self.pending}
        saved.save(self._path, self._who, numbers)


class Batch:
    """One POST. `units`: how much of the input it is; `crc`: the checksum of the input up to its end."""

    def __init__(self, content_type: str, body: bytes, records: int, units: int, crc: int) -> None:
        self.type = content_type
        self.body = body
        self.records = records
        self.units = units
        self.crc = crc
        self.length = len(body)
        self.epoch = self.seq = -1
        self.at = 0  # what was sent of it

    def readinto(self, view: Any) -> int:
        part = self.body[self.at : self.at + len(view)]
        view[: len(part)] = part
        self.at += len(part)
        return len(part)


class Batches:
    """The batches of an input, oldest first: a Writer's store.

    `size`: bytes of a batch, more only for a record that is longer. `acknowledged`: records (pieces, of raw input),
    `sent`: their bytes, `skipped`: units that an earlier run had appended. After `until` (monotonic time) no batch is
    added, so that a flush ends between batches. `trouble`: what is wrong with the rest of the input.
    """

    def __init__(
        self, source: Source, content_type: str, json: bool, raw: bool, size: int, epoch: int, hold: Hold
    ) -> None:
        self._source = source
        self._hold = hold
        self._type = content_type
        self._json = json
        self._raw = raw
        self._size = size
        self._batches: deque[Batch] = deque()
        self._seq = 0
        self._epoch = epoch
        self._crc = 0
        self._state: State | None = None
        self._again: deque[int] = deque()
        self.until = math.inf
        self.acknowledged = self.sent = self.skipped = 0
        self.trouble: Exception | None = None

    def resume(self, state: State) -> None:
        """Go on after what the state says is appended. Raises SavedError when this input does not begin with that."""
        self._state = state
        if state.epoch is None:
            return
        # An earlier run under these numbers is not there any more, or is fenced off by the server.
        self._epoch = state.epoch
        self._seq = state.seq
        left = state.done
        if left:
            _, _, left = self._take(left, None, True)
            if left or self._crc != state.crc:
                raise SavedError(f"the input does not begin with the {state.done} {self._unit} appended before")
        self.skipped = state.done
        self._again.extend(state.pending)

    @property
    def _unit(self) -> str:
        return "bytes" if self._raw else "records"

    # The store

    @property
    def records(self) -> int:
        """How many records wait for an answer."""
        return sum(batch.records for batch in self._batches)

    def batch(self, i: int) -> Batch | None:
        if i >= len(self._batches) and (time.monotonic() > self.until or not self._make(False)):
            return None
        batch = self._batches[i]
        batch.at = 0
        batch.epoch = self._epoch
        batch.seq = self._seq + i
        return batch

    def done(self) -> None:
        with self._hold:
            batch = self._batches.popleft()
            self._seq += 1
            self.acknowledged += batch.records
            self.sent += batch.length
            if self._state:
                self._state.done += batch.units
                self._state.crc = batch.crc
                # Saved with the next batch, or at the end: until then this one would be sent again, and dropped.

    def claim(self, epoch: int) -> None:
        with self._hold:
            self._epoch = epoch
            self._seq = 0
            self.save()

    def cut_anew(self) -> None:
        """The server will not take the oldest batch, nor what came after it: the next run may cut them otherwise."""
        self._batches.clear()
        self._again.clear()

    # Filling

    def wait(self) -> bool:
        """Wait for input; False at its end."""
        return bool(self._batches) or self._make(True)

    def save(self) -> None:
        state = self._state
        if state:
            state.epoch = self._epoch
            state.seq = self._seq
            state.pending = [batch.units for batch in self._batches] + list(self._again)
            state.save()

    def _make(self, wait: bool) -> bool:
        """Gather one more batch, of what is there; with `wait`, wait for its first record."""
        if self.trouble:
            return False
        try:
            if self._again:
                exact = self._again[0]
                got, units, left = self._take(exact, None, True)
                if left:
                    raise SavedError(f"the input ends before what was under way: {left} {self._unit} are missing")
            else:
                exact = 0
                got, units, _ = self._take(None, self._size, wait)
        except (InputError, SavedError, OSError) as exc:
            # Raised once the batches before it are through.
            self.trouble = exc
            return False
        if not got:
            return False
        body = b"[" + b",".join(got) + b"]" if self._json else b"".join(got)
        with self._hold:
            if exact:
                self._again.popleft()
            self._batches.append(Batch(self._type, body, len(got), units, self._crc))
            self.save()
        return True

    def _take(self, units: int | None, size: int | None, wait: bool) -> tuple[list[bytes], int, int]:
        """Records, in all exactly `units` of input or about `size` bytes: (records, units, units that are missing).

        Of a `size`, only the first is waited for.
        """
        got: list[bytes] = []
        taken = total = 0
        crc = self._crc
        while units is None or taken < units:
            try:
                record = self._source.next(wait if units is None and not got else units is not None)
            except InputError:
                if not got:
                    raise
                break  # the next call raises it again
            if record is None:
                break
            weight = 1
            if self._raw:
                room = units - taken if units is not None else max(1, (size or 0) - total)
                if len(record) > room:
                    self._source.put_back(record[room:])
                    record = record[:room]
                weight = len(record)
            elif size and got and total + len(record) + 1 > size:
                self._source.put_back(record)
                break
            total += len(record) + (1 if self._json else 0)
            taken += weight
            crc = crc32(record, crc)
            got.append(record)
            if size and total >= size:
                break
        self._crc = crc
        return got, taken, units - taken if units is not None else 0
