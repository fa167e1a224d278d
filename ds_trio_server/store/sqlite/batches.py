"""What is decided and not yet durable: the state of a path in memory, and the transaction that makes it durable.

Each knows the other: an entry the last batch that has a change of it, a batch all the entries that it changes.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import trio

from ds_core.server.decide import Needs
from ds_core.server.stream import Stream

from ..base import Decide, StorageFailed, Unwritable
from . import rows, schema
from .damages import Undone
from .producers import Key, State

log = logging.getLogger("ds")

_LATEST = 3600.0


Waiter = tuple[Callable[[Any, Exception | None], object], Any, Needs, Decide[Any]]
"""Who is told of a batch: the function, the response that it gets when the batch is durable, and what was decided."""


class Part(NamedTuple):
    """What one row holds of an append: the stream's id, the position of the first byte, how far that is into the
    append, and the bytes."""

    stream: int
    position: int
    offset: int
    data: memoryview


def parts(stream: int, at: int, data: bytes) -> Iterator[Part]:
    """The rows that an append takes."""
    view = memoryview(data)
    for offset in range(0, len(data), schema.ROW_LIMIT):
        yield Part(stream, at + offset, offset, view[offset : offset + schema.ROW_LIMIT])


class Entry:
    """A path's state in memory; `stream` is None when there is none (any more).

    `batch` is the last batch with a change of it that is not durable yet, `structural` the last
    such batch that makes or removes it. `stored_deadline` is what the row says: at or after the
    true deadline, so that a TTL runs late after a crash, never early, and not every use of a stream
    costs a write. `durable_deadline` is the same as far as it is on disk. `identity` is the
    constant part of the row's checksum.
    `gone` is the id of the stream that was last removed here. `most` is the size in bytes beyond which retention trims
    it, -1 while that isn't known.
    """

    __slots__ = (
        "path", "stream", "identity", "batch", "structural", "stored_deadline", "durable_deadline", "most", "gone",
    )  # fmt: skip

    def __init__(self, path: str, stream: Stream | None) -> None:
        self.path = path
        self.stream = stream
        self.identity = 0 if stream is None else rows.identity(stream)
        self.batch: Batch | None = None
        self.structural: Batch | None = None
        self.most = -1
        self.gone = 0
        self.stored_deadline = None if stream is None else stream.deadline
        self.durable_deadline = self.stored_deadline

    def replace(self, stream: Stream) -> None:
        """Hold a new stream in place of the one that was here; nothing of that one's is left."""
        self.stream = stream
        self.identity = rows.identity(stream)
        self.stored_deadline = self.durable_deadline = None

    def deadline_to_store(self) -> float | None:
        """The deadline for the row: left alone while it covers the true one, else set ahead."""
        stream = self.stream
        assert stream is not None
        if stream.deadline is None or stream.ttl is None:
            self.stored_deadline = None
        elif self.stored_deadline is None or self.stored_deadline < stream.deadline:
            self.stored_deadline = stream.deadline + max(1.0, min(stream.ttl / 8, _LATEST))
        return self.stored_deadline


class Batch:
    """What one transaction will hold.

    It `grows` when what it holds takes room: appends, new streams.
    `structure` are statements whose order matters (streams made and removed), `blocks` says of those between two
    indexes which path's change they are, and of what kind (as (start, stop, path, kind)); `appends` are
    whole appends as (stream id, position, bytes) in commit order; `entries` are the states it
    changes, `ended` the streams it removes; `producers` maps (stream id, producer id) to
    (epoch, seq). It `collects_garbage` when it also frees some rows, and tells whether `garbage_remains`;
    it `leaves_garbage` when it leaves some to be freed. `rows` are filled by `seal`; `seconds` is
    what its transactions took, `synced` the write and fsync of the last. `done` is set, and those who wait in
    `callbacks` are told, when the batch is `durable` or has failed with an `error`.

    Of a `bulk` batch, `parts` are the rows that are still to be staged, the last first; `staged` those
    that are, ready to be published. It comes `after`
    a small batch that holds earlier changes of the same entries.

    `steady` is when the first change came that time matters to, and `saves_clock` whether the batch keeps that.
    """

    __slots__ = (
        "structure", "blocks", "appends", "entries", "ended", "producers", "rows", "size", "seconds", "synced",
        "collects_garbage", "garbage_remains", "leaves_garbage", "callbacks", "done", "durable", "error", "bulk",
        "grows", "parts", "staged", "after", "steady", "saves_clock",
    )  # fmt: skip

    def __init__(self, bulk: bool = False) -> None:
        self.structure: list[tuple[str, tuple[object, ...]]] = []
        self.blocks: list[tuple[int, int, str, str]] = []
        self.appends: list[tuple[int, int, bytes]] = []
        self.entries: dict[Entry, None] = {}
        self.ended: list[Stream] = []
        self.producers: dict[Key, State] = {}
        self.rows: list[rows.StateRow] = []
        self.size = 0
        self.seconds = 0.0
        self.synced = 0.0
        self.collects_garbage = False
        self.garbage_remains = False
        self.leaves_garbage = False
        self.callbacks: list[Waiter] = []
        self.done = trio.Event()
        self.durable = False
        self.error: Exception | None = None
        self.bulk = bulk
        self.grows = False
        self.parts: list[Part] = []
        self.staged: list[tuple[int, int, int, int, int]] = []
        self.after: Batch | None = None
        self.steady: float | None = None
        self.saves_clock = False

    def collect(self, stream: int, at: int, data: bytes) -> None:
        """Take in an append."""
        if data:
            self.appends.append((stream, at, data))
        self.size += len(data) + 256

    def fix(self, entry: Entry) -> None:
        """Fix what an entry's row becomes by this batch; what changes it now goes to another one."""
        if entry.stream is not None:
            self.rows.append(rows.state_row(entry.stream, entry.deadline_to_store(), entry.identity))

    def seal(self) -> None:
        """Fix all rows, but for those of entries that have left for another batch."""
        for entry in self.entries:
            if entry.batch is self:
                self.fix(entry)
        if self.bulk:
            for stream, at, data in self.appends:
                if len(data) > schema.INLINE_LIMIT:
                    self.parts += parts(stream, at, data)
            self.parts.reverse()

    def paths(self) -> dict[int, str]:
        """The paths of the streams that it changes, by id."""
        found = {entry.gone: entry.path for entry in self.entries if entry.gone}
        found.update((entry.stream.id, entry.path) for entry in self.entries if entry.stream is not None)
        return found

    def __bool__(self) -> bool:
        return bool(self.entries or self.structure or self.collects_garbage)

    def finish(self, again: Callable[[Waiter], object] | None = None) -> None:
        """Tell everyone who waits that it is durable, or has failed; or have each decide `again`."""
        self.done.set()
        callbacks, self.callbacks = self.callbacks, []
        for waiter in callbacks:
            try:
                if again is not None:
                    again(waiter)
                else:
                    waiter[0](waiter[1], self.error)
            except Exception:
                # What is committed is committed, and everyone else is to hear of it.
                log.exception("an answer failed inside the server")

    async def wait(self) -> None:
        """Wait until it is durable; raises what made it fail: Undone where that was the change of somebody else, and
        what rests on this batch is to be decided again."""
        await self.done.wait()
        if isinstance(self.error, Undone):
            raise self.error
        if isinstance(self.error, Unwritable):
            raise type(self.error)()
        if self.error is not None:
            raise StorageFailed(*self.error.args)
