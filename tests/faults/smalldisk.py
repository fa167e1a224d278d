"""Small file systems: a few megabytes in memory, that are really full when they are.

They take the right to mount. Without it a test is skipped, except under CI.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.tools import ci


@contextlib.contextmanager
def mounted(folder: Path, mib: int) -> Iterator[Path]:
    """A file system of so many MiB at a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        ci.missing("mounting a small file system takes root")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={mib}m", "none", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        ci.missing(f"a small file system can't be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def free(folder: Path) -> int:
    """Bytes that are free."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def fill(folder: Path, leave: int = 0) -> Path:
    """Let somebody else take the room, all but so many bytes; returns what to remove."""
    path = folder / "somebody-elses"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while free(folder) > leave:
            file.write(bytes(min(1 << 20, max(4096, free(folder) - leave))))
    return path
