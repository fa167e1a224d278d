"""Queries beside the writer: where each of them runs, and what its failure means.

A short one runs right here, on the connection that also loads states. A longer one has a connection
of its own, out of a few, and a thread: it may wait for the disk as long as it takes.
"""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import trio

from ..base import Damaged, Overloaded, StorageFailed
from . import errors
from .damages import Damages

T = TypeVar("T")

READERS = 8
_SLOW_READ = 0.005
_THREADS_FOR = 0.5


class Queries:
    """Runs functions of (connection, arguments). `connect` makes a connection for a thread; `check` raises when
    the store has failed, and `fail` is told what ends it: a disk that can't be read, or a file that is none any more.

    Where a query meets damage, that is noted in `damages`, and raised for who asked alone. A query of one stream has
    for its first argument whose it is: a path, an id, or a tuple that begins with an id.
    """

    def __init__(
        self,
        folder: Path,
        connect: Callable[[], sqlite3.Connection],
        db: sqlite3.Connection,
        check: Callable[[], None],
        fail: Callable[[StorageFailed], StorageFailed],
        damages: Damages,
    ) -> None:
        self._folder = folder
        self._connect = connect
        self._db = db
        self._check = check
        self._fail = fail
        self.damages = damages
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
            raise self._meaning(_of_second_look(error, query, self._db, args), args) from error
        except Damaged as error:
            raise self.damages.met(error) from error.__cause__
        except StorageFailed as error:
            raise self._fail(error) from None

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
                        return await trio.to_thread.run_sync(_asked, query, db, args)
                    started = time.monotonic()
                    try:
                        return _asked(query, db, args)
                    finally:
                        ended = time.monotonic()
                        if ended - started > _SLOW_READ:
                            self._threads_until = ended + _THREADS_FOR
                finally:
                    self._idle.append(db)
        except sqlite3.Error as error:
            raise self._meaning(error, args) from error
        except Damaged as error:
            raise self.damages.met(error) from error.__cause__
        except StorageFailed as error:
            raise self._fail(error) from None

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CANTOPEN:
                raise Overloaded from error  # most likely out of file descriptors
            if errors.is_damage(error):  # before anything of a stream was asked for
                raise self._fail(errors.failed(self._folder, error)) from error
            raise

    def _meaning(self, error: sqlite3.Error, args: tuple[object, ...]) -> Exception:
        """What an error of a query is for who asked."""
        if errors.is_damage(error):
            return self.damages.met(Damaged(_whose(args), f"{_whose(args)} is damaged: {error}"))
        return errors.refusal(self._folder, error) or self._fail(errors.failed(self._folder, error))

    @property
    def busy(self) -> bool:
        """Whether a query runs in a thread."""
        return self._running.borrowed_tokens > 0

    def use(self, db: sqlite3.Connection) -> None:
        """Ask another connection from now on; to be called when all others are closed."""
        self._idle.clear()
        self._db = db


def _asked(query: Callable[..., T], db: sqlite3.Connection, args: tuple[object, ...]) -> T:
    try:
        return query(db, *args)
    except sqlite3.Error as error:
        raise _of_second_look(error, query, db, args) from error


def _of_second_look(
    error: sqlite3.Error, query: Callable[..., object], db: sqlite3.Connection, args: tuple[object, ...]
) -> sqlite3.Error:
    """What a query's error is: SQLite takes some pages that it could not read for damaged ones, and damage stays."""
    if not errors.is_damage(error):
        return error
    try:
        query(db, *args)
    except sqlite3.Error as second:
        return second
    except Exception:  # our own checks', or what was looked for has gone meanwhile
        return error
    failed = sqlite3.OperationalError(f"{error}, and then it was not: the disk could not be read")
    failed.sqlite_errorcode, failed.sqlite_errorname = sqlite3.SQLITE_IOERR_READ, "SQLITE_IOERR_READ"
    return failed


def _whose(args: tuple[object, ...]) -> str:
    key = args[0] if args else None
    if isinstance(key, tuple):
        key = key[0]
    if isinstance(key, int):
        return f"stream {key}"
    return f"the stream at {key!r}" if isinstance(key, str) else "what several streams share"
