"""A data directory in one process's hands: locked as long as it is served, and looked at whether it is still there.

What is locked is the directory itself, so that no file in it can be removed to let a second server in, and a
directory that was renamed stays locked under its new name; and the database, should that alone be moved or linked
elsewhere. The file `lock` names the process that has both.

A directory or file that was deleted, renamed or replaced would go on taking writes that nobody finds again. So no
append is acknowledged before its path has been seen to lead to the file that was written; that costs 2 us a commit.
"""

import fcntl
import os
import sys
from pathlib import Path

from ..base import StorageFailed
from . import files

_Identity = tuple[int, int]
"""Device and inode."""


class Hold:
    """Holds `folder` from now on until `close`. Raises StorageFailed, with a line for the operator, when
    another process has it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handles = [os.open(folder, os.O_RDONLY | os.O_DIRECTORY)]
        try:
            self._lock(self._handles[0])
            self._take_database()
            self._name()
        except BaseException:
            self.close()
            raise
        self._seen: dict[str, _Identity] = {str(folder): _identity(os.fstat(self._handles[0]))}
        self._files: dict[str, _Identity] = {}

    def close(self) -> None:
        """Let go of it, behind every connection to the database."""
        # With a file's first descriptor that is closed, a process loses all of SQLite's locks on it.
        while self._handles:
            os.close(self._handles.pop())

    def watch(self) -> None:
        """Take what the database's files are now for what they must be from here on. Raises StorageFailed when the
        directory is not the one that was locked."""
        self.check()
        for suffix in ("", "-wal"):
            path = str(self._folder / (files.FILE + suffix))
            try:
                self._files[path] = _identity(os.stat(path))
            except FileNotFoundError:
                self._files.pop(path, None)  # a log that there is no need for yet

    def check(self) -> None:
        """Raise StorageFailed when the directory or a file of the database is not what it was."""
        _compare(self._seen)
        self.check_files()

    def check_files(self) -> None:
        """As `check`, for the files alone: for every commit."""
        _compare(self._files)

    def _lock(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(self._folder)
            raise StorageFailed(
                f"{self._folder} is in use by another server"
                + (f" (process {holder})" if holder else "")
                + "; stop it or give another --data directory"
            ) from None
        except OSError as error:
            raise StorageFailed(
                f"{self._folder} can't be locked ({error.strerror}); give a --data directory on a local disk"
            ) from error

    def _opened(self, name: str) -> int:
        """A file of the directory, made for its owner alone if it is not there; to be read where it can't be written.
        Let go of at the end."""
        path = self._folder / name
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._handles.append(handle)
        return handle

    def _take_database(self) -> None:
        """Make the file if it is not there, for its owner alone; SQLite gives its log the same mode."""
        try:
            handle = self._opened(files.FILE)
        except FileNotFoundError:
            return  # nor can it be made: whoever opens it next tells why
        if sys.platform == "linux":  # elsewhere this lock and SQLite's own exclude each other
            self._lock(handle)

    def _name(self) -> None:
        """Say who has it; a server of an earlier version locks this file and no more."""
        try:
            handle = self._opened(files.LOCK)
        except OSError:
            return  # on a disk that is full or read-only: the directory is locked all the same
        self._lock(handle)
        try:
            os.ftruncate(handle, 0)
            os.write(handle, str(os.getpid()).encode())
        except OSError:
            pass  # only its holder can't be named


def _holder(folder: Path) -> str:
    try:
        return (folder / files.LOCK).read_text(errors="replace")[:20].strip()
    except OSError:
        return ""


def _identity(found: os.stat_result) -> _Identity:
    return found.st_dev, found.st_ino


def _compare(expected: dict[str, _Identity]) -> None:
    for path, identity in expected.items():
        try:
            found: os.stat_result | None = os.stat(path)
            why = "is not the one that this server opened"
        except OSError as error:
            found, why = None, f"can't be found any more ({error.strerror})"
        if found is None or _identity(found) != identity:
            raise StorageFailed(
                f"{path} {why}: it was deleted, renamed or replaced while the server ran; nothing is acknowledged "
                "that would go there. Start it again when the directory is in place"
            )
