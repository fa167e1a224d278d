"""The power cut at every operation (or each STEP-th) of a real file system under outbox and cursor.

micropython -X heapsize=8m cut_file_systems.py ROOT KIND SYNC_EVERY STEP        KIND: littlefs or fat
"""
# ruff: noqa: UP031 (MicroPython)

import sys

ROOT, KIND, EVERY, STEP = sys.argv[1:5]
EVERY, STEP = int(EVERY), int(STEP)
sys.path[:0] = [ROOT, ROOT + "/micro", ROOT + "/tests/micro"]

from fakes import PowerCut, Server, mount, unmount  # noqa: E402

from ds_core.client.backoff import Backoff  # noqa: E402
from ds_core.client.writer import AGAIN, DONE, DUPLICATE, Writer  # noqa: E402
from ds_micro import Cursor  # noqa: E402
from ds_micro.closing import close  # noqa: E402
from ds_micro.flash import FlashStore  # noqa: E402

SIZE = 32 * 4096 if KIND == "littlefs" else 512 * 300


class Device:
    """One life: appends numbered records, sends now and then (every third answer is lost), saves a cursor."""

    def __init__(self, server, epoch, limit):
        self.server = server
        self.lost = 0
        self.store = FlashStore("/f/box", epoch, "text/plain", False, limit, 160, 0, "drop-oldest", EVERY)
        self.writer = Writer(self.store, "p", Backoff(lambda n: 0))

    def flush(self, lossy=True):
        while True:
            batch = self.writer.request()
            if batch is None:
                return
            body = b""
            view = memoryview(bytearray(50))
            while True:
                n = batch.readinto(view)
                if not n:
                    break
                body += bytes(view[:n])
            assert len(body) == batch.length
            answer = self.server.post(batch.epoch, batch.seq, body)
            self.lost += 1
            if lossy and self.lost % 3 == 0:
                self.writer.broken()
                return
            assert self.writer.answer(batch, *answer) in (DONE, DUPLICATE, AGAIN)


def run(base, cut, half, limit):
    """Operations of the first life."""
    data = bytearray(base)
    flash = mount(KIND, data, "/f")
    flash.cut = cut
    flash.half = half
    server = Server()
    safe = []
    unsure = []
    saved = [("-1", 0)]
    spans = [("-1", 0)]
    number = 0
    try:
        device = Device(server, 5, limit)
        cursor = Cursor("/f/cursor")
        far = Cursor("/f/far")
        for i in range(60):
            unsure.append(number)
            if device.store.append(b"%05d," % number):
                safe.append(unsure.pop())
            number += 1
            if i % 6 == 5:
                device.flush()
            if i % 4 == 1:
                cursor.offset = "00000000000000%02d_0000000000000000" % i
                cursor.items = i
                saved.append((cursor.offset, i))
                cursor.save()
            if i % 12 == 6:
                # As long as some servers' are, and longer each time.
                far.offset = "x" * (30 + 10 * i)
                far.items = 10 ** (i // 12)
                spans.append((far.offset, far.items))
                far.save()
    except (PowerCut, OSError) as exc:
        if not flash.off:
            raise exc
    unmount("/f", flash)
    ops = flash.ops
    flash = mount(KIND, data, "/f")
    far = Cursor("/f/far").load()
    assert (far.offset, far.items) in spans[-2:], (cut, far.offset, spans)
    cursor = Cursor("/f/cursor").load()
    assert (cursor.offset, cursor.items) in saved[-2:], (cut, cursor.offset, saved)
    cursor.save()
    device = Device(server, 6, limit)
    for i in range(900, 903):
        if device.store.append(b"%05d," % i):
            safe.append(i)
    device.flush(lossy=False)
    assert device.store.records == 0
    close(device.store)
    unmount("/f", flash)
    got = [int(word) for word in b"".join(server.bodies).split(b",")[:-1]]
    assert got == sorted(set(got)), (cut, "out of order or twice", got)
    lost = [n for n in safe if n not in got]
    gone = [n for n in safe[:-3] if n not in got]
    if limit > 10000:
        # What was not synced is lost from the end only.
        assert len(lost) < EVERY and lost == safe[-3 - len(lost) : -3], (cut, lost, safe)
    else:
        assert len(gone) <= device.store.dropped + EVERY - 1, (cut, gone, device.store.dropped)
    for n in got:
        assert n in safe or n in unsure, (cut, n)
    return ops


base = bytearray(b"\xff" * SIZE)
unmount("/f", mount(KIND, base, "/f", True))
cuts = 0
for limit in (1 << 20, 640):
    operations = run(base, 0, False, limit)
    assert operations > 50, operations
    for cut in range(1, operations + 2, STEP):
        for half in (False, True):
            cuts += 1
            run(base, cut, half, limit)
print("cuts", cuts)
