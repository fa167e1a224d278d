"""Queries beside the writer: where each of them runs, and what its failure means.

A short one runs right here, on the connection that also loads states. A longer one has a connection
of its own, out of a few, and a thread: it may wait for the disk as long as it takes.
"""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import trio

from ..base import Overloaded, StorageFailed
from . import errors

T = TypeVar("T")

READERS = 8
_SLOW_READ = 0.005
_THREADS_FOR = 0.5


class Queries:
    """Runs functions of (connection, arguments). `connect` makes a connection for a thread; `check` raises when
    the store has failed, and `fail` is told what ends it: a query that the file can't answer."""

    def __init__(
        self,
        folder: Path,
        connect: Callable[[], sqlite3.Connection],
        db: sqlite3.Connection,
        check: Callable[[], None],
        fail: Callable[[StorageFailed], StorageFailed],
    ) -> None:
        self._folder = folder
        self._connect = connect
        self._db = db
        self._check = check
        self._fail = fail
        self._idle: list[sqlite3.Connection] = []
        self._running = trio.CapacityLimiter(READERS)
        self._threads_until = 0.0

    def close(self) -> None:
        """Close the connections that were opened here, when none is at work."""
        for db in self._idle:
            db.close()

    def run_nowait(self, query: Callable[..., T], *args: object) -> T:
        """Run a short query, here."""
        self._check()
        try:
            return query(self._db, *args)
        except sqlite3.Error as error:
            raise self._meaning(error) from error
        except StorageFailed as error:
            raise self._fail(error) from None

    def look_after_nowait(self, query: Callable[..., T], *args: object) -> T:
        """As `run_nowait`, for upkeep: nobody has asked for what is damaged, so that ends nothing; raises
        `errors.Damage`."""
        found: T = self.run_nowait(_apart, query, *args)
        return found

    async def look_after(self, query: Callable[..., T], *args: object) -> T:
        """As `run`, for upkeep; raises `errors.Damage`."""
        return await self.run(_apart, query, *args)

    async def run(self, query: Callable[..., T], *args: object, window: bool = False) -> T:
        """Run a longer query with a connection of its own, in a thread.

        To hand over and hear back costs about what a quick disk takes for a `window`, so those are
        read right here, until one is slow; then for a while in threads again.
        """
        self._check()
        try:
            async with self._running:
                db = self._idle.pop() if self._idle else self._open()
                try:
                    if not window or time.monotonic() < self._threads_until:
                        return await trio.to_thread.run_sync(query, db, *args)
                    started = time.monotonic()
                    try:
                        return query(db, *args)
                    finally:
                        ended = time.monotonic()
                        if ended - started > _SLOW_READ:
                            self._threads_until = ended + _THREADS_FOR
                finally:
                    self._idle.append(db)
        except sqlite3.Error as error:
            raise self._meaning(error) from error
        except StorageFailed as error:
            raise self._fail(error) from None

    def lost(self, error: errors.Damage) -> NoReturn:
        """End the store for what should be there and isn't."""
        raise self._fail(errors.failed(self._folder, error)) from error

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CANTOPEN:
                raise Overloaded from error  # most likely out of file descriptors
            raise

    def _meaning(self, error: sqlite3.Error) -> Exception:
        """What an error of a query is for who asked."""
        return errors.refusal(self._folder, error) or self._fail(errors.failed(self._folder, error))

    @property
    def busy(self) -> bool:
        """Whether a query runs in a thread."""
        return self._running.borrowed_tokens > 0

    def use(self, db: sqlite3.Connection) -> None:
        """Ask another connection from now on; to be called when all others are closed."""
        self._idle.clear()
        self._db = db


def _apart(db: sqlite3.Connection, query: Callable[..., T], *args: object) -> T:
    try:
        return query(db, *args)
    except sqlite3.Error as error:
        if errors.is_damage(error):
            raise errors.Damage(str(error)) from error
        raise
