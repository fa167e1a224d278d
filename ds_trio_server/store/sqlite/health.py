"""Whether a store can still promise anything: what ended it, if something did, and who is told.

The first fault that ends it is the one that everybody hears of; there is no way back from it.
"""

from pathlib import Path

import trio

from ..base import StorageFailed
from . import errors
from .queues import Queues
from .rows import DamagedRow


class Health:
    """Of the store of a folder: `failure` is what ended it, None while it lives; `failed` is set then."""

    def __init__(self, folder: Path, queues: Queues) -> None:
        self._folder = folder
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

    def damaged(self, error: DamagedRow) -> StorageFailed:
        """As `fail`, for a row: a client asked for what was acknowledged to it, and it isn't there any more."""
        return self.fail(errors.failed(self._folder, error))

    def give_up(self) -> None:
        """What is decided but not written will never be: its clients are told at once."""
        assert self.failure is not None
        for batch in self._queues.fail(self.failure):
            batch.finish()
