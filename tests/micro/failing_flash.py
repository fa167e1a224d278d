"""Blocks of littlefs that can't be programmed, erased or read, under an outbox and a cursor. On MicroPython:

micropython -X heapsize=64m failing_flash.py ROOT one STEP            each (or each STEP-th) program or erase fails
micropython -X heapsize=64m failing_flash.py ROOT SEED LIVES [reads]  many fail, at random, in LIVES lives

No power is cut: what `append` returned for has to be seen by another look at the blocks at that moment, and to arrive
once, in order. `reads`: reads fail as well, one in 200; then littlefs itself may take a directory for another one, and
what is lost is counted.
"""
# ruff: noqa: UP031 (MicroPython)

import sys

ROOT, SEED, COUNT = sys.argv[1:4]
COUNT = int(COUNT)
READS = sys.argv[4:] == ["reads"]
sys.path[:0] = [ROOT, ROOT + "/micro", ROOT + "/tests/micro"]

import gc  # noqa: E402
import random  # noqa: E402

import vfs  # noqa: E402

from ds_micro import Cursor  # noqa: E402
from ds_micro.flash import OWNERS, FlashStore  # noqa: E402

try:
    from ds_micro.flash import TROUBLE
except ImportError:
    TROUBLE = [0]
GEOMETRIES = ((512, 512, 32), (512, 16, 24), (4096, 256, 16), (4096, 32, 12), (1024, 128, 20))


class Device:
    def __init__(self, data, block, page):
        self.data, self.block, self.page = data, block, page
        self.count = self.bad = self.errors = self.reads = 0
        self.rate = 0
        self.part = 0
        self.off = False

    def _fails(self):
        self.count += 1
        if self.count == self.bad or self.rate and random.random() < self.rate:
            self.errors += 1
            return True
        return False

    def readblocks(self, block, buf, offset=0):
        if self.off or self.reads and not random.randrange(self.reads):
            return -5
        at = block * self.block + offset
        buf[:] = memoryview(self.data)[at : at + len(buf)]
        return 0

    def writeblocks(self, block, buf, offset=0):
        if self.off:
            return -5
        failing = self._fails()
        n = len(buf) * (random.randrange(3) if self.rate else self.part) // 2 if failing else len(buf)
        at = block * self.block + offset
        self.data[at : at + n] = buf[:n]
        return -5 if failing else 0

    def ioctl(self, operation, block):
        if operation == 4:
            return len(self.data) // self.block
        if operation == 5:
            return self.block
        if operation == 6:
            if self.off or self._fails():
                return -5
            at = block * self.block
            self.data[at : at + self.block] = b"\xff" * self.block
        return 0


def system(device):
    return vfs.VfsLfs2(device, readsize=min(32, device.page), progsize=device.page, lookahead=32)


def formatted(block, page, blocks):
    device = Device(bytearray(b"\xff" * (block * blocks)), block, page)
    vfs.VfsLfs2.mkfs(device, readsize=min(32, page), progsize=page, lookahead=32)
    return device.data


def seen(device, store):
    """The newest segment's size, as a restart would see it."""
    number = store._files[-1]
    fresh = system(Device(bytearray(device.data), device.block, device.page))
    try:
        return fresh.stat("/box/%08d.out" % number)[6]
    except OSError as exc:
        return exc


def send(store, sent):
    """All that is sealed and what is not."""
    view = memoryview(bytearray(64))
    while True:
        batch = store.batch(0)
        if batch is None:
            return
        body = b""
        while True:
            n = batch.readinto(view)
            if not n:
                break
            body += bytes(view[:n])
        number = batch.epoch, batch.seq
        if not sent or number > sent[-1][0]:  # else the server has it
            sent.append((number, body))
        batch.done()


def opened(count=0):
    return FlashStore("/f/box", 1, "text/plain", False, 1 << 20, 160, count, "refuse", 1)


def life(device, records, rates, check):
    """What was kept, what was sent, and what another look did not see."""
    vfs.mount(system(device), "/f")
    kept, sent, missing = [], [], []
    cursor, saved, unsure = Cursor("/f/cursor"), ("-1", 0), [("-1", 0)]
    for _ in range(9):
        try:
            store = opened(random.randrange(4) if rates else 0)
            break
        except OSError:
            device.rate = device.reads = 0
    for i in range(records):
        if rates:
            device.rate = rates[i // 6 % len(rates)]
            device.reads = 200 if READS and device.rate else 0
        try:
            store.append(b"%d," % i)
            kept.append(i)
            if check(device) and seen(device, store) != store._known[store._files[-1]][0]:
                missing.append(i)
        except OSError:
            pass
        try:
            if i % 5 == 4:
                send(store, sent)
            if i % 7 == 6:
                cursor.offset, cursor.items = "%020d" % i, i
                unsure.append((cursor.offset, i))
                cursor.save()
                saved = unsure[-1]
                unsure = [saved]
        except OSError:
            pass
    device.rate = device.reads = device.bad = 0
    device.off = True
    try:
        vfs.umount("/f")
    except OSError:
        pass
    OWNERS.clear()
    TROUBLE[0] = 0
    device = Device(device.data, device.block, device.page)
    vfs.mount(system(device), "/f")  # after a restart
    send(opened(), sent)
    cursor = Cursor("/f/cursor").load()
    vfs.umount("/f")
    OWNERS.clear()
    got = [int(word) for _, body in sent for word in body.split(b",")[:-1]]
    wrong = [n for n in kept if n not in got]
    if got != sorted(set(got)):
        wrong.append("twice or out of order")
    if (cursor.offset, cursor.items) not in unsure:
        wrong.append("cursor")
    return wrong, missing


gc.disable()
runs = bad = 0
if SEED == "one":
    for block, page, blocks in GEOMETRIES[:1]:
        base = formatted(block, page, blocks)
        device = Device(bytearray(base), block, page)
        life(device, 60, (), lambda device: False)
        operations = device.count
        for part in (0, 1, 2):
            for at in range(1 + part * COUNT // 3, operations + 1, COUNT):
                device = Device(bytearray(base), block, page)
                device.bad, device.part = at, part
                wrong, missing = life(device, 60, (), lambda device: device.errors)
                runs += 1
                if wrong or missing:
                    bad += 1
                    print("program or erase", at, part, "lost", wrong, "not on flash", missing)
                if runs % 4 == 0:
                    gc.collect()
else:
    bases = [formatted(*geometry) for geometry in GEOMETRIES]
    for n in range(COUNT):
        random.seed(int(SEED) * 100003 + n)
        which = random.randrange(len(GEOMETRIES))
        block, page, _ = GEOMETRIES[which]
        device = Device(bytearray(bases[which]), block, page)
        device.part = random.randrange(3)
        try:
            wrong, missing = life(device, 90, ((0, 0.02), (0, 0.15), (0.5, 0))[n % 3], lambda device: True)
        except Exception as exc:
            wrong, missing = [repr(exc)], []
            try:
                vfs.umount("/f")
            except OSError:
                pass
            OWNERS.clear()
        runs += 1
        if wrong or missing:
            bad += 1
            print("life", n, "lost", wrong, "not on flash", missing)
        if runs % 8 == 0:
            gc.collect()
print("runs", runs, "bad", bad)
