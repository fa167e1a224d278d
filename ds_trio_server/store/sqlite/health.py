"""Whether a store can still promise anything: what ended it, if something did, and who is told.

The first fault that ends it is the one that everybody hears of; there is no way back from it.
"""

import trio

from ..base import StorageFailed
from .queues import Queues


class Health:
    """Of one store: `failure` is what ended it, None while it lives; `failed` is set then."""

    def __init__(self, queues: Queues) -> None:
        self._queues = queues
        self.failure: StorageFailed | None = None
        self.failed = trio.Event()

    def check(self) -> None:
        """Raise StorageFailed when the store has ended."""
        if self.failure is not None:
            raise StorageFailed(*self.failure.args)

    def end(self, failure: StorageFailed) -> None:
        """Note what ends the store, unless it has ended; what is with the writer is told when that is done."""
        if self.failure is None:
            self.failure = failure
            self.failed.set()

    def fail(self, failure: StorageFailed) -> StorageFailed:
        """End the store now; what to raise."""
        self.end(failure)
        if self._queues.idle:
            self.give_up()
        assert self.failure is not None
        return StorageFailed(*self.failure.args)

    def give_up(self) -> None:
        """What is decided but not written will never be: its clients are told at once."""
        assert self.failure is not None
        for batch in self._queues.fail(self.failure):
            batch.finish()
