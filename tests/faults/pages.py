"""A closed store's pages: which of them are a table's, and damage to one."""

from __future__ import annotations

import sqlite3
import struct

from ds_trio_server.store.sqlite import files

PAGE = 4096
_LEAVES, _INNER = (0x0A, 0x0D), (0x02, 0x05)


def leaves(folder, table):
    """The numbers of a table's (or index's) leaves, in order."""
    db = sqlite3.connect(folder / files.FILE)
    (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    db.close()
    data = (folder / files.FILE).read_bytes()

    def below(number):
        page = data[(number - 1) * PAGE : number * PAGE]
        if page[0] in _LEAVES:
            return [number]
        assert page[0] in _INNER
        (cells,) = struct.unpack_from(">H", page, 3)
        found = []
        for at in struct.unpack_from(f">{cells}H", page, 12):
            found += below(struct.unpack_from(">I", page, at)[0])
        return found + below(struct.unpack_from(">I", page, 8)[0])

    return below(root)


def harm(folder, number, rng, kinds=("zero", "noise", "header", "pointers", "byte", "half")):
    """Damage one page in one of several ways; returns which."""
    path = folder / files.FILE
    kind = rng.choice(kinds)
    with path.open("r+b") as file:
        file.seek((number - 1) * PAGE)
        page = bytearray(file.read(PAGE))
        if kind == "zero":
            page[:] = bytes(PAGE)
        elif kind == "noise":
            page[:] = rng.randbytes(PAGE)
        elif kind == "header":
            page[rng.randrange(8)] ^= 1 << rng.randrange(8)
        elif kind == "pointers":
            page[8 + rng.randrange(16)] ^= 1 << rng.randrange(8)
        elif kind == "byte":
            page[rng.randrange(PAGE)] = rng.randrange(256)
        else:
            page[PAGE // 2 :] = bytes(PAGE // 2)
        file.seek((number - 1) * PAGE)
        file.write(page)
    return kind
