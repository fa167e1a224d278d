"""Reads a cursor's file (see ds_micro.cursor): loaded where there is one."""

import os
from binascii import crc32


def saved(cursor, f, name):
    """(turn, offset, items) as they were saved last in the open file; None when it never counted. Or ValueError."""
    with f:
        data = f.read()
    found = ()
    cursor._half = half = max(64, len(data) // 2)
    for part in (data[:half], data[half:]):
        words = part.split()
        if len(words) == 4 and words[3] == b"%x" % crc32(b" ".join(words[:3])):
            found = max(found, (int(words[2]), words[0].decode(), int(words[1])))
    if not found:
        return _old(cursor, data, name)
    if name != cursor.path:
        os.rename(name, cursor.path)
    return found


def _old(cursor, data, name):
    """What a file means that has no valid half: two words, as it once was; None, for one that never counted; or
    ValueError.
    """
    cursor._half = 0
    if name != cursor.path:
        return None
    words = data.split()
    try:
        if len(words) == 2:
            return 0, words[0].decode(), int(words[1])
    except ValueError:
        pass
    raise ValueError("damaged: " + name)
