"""Bytes of heap that importing takes, under MicroPython's Unix port: heap.py MODULE...

    MICROPYPATH=build/micro:.frozen micropython -X heapsize=256k hardware-notes/measure/heap.py ds_micro ds_micro.outbox

The 32-bit build's words are as wide as a board's. From .py files a board needs more than this while it compiles; frozen
modules take a few hundred bytes in all.
"""

import gc
import sys

total = 0
for name in sys.argv[1:]:
    gc.collect()
    before = gc.mem_alloc()
    __import__(name)
    gc.collect()
    used = gc.mem_alloc() - before
    total += used
    print(f"{used:7d}  {name}")
print(f"{total:7d}  in all")
