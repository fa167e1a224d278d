"""A bit of a record's length flips on flash: the outbox is opened all the same, in a device's heap.

micropython -X heapsize=40k bit_rot.py BUILD FOLDER
"""

import sys

BUILD, FOLDER = sys.argv[1:]
sys.path[:] = [BUILD, ".frozen"]

import gc  # noqa: E402

gc.threshold(1024)

from ds_micro import Outbox, Stream  # noqa: E402

s = Stream("http://127.0.0.1:1/v1/stream/x", timeout=1)
box = Outbox(FOLDER, s, "p")
for i in range(5):
    box.append({"n": i})
box.close()
name = FOLDER + "/00000001.out"
with open(name, "rb") as f:
    good = f.read()
size = (len(good) - 36) // 5
for record in range(5):
    for bit in range(16):
        at = 36 + record * size + (bit < 8)
        with open(name, "wb") as f:
            f.write(good[:at])
            f.write(bytes([good[at] ^ 1 << bit % 8]))
            f.write(good[at + 1 :])
        box = None
        gc.collect()
        box = Outbox(FOLDER, s, "p")
        assert box.records == record, (record, bit, box.records)
        assert box.damaged == (5 - record) * size, (record, bit, box.damaged, size)
print("opened")
