"""The demo's device: measures, keeps each record in its outbox, sends twenty at a time. Runs on MicroPython.

    micropython sensor.py LIBRARIES URL OUTBOX FIRST PERIOD     FIRST: number of the first record, PERIOD: ms
    micropython sensor.py LIBRARIES URL OUTBOX -1 0             only send what is left, and end

Says what it does, a line each, so that a power cut leaves no doubt: "measured N" before a record is kept, "safe N"
after.
"""

import sys

LIBRARIES, URL, OUTBOX, FIRST, PERIOD = sys.argv[1:]
sys.path[:] = [LIBRARIES, ".frozen"]

import gc  # noqa: E402

gc.threshold(1024)

from time import sleep_ms  # noqa: E402

from ds_micro import Outbox, Stream  # noqa: E402

stream = Stream(URL, timeout=2, buffer=512)
box = Outbox(OUTBOX, stream, producer="sensor", limit=64 * 1024, when_full="refuse")
print("boot", box.records, gc.mem_free())
writer = box.writer
n = int(FIRST)
told = 0


def flush(timeout):
    global told
    left = box.flush(timeout)
    if writer.duplicates != told:
        print("repeated", writer.duplicates - told)
        told = writer.duplicates
    return left


while n < 0:
    if not flush(2):
        print("done")
        sys.exit()
while True:
    print("measured", n)
    box.append({"n": n, "t": 20 + n % 40 / 4})
    print("safe", n)
    n += 1
    sleep_ms(int(PERIOD))
    if box.due() or n % 20 == 0:
        flush(1)
