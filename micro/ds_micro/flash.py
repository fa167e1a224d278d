"""An outbox's store on a file system: segments that survive a power cut at any instant.

A segment is a file, numbered upwards, and becomes one POST. Only the newest takes records; a segment is sealed by there
being a newer one, and only a sealed segment is sent. A file is a header and records:

    header  magic, epoch, seq, two segment numbers to drop, records dropped so far, CRC-32
    record  length (2 bytes), CRC-32 seeded with segment number, position and length (4 bytes), data

Writing to flash: one append and one sync per `sync_every` records, one small file per segment, nothing else.
(epoch, seq) of every segment follows from the newest header alone: it holds the newest segment's own, and each
older file has one less. So every change of state is one thing, the creation of a new newest segment, synced before
anything relies on it:

* Sealing: the new header has seq + 1. It is on flash before the sealed segment is sent and before that is deleted,
  so the next sequence is never lost, however empty the directory is of records.
* An acknowledged segment is deleted, durably before the next is sent. If the power fails before, it is sent again under
  its old number, which is the server's last, and the server drops it. (Were it older, the server's answer would
  look like that to a stranger who uses our producer id; see ds_core.client.writer.)
* Dropping when full: the new header names the victim and does not count it, so that the numbers of what remains stay
  without a gap; then the victim is deleted, at the next start if the power fails here. The oldest segment may have
  been sent and accepted, its number is spent, and so it is never the victim: the one after it is.
* A new epoch: the new header has it, and as seq the number of segments before it, so the oldest becomes 0.
* A segment refused for good is discarded like a victim; the server did not take it, so its number goes to the next.

After a power cut the newest file may end in a torn record: everything before it is kept, nothing can be appended behind
it, so a new segment is begun. A newest file with a torn header never counted; it is deleted.

Guaranteed for a file system that keeps synced data and orders renames, creations and deletions (littlefs; FAT as far as
FAT goes; POSIX with fsync of files and directories). Bit rot ends a segment at the damaged record.
"""

import os
import struct
from binascii import crc32

if hasattr(os, "fsync"):
    from ds_micro.cpython import sync
else:

    def sync(f, folder=None):
        """Make a file durable, and creations and deletions in a folder. MicroPython's flush does it."""
        f.flush()


def replace(path, data):
    """Replace a small file at once."""
    with open(path + ".new", "wb") as f:
        f.write(data)
        sync(f)
        os.rename(path + ".new", path)
        sync(f, path.rpartition("/")[0] or ".")


class FlashStore:
    """A Writer's store (see ds_core.client.writer) in the folder `path`; itself the batch, for one is under way at
    a time.

    `epoch`: for a new outbox. `limit`, `size`: bytes in all and of a segment; `count`: most records of a segment
    (0: any).
    Keeps in RAM two numbers per segment, and of each that was looked into the good size and the records.
    """

    def __init__(self, path, epoch, content_type, json, limit, size, count, full, sync_every):
        if limit < 4 * size:
            raise ValueError("limit < 4 * segment")
        self.type = content_type
        self._json = json
        self._path = path
        self._most = limit // size
        self._size = size
        self._count = count
        self._full = full
        self._every = sync_every
        self.dropped = self._seq = 0  # _seq and _epoch are the newest segment's
        self._known = {}  # number -> [size, records] of what is good in it
        self._file = self._reading = None
        try:
            os.mkdir(path)
        except OSError:
            pass
        self._files = files = []
        for name in os.listdir(path):
            if name[-4:] == ".out" and name[:-4].isdigit():
                files.append(int(name[:-4]))
        files.sort()
        while files:
            with self._open(files[-1]) as f:
                data = f.read(36)
            if len(data) == 36 and crc32(data[:32]) == int.from_bytes(data[32:], "big"):
                _, self._epoch, self._seq, a, b, self.dropped = struct.unpack(">4sQQIII", data[:32])
                # What it dropped; and then what was acknowledged before it claimed an epoch.
                for number in (a, b):
                    if number in files:
                        self._remove(number)
                while len(files) - 1 > self._seq:
                    self._remove(files[0])
                self._begin()
                return
            self._remove(files[-1])
        self.claim(epoch)

    def _open(self, number, mode="rb"):
        return open("%s/%08d.out" % (self._path, number), mode)

    def _remove(self, number):
        os.remove("%s/%08d.out" % (self._path, number))
        self._files.remove(number)
        self._known.pop(number, None)

    def _begin(self):
        """Append to the newest segment from now on."""
        number = self._files[-1]
        self._unsynced = 0
        self._file = self._open(number, "ab")
        # A torn tail: nothing can follow it.
        self._torn = self._file.seek(0, 2) != self._scan(number)[0]

    def _crc(self, number, at, data):
        # (Of a larger seed, both crc32 take the lower 32 bits.)
        return crc32(data, number * 65536 + at * 251 + len(data)).to_bytes(4, "big")

    def _scan(self, number):
        """[size, records] of the good part of a segment."""
        known = self._known.get(number)
        if not known:
            self._known[number] = known = [36, 0]
            with self._open(number) as f:
                f.seek(36)
                while True:
                    head = f.read(6)
                    data = f.read(int.from_bytes(head[:2], "big"))
                    size = 6 + len(data)
                    if size == 6 or head != len(data).to_bytes(2, "big") + self._crc(number, known[0], data):
                        break
                    known[0] += size
                    known[1] += 1
        return known

    def claim(self, epoch, drop=0):
        """Begin a new newest segment, which seals the last one, and drops it when it is empty, and segment `drop`.

        With an `epoch`, number all segments anew; None: go on.
        """
        files = self._files
        last = empty = 0
        if files:
            last = files[-1]
            if self._unsynced:
                sync(self._file)
            if not self._scan(last)[1]:
                empty = last
            self._file.close()
        gone = bool(drop) + bool(empty)
        seq = self._seq + 1 - gone
        if epoch is None:
            epoch = self._epoch
        else:
            seq = len(files) - gone
        dropped = self.dropped
        if drop:
            dropped += self._scan(drop)[1]
        data = struct.pack(">4sQQIII", b"dsO1", epoch, seq, drop, empty, dropped)
        number = last + 1
        try:
            with self._open(number, "wb") as f:
                f.write(data + crc32(data).to_bytes(4, "big"))
                sync(f, self._path)
        except Exception:
            # No room: nothing has changed. (What is left of the file never counts: its number is used again.)
            try:
                os.remove("%s/%08d.out" % (self._path, number))
            except OSError:
                pass
            if files:
                self._begin()
            raise
        self.dropped = dropped
        self._epoch = epoch
        self._seq = seq
        files.append(number)
        for number in (drop, empty):
            if number:
                self._remove(number)
        self._begin()
        if gone:
            sync(self._file, self._path)

    def append(self, record):
        """False when it was dropped, or is refused, for want of room. Safe on flash when `sync_every` is 1."""
        n = len(memoryview(record))  # bytes, and not a text's characters
        most = min(self._size - 42, 65535)
        if not 0 < n <= most:
            raise ValueError("a record has 1 to %d bytes (see segment)" % most)
        files = self._files
        known = self._scan(files[-1])
        if self._torn or known[0] + 6 + n > self._size or 0 < self._count <= known[1]:
            drop = 0
            if len(files) >= self._most:
                if self._full != "drop-oldest":
                    if self._full != "refuse":
                        self.dropped += 1
                    return False
                drop = files[1]
            self.claim(None, drop)
            known = self._scan(files[-1])
        self._torn = True  # should this fail half way
        self._file.write(n.to_bytes(2, "big") + self._crc(files[-1], known[0], record) + record)
        self._unsynced += 1
        if self._unsynced >= self._every:
            sync(self._file)
            self._unsynced = 0
        self._torn = False
        known[0] += 6 + n
        known[1] += 1
        return True

    @property
    def records(self):
        """How many records wait."""
        n = 0
        for number in self._files:
            n += self._scan(number)[1]
        return n

    def ready(self):
        """Whether a segment is full."""
        return len(self._files) > 1 or 0 < self._count <= self._scan(self._files[0])[1]

    # The oldest segment, as a batch

    def batch(self, i):
        files = self._files
        while True:
            size, count = self._scan(files[0])
            if i or len(files) == 1 and not count:
                return None
            if len(files) == 1:
                self.claim(None)
            if not count:
                self.claim(None, files[0])  # all of it is damaged
                continue
            self.epoch = self._epoch
            self.seq = self._seq - len(files) + 1
            self.count = count
            self.length = size - 36 - 6 * count + (count + 1 if self._json else 0)
            if self._reading:
                self._reading.close()
            self._reading = self._open(files[0])
            self._reading.seek(36)
            self._todo = count
            self._part = 0
            return self

    def readinto(self, view):
        at = 0
        while at < len(view) and self._todo >= 0:
            if not self._part:
                self._todo -= 1
                if self._todo >= 0:
                    self._part = int.from_bytes(self._reading.read(6)[:2], "big")
                if self._json:
                    view[at] = 93 if self._todo < 0 else 44 if self._todo + 1 < self.count else 91
                    at += 1
            else:
                n = self._reading.readinto(view[at : at + self._part])
                if not n:
                    raise OSError(5)
                at += n
                self._part -= n
        return at

    def done(self):
        self._reading.close()
        self._remove(self._files[0])
        sync(self._file, self._path)

    def discard(self):
        """Drop the oldest segment, which the server refused."""
        self.claim(None, self._files[0])

    def close(self):
        """Make everything durable, and let the file go."""
        sync(self._file)
        self._file.close()
