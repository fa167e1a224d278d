"""A batch's way to the disk: given to the writer when that is idle, and what follows when it is done.

A batch that finds no room, or the file locked or read-only (`errors` has the table), fails as a whole,
with everything that was decided on top of it, and the states it touched are dropped from the cache: the file is
the truth again. So does one that meets damage which belongs to some of its streams: their changes are refused, and
all others are decided again. Any other fault ends the store: nothing it could say afterwards would be a promise.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ...stats import Commits
from ..base import StorageBusy, StorageFailed, StorageReadOnly
from . import errors, files
from .batches import Batch, Waiter
from .committer import Committer
from .damages import Damages, Undone
from .health import Health
from .hold import Hold
from .publisher import Publisher
from .queues import Queues
from .sweeper import Sweeper
from .trimmer import Cut

log = logging.getLogger("ds")


class Pipeline:
    """From the queues of a store to its writer and back; the `committer`, the `sweeper` and `again`, which decides once
    more for who waits in a batch, are set before the first batch.

    `refused` is why the last batch could not be written, where that says more than no room.
    """

    committer: Committer
    sweeper: Sweeper
    again: Callable[[Waiter], object]

    def __init__(
        self,
        folder: Path,
        hold: Hold,
        queues: Queues,
        publisher: Publisher,
        health: Health,
        damages: Damages,
        counts: Commits,
    ) -> None:
        self._folder = folder
        self._hold = hold
        self._queues = queues
        self._publisher = publisher
        self._health = health
        self._damages = damages
        self._counts = counts
        self.refused: StorageBusy | StorageReadOnly | None = None

    def write_next(self) -> None:
        """Give the writer what is next, if it is idle and there is anything."""
        batch = self._queues.next()
        if batch is not None:
            self.committer.commit(batch)

    def written(self, batch: Batch) -> None:
        """Take in that the writer is done with a batch, or with a step of it."""
        self._queues.written(batch)
        if batch.durable:
            try:
                self._hold.check_files()
            except StorageFailed as error:
                batch.error = error
        if batch.error is not None:
            self._undo(batch)
        elif batch.durable:
            if self.refused is not None:
                self.refused = None
                log.warning("%s can be written again: appends go on", self._folder)
            cuts = self._publisher.publish(batch)
            self.sweeper.note(batch)
            size = sum([len(data) for _, _, data in batch.appends])
            self._counts.count(len(batch.appends), size, batch.seconds, batch.synced)
            batch.finish()
            if cuts:
                # What is too much goes with the next commit, and frees what it left with that and those behind it:
                # so retention follows appends however quickly they come.
                self._trim(cuts)
        if self._health.failure is not None:
            self._health.give_up()
        else:
            self.write_next()

    def _trim(self, cuts: list[Cut]) -> None:
        with suppress(StorageFailed):
            self.sweeper.trim(cuts)

    def _undo(self, batch: Batch) -> None:
        """Everything in the failed batch never happened, nor did what was decided on top of it."""
        error = batch.error
        assert error is not None
        if isinstance(error, Undone) and not self._damages.refuse(error, batch.paths()):
            # It would be decided again and again.
            error = batch.error = errors.failed(self._folder, error)
        if isinstance(error, StorageFailed):
            self._health.end(error)
        if isinstance(error, (StorageBusy, StorageReadOnly)):
            if self.refused is None:
                log.error("%s: %s: appends are answered with 503", self._folder / files.FILE, error.message)
            self.refused = error
        lost = self._queues.fail(error, batch)
        self._publisher.take_back(lost, self.again if isinstance(error, Undone) else None)
        self.sweeper.lost()
