"""What a device usually does: create, append through an outbox on flash, flush, read and follow with a cursor. Prints
the files that this loads.

    micropython usual_program.py BUILD URL FOLDER
"""

import sys

BUILD, URL, FOLDER = sys.argv[1:]
sys.path[:] = [BUILD, ".frozen"]

from ds_micro import Cursor, Outbox, Stream  # noqa: E402

s = Stream(URL, token="t", timeout=10)
s.create()
box = Outbox(FOLDER, s, producer="usual")
records = [{"t": 21.5, "rh": 40, "n": -5, "ok": True, "at": 1800000000, "v": 3.3, "who": "x", "l": [None, False]}] * 30
for record in records:
    box.append(record)
assert box.due() is False and box.flush(10) == 0, box.error
cursor = Cursor(FOLDER + "/cursor").load()
seen = []
for item in s.read(cursor, live="long-poll"):
    assert item == records[0]
    cursor.save()
    seen.append(item)
    if len(seen) == 30:  # the tail: the next one arrives live
        box.append(item)
        assert box.flush(10) == 0, box.error
    if len(seen) == 31:
        break
assert list(s.read(cursor)) == []
for name in sys.modules:
    print("loaded", sys.modules[name].__file__)
