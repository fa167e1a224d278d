"""Without memory at any allocation of append, flush and all that they do: nothing is lost, nothing comes twice.

micropython -X heapsize=96k out_of_memory.py ROOT FOLDER SYNC_EVERY STEP ROOM    free: STEP, 2 * STEP, ... ROOM
"""


import gc
import os
import sys

ROOT, FOLDER, EVERY, STEP, ROOM = sys.argv[1:6]
EVERY, STEP, ROOM = int(EVERY), int(STEP), int(ROOM)
sys.path[:0] = [ROOT, ROOT + "/micro", ROOT + "/tests/micro"]

import fakes  # noqa: E402

# Compiling sources without memory is another matter (a board has .mpy files, or loads these when it starts).
import ds_micro.closing  # noqa: E402
import ds_micro.operations  # noqa: E402
import ds_micro.recovery  # noqa: E402
import ds_micro.retry  # noqa: E402
import ds_micro.trouble  # noqa: E402, F401
from ds_micro import Outbox, Stream  # noqa: E402


class Local(Stream):
    _net = fakes.Net


taken = [None] * 4000  # what holds the memory
spare = bytearray(ROOM)  # where the room is, so that it is in one piece


def hog(room):
    """Take all memory but so many bytes."""
    global spare
    gc.collect()
    size = 4096
    i = 0
    while size >= 16 and i < len(taken):
        try:
            taken[i] = bytearray(size)
            i += 1
        except MemoryError:
            size //= 2
    spare = None
    gc.collect()
    try:
        spare = bytearray(ROOM - room)
    except MemoryError:
        pass


def release():
    global spare
    for i in range(len(taken)):
        taken[i] = None
    spare = None
    gc.collect()
    try:
        spare = bytearray(ROOM)
    except MemoryError:
        pass  # in pieces now; a collection later it is there again


def short_of_memory(room, call, *args):
    """What the call returns, or None where there was no memory for it."""
    hog(room)
    try:
        return call(*args)
    except MemoryError:
        return None
    finally:
        release()


try:
    os.mkdir(FOLDER)
except OSError:
    pass
server = Local._net.server = fakes.Server()
stream = Local("http://x/s", content_type="text/plain")
errors = 0
safe = []
unsure = []
number = 0
box = Outbox(FOLDER, stream, "p", limit=4096, segment=256, sync_every=EVERY, when_full="refuse")
for room in range(STEP, ROOM, STEP):
    for call in ("append", "append", "append", "flush"):
        if call == "append":
            record = b"%05d," % number
            unsure.append(number)
            if short_of_memory(room, box.append, record, True):
                safe.append(unsure.pop())
            else:
                errors += 1
            number += 1
        elif short_of_memory(room, box.flush, 5) is None:
            errors += 1
    # With memory, all goes on at once, and then it is as after a restart.
    if room % (5 * STEP) == 0:
        record = b"%05d," % number
        assert box.append(record, True)
        safe.append(number)
        number += 1
        assert box.flush(5) == 0, box.error
    if room % (8 * STEP) == 0:
        box.close()
        box = Outbox(FOLDER, stream, "p", limit=4096, segment=256, sync_every=EVERY, when_full="refuse")
assert box.flush(5) == 0, box.error
got = [int(word) for word in b"".join(server.bodies).split(b",")[:-1]]
assert got == sorted(set(got)), "out of order or twice"
lost = [n for n in safe if n not in got]
assert not lost, lost
for n in got:
    assert n in safe or n in unsure
assert errors > 20, errors
print("errors", errors, "of", 4 * len(range(0, ROOM, STEP)), "unsure", len([n for n in unsure if n in got]), "there")
