"""The index of the log in shared memory: its room on the disk is taken before SQLite writes into it.

SQLite makes the file `-shm` longer by a byte in each of its pages, maps it, and then writes wherever it likes. Where
the file system's blocks are smaller than those pages, or a page is given its block only when it is written, a disk
that is full by then ends the process with SIGBUS, without a word. So whoever opens the file here takes all of the
blocks first, and more of them before the log outgrows them.

The first to open it empties it. Who that is, is told by a lock on one byte, which everybody shares from then on: that
is SQLite's own rule (`UNIX_SHM_DMS` in its os_unix.c), and with it kept SQLite leaves what is here as it is.
"""

import errno
import fcntl
import os
import stat
import struct
import sys
from contextlib import suppress
from pathlib import Path

from ..base import StorageFull
from . import files
from .wal import FLOCK, PAGE

_REGION = 32 * 1024
_FRAMES_A_REGION = 4096
_FRAMES_OF_HEADER = 34
_EVERYBODY = 128
_INDEX_HEADER = 48
_AHEAD = 2048
"""Frames that a commit may take beside what it was given to write."""


class SharedIndex:
    """The index of one store's log. To be taken before the first connection is opened, closed after the last one:
    a process that closes any descriptor of a file loses all of its POSIX locks on it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handle: int | None = None
        self._alone = False
        self._frames = 0

    def take(self) -> None:
        """Have the room that SQLite needs to begin with. Raises StorageFull when there is none."""
        if sys.platform != "linux":
            return  # nor is there such a lock elsewhere; SQLite does as it does
        log = self._folder / (files.FILE + "-wal")
        frames = files.size(log) // PAGE + 1
        self._alone = False
        try:
            self._handle = self._open()
            self._alone = self._lock(fcntl.F_WRLCK)
            if self._alone:
                os.ftruncate(self._handle, 0)
            self._extend(frames)
            self._lock(fcntl.F_RDLCK)
        except OSError as error:
            if self._alone and self._handle is not None:
                os.ftruncate(self._handle, 0)  # some of it may have been taken
                self._alone = False  # it can be read with an empty one
            self.close()
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise StorageFull from None
            # What else is wrong, SQLite meets as well, and says it better.
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of it; one that SQLite had no use for goes."""
        if self._handle is None:
            return
        log = self._folder / (files.FILE + "-wal")
        if self._alone and os.fstat(self._handle).st_nlink and not log.exists() and self._lock(fcntl.F_WRLCK):
            with suppress(OSError):
                (self._folder / (files.FILE + "-shm")).unlink()
        os.close(self._handle)
        self._handle = None

    @property
    def alone(self) -> bool:
        """Whether nobody had the file open when this was taken, or nobody can tell."""
        return self._alone or self._handle is None

    def frames(self) -> int | None:
        """How many frames of the log SQLite takes, once a connection has looked; None where the index doesn't say."""
        found = b"" if self._handle is None else os.pread(self._handle, 2 * _INDEX_HEADER, 0)
        is_whole = len(found) == 2 * _INDEX_HEADER and found[:_INDEX_HEADER] == found[_INDEX_HEADER:] and found[12]
        return int(struct.unpack_from("=I", found, 16)[0]) if is_whole else None

    def cover(self, frames: int, size: int) -> None:
        """Have room for what a commit of so many bytes adds to a log of so many frames. Raises StorageFull when there
        is none."""
        needed = frames + 2 * size // PAGE + _AHEAD
        if needed <= self._frames or self._handle is None:
            return
        try:
            self._extend(needed)
        except OSError:
            raise StorageFull from None

    def _open(self) -> int:
        """Whoever made the database has this, too, whoever opens it now."""
        owner = os.stat(self._folder / files.FILE)
        path = self._folder / (files.FILE + "-shm")
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, stat.S_IMODE(owner.st_mode))
        if os.geteuid() == 0:
            os.fchown(handle, owner.st_uid, owner.st_gid)
        return handle

    def _lock(self, kind: int) -> bool:
        """Whether the byte is locked now; of this descriptor, not of the process, whose locks are SQLite's."""
        assert self._handle is not None
        try:
            fcntl.fcntl(self._handle, fcntl.F_OFD_SETLK, FLOCK.pack(kind, os.SEEK_SET, _EVERYBODY, 1, 0))
        except BlockingIOError:
            return False
        return True

    def _extend(self, frames: int) -> None:
        """Take the blocks for so many frames; those that are there stay as they are."""
        assert self._handle is not None
        regions = 1 + (frames + _FRAMES_OF_HEADER) // _FRAMES_A_REGION
        os.posix_fallocate(self._handle, 0, regions * _REGION)
        self._frames = regions * _FRAMES_A_REGION - _FRAMES_OF_HEADER
