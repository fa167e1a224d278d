"""A data directory's files: their names and modes, how large they may be, and a reserve for a full disk.

What is made here is for its owner alone, whatever the umask: it holds what an access file protects.
"""

import logging
import os
import resource
import stat
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("ds")

FILE = "streams.db"
LOCK = "lock"
RESERVE = "reserve"

_LEAST_RESERVE, _MOST_RESERVE = 1024 * 1024, 4 * 1024 * 1024
_FAT_LARGEST = 2**32 - 1
_FAT = ("vfat", "msdos", "fat")
_PROBE_BYTES = 64 * 1024


def make_folder(folder: Path) -> None:
    """Create the data directory, and be sure that a power cut doesn't take it away again."""
    made = []
    at = folder.absolute()
    while not at.exists():
        made.append(at)
        at = at.parent
    if made:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    elif not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a directory; give another one")
    for each in made:
        handle = os.open(each.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def keep_others_out(folder: Path) -> None:
    """Take from everybody what they may read of the directory and an earlier version's files; a group keeps what it
    was given, and a directory with other people's files in it stays as it is."""
    paths = [folder / (FILE + suffix) for suffix in ("", "-wal", "-shm")]
    with suppress(OSError):
        if all(name.startswith(FILE) or name in (LOCK, RESERVE) for name in os.listdir(folder)):
            paths.append(folder)
    for path in paths:
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o007:
                path.chmod(mode & ~0o007)
                log.warning("%s could be read by everybody on this machine: its mode is %03o now", path, mode & ~0o007)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("%s can be read by everybody on this machine, and its mode can't be changed: %s", path, error)


def reserve_bytes(folder: Path) -> int:
    """How much is set aside for the day when somebody else has taken all the rest of the disk: enough for what a start
    needs (SQLite's shared memory) and for moving the log into the file, where no more than that waits to be moved;
    then deletes go into the log."""
    found = os.statvfs(folder)
    return max(_LEAST_RESERVE, min(_MOST_RESERVE, found.f_blocks * found.f_frsize // 128))


def reserve_missing(folder: Path) -> int:
    """How much of it is still to be set aside. Raises OSError where the disk can't say."""
    return max(0, reserve_bytes(folder) - size(folder / RESERVE))


def keep_reserve(folder: Path) -> None:
    """Set some room aside if there is plenty and it is not there."""
    path = folder / RESERVE
    try:
        size = reserve_bytes(folder)
        if not reserve_missing(folder) or room(folder) < 4 * size:
            return
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, 0, size)
            else:
                os.pwrite(handle, bytes(size), 0)
        finally:
            os.close(handle)
    except OSError:
        give_reserve(folder)


def give_reserve(folder: Path) -> bool:
    """Make room of what was set aside; False when nothing was."""
    try:
        (folder / RESERVE).unlink()
    except OSError:
        return False
    return True


def room(folder: Path) -> int:
    """The bytes that are free on the file system."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def probe(folder: Path) -> OSError | None:
    """Write a little, as SQLite would, and say what hinders it: SQLite itself doesn't tell."""
    path = folder / "probe"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with suppress(OSError):
                path.unlink()
            left = bytes(_PROBE_BYTES)
            while left:
                left = left[os.write(handle, left) :]
        finally:
            os.close(handle)  # where quotas are kept elsewhere, this is what fails
    except OSError as error:
        return error
    return None


def largest(folder: Path) -> int | None:
    """How large a file may become here, if there is a limit that could be met: the process's, or FAT's."""
    limits = [_FAT_LARGEST] if _file_system(folder) in _FAT else []
    soft = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if soft != resource.RLIM_INFINITY:
        limits.append(soft)
    return min(limits, default=None)


def room_in_files(folder: Path, most: int) -> int:
    """How much more fits into files that may have `most` bytes: what is in the log is yet to come to the file."""
    return max(0, most - sum(size(folder / (FILE + suffix)) for suffix in ("", "-wal")))


def at_limit(folder: Path) -> bool:
    """Whether a file of the database is as large as one may be."""
    most = largest(folder)
    if most is None:
        return False
    return any(size(folder / (FILE + suffix)) > most - _PROBE_BYTES for suffix in ("", "-wal"))


def size(path: Path) -> int:
    """How long a file is; 0 when there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _file_system(folder: Path) -> str:
    """The type of the file system, where the system tells."""
    try:
        device = folder.stat().st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
            mount, _, rest = line.partition(" - ")
            if mount.split(" ")[2] == number:
                return rest.split(" ")[0]
    except (OSError, IndexError):
        pass
    return ""
