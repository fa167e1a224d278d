"""Ranges of a stream's bytes, and where its appends begin: from memory, else from the file.

A fork's inherited bytes are its ancestors' rows; a range is answered up to where its owner changes.
Every row is held against its checksum before a byte of it leaves.
"""

import sqlite3
from itertools import accumulate

import trio

from ds_core.server.create import owners
from ds_core.server.stream import Stream

from ..base import SLICES, WINDOW, Vanished
from . import rows, schema
from .cache import StreamCache
from .queries import Queries
from .tail import TailCache

_INLINE_READ = 32 * 1024
_FEW = 16
_SMALL = 16 * 1024
"""So many rows with fewer bytes are small ones: SQLite joins what comes behind them."""

# One statement sees one state of the file: rows can't be freed in the middle of a range.
_RANGE = (
    "SELECT position, part, sum, data FROM stored WHERE stream = ?1 AND position >="
    " (SELECT max(position) FROM appends WHERE stream = ?1 AND position <= ?2)"
    " AND position < ?3 ORDER BY position"
)
_JOINED = (
    "SELECT min(position), CAST(group_concat(data, '') AS BLOB), group_concat(sum), group_concat(size) FROM"
    " (SELECT position, data, sum, size FROM stored WHERE stream = ?1 AND position >= ?2 AND position < ?3"
    " ORDER BY position LIMIT ?4)"
)
_FLOOR = "SELECT position, part, sum FROM appends WHERE stream = ? AND position <= ? ORDER BY position DESC LIMIT 1"
_PIECES = "SELECT position, part, sum FROM appends WHERE stream = ? AND position BETWEEN ? AND ? ORDER BY position"
_BEHIND = "SELECT position, part, sum FROM appends WHERE stream = ? AND position > ? ORDER BY position"


class Ranges:
    """The reading half of the store's interface; see `base.Store` for the promises."""

    def __init__(self, queries: Queries, tails: TailCache, cache: StreamCache) -> None:
        self._queries = queries
        self._tails = tails
        self._cache = cache

    async def read(self, stream: Stream, start: int, end: int) -> list[bytes]:
        """All of a range, or a first part of it."""
        owner, start, stop = owners(stream, start, end)[0]
        slices = self._tails.get(owner, start, min(stop, start + WINDOW))
        if slices is not None:
            if len(slices) >= SLICES:
                await trio.lowlevel.checkpoint()
            return slices
        try:
            if stop - start <= _INLINE_READ:
                await trio.lowlevel.checkpoint()
                return self._queries.run_nowait(fetch, owner, start, stop)
            return await self._queries.run(fetch, owner, start, stop, window=True)
        except Vanished:
            self._check_gone(stream, owner, start)
            raise

    def read_nowait(self, stream: Stream, start: int, end: int) -> list[bytes]:
        """All of a range, if it is one owner's and short or in memory."""
        owner, _, stop = owners(stream, start, end)[0]
        if stop != end:
            raise trio.WouldBlock
        slices = self._tails.get(owner, start, end)
        if slices is None:
            if end - start > _INLINE_READ:
                raise trio.WouldBlock
            try:
                slices = self._queries.run_nowait(fetch, owner, start, end)
            except Vanished:
                self._check_gone(stream, owner, start)
                raise
        if sum(map(len, slices)) != end - start:  # a first part (however few the slices: a joined one has many rows)
            raise trio.WouldBlock
        return slices

    def span(self, stream: Stream, position: int) -> tuple[int, int]:
        """First and end position of the append that holds a position."""
        owner, _, stop = owners(stream, position, stream.visible_tail)[0]
        found = self._tails.span(owner, position)
        if found is None:
            try:
                found = self._queries.run_nowait(_find, owner, position, stop)
            except Vanished:
                self._check_gone(stream, owner, position)
                raise
        return found[0], min(found[1], stop)

    def _check_gone(self, stream: Stream, owner: int, start: int) -> None:
        """Bytes that aren't there were trimmed, or went with their stream; where they are lost, raise Damaged."""
        entry = self._cache.get(stream.id)
        if entry is not None and entry.stream is stream and stream.start <= start and not stream.deleted:
            raise self._queries.damages.met(rows.damaged_data(owner, start)) from None


def fetch(db: sqlite3.Connection, owner: int, start: int, stop: int) -> list[bytes]:
    """The query for a range of one stream's own rows, up to about `WINDOW` bytes or `SLICES` rows. Raises Damaged."""
    try:
        return _fetch(db, owner, start, stop)
    except (TypeError, ValueError) as error:  # what a damaged page holds can be of any kind
        raise rows.damaged_data(owner, start) from error


def _fetch(db: sqlite3.Connection, owner: int, start: int, stop: int) -> list[bytes]:
    slices = _rows(db, owner, start, stop, min(_FEW, SLICES), WINDOW)
    size = sum(map(len, slices))
    at = start + size
    most = SLICES - len(slices)
    if len(slices) == _FEW and size < WINDOW and at < stop and most:
        joined = _joined(db, owner, at, min(stop, start + WINDOW), most) if size < _SMALL else None
        if joined is None:  # they are large, or something doesn't fit: what that is, is found row by row
            slices += _rows(db, owner, at, stop, most, WINDOW - size)
        elif joined:
            slices.append(joined)
    if not slices:
        raise Vanished
    return slices


def _rows(db: sqlite3.Connection, owner: int, start: int, stop: int, most: int, window: int) -> list[bytes]:
    """What a range holds, row by row: at most so many of them, or about so many bytes. Nothing when it isn't there
    any more."""
    slices: list[bytes] = []
    size = 0
    cursor = db.execute(_RANGE, (owner, start, stop))
    try:
        for position, part, sum, data in cursor:
            if type(data) is not bytes or not rows.is_whole(owner, position, part, sum, data):
                raise rows.damaged_data(owner, position)
            begin = start + size - position
            if not 0 <= begin < len(data) or (slices and begin):
                if not slices:
                    break
                raise rows.damaged_data(owner, start + size)
            if begin or position + len(data) > stop:
                data = data[begin : stop - position]
            slices.append(data)
            size += len(data)
            if size >= window or len(slices) >= most:
                break
    finally:
        cursor.close()  # a statement left open would hold up every checkpoint
    return slices


def _joined(db: sqlite3.Connection, owner: int, start: int, stop: int, most: int) -> bytes | None:
    """What a range holds that begins with a row, joined by SQLite: thousands of rows of a byte each would else pass
    the interpreter's lock around as often. Nothing when it isn't there any more; None when it is not as it should be.
    """
    first, data, sums, sizes = schema.one(db, _JOINED, owner, start, stop, most)
    if first != start:
        return b""
    if sizes is None or data is None:
        return None
    ends = list(accumulate(map(int, sizes.split(","))))
    begins = [0, *ends[:-1]]
    if ends[-1] != len(data):
        return None
    view = memoryview(data)
    checksum = rows.checksum
    found = [checksum(owner, start + begin, view[begin:end]) for begin, end in zip(begins, ends, strict=True)]
    if ",".join(map(str, found)) != sums:
        return None
    return data if ends[-1] <= stop - start else data[: stop - start]  # type: ignore[no-any-return]


def _find(db: sqlite3.Connection, owner: int, position: int, stop: int) -> tuple[int, int]:
    found = schema.one(db, _FLOOR, owner, position)
    if found is None:
        raise Vanished
    begin = _begin(owner, *found)
    if begin != found[0]:
        pieces = db.execute(_PIECES, (owner, begin, found[0])).fetchall()
        if not pieces or pieces[0][0] != begin:
            raise Vanished
        if any(_begin(owner, *each) != begin for each in pieces):
            raise rows.damaged_data(owner, begin)
    cursor = db.execute(_BEHIND, (owner, found[0]))
    try:
        for position, part, sum in cursor:
            if _begin(owner, position, part, sum) == position:
                return begin, position
            if position - part != begin:
                raise rows.damaged_data(owner, position)
    finally:
        cursor.close()
    return begin, stop


def _begin(owner: int, position: object, part: object, sum: object) -> int:
    """Where the append begins that a row is of. Raises Damaged where its row says what can't be."""
    if not (isinstance(position, int) and isinstance(part, int) and isinstance(sum, int)) or not 0 <= part <= position:
        raise rows.damaged_data(owner, position if isinstance(position, int) else 0)
    if sum & rows.CONTINUES and not part:
        raise rows.damaged_data(owner, position)
    return position - part
