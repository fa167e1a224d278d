"""An outbox on flash (ds_micro.flash) at a start that finds segments, and after an error: all is read, nothing assumed.

Loaded then. Without memory for that the error stays, and the next step tries again.
"""

import os
import struct
from binascii import crc32

from ds_micro.flash import OWNERS, TROUBLE, absent, guarded, sync


def recover(store, exc=None):
    """See what the folder has, which is ours from now on: the newest header tells the numbers, and what counts no more.
    `exc`: why the folder could not be made.
    """
    path = store._path
    files = store._files
    gone = store._gone
    del files[:]
    store._known = known = {}
    store._damaged = bad = 0
    try:
        OWNERS[path] = files
        if TROUBLE[0]:
            calm(path)
            prove(path)
        names = names_in(path)
    except OSError as found:
        raise no_room(exc if exc and found.errno == 2 else found)  # ENOENT
    for number in segments(path, names):
        if number not in gone:
            files.append(number)
    files.sort()
    for at in range(len(files) - 1, -1, -1):
        number = files[at]
        with store._open(number) as f:
            data = f.read(36)
        whole = crc32(b"dsO1" + data[4:32]) == int.from_bytes(data[32:], "big")
        if len(data) < 36 and not bad:
            gone.append(files.pop())  # torn, it never counted
        elif whole:
            break
        elif b"dsO1" < data[:4] < b"dsO:":
            raise ValueError("written by another version: " + path)
        else:
            # It may have counted, so that what is older was sent. Its number is the next one, or the server objects.
            bad += 1
    if bad:
        store._torn = 2
        store._damaged = 36 * bad
    if bad < len(files):
        _, store._epoch, store._seq, a, b, store.dropped = struct.unpack(">4sQQIII", data[:32])
        store._seq += bad
        # What it dropped; and then what was acknowledged before it claimed an epoch.
        while a in files or b in files or len(files) - 1 > store._seq:
            number = a if a in files else b if b in files else files[0]
            gone.append(number)
            files.remove(number)
    elif bad:
        store._epoch = int.from_bytes(os.urandom(3), "big")  # as if all were new
        store._seq = bad - 1
    for number in files:
        known[number], rest = scan(store, number)
        store._damaged += max(0, rest)
    store._settle()


def segments(path, names):
    """The numbers of all segments, counting or not."""
    found = []
    for name in names:
        try:
            number = int(name[:-4])
        except ValueError:
            continue  # somebody else's
        if number > 0 and name == "%08d.out" % number and not os.stat(path + "/" + name)[0] & 0x4000:
            found.append(number)
    return found


def names_in(path):
    """What a folder has. MicroPython's listdir() ends without a word where a directory can't be read on; a segment that
    is not seen would be lost, or its number be taken again. So it is counted once more.
    """
    n = 0
    for _ in range(5):
        if hasattr(os, "ilistdir"):
            n = 0
            for _ in os.ilistdir(path):
                n += 1
                if n > 9999:  # without end, on littlefs that is damaged
                    raise OSError(5)  # EIO
            calm(path)
        names = os.listdir(path)
        calm(path)
        if n in (0, len(names)):
            return names
    raise OSError(5)


def scan(store, number):
    """[size, records] of the good part of a segment, and how many bytes are behind it, or, of its header, are not."""
    known = [36, 0]
    try:
        f = store._open(number)
    except OSError as exc:
        if exc.errno != 2:
            raise
        return known, -36  # somebody has deleted it
    view = memoryview(bytearray(64))
    with f:
        end = f.seek(0, 2)
        while True:
            at = known[0]
            f.seek(at)
            head = f.read(6)
            n = int.from_bytes(head[:2], "big")
            left = n if at + 6 + n <= end else 0
            crc = number * 65536 + at * 251 + n
            while left:  # never more in RAM, whatever the length says
                got = f.readinto(view[:left])
                if not got:
                    break
                crc = crc32(view[:got], crc)
                left -= got
            if left or not n or at + 6 + n > end or head[2:] != crc.to_bytes(4, "big"):
                return known, end - at
            known[0] = at + 6 + n
            known[1] += 1


def look(store):
    """Assume nothing: drop what is open, and see what the newest segment has."""
    files = store._files
    path = store._path
    owner = OWNERS.get(path)
    if owner is not files and owner is not None:
        raise RuntimeError("another Outbox was opened on " + path)
    seen = TROUBLE[0]
    let_go(store)
    if store._gone or store._torn & 4 or store._waiting:
        prove(path)
    undo(store)
    if owner is None:
        try:
            recover(store)  # it was closed, and others may have been there
        except BaseException:
            OWNERS.pop(path, None)
            raise
        if not files:
            store.claim(store._epoch + 1)
    elif files:
        # What was deleted may be there again: littlefs can find an old part of a directory, after an error.
        for number in segments(path, names_in(path)):
            if number not in files and number not in store._gone:
                store._gone.append(number)
        # (The oldest one as well, which the next step may be to send.)
        for number in (files[-1], files[0]):
            known = store._known[number]
            now, rest = scan(store, number)
            for _ in range(3):
                if now[0] >= known[0] and rest >= 0:
                    break
                calm(path)  # less than was said to be there: did it not read all?
                now, rest = scan(store, number)
            else:
                store._damaged = getattr(store, "_damaged", 0) + known[0] - now[0]
            store._known[number] = now
            if number == files[-1]:
                if not store._torn & 2:
                    store._torn = rest != 0  # a torn tail, or no header: nothing can follow it
                # What is on flash does not wait, whatever was said when it was written.
                del store._waiting[: max(0, now[1] - known[1])]
    reading = store._reading
    if reading and files:
        file = store._open(files[0])
        file.seek(reading.at)
        store._reading = file
    store._seen = seen


def let_go(store):
    """Close what is open. After an error littlefs takes a sync of it for done."""
    calm(store._path)
    file = store._file
    store._file = None
    reading = store._reading
    if reading:
        store._reading = _Lost(reading)
    for each in (file, reading):
        try:
            if each:
                each.close()
        except OSError:
            pass
    calm(store._path)


def prove(path):
    """Change the folder, successfully. What failed before may be there and, when its block is written once more, be
    gone again, or the other way round; behind a change that went well all stays as it is.
    """
    name = path + "/-"
    try:
        open(name, "wb").close()
        os.remove(name)
        sync(None, path)
    except OSError as exc:
        if no_room(exc).errno != 28:  # ENOSPC
            raise


def undo(store):
    """A segment could not be begun: nothing has changed, once what may be left of its file is gone for good."""
    if store._torn & 4:
        number = (store._files or [0])[-1] + 1
        store._delete(number)
        sync(None, store._path)
        store._torn &= 3


def calm(path):
    """Read something, successfully. After a read that failed littlefs takes what it had in its cache for what it would
    have read, until it reads something else; and would write what follows from that.
    """
    left = 2  # it does not tell of every error
    for _ in range(9):  # and a card that is not there any more takes its time to fail
        try:
            absent(os.stat, path + "/-")
            left -= 1
            if not left:
                return
        except OSError as exc:
            error = exc
    raise error


def soothe(owner, exc):
    """After an error of a store or cursor, at once, for the sake of other files; the error to raise."""
    try:
        if hasattr(owner, "_torn"):
            let_go(owner)
        else:
            calm(owner.path + "-")  # (no folder of this name)
    except Exception:
        pass  # look() will try
    return no_room(exc)


class _Lost:
    """A segment that is being sent, and has to be opened again."""

    def __init__(self, file):
        # How far it was read.
        try:
            self.at = file.at if isinstance(file, _Lost) else file.tell()
        except (OSError, ValueError):
            self.at = 0  # it was closed, and no other one could be opened: nothing is under way

    def close(self):
        pass


def keep(store, exc):
    """What waits could not be put into the newest segment: that can be sealed without, if there is something in it."""
    look(store)
    if not store._known[store._files[-1]][1]:
        raise exc


def short(store):
    """The oldest segment is shorter than it was: see what it has, and say so."""
    number = store._files[0]
    store._known[number], _ = scan(store, number)
    raise OSError(5)


def no_room(exc):
    """This error, or what it means."""
    if not hasattr(os, "fsync") and getattr(exc, "errno", 0) in (13, 36):
        exc = OSError(28)  # so say FAT and littlefs that a directory has no room for a name
    return exc


@guarded
def discard(store):
    """Drop the oldest segment, and number what remains anew; how many records that were."""
    store._begin()
    oldest = store._files[0]
    n = store._known[oldest][1]
    if len(store._files) == 1:
        n = store._newest()[1]
    if n:
        store.claim(store._epoch + 1, oldest)
    return n


def bad_record(most):
    """A record is empty or too long."""
    raise ValueError("a record has 1 to %d bytes (see segment)" % min(most, 65535))
