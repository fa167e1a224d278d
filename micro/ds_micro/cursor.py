"""Where a reader is, kept in a file that survives a power cut on littlefs, FAT and POSIX.

The file has two halves, written in turn, each a line with a number and a CRC-32: while one is written, the other stays
as it is, and no name or size changes. A half is 64, 256, 1024, ... bytes: no sector of 512 is torn through both.
Only the first time, and for an offset too long for a half, a whole file is written beside it and renamed. (FAT takes a
renamed file's old name away first: what a cut there leaves is found.)
"""

import os
from binascii import crc32

from ds_micro.flash import TROUBLE, absent, guarded, sync


class Cursor:
    """Where a reader is: `offset`, and `items` handled since. `path`: a file to keep it in."""

    def __init__(self, path=None, offset="-1", items=0):
        self.path = path
        self.offset = offset
        self.items = items
        self._turn = None  # of the last save; odd ones are in the second half
        self._half = 0  # bytes of a half; 0 without a file
        self._seen = None

    def _begin(self):
        if self._seen != TROUBLE[0]:
            seen = TROUBLE[0]
            self._turn = None
            absent(os.stat, self.path + "-")  # (see ds_micro.recovery.calm)
            self._seen = seen

    def _last(self):
        """(turn, offset, items) as they were saved last; None without a file. Raises ValueError."""
        path = self.path
        for name in (path, path + ".new"):
            f = absent(open, name, "rb")
            if not f:
                continue
            with f:
                data = f.read()
            found = ()
            self._half = half = max(64, len(data) // 2)
            for part in (data[:half], data[half:]):
                words = part.split()
                if len(words) == 4 and words[3] == b"%x" % crc32(b" ".join(words[:3])):
                    found = max(found, (int(words[2]), words[0].decode(), int(words[1])))
            if not found:
                from ds_micro.recovery import old_cursor

                found = old_cursor(self, data, name)
            elif name != path:
                os.rename(name, path)
            return found
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
