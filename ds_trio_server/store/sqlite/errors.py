"""What SQLite's errors mean: the one table from a cause to what the store does.

| cause | the store |
| --- | --- |
| no room: ENOSPC, EDQUOT, EFBIG | 507 for what grows (1) |
| a file system or directory that can only be read: EROFS, EACCES | 503 READ_ONLY for changes (2) |
| somebody else's lock | 503 BUSY with Retry-After; it goes on when the lock is gone |
| anything else, a failed fsync above all, or a failed read | it ends, with a line that names the file (3) |
| bytes that are not what was written | 500 for the streams whose bytes they are, others go on (4) |

1. Reads go on, and so do closes and deletes as far as they need no room. It starts, for reads alone when there is room
   for nothing.
2. It starts, serves reads and says so; it takes changes again when it finds that it can.
3. A failed fsync is never tried again.
4. Told in the log (`damages`). Where all need those bytes, or nobody can tell whose they are, it ends. Only this is
   called damage.

SQLite knows ENOSPC and tells no other errno: a failed write is asked about by writing something else beside it.
"""

import errno
import sqlite3
import time
from pathlib import Path

from ..base import Damaged, StorageBusy, StorageFailed, StorageFull, StorageReadOnly, Unwritable
from . import files

_KNOWN: dict[int, type[Unwritable]] = {
    sqlite3.SQLITE_FULL: StorageFull,
    sqlite3.SQLITE_IOERR_SHMSIZE: StorageFull,
    sqlite3.SQLITE_READONLY: StorageReadOnly,
    sqlite3.SQLITE_READONLY_RECOVERY: StorageReadOnly,
    sqlite3.SQLITE_READONLY_CANTLOCK: StorageReadOnly,
    sqlite3.SQLITE_READONLY_CANTINIT: StorageReadOnly,
    sqlite3.SQLITE_READONLY_DIRECTORY: StorageReadOnly,
    sqlite3.SQLITE_BUSY: StorageBusy,
    sqlite3.SQLITE_BUSY_RECOVERY: StorageBusy,
    sqlite3.SQLITE_BUSY_SNAPSHOT: StorageBusy,
    sqlite3.SQLITE_BUSY_TIMEOUT: StorageBusy,
    sqlite3.SQLITE_PROTOCOL: StorageBusy,
}
"""By extended error code."""
_ASKED = (
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_CANTOPEN,
)
"""What may be any of several; the last of them by its primary code."""
_ERRNOS: dict[int, type[Unwritable]] = {
    errno.ENOSPC: StorageFull,
    errno.EDQUOT: StorageFull,
    errno.EFBIG: StorageFull,
    errno.EROFS: StorageReadOnly,
    errno.EACCES: StorageReadOnly,
    errno.EPERM: StorageReadOnly,
    errno.EMFILE: StorageBusy,  # clients have all that this process may open
    errno.ENFILE: StorageBusy,
}
_OVER_IN = 2.0
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CONSTRAINT)
"""By primary code: what is there is not what was written, or something is where nothing was."""
NO_TEXT = "the text of its schema is no UTF-8"
"""Python's module meets that before it can tell SQLite's error."""
_FOR_ALL = "malformed database schema"


def refusal(folder: Path, error: Exception) -> Unwritable | None:
    """What a client is to be told when the store can go on behind this error; None when it can't."""
    if isinstance(error, Unwritable):
        return error
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    kind = _KNOWN.get(code)
    if kind is None and (code in _ASKED or code & 0xFF in _ASKED):
        return hindrance(folder)
    return None if kind is None else kind()


class Refusals:
    """As `refusal`, with a memory: what stood in the way may be over before it can be asked about. An error that has
    no other cause shortly after one that had is taken for the same; one that stays outlives that."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last: tuple[float, type[Unwritable]] | None = None

    def of(self, error: Exception) -> Unwritable | None:
        """What a client is to be told when the store can go on behind this error; None when it can't."""
        found = refusal(self._folder, error)
        now = time.monotonic()
        code = getattr(error, "sqlite_errorcode", 0)
        if found is not None:
            self._last = now, type(found)
        elif (code in _ASKED or code & 0xFF in _ASKED) and self._last is not None and now < self._last[0] + _OVER_IN:
            found = self._last[1]()
        return found


def hindrance(folder: Path) -> Unwritable | None:
    """Why nothing can be written into a directory now; None when something can."""
    if files.at_limit(folder):
        return StorageFull()
    found = files.probe(folder)
    kind = None if found is None else _ERRNOS.get(found.errno or 0)
    return None if kind is None else kind()


def is_damage(error: Exception) -> bool:
    """Whether an error says that some of what is there is not what was written. Else a disk or a program has failed, or
    the file as a whole is none."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # text that is none is met by Python's module, not by SQLite
        return isinstance(error, Damaged) or (isinstance(error, sqlite3.Error) and "decode" in str(error))
    return code & 0xFF in _DAMAGE and not str(error).startswith(_FOR_ALL)


def failed(folder: Path, error: Exception) -> StorageFailed:
    """What to tell the operator when SQLite can't read or write its file, and the store ends."""
    file = folder / files.FILE
    code = getattr(error, "sqlite_errorcode", None)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code is None and isinstance(error, MemoryError):
        return StorageFailed(f"{file}: there is no memory left for it ({name}); its data is as it was")
    if isinstance(error, UnicodeDecodeError):
        what = f"it is damaged: {NO_TEXT}"
    elif code is None and (isinstance(error, Damaged) or type(error) is sqlite3.DatabaseError):
        what = "it is damaged"  # what our own checks found
    elif code is None:
        what = "it can't be used"
    elif code & 0xFF in (*_DAMAGE, sqlite3.SQLITE_NOTADB):
        what = "it is damaged"
    elif code & 0xFF == sqlite3.SQLITE_IOERR:
        what = "the disk has failed"
    else:
        what = "it can't be used"
    return StorageFailed(
        f"{file}: {what}: {error} ({name}); check the disk (dmesg, smartctl), then the data with "
        f"'ds check {folder}'; if that finds damage, restore the directory from a backup"
    )
