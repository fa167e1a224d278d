"""The file of a data directory and its connections: opened to be written or, where nothing can be written, to be read
until that is over."""

import logging
import sqlite3
from contextlib import suppress
from pathlib import Path

from ..base import StorageFailed, StorageFull, Unwritable
from . import broken_log, errors, files, schema
from .hold import Hold
from .shm import SharedIndex
from .wal import Log

log = logging.getLogger("ds")

_READER_WAITS = 0.25
"""Seconds that a query waits for somebody else's lock: it may run where everybody waits for it."""
_WRITER_KIB, _READER_KIB, _THREAD_KIB = 8192, 4096, 1024


class Database:
    """A directory that this process has to itself, from `open` to `close`.

    `writer` and `reader` are the connections of the thread that commits and of short queries, `log` is what has not
    been moved into the file, `index` the room that its index has, and `hold` says whether it is still in its place.
    `only_reads` is why nothing can be written, None when something can.
    """

    writer: sqlite3.Connection
    reader: sqlite3.Connection
    log: Log
    index: SharedIndex
    hold: Hold

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.only_reads: Unwritable | None = None

    def open(self) -> None:
        """Take the directory and open the file; both are made when they are not there. Raises OSError or StorageFailed
        with a line for the operator."""
        files.make_folder(self._folder)
        files.keep_others_out(self._folder)
        self.hold = Hold(self._folder)
        self.index = SharedIndex(self._folder)
        try:
            self.writer = self._open_writer()
            self._open_reader()
            self.log = Log(self._folder)
        except BaseException:
            self.hold.close()
            raise

    def connect(self) -> sqlite3.Connection:
        """One more connection, for a thread. Raises sqlite3.Error; StorageFailed when the file is not in its place."""
        db = self._connect(_THREAD_KIB)
        try:
            self.hold.check_files()  # it was opened by its name
        except StorageFailed:
            db.close()
            raise
        return db

    def reopen(self) -> None:
        """Open it anew, to be written if that can be done now, with no other connection open. Raises StorageFailed."""
        # One that can only read would pass that on to those that are opened beside it.
        self.reader.close()
        self.writer.close()
        self.log.close()
        self.index.close()
        try:
            self.writer = self._prepare()
            self.only_reads = None
        except Unwritable:
            self.writer = self._connect_anew(_WRITER_KIB)
        self._open_reader()
        self.log.open()

    def close(self, broken: bool) -> None:
        """Let go of it, behind all connections but the reader; the writer's stays open when the file is `broken`."""
        self.reader.close()
        if not broken:
            self.log.close()
            self.index.close()
        self.hold.close()

    def _open_writer(self) -> sqlite3.Connection:
        """The writer's connection; one that can only read where nothing can be written."""
        try:
            return self._prepare()
        except Unwritable as error:
            refusal = error
        if isinstance(refusal, StorageFull) and files.give_reserve(self._folder):
            with suppress(Unwritable):
                return self._prepare()
        self.only_reads = refusal
        self._look_at_log()
        file = self._folder / files.FILE
        unmade = StorageFailed(f"{file} can't be made: {refusal.message}")
        if not files.size(file):
            raise unmade
        db = self._connect_anew(_WRITER_KIB)
        try:
            if schema.is_empty(db):
                raise unmade
            schema.check_version(self._folder, db)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise errors.failed(self._folder, error) from error
        log.warning(
            "%s: %s: it is served for reading alone, and appends are answered with %d",
            self._folder, refusal.message, refusal.status,
        )  # fmt: skip
        return db

    def _prepare(self) -> sqlite3.Connection:
        self.index.take()
        try:
            self._look_at_log()
            return schema.prepare(self._folder)
        except BaseException:
            self.index.close()
            raise

    def _look_at_log(self) -> None:
        broken = broken_log.look(self._folder, self.index, held=True)
        if broken is not None:
            raise broken_log.failed(self._folder, broken)

    def _open_reader(self) -> None:
        self.reader = self._connect_anew(_READER_KIB)
        self.hold.watch()

    def _connect_anew(self, cache_kib: int) -> sqlite3.Connection:
        try:
            return self._connect(cache_kib)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise errors.failed(self._folder, error) from error

    def _connect(self, cache_kib: int) -> sqlite3.Connection:
        # Never one that would make the file: it is there, or it is not where it was.
        access = "mode=rw" if self.only_reads is None else schema.access_to_read(self._folder)
        return schema.connect(self._folder, cache_kib=cache_kib, access=access, patience=_READER_WAITS)
