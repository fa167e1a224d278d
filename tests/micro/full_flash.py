"""An outbox on a littlefs that others have filled: full_flash.py ROOT URL. On MicroPython, which has littlefs."""
# ruff: noqa: UP031 (MicroPython)

import sys

ROOT, URL = sys.argv[1:3]
sys.path[:0] = [ROOT, ROOT + "/micro"]

import os  # noqa: E402

from vfs import VfsLfs2, mount, umount  # noqa: E402

from ds_micro import Outbox, Stream  # noqa: E402

BLOCK = 4096


class Flash:
    def __init__(self, count):
        self._count = count
        self._data = bytearray(b"\xff" * (BLOCK * count))

    def readblocks(self, block, buf, offset=0):
        at = block * BLOCK + offset
        buf[:] = memoryview(self._data)[at : at + len(buf)]

    def writeblocks(self, block, buf, offset=0):
        at = block * BLOCK + offset
        self._data[at : at + len(buf)] = buf

    def ioctl(self, operation, block):
        if operation == 4:
            return self._count
        if operation == 5:
            return BLOCK
        if operation == 6:
            self._data[block * BLOCK : (block + 1) * BLOCK] = b"\xff" * BLOCK
        return 0


def fill(folder, files):
    """Take every block, then the last of the directory's."""
    try:
        with open(folder + "/junk", "wb") as f:
            while True:
                f.write(b"x" * 256)
                f.flush()
    except OSError:
        pass
    try:
        for i in range(files):
            open(folder + "/junk%d" % i, "wb").close()
    except OSError:
        pass


runs = 0
for full in ("refuse", "drop-oldest", "drop-newest"):
    for before, files in ((0, 1000), (1, 0), (1, 1000), (300, 1000)) if full == "refuse" else ((1, 1000),):
        runs += 1
        flash = Flash(16)
        VfsLfs2.mkfs(flash, progsize=32)
        mount(VfsLfs2(flash, progsize=32), "/f")
        s = Stream("%s-%d" % (URL, runs), timeout=5)
        s.create()
        box = Outbox("/f/box", s, "p", limit=1 << 20, when_full=full)
        kept = list(range(before))
        for i in kept:
            box.append(i)
        fill("/f", files)
        for i in range(before, before + 100):
            try:
                box.append(i)
                kept.append(i)
            except OSError as exc:
                assert exc.errno in (28, 36), exc  # 36: what littlefs says when a directory has no block for a name
        assert (box.records, box.dropped) == (len(kept), 0)
        try:
            box.flush(5)
        except OSError as exc:
            assert exc.errno in (28, 36), exc  # not even room for the name of a new segment: remove something
            os.remove("/f/junk")
            assert box.flush(5) == 0
        box.append(9999)
        assert Outbox("/f/box", s, "p", limit=1 << 20).records == box.records  # as after a power cut
        assert box.flush(5) == 0
        got = list(s.read())
        kept.append(9999)
        assert got == kept, (full, before, files, len(got), len(kept))
        umount("/f")
        box = flash = None
