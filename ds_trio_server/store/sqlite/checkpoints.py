"""Checkpoints: what commits wrote into the log is moved into the file, and the log begins again.

Little of it at a time is moved right behind the commit that made it due. Much of it (after a crash, or when a long
reader has left) is moved by a thread of its own, beside commits, so that none of them waits. Between commits, from
the sweep, what was held up is moved too, and a log that has become long is cut.

A log begins again only when all of it has been moved and nobody reads from it. Who reads for long makes it grow; beyond
`LOG_MOST` appends have to wait for that reader (`holder`), because the next start has to read all of the log.
SQLite's own checkpoints would hide their errors, and one of those is a failed fsync.
"""

import logging
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from ...seldom import Seldom
from ...stats import Upkeep
from ..base import StorageFailed
from . import errors, files, schema
from .database import Database
from .wal import FRAME, PAGE, State

log = logging.getLogger("ds")

LOG_KEPT = 16 * 1024 * 1024
"""A longer one is cut when it has been moved."""
LOG_MOST = 256 * 1024 * 1024
"""Beyond that a log that a reader holds takes no appends."""
_GIVEN_BACK = 1024 * 1024
_TELL = 64 * 1024 * 1024
_FRAMES = 1000
_BULK_FRAMES = 250
_FAR = 4 * _FRAMES


class Checkpoints:
    """The checkpoints of one file, in the writer's thread. `failed` is told, in another one, what ends the store.

    No more than `most` bytes wait to be moved, but for one
    commit's. `pressed` is set by others when there is little room: then everything is moved at once, and the log stays
    free for changes that make room. `holder` says what keeps the log from taking appends, if anything does.
    """

    def __init__(
        self,
        folder: Path,
        database: Database,
        most: int,
        counts: Upkeep,
        refusals: errors.Refusals,
        failed: Callable[[StorageFailed], object],
    ) -> None:
        self._folder = folder
        self._connect = database.connect
        self._db = database.writer
        self._log = database.log
        self._index = database.index
        self._most = min(_FRAMES, most // PAGE)
        self._counts = counts
        self._refusals = refusals
        self._failed = failed
        self._mover: threading.Thread | None = None
        self._moving_of = 0  # how many frames there were when the mover began
        self._again = 0  # how long the log is when the next attempt is worth it
        self._frames = 0
        self._seldom = Seldom(logging.getLogger("ds"))
        self.pressed = False
        self.holder: str | None = None
        self.failure: StorageFailed | None = None

    def use(self, db: sqlite3.Connection) -> None:
        """As `Committer.use`."""
        self._db = db

    def before_commit(self, size: int) -> None:
        """See to what a commit of so many bytes needs. Raises StorageFull."""
        self._index.cover(self._frames, size)

    def behind_commit(self, bulk: bool, full: bool) -> None:
        """See to what a commit has made due, one that found the disk `full` included. Raises sqlite3.Error."""
        state = self._log.state()
        if state.frames < self._frames:
            self._again = self._moving_of = 0  # it has begun again
        self._frames = state.frames
        # Between the steps of a large append others wait for this: less at once, more often.
        most = min(_BULK_FRAMES, self._most) if bulk else self._most
        if state.bytes > LOG_MOST:
            if state.frames >= self._again:
                self._again = state.frames + _FRAMES // 2
                self.between_commits()
        elif full or self.pressed or (state.waiting >= most and state.frames >= self._again):
            self._move(most)

    def between_commits(self) -> None:
        """See to what nobody's commit does: what was held up, and a long log. Raises sqlite3.Error."""
        self._counts.log = self._log.size()
        state = self._log.state()
        self._counts.held = state.bytes if state.bytes > LOG_KEPT else 0
        if self._moving():
            if state.bytes > max(LOG_MOST, self._moving_of * FRAME) + _TELL:
                self.holder = "this server is moving it into the file"
            return
        if state.waiting > _FAR:
            # What was not moved as far as it went when that began, is held.
            self._notice_reader(state, state.moved < self._moving_of)
            self._move(self._most)
            return
        if self._counts.log > LOG_KEPT:
            self._cut()
            self._counts.log = self._log.size()
        elif state.waiting and (self.pressed or self._log.owed() < -_GIVEN_BACK):
            self._move(self._most)
        self._notice_reader(self._log.state(), True)

    @property
    def held(self) -> bool:
        """Whether more waits in the log than is moved behind a commit: a reader holds it, or it is being moved."""
        return self._log.state().waiting > 2 * self._most

    def make_room(self) -> None:
        """Move what can be moved, so that the log begins again. Raises sqlite3.Error, for want of room too."""
        schema.one(self._db, "PRAGMA wal_checkpoint(PASSIVE)")

    def end(self) -> None:
        """Move everything, and cut the log, if nobody reads from it. Raises sqlite3.Error."""
        if self._mover is not None:
            self._mover.join()
        schema.one(self._db, "PRAGMA busy_timeout = 1000")
        schema.one(self._db, "PRAGMA wal_checkpoint(TRUNCATE)")

    def _move(self, most: int) -> None:
        if self._moving():
            return
        state = self._log.state()
        if state.waiting > _FAR:
            self._moving_of = state.frames
            self._mover = threading.Thread(target=self._move_far, name="checkpoint", daemon=True)
            self._mover.start()
            return
        self._again = self._frames + most // 2  # if it fails: not again at once
        schema.one(self._db, "PRAGMA wal_checkpoint(PASSIVE)")

    def _moving(self) -> bool:
        return self._mover is not None and self._mover.is_alive()

    def _move_far(self) -> None:
        try:
            db = self._connect()
            try:
                schema.one(db, "PRAGMA wal_checkpoint(PASSIVE)")
            finally:
                db.close()
        except StorageFailed as error:
            self._end(error)
        except sqlite3.Error as error:
            # One that can't be opened now (there are too many files, say) can be later: the writer has it open.
            no_file = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CANTOPEN
            if not no_file and self._refusals.of(error) is None:
                self._end(errors.failed(self._folder, error))

    def _end(self, failure: StorageFailed) -> None:
        self.failure = failure
        self._failed(failure)

    def _cut(self) -> None:
        # Who reads isn't waited for.
        patience = int(schema.one(self._db, "PRAGMA busy_timeout")[0])
        schema.one(self._db, "PRAGMA busy_timeout = 0")
        try:
            schema.one(self._db, "PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            schema.one(self._db, f"PRAGMA busy_timeout = {patience}")

    def _notice_reader(self, state: State, held: bool) -> None:
        """See who it is that keeps a long log from beginning again, when somebody does."""
        reader = self._log.reader() if held and state.bytes > _TELL else None
        if reader is not None:
            self._seldom.warning(
                "%s has read %s for so long that the log beside it takes %d MiB; "
                "beyond %d MiB appends wait for its end",
                reader, self._folder / files.FILE, state.bytes >> 20, LOG_MOST >> 20,
            )  # fmt: skip
        self.holder = f"{reader} reads what is in it" if reader is not None and state.bytes > LOG_MOST else None
