"""How much an outbox wears flash: littlefs on a block device in RAM that counts, under MicroPython's Unix port.

    MICROPYPATH=.:micro:.frozen micropython -X heapsize=16m hardware-notes/measure/flash_wear.py [RECORDS]

Run from the top of the checkout. Prints erases and programmed bytes per record, and how long a flash lasts that stands
100,000 erases per block, at one record a minute. littlefs comes with the interpreter; its block size, program size and
cache are those a board's port uses.
"""

import sys

from vfs import VfsLfs2, mount, umount

from ds_micro.closing import close
from ds_micro.cursor import Cursor
from ds_micro.flash import FlashStore

RECORDS = int(sys.argv[1]) if len(sys.argv) > 1 else 100000
SIZE = 20  # bytes of a record
CYCLES = 100000
PER_DAY = 1440

# name, bytes of a block, blocks, of these holding files that never change, bytes programmed at once
FLASHES = (
    ("ESP32, 2 MB", 4096, 512, 0, 32),
    ("Pico W, 848 KB", 4096, 212, 0, 256),
    ("Pico W, 848 KB, 600 KB of them used", 4096, 212, 150, 256),
)


class Flash:
    """NOR flash: erasing sets all bits of a block, programming clears some."""

    def __init__(self, size, count):
        self._size = size
        self._data = bytearray(b"\xff" * (size * count))
        self.erases = [0] * count
        self.programmed = 0

    def readblocks(self, block, buf, offset=0):
        at = block * self._size + offset
        buf[:] = memoryview(self._data)[at : at + len(buf)]

    def writeblocks(self, block, buf, offset=0):
        at = block * self._size + offset
        data = self._data
        for i in range(len(buf)):
            assert data[at + i] & buf[i] == buf[i], "programmed without an erase"
            data[at + i] = buf[i]
        self.programmed += len(buf)

    def ioctl(self, operation, block):
        if operation == 4:
            return len(self.erases)
        if operation == 5:
            return self._size
        if operation == 6:
            self.erases[block] += 1
            at = block * self._size
            self._data[at : at + self._size] = b"\xff" * self._size
        return 0


class Log:
    """RECORDS records, a batch sent and acknowledged whenever one is full."""

    def __init__(self, sync_every, batch=20, limit=65536):
        self.title = f"outbox, sync_every={sync_every}"
        self._options = (limit, max(256, min(4096, limit // 16)), batch, "refuse", sync_every)
        self._batch = batch

    def __call__(self):
        store = FlashStore("/flash/box", 1, "x", False, *self._options)
        record = b"r" * SIZE
        for i in range(RECORDS):
            assert store.append(record)
            if i % self._batch == self._batch - 1:
                assert store.batch(0)
                store.done()
        close(store)


class Commands:
    """A cursor saved for each command."""

    title = "cursor, saved for each item"

    def __call__(self):
        cursor = Cursor("/flash/cursor", items=1)
        for i in range(RECORDS):
            cursor.offset = f"0000000000000001_{i * 20:016}"
            cursor.save()


def measure(name, size, count, used, program, work):
    flash = Flash(size, count)
    VfsLfs2.mkfs(flash, progsize=program)
    mount(VfsLfs2(flash, progsize=program), "/flash")
    with open("/flash/program", "wb") as f:
        for _ in range(used):
            f.write(bytes(size))
    before = flash.erases[:]
    flash.programmed = 0
    work()
    umount("/flash")
    spent = [flash.erases[i] - before[i] for i in range(count)]
    each = sum(spent) / RECORDS
    worst = max(spent)
    years = CYCLES / (worst / RECORDS * PER_DAY * 365)
    print(f"| {name} | {work.title} | {each:.3f} | {flash.programmed / RECORDS:.0f} | {worst} | {years:.0f} |")


def main():
    print(f"{RECORDS} records of {SIZE} bytes, {sys.version.split('; ')[-1]}\n")
    print("| flash | what | erases per record | bytes programmed per record | erases of the worst block | years |")
    print("|---|---|---:|---:|---:|---:|")
    for flash in FLASHES:
        for sync_every in (1, 5, 20):
            measure(*flash, Log(sync_every))
        measure(*flash, Commands())


main()
