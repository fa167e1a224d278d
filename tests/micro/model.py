"""Models for the device's tests: a disk whose power can be cut at any operation, and a server's producer rules."""

from __future__ import annotations

import random

from tests.micro.fakes import PowerCut, Server

__all__ = ["Disk", "PowerCut", "Server"]


class Disk:
    """A folder on a disk. Operation number `cut` (from 1) does not happen, or, if a write, happens in part.

    What `fsync` was not called for may be lost: bytes of a file from any position on (or be zero), creations and
    removals.
    """

    O_RDONLY = 0

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now: dict[str, bytearray] = {}  # what a running program sees
        self.synced: dict[str, bytes] = {}  # file contents that are safe
        self.entries: dict[str, bytearray] = {}  # the folder as it is safe: name -> file
        self.ops = 0
        self.cut = 0
        self.syncs = 0
        self._open: list[object] = []

    def _op(self) -> None:
        self.ops += 1
        if self.ops == self.cut:
            raise PowerCut

    def crash(self) -> None:
        """Power was cut: what is left."""
        after = {}
        for name in {*self.now, *self.entries}:
            file = self.entries.get(name)
            if name in self.now and (file is None or file is not self.now[name]):
                file = self.now[name] if self.rng.random() < 0.5 else file  # a creation that was not synced
            elif name not in self.now and self.rng.random() < 0.5:
                file = None  # a removal that was not synced
            if file is not None:
                safe = self.synced.get(id(file), b"")
                rest = bytes(file[len(safe) :])
                kept = rest[: self.rng.randint(0, len(rest))]
                if self.rng.random() < 0.2:
                    kept += bytes(self.rng.randint(0, 9))
                after[name] = bytearray(safe + kept)
        self.now = after
        self.entries = dict(after)
        self.synced = {id(file): bytes(file) for file in after.values()}
        self.cut = 0

    # What ds_micro.flash uses of os and open

    def mkdir(self, path: str) -> None:
        raise OSError(17)

    def listdir(self, path: str) -> list[str]:
        return [name.rpartition("/")[2] for name in self.now]

    def remove(self, name: str) -> None:
        self._op()
        del self.now[name]

    def urandom(self, n: int) -> bytes:
        return self.rng.randbytes(n)

    def stat(self, name: str) -> tuple[int, ...]:
        if name not in self.now:
            raise OSError(2, name)
        return (0x8000, 0, 0, 0, 0, 0, len(self.now[name]))

    def rename(self, old: str, new: str) -> None:
        self._op()
        self.now[new] = self.now.pop(old)

    def open(self, name: str, flags: int) -> int:
        return -1

    def close(self, fd: int) -> None:
        pass

    def fsync(self, fd: int) -> None:
        self._op()
        self.syncs += 1
        if fd == -1:
            self.entries = dict(self.now)
        else:
            file = self._open[fd]
            self.synced[id(file)] = bytes(file)

    def file(self, name: str, mode: str = "r") -> File:
        if mode == "wb":
            self._op()
            self.now[name] = bytearray()
        elif name not in self.now:
            raise OSError(2)
        self._open.append(self.now[name])
        return File(self, self.now[name], len(self._open) - 1)


class File:
    def __init__(self, disk: Disk, data: bytearray, fd: int) -> None:
        self._disk, self._data, self._fd, self._at = disk, data, fd, 0

    def __enter__(self) -> File:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def close(self) -> None:
        pass

    def flush(self) -> None:
        pass

    def fileno(self) -> int:
        return self._fd

    def seek(self, at: int, whence: int = 0) -> int:
        self._at = at if whence == 0 else len(self._data) + at
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, n: int) -> bytes:
        data = bytes(self._data[self._at : self._at + n])
        self._at += len(data)
        return data

    def readinto(self, view: memoryview) -> int:
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def write(self, data: bytes) -> None:
        try:
            self._disk._op()
        except PowerCut:
            self._data += data[: self._disk.rng.randint(0, len(data))]
            raise
        self._data += data
