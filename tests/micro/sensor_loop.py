"""A sensor's loop on a small heap: outbox on a file system, append, flush, tail. Prints free memory.

    micropython -X heapsize=40k sensor_loop.py BUILD URL FOLDER RECORDS
"""

import gc
import sys

BUILD, URL, FOLDER, RECORDS = sys.argv[1:]
sys.path[:] = [BUILD, ".frozen"]

gc.threshold(1024)  # collect early: importing leaves holes otherwise
start = gc.mem_free()
# Modules first, so that what stays is not scattered between what goes.
import ds_core.wire.cbor  # noqa: E402, F401
import ds_micro.flash  # noqa: E402, F401
from ds_micro import Cursor, Outbox, Stream  # noqa: E402

gc.collect()
print("imported", start - gc.mem_free())
s = Stream(URL, timeout=10, buffer=256, max_bytes=2048)
box = Outbox(FOLDER, s, producer="sensor", limit=16 * 1024)
cursor = Cursor(FOLDER + "/cursor")
seen = 0
free = []
for i in range(int(RECORDS)):
    box.append({"t": 20 + i % 10 / 2, "n": i})
    if i % 20 == 19:
        left = box.flush(20)
        assert not left, box.error
    if i % 200 == 199:
        for item in s.read(cursor):
            assert item["n"] == seen, (item, seen)
            seen += 1
        cursor.save()
    if i % 1000 == 999:
        gc.collect()
        free.append(gc.mem_free())
        print("free", i + 1, free[-1])
assert seen == int(RECORDS), seen
assert box.writer.sent == seen // 20 and not box.writer.duplicates and not box.dropped
print("drift", free[0] - free[-1])
