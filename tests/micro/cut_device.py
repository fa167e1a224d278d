"""A device that appends numbered records until somebody pulls the plug. Says `try N` before and `safe N` after
each append.

    python cut_device.py ROOT URL FOLDER FIRST
"""

import sys
import time

ROOT, URL, FOLDER, FIRST = sys.argv[1:]
sys.path[:0] = [ROOT, ROOT + "/micro"]

from ds_micro import Outbox, Stream  # noqa: E402


def say(*words):
    print(*words)
    if hasattr(sys.stdout, "flush"):
        sys.stdout.flush()


s = Stream(URL, timeout=2)
box = Outbox(FOLDER, s, producer="device", limit=1 << 20, segment=512)
box.writer._backoff.first = box.writer._backoff.most = 20
number = int(FIRST)
while True:
    for _ in range(5):
        say("try", number)
        box.append({"n": number})
        say("safe", number)
        number += 1
    box.flush(0.2)
    if number - int(FIRST) > 2000:
        time.sleep(60)
