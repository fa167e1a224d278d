"""The write-ahead log as its index tells of it: how long it is, what of it the file has, and who holds it back.

SQLite says none of that before a checkpoint; its file format does (https://sqlite.org/walformat.html): the index
is the file `-shm`, two copies of a header and then what checkpoints and readers tell each other. It is only read
here. The descriptor stays open as long as SQLite has the file open: a process that closes any descriptor of a file
loses all of its POSIX locks on it.
"""

import fcntl
import os
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from . import files

PAGE = 4096
FRAME = PAGE + 24
"""What a page takes in the log."""
_HEADER = struct.Struct("=16xII")  # the last valid frame, and the file's size in pages when all are moved
_MOVED = struct.Struct("=96xI")
_LENGTH = 100
_LOCKS = (123, 5)  # the bytes that readers lock, whatever part of the log they need
FLOCK = struct.Struct("hhqqi4x")
"""Linux's `struct flock`."""


class State(NamedTuple):
    """The log at a moment: its `frames`, how many of them are `moved` into the file, and the `pages` that the
    file has when all of them are."""

    frames: int
    moved: int
    pages: int

    @property
    def waiting(self) -> int:
        """Frames that are in the log alone."""
        return self.frames - self.moved

    @property
    def bytes(self) -> int:
        """What the log takes."""
        return self.frames * FRAME


class Log:
    """The log of a store's file. To be opened when a connection has read from it, closed after the last of them."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / files.FILE
        self._log = folder / (files.FILE + "-wal")
        self._index_file = folder / (files.FILE + "-shm")
        self._index: int | None = None
        self.open()

    def open(self) -> None:
        """Have the index, if there is one: a file without a log that can only be read has none."""
        with suppress(FileNotFoundError):
            self._index = os.open(self._index_file, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of the index."""
        if self._index is not None:
            os.close(self._index)
            self._index = None

    def state(self) -> State:
        """The log now; as cheap as a commit is dear."""
        if self._index is None:
            return State(0, 0, 0)
        found = os.pread(self._index, _LENGTH, 0)
        if len(found) < _LENGTH:
            return State(0, 0, 0)
        frames, pages = _HEADER.unpack_from(found)
        (moved,) = _MOVED.unpack_from(found)
        return State(frames, min(moved, frames), pages)

    def size(self) -> int:
        """What the log takes on the disk, in bytes: when all of it has been moved it is written from the beginning
        again, and not cut."""
        try:
            return self._log.stat().st_size
        except OSError:
            return 0

    def owed(self) -> int:
        """By how many bytes the file will grow when it takes what is in the log; less than 0 when it will shrink."""
        state = self.state()
        if not state.waiting:
            return 0
        try:
            return state.pages * PAGE - self._file.stat().st_size
        except OSError:
            return 0

    def reader(self) -> str:
        """Who reads the file beside this process, in words."""
        if sys.platform != "linux" or self._index is None:
            return "a reader of the file"
        ask = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, *_LOCKS, 0)
        try:
            kind, *_, process = FLOCK.unpack(fcntl.fcntl(self._index, fcntl.F_GETLK, ask))
        except OSError:
            return "a reader of the file"
        if kind == fcntl.F_UNLCK:
            return "a reader in this server"
        try:
            command = Path(f"/proc/{process}/comm").read_text().strip()
        except OSError:
            command = "of another user"
        return f"process {process} ({command})"
