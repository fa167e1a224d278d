"""Where a reader is, kept in a file that survives a power cut on littlefs, FAT and POSIX.

The file has two halves, written in turn, each a line with a number and a CRC-32: while one is written, the other stays
as it is, and no name or size changes. A half is 64, 256, 1024, ... bytes: no sector of 512 is torn through both.
Only the first time, and for an offset too long for a half, a whole file is written beside it and renamed. (FAT takes a
renamed file's old name away first: what a cut there leaves is found.)
"""

import os
from binascii import crc32

from ds_micro.flash import absent, guarded, sync


class Cursor:
    """Where a reader is: `offset`, and `items` handled since. `path`: a file to keep it in."""

    def __init__(self, path=None, offset="-1", items=0):
        self.path = path
        self.offset = offset
        self.items = items
        self._turn = None  # of the last save; odd ones are in the second half
        self._half = 0  # bytes of a half; 0 without a file

    if __debug__:  # not in what is compiled for a device

        def __repr__(self):
            return "<Cursor %s+%d%s>" % (self.offset, self.items, self.path and " in " + self.path or "")

    def _last(self):
        """(turn, offset, items) as they were saved last; None without a file. Raises ValueError."""
        for name in (self.path, self.path + ".new"):
            f = absent(open, name, "rb")
            if f:
                from ds_micro.saved import saved

                return saved(self, f, name)
        return None

    @guarded
    def load(self):
        """Read the file; without one, stay where we are. Returns the cursor. Raises ValueError when it is damaged."""
        found = self._last()
        if found:
            self._turn, self.offset, self.items = found
        return self

    @guarded
    def save(self):
        """Write the file: after a power cut it holds the old cursor or the new one."""
        path = self.path
        turn = self._turn
        self._turn = None  # should this fail
        if turn is None:
            self._half = turn = 0
            try:
                turn = self._last()[0]
            except (TypeError, ValueError):
                pass  # none, or damaged
        turn += 1
        line = b"%s %d %d" % (self.offset.encode(), self.items, turn)
        line += b" %x" % crc32(line)
        half = 64
        while half <= len(line):
            half *= 4
        line += b" " * (half - 1 - len(line)) + b"\n"
        whole = half != self._half
        with open(path + ".new" if whole else path, "wb" if whole else "r+b") as f:
            if whole:
                line += line
            elif turn % 2:
                f.seek(half)
            f.write(line)
            sync(f)
        if whole:
            os.rename(path + ".new", path)
            sync(None, path)
        self._half = half
        self._turn = turn
