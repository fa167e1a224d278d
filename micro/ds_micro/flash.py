"""An outbox's store on a file system: segments that survive a power cut at any instant.

A segment is a file, numbered upwards, and becomes one POST. Only the newest takes records; a segment is sealed by there
being a newer one, and only a sealed segment is sent. A file is a header and records:

    header  magic, epoch, seq, two segment numbers to drop, records dropped so far, CRC-32
    record  length (2 bytes), CRC-32 seeded with segment number, position and length (4 bytes), data

Writing to flash: one append and one sync per `sync_every` records, one small file per segment, nothing else. (epoch, seq)
of every segment follows from the newest header alone: it holds the newest segment's own, and each older file has one
less. So every change of state is one thing, the creation of a new newest segment, synced before anything relies on it:

* Sealing: the new header has seq + 1. It is on flash before the sealed segment is sent and before that is deleted,
  so the next sequence is never lost, however empty the directory is of records.
* An acknowledged segment is deleted. If the power fails before, or the deletion is undone, it is sent again under
  its old number, and the server drops it.
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

_HEADER = ">4sQQIII"
_MAGIC = b"dsO1"
_SIZE = 32 + 4
_RECORD = 6


def sync(f):
    """Make a file durable. MicroPython's flush does it; CPython needs fsync."""
    f.flush()
    if hasattr(os, "fsync"):
        os.fsync(f.fileno())


def sync_folder(path):
    """Make creations and deletions durable, where a file system does not by itself."""
    if hasattr(os, "fsync"):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def replace(path, data):
    """Replace a small file at once."""
    with open(path + ".new", "wb") as f:
        f.write(data)
        sync(f)
    os.rename(path + ".new", path)
    sync_folder(path.rpartition("/")[0] or ".")


class FlashStore:
    """A Writer's store (see ds_core.client.writer) in the folder `path`; itself the batch, for one is under way at a time.

    `epoch`: for a new outbox. `limit`, `size`: bytes in all and of a segment; `count`: most records of a segment (0: any).
    """

    def __init__(self, path, epoch, content_type, json, limit, size, count, full, sync_every):
        if limit < 4 * size:
            raise ValueError("limit must be at least 4 segments")
        self.type = content_type
        self._json = json
        self._path = path
        self._most = limit // size
        self._size = size
        self._count = count
        self._full = full
        self._every = sync_every
        self.dropped = 0
        self._known = {}  # number -> [size, records] of what is good in it
        self._file = self._reading = None
        try:
            os.mkdir(path)
        except OSError:
            pass
        self._files = files = sorted([int(name[:-4]) for name in os.listdir(path) if name[-4:] == ".out"])
        header = None
        while files and header is None:
            header = self._header(files[-1])
            if header is None:
                os.remove(self._name(files.pop()))
        if header:
            _, self.newest_epoch, self._seq, a, b, self.dropped = header
            for number in files[:-1]:
                if number == a or number == b:
                    self._remove(number)
            while len(files) - 1 > self._seq:
                self._remove(files[0])  # acknowledged, before an epoch was claimed
            self._open()
        else:
            self._seq = 0
            self._roll(epoch=epoch)

    def _name(self, number):
        return "%s/%08d.out" % (self._path, number)

    def _header(self, number):
        with open(self._name(number), "rb") as f:
            data = f.read(_SIZE)
        body = data[:32]
        if len(data) < _SIZE or int.from_bytes(data[32:], "big") != crc32(body):
            return None
        header = struct.unpack(_HEADER, body)
        return header if header[0] == _MAGIC else None

    def _open(self):
        number = self._files[-1]
        size = self._scan(number)[0]
        self._file = open(self._name(number), "ab")
        self._unsynced = 0
        # A torn tail: nothing can follow it.
        self._torn = self._file.seek(0, 2) != size

    def _scan(self, number):
        """[size, records] of the good part of a segment."""
        known = self._known.get(number)
        if known is None:
            known = [_SIZE, 0]
            with open(self._name(number), "rb") as f:
                f.seek(_SIZE)
                while True:
                    head = f.read(_RECORD)
                    n = int.from_bytes(head[:2], "big")
                    if len(head) < _RECORD or not n:
                        break
                    data = f.read(n)
                    if len(data) < n or self._crc(number, known[0], data) != head[2:]:
                        break
                    known[0] += _RECORD + n
                    known[1] += 1
            self._known[number] = known
        return known

    def _crc(self, number, at, data):
        seed = (number * 65536 + at * 251 + len(data)) & 0xFFFFFFFF
        return (crc32(data, seed) & 0xFFFFFFFF).to_bytes(4, "big")

    def _roll(self, drop=0, epoch=None):
        """Begin a new newest segment, which seals the last one, and drops it when it is empty, and segment `drop`."""
        files = self._files
        if self._file:
            self._sync()
            self._file.close()
            self._file = None
        last = files[-1] if files else 0
        empty = last if files and not self._scan(last)[1] else 0
        gone = bool(drop) + bool(empty)
        if epoch is None:
            epoch = self.newest_epoch
            seq = self._seq + 1 - gone
        else:
            seq = len(files) - gone
        body = struct.pack(_HEADER, _MAGIC, epoch, seq, drop, empty, self.dropped)
        number = last + 1
        try:
            with open(self._name(number), "wb") as f:
                f.write(body + crc32(body).to_bytes(4, "big"))
                sync(f)
            sync_folder(self._path)
        except OSError:
            # No room: nothing has changed.
            os.remove(self._name(number))
            if files:
                self._open()
            raise
        self.newest_epoch = epoch
        self._seq = seq
        files.append(number)
        self._known[number] = [_SIZE, 0]
        if gone:
            for number in (drop, empty):
                if number:
                    self._remove(number)
            sync_folder(self._path)
        self._open()

    def _remove(self, number):
        os.remove(self._name(number))
        self._files.remove(number)
        self._known.pop(number, None)

    def _sync(self):
        if self._unsynced:
            self._unsynced = 0
            sync(self._file)

    def append(self, record):
        """False when it was dropped, or is refused, for want of room. Safe on flash when `sync_every` is 1."""
        n = len(record)
        if not n or _SIZE + _RECORD + n > self._size or n > 65535:
            raise ValueError("a record must have 1 to %d bytes" % min(self._size - _SIZE - _RECORD, 65535))
        number = self._files[-1]
        known = self._scan(number)
        full = known[0] + _RECORD + n > self._size or 0 < self._count <= known[1]
        if full or self._torn:
            drop = 0
            if len(self._files) >= self._most:
                if self._full != "drop-oldest":
                    if self._full != "refuse":
                        self.dropped += 1
                    return False
                drop = self._files[1]
                self.dropped += self._scan(drop)[1]
            self._roll(drop)
            number = self._files[-1]
            known = self._known[number]
        self._torn = True  # should this fail half way
        data = n.to_bytes(2, "big") + self._crc(number, known[0], record) + record
        self._file.write(data)
        self._unsynced += 1
        if self._unsynced >= self._every:
            self._sync()
        self._torn = False
        known[0] += len(data)
        known[1] += 1
        return True

    @property
    def records(self):
        """How many records wait."""
        return sum([self._scan(number)[1] for number in self._files])

    def ready(self):
        """Whether a segment is full."""
        return len(self._files) > 1 or 0 < self._count <= self._scan(self._files[0])[1]

    # The oldest segment, as a batch

    def batch(self, i):
        if i:
            return None
        files = self._files
        while len(files) > 1 and not self._scan(files[0])[1]:
            self._roll(files[0])  # all of it damaged
        size, self.count = self._scan(files[0])
        if not self.count:
            return None
        if len(files) == 1:
            self._roll()
        self.epoch = self.newest_epoch
        self.seq = self._seq - len(files) + 1
        self.length = size - _SIZE - _RECORD * self.count + (self.count + 1 if self._json else 0)
        return self

    def rewind(self):
        if not self._reading:
            self._reading = open(self._name(self._files[0]), "rb")
        self._reading.seek(_SIZE)
        self._todo = self.count
        self._part = 0

    def readinto(self, view):
        at = 0
        while at < len(view) and self._todo >= 0:
            if not self._part:
                self._todo -= 1
                if self._todo >= 0:
                    self._part = int.from_bytes(self._reading.read(_RECORD)[:2], "big")
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
        self._forget()
        self._remove(self._files[0])

    def discard(self):
        """Drop the oldest segment, which the server refused."""
        self._forget()
        self.dropped += self._scan(self._files[0])[1]
        self._roll(self._files[0])

    def claim(self, epoch):
        self._roll(epoch=epoch)

    def _forget(self):
        if self._reading:
            self._reading.close()
            self._reading = None

    def close(self):
        self._forget()
        self._sync()
        self._file.close()
