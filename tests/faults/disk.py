"""A disk under command: faults on call (`disk.c` under LD_PRELOAD), and what a power cut leaves.

`preload` gives the environment for a process whose writes are logged or made to fail. `Log`
reads such a log and builds what the files may look like when the power fails at a given point:
synced bytes are there, unsynced ones may be, sector by sector.
"""

from __future__ import annotations

import mmap
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools import ci

_SOURCE = Path(__file__).with_name("disk.c")
_SECTOR = 512
_FIELDS = (
    "fail_sync", "full", "fail_read", "fail_write", "failed", "syncs", "after", "fail_home", "error", "read_only",
)  # fmt: skip


def library(folder: Path) -> Path:
    """Compile the shim; skips without a C compiler or off Linux, except under CI."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None or os.uname().sysname != "Linux":
        if ci.in_ci():
            pytest.fail("a C compiler (gcc) on Linux is needed for the fault tests")
        pytest.skip("needs a C compiler on Linux")
    target = folder / "disk.so"
    if not target.exists():
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", str(target), str(_SOURCE), "-ldl", "-lpthread"],
            check=True,
        )
    return target


class Control:
    """The switches of a process's disk; see `struct control` in `disk.c`."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(4 * len(_FIELDS)))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)

    def __getitem__(self, name: str) -> int:
        return int(struct.unpack_from("i", self._map, 4 * _FIELDS.index(name))[0])

    def __setitem__(self, name: str, value: int) -> None:
        struct.pack_into("i", self._map, 4 * _FIELDS.index(name), value)


def preload(library: Path, folder: Path, control: Path | None = None, log: Path | None = None) -> dict[str, str]:
    """The environment of a process whose files below `folder` lie on this disk."""
    env = {"LD_PRELOAD": str(library), "DISK_FOLDER": f"{folder}/"}
    if control is not None:
        env["DISK_CONTROL"] = str(control)
    if log is not None:
        env["DISK_LOG"] = str(log)
    return env


_WRITE, _TRUNCATE, _SYNC, _UNLINK, _NAME = 1, 2, 3, 4, 5


class _File:
    """What is surely on the disk, and what has been written since the last sync."""

    def __init__(self) -> None:
        self.there = False
        self.durable = bytearray()
        self.pending: list[tuple[int, int, bytes]] = []

    def sync(self) -> None:
        for operation, offset, data in self.pending:
            _apply(self.durable, operation, offset, data)
        self.pending.clear()

    def torn(self, rng: random.Random, chance: float) -> bytearray:
        """The file with some of what is pending; what is written earlier may be the part that is lost."""
        content = bytearray(self.durable)
        for operation, offset, data in self.pending:
            if operation == _TRUNCATE:
                if rng.random() < chance:
                    _apply(content, operation, offset, data)
                continue
            at = 0
            while at < len(data):
                size = min(len(data) - at, _SECTOR - (offset + at) % _SECTOR)
                if rng.random() < chance:
                    _apply(content, operation, offset + at, data[at : at + size])
                at += size
        return content


def _apply(content: bytearray, operation: int, offset: int, data: bytes) -> None:
    if operation == _TRUNCATE:
        if offset < len(content):
            del content[offset:]
        else:
            content.extend(bytes(offset - len(content)))
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class Log:
    """A disk's log, gone through from sync to sync."""

    def __init__(self, path: Path) -> None:
        self._log = path.read_bytes()
        self._names: dict[int, str] = {}
        self._files: dict[str, _File] = {}

    def syncs(self) -> Iterator[int]:
        """Just before every sync, and once at the end: the position in the log. `images` gives
        what the power may leave there."""
        at = 0
        while at + 20 <= len(self._log):
            operation, number, low, high, size = struct.unpack_from("5I", self._log, at)
            data = self._log[at + 20 : at + 20 + size]
            if len(data) < size:
                break
            if operation == _SYNC:
                yield at
            at += 20 + size
            offset = low | high << 32
            if operation == _NAME:
                self._names[number] = data.decode()
                continue
            file = self._files.setdefault(self._names[number], _File())
            if operation == _SYNC:
                file.sync()
            elif operation == _UNLINK:
                del self._files[self._names[number]]
            else:
                file.there = True
                file.pending.append((operation, offset, data))
        yield at

    def build(self, folder: Path, rng: random.Random, chance: float) -> None:
        """Write into a folder what the power cut leaves; each unsynced sector has this chance."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, file in self._files.items():
            if file.there:
                (folder / name).write_bytes(file.torn(rng, chance))
