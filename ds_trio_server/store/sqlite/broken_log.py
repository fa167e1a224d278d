"""A damaged log is told from a torn one before SQLite drops what stands behind the damage.

SQLite takes a log up to the first frame whose checksum doesn't fit (https://sqlite.org/walformat.html) and forgets the
rest. That is right for what a power cut tears. But each commit is synced before the next is written, so that only
frames of the very last one can be torn: where a commit's last frame stands behind SQLite's end and the frame after it
goes on from its checksum, that commit was on the disk, and what is wrong before it is damage. A commit that was torn
by a cut, found again behind what was written over it, is followed by nothing that goes on from it. So what can't be
told from a torn end is damage in the last commit alone.

Nothing here changes the log. What SQLite takes, its index tells, as soon as a connection that only reads has looked.
"""

import mmap
import sqlite3
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..base import StorageFailed
from . import files, schema
from .shm import SharedIndex
from .wal import PAGE

_HEADER = 32
_FRAME_HEADER = 24
_FRAME = _FRAME_HEADER + PAGE
_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}
_MASK = 0xFFFFFFFF
_Sums = tuple[int, int]


class Broken(NamedTuple):
    """A `log` with damage that begins behind `end` frames, and so many `commits` that are lost with it."""

    log: Path
    end: int
    commits: int

    def __str__(self) -> str:
        return (
            f"{self.log} is damaged behind its first {self.end} pages: {self.commits} later commits, which were "
            "acknowledged, would be dropped with what is damaged"
        )


def failed(folder: Path, broken: Broken) -> StorageFailed:
    """What to tell the operator when a start would lose what was acknowledged."""
    return StorageFailed(
        f"{broken}. Nothing was changed. Restore {folder} from a backup, or go on without them: "
        f"'ds salvage {folder}' keeps what there is beside it"
    )


def look(folder: Path, index: SharedIndex, held: bool = False) -> Broken | None:
    """What of a log is broken, if anything is. To be called before a connection is opened that may write, or close it.

    Where others have the file open, one of them may write, and there is no telling; unless the directory is `held`, so
    that it is no server.
    """
    path = folder / (files.FILE + "-wal")
    if files.size(path) < _HEADER + _FRAME or not (index.alone or held):
        return None
    end = _end(folder, index)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        broken = _Frames(path, data).broken(end)
    if broken is not None and not index.alone and index.frames() != end:
        return None  # another program has written meanwhile
    return broken


def _end(folder: Path, index: SharedIndex) -> int | None:
    """How many frames SQLite takes; None where that can't be asked."""
    with suppress(sqlite3.Error, UnicodeDecodeError):  # what else is wrong, is met and told by who opens it next
        db = schema.connect(folder, cache_kib=64, access="mode=ro")
        try:
            with suppress(sqlite3.Error, UnicodeDecodeError):
                schema.one(db, "SELECT count(*) FROM sqlite_master")
            return index.frames()
        finally:
            db.close()
    return None


class _Frames:
    """The frames of a log, by numbers from 1 on."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path = path
        self._data = data
        self._count = (len(data) - _HEADER) // _FRAME
        magic, size = struct.unpack_from(">I4xI", data)
        self._order = _MAGIC.get(magic, "<")
        self._header: _Sums = struct.unpack_from(">II", data, 24)
        self._is_whole = magic in _MAGIC and size == PAGE and _sums((0, 0), data[:24], self._order) == self._header
        self._salt = data[16:24] if self._is_whole else data[_HEADER + 8 : _HEADER + 16]

    def broken(self, end: int | None) -> Broken | None:
        """What is broken of a log of which SQLite takes frames up to an end, which is worked out where it isn't
        known."""
        if not self._is_whole:
            # Frames that go on from a header's checksum are its own: it is not one that was just being written.
            seeds = (self._header, _sums((0, 0), self._data[:24], "<"), _sums((0, 0), self._data[:24], ">"))
            if not any(self._follows(seed, 1, order) for seed in seeds for order in "<>") and not self._had_commits():
                return None
            return Broken(self._path, 0, self._commits_behind(0))
        end = self._taken() if end is None else end
        for at in range(end + 1, self._count):
            if self._is_commit(at) and self._is_ours(at + 1):
                before = self._stored(at - 1) if at > 1 else self._header
                if self._follows(self._stored(at), at + 1) or self._follows(self._computed(before, at), at + 1):
                    return Broken(self._path, end, self._commits_behind(end))
        return None

    def _had_commits(self) -> bool:
        """Whether there was a whole log: a commit, and behind it a frame of the same log that goes on from it. Then the
        header was on the disk as well, and is damaged."""
        for at in range(1, self._count):
            salt = self._salt_of(at)
            if self._is_commit(at) and salt == self._salt_of(at + 1) and salt != b"\0" * 8:
                if any(self._follows(self._stored(at), at + 1, order) for order in "<>"):
                    self._salt = salt
                    return True
        return False

    def _taken(self) -> int:
        """What SQLite does: the last commit before the first frame that doesn't fit. About 0.1 ms a frame."""
        taken, at, sums = 0, 1, self._header
        while at <= self._count and self._is_ours(at) and self._follows(sums, at):
            sums = self._stored(at)
            if self._is_commit(at):
                taken = at
            at += 1
        return taken

    def _commits_behind(self, end: int) -> int:
        return sum(self._is_ours(at) and self._is_commit(at) for at in range(end + 1, self._count + 1))

    def _is_ours(self, at: int) -> bool:
        return self._salt_of(at) == self._salt

    def _salt_of(self, at: int) -> bytes:
        begin = self._begin(at) + 8
        return self._data[begin : begin + 8]

    def _is_commit(self, at: int) -> bool:
        begin = self._begin(at) + 4
        return self._data[begin : begin + 4] != b"\0\0\0\0"

    def _stored(self, at: int) -> _Sums:
        return struct.unpack_from(">II", self._data, self._begin(at) + 16)

    def _computed(self, before: _Sums, at: int, order: str = "") -> _Sums:
        begin = self._begin(at)
        order = order or self._order
        sums = _sums(before, self._data[begin : begin + 8], order)
        return _sums(sums, self._data[begin + _FRAME_HEADER : begin + _FRAME], order)

    def _follows(self, before: _Sums, at: int, order: str = "") -> bool:
        """Whether a frame is whole, and was written behind one with these sums."""
        return self._computed(before, at, order) == self._stored(at)

    def _begin(self, at: int) -> int:
        return _HEADER + (at - 1) * _FRAME


def _sums(before: _Sums, data: bytes, order: str) -> _Sums:
    first, second = before
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for a, b in zip(words, words, strict=True):
        first = (first + a + second) & _MASK
        second = (second + b + first) & _MASK
    return first, second
