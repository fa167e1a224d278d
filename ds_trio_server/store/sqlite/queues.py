"""The two queues that batches go down to the writer, and which of them is next.

Everything that one transaction will hold is a batch. Small changes collect in the small queue. What
is large, and whatever is decided on top of it until it is durable, goes down the bulk queue: its
bytes reach the disk in steps first, then one commit publishes them. The queues take turns, so that
hundreds of small appends wait for one step of a large one and not for all of it.
"""

from collections.abc import Sequence

from ..base import Overloaded
from . import schema
from .batches import Batch, Entry
from .producers import State

STEP_BYTES = 512 * 1024
"""About how much a step of the bulk queue takes at once, at most."""
_SMALL_BYTES = 4 * 1024 * 1024
_WAITING_BYTES = 32 * 1024 * 1024


class Queues:
    """The open batches, and which of them is next."""

    def __init__(self) -> None:
        self.small = Batch()
        self.bulk = Batch(bulk=True)
        self._staging: Batch | None = None
        self._writing: Batch | None = None
        self._bulk_next = False

    @property
    def idle(self) -> bool:
        """Whether nothing is with the writer."""
        return self._writing is None

    @property
    def waiting(self) -> int:
        """About how many bytes have been decided and are not durable yet."""
        batches = (self.small, self.bulk, self._staging, self._writing)
        return sum({batch: batch.size for batch in batches if batch is not None}.values())

    def of(self, entries: Sequence[Entry], size: int, grows: bool) -> Batch:
        """The batch for a change of some entries, which appends so many bytes. Raises Overloaded for
        one that `grows` what waits, where too much does.

        To be called before the change: the rows that they have in another open batch are fixed here.
        """
        bulk = size > schema.ROW_LIMIT or (size > schema.INLINE_LIMIT and self.small.size > _SMALL_BYTES)
        for entry in entries:
            bulk = bulk or (entry.batch is not None and entry.batch.bulk)
        batch = self.bulk if bulk else self.small
        if grows and batch.size > _WAITING_BYTES:
            raise Overloaded
        batch.grows = batch.grows or grows
        if bulk:
            for entry in entries:
                if entry.batch is self.small:
                    self.small.fix(entry)
                    batch.after = self.small
        return batch

    def next(self) -> Batch | None:
        """What goes to the writer now, if there is anything and it is idle: a small batch to commit,
        or a bulk batch of which to stage a step or, when nothing is left to stage, to commit."""
        if self._writing is not None:
            return None
        if self._staging is None and self.bulk:
            self._staging, self.bulk = self.bulk, Batch(bulk=True)
            self._staging.seal()
        bulk = self._staging
        if bulk is not None and (bulk.parts or bulk.after is not self.small):
            if self._bulk_next or not self.small:
                self._bulk_next = False
                self._writing = bulk
                return bulk
        if self.small:
            self._bulk_next = True
            self._writing, self.small = self.small, Batch()
            self._writing.seal()
        return self._writing

    def written(self, batch: Batch) -> None:
        """Note that the writer has done what `next` gave it."""
        self._writing = None
        if batch is self._staging and batch.durable:
            self._staging = None

    def pending(self) -> Batch | None:
        """A batch that is not durable yet, if there is one."""
        return self._writing or self._staging or next(filter(None, (self.small, self.bulk)), None)

    def producer(self, stream: int, producer: str) -> State | None:
        """The newest state of a stream's producer that is not durable yet, if there is one."""
        key = (stream, producer)
        for batch in (self.bulk, self._staging, self.small, self._writing):  # the latest decided first
            if batch is not None and key in batch.producers:
                return batch.producers[key]
        return None

    def fail(self, error: Exception, failed: Batch | None = None) -> list[Batch]:
        """Take out everything that can't become durable: all, or when one batch `failed`, that one
        and what may have been decided on top of it. Those whose error was not known get `error`."""
        lost = {batch: None for batch in (failed, self._staging, self.bulk) if batch is not None}
        # Small changes are never on top of bulk ones, but states that both have changed are dropped.
        if failed is None or not failed.bulk or any(batch.after is self.small for batch in lost):
            lost[self.small] = None
            self.small = Batch()
        self.bulk = Batch(bulk=True)
        self._staging = None
        for batch in lost:
            batch.error = batch.error or error
        return list(lost)
