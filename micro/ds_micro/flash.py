"""An outbox's store on a file system: segments that survive a power cut at any instant, and errors at any step.

A segment is a file, numbered upwards, and becomes one POST. Only the newest takes records; a segment is sealed by there
being a newer one, and only a sealed segment is sent. A file is a header and records:

    header  magic, epoch, seq, two segment numbers to drop, records dropped so far, CRC-32
    record  length (2 bytes), CRC-32 seeded with segment number, position and length (4 bytes), data

Writing to flash: one append and one sync per `sync_every` records, one small file per segment, nothing else. Records
that wait for their sync are in RAM, not in a file's cache: a file system that ran full forgets what it cached.
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
* A segment that is discarded, or all damaged, is dropped in the same step as a new epoch is begun: nobody may know
  whether the server has its number.

After a power cut the newest file may end in a torn record: everything before it is kept, nothing can be appended behind
it, so a new segment is begun. A newest file that is shorter than a header never counted. But a header that is there and
bad may have rotted after it counted: its records are kept, and nothing is appended to older ones, which may have been
sent.

A folder has one owner, the Outbox that was opened last (and on CPython, one process). An older one finds that it has
it no more, and says so; one that was closed reads the folder again.

After an error (no room, no memory, a failed sync) nothing is assumed: what was open is used no more, and the newest
file is read again. What the numbers rely on changes in RAM only after it has changed on flash; a header that may have
got there unseen goes or is written anew, and a file that could not be deleted is, before anything else. For littlefs
keeps a copy of the directory in each open file, and one that a failed change has made stale takes a sync for done that
nobody will find: so no file is open while a name is made or removed, a file is opened and written in one step, and
another look must then see it.

Guaranteed for a file system that keeps synced data and orders creations and deletions (littlefs; POSIX with fsync of
files and directories; FAT, which in a cut may lose clusters, and the directory with a torn sector). Bit rot ends a
segment at the damaged record.
"""

import os
import struct
from binascii import crc32

if hasattr(os, "fsync"):
    from ds_micro.cpython import OWNERS as OWNERS, replace as replace, sync
else:
    OWNERS = {}  # folder -> the list of segments that its owner has

    def sync(f, folder=None):
        """Make a file durable, and creations and deletions in a folder. MicroPython's flush does it."""
        if f:
            f.flush()


TROUBLE = [0]  # how many steps on file systems have failed


def guarded(step):
    """A method that works on a file system: its errors are counted, and what they leave is put in order."""

    def call(self, *args):
        try:
            return step(self, *args)
        except BaseException as exc:
            TROUBLE[0] += 1
            from ds_micro.recovery import soothe

            raise soothe(self, exc)

    return call


if hasattr(os, "fsync"):
    from ds_micro.cpython import shown

    guarded = shown(guarded)


def absent(call, *args):
    """What is called with a name; None, where that is not there."""
    try:
        return call(*args)
    except OSError as exc:
        if exc.errno != 2:  # ENOENT
            raise


class FlashStore:
    """A Writer's store (see ds_core.client.writer) in the folder `path`; itself the batch, for one is under way at
    a time.

    `epoch`: for a new outbox. `limit`, `size`: bytes in all and of a segment; `count`: most records of a segment
    (0: any).
    Keeps in RAM three numbers per segment, and the records that wait for their sync. What a start finds and what errors
    leave is the business of ds_micro.recovery.
    """

    @guarded
    def __init__(self, path, epoch, content_type, json, limit, size, count, full, sync_every):
        self.type = content_type
        self._json = json
        self._path = path
        self._most = limit // size
        self._size = size
        self._count = count
        self._full = full[5]  # drop-[o]ldest, drop-[n]ewest, refus[e]
        self._every = sync_every
        self.dropped = self._seq = 0  # _seq and _epoch are the newest segment's
        self._known = {}  # number of each segment -> [size, records] of what is good in it
        self._waiting = []  # records of the newest segment that are not on flash yet
        self._gone = []  # segments that count no more and may still be there
        self._file = self._reading = self._seen = None
        # 1: nothing can be appended to the newest segment. 2: and older ones may have been sent. 4: and there may be
        # a newer one, that does not count.
        self._torn = 0
        self._files = files = []
        try:
            os.mkdir(path)
        except OSError as exc:
            from ds_micro.recovery import recover

            recover(self, exc)  # it is there, or is not to be
        OWNERS[path] = files
        if not files:
            self.claim(epoch)
            self._seen = TROUBLE[0]

    def _name(self, number):
        return "%s/%08d.out" % (self._path, number)

    def _open(self, number, mode="rb"):
        return open(self._name(number), mode)

    def _delete(self, number):
        name = self._name(number)
        n = 9
        while n and absent(os.stat, name):  # littlefs may have it twice, after an error
            os.remove(name)
            n -= 1

    def _forget(self, number):
        self._files.remove(number)
        self._known.pop(number, None)

    def _settle(self):
        """What counts no more is deleted, and does not come back."""
        if self._gone:
            self._shut()
            for number in self._gone:
                self._delete(number)
            sync(None, self._path)
            del self._gone[:]

    def _check(self, number, size):
        """As another look at the file system sees it. (On littlefs an open file may say what is not so.)"""
        if os.stat(self._name(number))[6] != size:
            raise OSError(5)  # EIO

    def _shut(self):
        file = self._file
        self._file = None
        if file:
            file.close()

    def _begin(self):
        """The folder is ours, and as we know it."""
        if self._seen != TROUBLE[0] or OWNERS.get(self._path) is not self._files:
            from ds_micro.recovery import look

            look(self)

    def _write(self):
        """Put on flash what waits, for good. (Not when torn.)"""
        number = self._files[-1]
        known = self._known[number]
        size = known[0]
        if not self._file:
            # (Not "ab", which would make one where none is seen.)
            self._file = self._open(number, "r+b")
            self._file.seek(size)
        file = self._file
        for record in self._waiting:
            file.write(len(record).to_bytes(2, "big") + self._crc(number, size, record))
            file.write(record)
            size += 6 + len(record)
        sync(file)
        self._check(number, size)
        known[0] = size
        known[1] += len(self._waiting)
        del self._waiting[:]

    def _crc(self, number, at, data):
        # (Of a larger seed, both crc32 take the lower 32 bits.)
        return crc32(data, number * 65536 + at * 251 + len(data)).to_bytes(4, "big")

    def claim(self, epoch, drop=0):
        """Begin a new newest segment, which seals the last one, and drops it when it is empty, and segment `drop`.

        With an `epoch`, number all segments anew; None: go on.
        """
        files = self._files
        self._settle()
        last = empty = 0
        if files:
            last = files[-1]
            if self._waiting and not self._torn:
                try:
                    self._write()
                except OSError as exc:
                    from ds_micro.recovery import keep

                    keep(self, exc)
            if last != drop and not self._known[last][1]:
                empty = last
        gone = []
        for number in (drop, empty):
            if number:
                gone.append(number)
        seq = self._seq + 1
        if epoch is None:
            epoch = self._epoch
        else:
            seq = len(files)
        seq -= len(gone)
        dropped = self.dropped
        if drop:
            dropped += self._known[drop][1]
        data = struct.pack(">4sQQIII", b"dsO1", epoch, seq, drop, empty, dropped)
        self._shut()
        number = last + 1
        self._torn |= 4
        with self._open(number, "wb") as f:
            f.write(data + crc32(data).to_bytes(4, "big"))
            sync(f, self._path)
        self._check(number, 36)
        self._known[number] = [36, 0]
        files.append(number)
        self._torn = 0
        self.dropped = dropped
        self._epoch = epoch
        self._seq = seq
        self._gone = gone
        for dead in gone:
            self._forget(dead)
        self._settle()

    def _newest(self):
        """[bytes, records] of the newest segment, with those that wait."""
        size, count = self._known[self._files[-1]]
        for record in self._waiting:
            size += 6 + len(record)
            count += 1
        return size, count

    @guarded
    def append(self, record):
        """False when it was dropped, or is refused, for want of room. Safe on flash when `sync_every` is 1."""
        record = bytes(memoryview(record))  # bytes, and not a text's characters
        n = len(record)
        if not 0 < n <= min(self._size - 42, 65535):
            from ds_micro.recovery import bad_record

            bad_record(self._size - 42)
        files = self._files
        self._begin()
        size, count = self._newest()
        if self._torn or size + 6 + n > self._size or 0 < self._count <= count:
            if len(files) < self._most:
                self.claim(None)
            elif self._full == "o":
                self.claim(None, files[1])
            else:
                self.dropped += self._full == "n"
                return False
        self._waiting.append(record)
        if len(self._waiting) >= self._every:
            try:
                self._write()
            except Exception:
                self._waiting.pop()
                raise
        return True

    @property
    def records(self):
        """How many records wait."""
        n = len(self._waiting)
        for known in self._known.values():
            n += known[1]
        return n

    def ready(self):
        """Whether a segment is full."""
        return len(self._files) > 1 or 0 < self._count <= self._newest()[1]

    # The oldest segment, as a batch

    @guarded
    def batch(self, i):
        if i:
            return None
        files = self._files
        self._begin()
        self._settle()
        while True:
            size, count = self._known[files[0]]
            if len(files) == 1 and not count and not self._waiting:
                return None
            if len(files) == 1 or self._torn > 1:
                self.claim(None)
            elif not count:
                self.claim(self._epoch + 1, files[0])  # all of it is damaged
            else:
                break
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

    @guarded
    def readinto(self, view):
        self._begin()
        if self._json:
            from ds_micro.operations import framed

            return framed(self, view)
        at = 0
        while at < len(view) and self._todo:
            at += self._piece(view[at:])
        return at

    def _piece(self, view):
        """Some bytes of a record."""
        read = self._reading
        if not self._part:
            self._part = int.from_bytes(read.read(6)[:2], "big")
        n = read.readinto(view[: self._part])
        if not n:
            from ds_micro.recovery import short

            short(self)
        self._part -= n
        if not self._part:
            self._todo -= 1
        return n

    @guarded
    def done(self):
        self._begin()
        self._reading.close()
        self._reading = None
        number = self._files[0]
        self._gone.append(number)
        self._forget(number)
        self._settle()
