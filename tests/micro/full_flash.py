"""An outbox on a file system that others have filled: full_flash.py ROOT URL KIND SYNC_EVERY. On MicroPython."""
# ruff: noqa: UP031 (MicroPython)

import sys

ROOT, URL, KIND, EVERY = sys.argv[1:5]
EVERY = int(EVERY)
sys.path[:0] = [ROOT, ROOT + "/micro", ROOT + "/tests/micro"]

import os  # noqa: E402

from fakes import mount  # noqa: E402
from vfs import umount  # noqa: E402

from ds_micro import Outbox, Stream  # noqa: E402

SIZE = 16 * 4096


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


def no_room(call, *args):
    """Whether it worked; else there was no room, and nothing else."""
    try:
        call(*args)
        return True
    except OSError as exc:
        # 36: what littlefs says of a name for which a directory has no block
        assert exc.errno in (28, 36), exc
        return False


runs = 0
for full in ("refuse", "drop-oldest", "drop-newest"):
    for before, files in ((0, 1000), (1, 0), (1, 1000), (300, 1000)) if full == "refuse" else ((1, 1000),):
        runs += 1
        mount(KIND, bytearray(b"\xff" * SIZE), "/f", True)
        s = Stream("%s-%d" % (URL, runs), timeout=5)
        s.create()
        box = Outbox("/f/box", s, "p", limit=1 << 20, when_full=full, sync_every=EVERY)
        kept = list(range(before))
        for i in kept:
            box.append(i)
        fill("/f", files)
        if files:
            assert not no_room(Outbox, "/f/another", s, "q")  # not even a folder
        for i in range(before, before + 100):
            if no_room(box.append, i):
                kept.append(i)
        assert (box.records, box.dropped) == (len(kept), 0)
        if not no_room(box.flush, 5):
            os.remove("/f/junk")  # not even room for the name of a new segment
        if no_room(box.append, 9999):
            kept.append(9999)
        elif os.stat("/f/junk"):
            os.remove("/f/junk")
        left = box.flush(5)
        assert left < EVERY, (left, box.error)  # what waits for its sync may still have no room
        try:
            os.remove("/f/junk")
        except OSError:
            pass
        assert box.flush(5) == 0, box.error
        box.close()
        box = Outbox("/f/box", s, "p", limit=1 << 20)  # as after a restart
        assert box.append(10000) and box.flush(5) == 0
        kept.append(10000)
        got = list(s.read())
        assert got == kept, (full, before, files, len(got), len(kept))
        umount("/f")
        box = None
