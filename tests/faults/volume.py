"""A small file system of its own, for what only a real one does: becoming full, or read-only."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.tools import ci


class Volume:
    """A mounted file system; `path` is where."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self) -> None:
        """Take all the room there is."""
        with (self.path / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    @property
    def free(self) -> int:
        """Bytes that are free."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def empty(self) -> None:
        """Give it back."""
        (self.path / "filler").unlink()

    def read_only(self, on: bool) -> None:
        """Let nobody write any more, or again; nobody may have a file open for writing."""
        subprocess.run(["mount", "-o", "remount," + ("ro" if on else "rw"), str(self.path)], check=True)


@contextlib.contextmanager
def mounted(path: Path, size: str) -> Iterator[Volume]:
    """A file system in memory of so many bytes. Skips where mounting isn't allowed, except under CI."""
    path.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True, text=True
    )
    if done.returncode:
        ci.missing(f"needs the right to mount a file system: {done.stderr.strip()}")
    try:
        yield Volume(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
