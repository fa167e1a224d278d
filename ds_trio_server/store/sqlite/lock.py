"""One process at a time: the lock on a data directory."""

import fcntl
import os
from pathlib import Path
from typing import IO

from ..base import StorageFailed


def lock(folder: Path) -> IO[str]:
    """Hold the directory for this process, until the file that is returned is closed.

    Raises StorageFailed with a line for the operator when another process has it.
    """
    file = open(folder / "lock", "a+")  # noqa: SIM115 - held as long as the store is open
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise StorageFailed(
            f"{folder} is in use by another server"
            + (f" (process {holder})" if holder else "")
            + "; stop it or give another --data directory"
        ) from None
    try:
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), str(os.getpid()).encode())
    except OSError:
        pass  # it is locked all the same; only its holder can't be named, on a full disk
    return file
