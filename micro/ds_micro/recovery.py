"""An outbox on flash (ds_micro.flash) at a start that finds segments, and after an error: all is read, nothing assumed.
And a cursor's file that is not as it should be.

Loaded then. Without memory for that the error stays, and the next step tries again.
"""

import os
import struct
from binascii import crc32

from ds_micro.flash import sync


def recover(store):
    """See what the folder has: the newest header tells the numbers, and what counts no more."""
    files = store._files
    while files:
        with store._open(files[-1]) as f:
            data = f.read(36)
        if b"dsO1" < data[:4] < b"dsO:":
            raise ValueError("written by another version: " + store._path)
        if len(data) == 36 and crc32(data[:32]) == int.from_bytes(data[32:], "big"):
            _, store._epoch, store._seq, a, b, store.dropped = struct.unpack(">4sQQIII", data[:32])
            # What it dropped; and then what was acknowledged before it claimed an epoch.
            for number in (a, b):
                if number in files:
                    store._remove(number)
            while len(files) - 1 > store._seq:
                store._remove(files[0])
            for number in files:
                store._known[number] = scan(store, number)
            return
        store._remove(files[-1])  # torn, it never counted


def scan(store, number):
    """[size, records] of the good part of a segment."""
    known = [36, 0]
    try:
        f = store._open(number)
    except OSError as exc:
        if exc.errno != 2:
            raise
        return known  # somebody has deleted it
    with f:
        f.seek(36)
        while True:
            head = f.read(6)
            data = f.read(int.from_bytes(head[:2], "big"))
            size = 6 + len(data)
            if size == 6 or head != len(data).to_bytes(2, "big") + store._crc(number, known[0], data):
                return known
            known[0] += size
            known[1] += 1


def look(store):
    """Open the newest segment, and see what it has."""
    number = store._files[-1]
    file = store._open(number, "ab")
    known = store._known[number]
    now = scan(store, number)
    if store._torn < 2:
        store._torn = file.seek(0, 2) != now[0]  # a torn tail: nothing can follow it
    # What is on flash does not wait, whatever was said when it was written.
    del store._waiting[: max(0, now[1] - known[1])]
    store._known[number] = now
    store._file = file


def keep(store, exc):
    """What waits could not be put into the newest segment: that can be sealed without, if there is something in it."""
    look(store)
    if not store._known[store._files[-1]][1]:
        raise exc


def short(store):
    """The oldest segment is shorter than it was: see what it has, and say so."""
    number = store._files[0]
    store._known[number] = scan(store, number)
    raise OSError(5)


def undo(store, number, torn, exc):
    """A segment could not be begun: nothing has changed, once what may be left of its file is gone for good."""
    store._delete(number)
    sync(None, store._path)
    store._torn = torn
    if not hasattr(os, "fsync") and getattr(exc, "errno", 0) in (13, 36):
        exc = OSError(28)  # so say FAT and littlefs that a directory has no room for a name
    raise exc


def discard(store):
    """Drop the oldest segment, and number what remains anew; how many records that were."""
    oldest = store._files[0]
    n = store._known[oldest][1]
    if len(store._files) == 1:
        n = store._newest()[1]
    if n:
        store.claim(store._epoch + 1, oldest)
    return n


def old_cursor(cursor, data):
    """What a cursor's file means that has no valid half: two words, as it once was; or ValueError."""
    words = data.split()
    try:
        if len(words) == 2:
            return 0, words[0].decode(), int(words[1])
    except ValueError:
        pass
    cursor._half = 0
    raise ValueError("damaged: " + cursor.path)
