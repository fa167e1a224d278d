"""Freeing: what streams that ended or were trimmed have left is deleted, of many streams in one transaction.

A step is bounded in rows and bytes. It goes along with commits, in proportion to what they add
(`Collector.along`), so that however much is appended or made, as much and more is freed without a sync of its own;
and it goes by itself, from the sweep, for what is left then (`Collector.step`).
"""

import sqlite3
import time
from collections.abc import Callable

from ..base import Damaged
from . import errors, rows, schema

_ROWS = 512
_BYTES = 1024 * 1024
_STREAMS = 128
_LONGEST = 0.02
_SMALLEST, _LARGEST = 1 / 64, 8.0
_ALONG_ROWS = 64
_ALONG_BYTES = 64 * 1024
_MOST_DAMAGED = 10_000
_MOST_SHOWN = 10_000
_BLIND_FOR = 60.0
_NEXT = f"SELECT stream, below FROM removed WHERE stream > ? ORDER BY stream LIMIT {_STREAMS}"
_ROWS_OF = "SELECT position, size FROM stored WHERE stream = ? AND position < ? ORDER BY position LIMIT ?"


class Stuck(Exception):
    """Damage kept upkeep from what it does along with a transaction, which is of no use now: made again, it passes over
    `what` was met."""

    def __init__(self, what: str, error: Exception) -> None:
        super().__init__(what, error)
        self.what = what
        self.error = error


class Collector:
    """Frees in the transactions of the writer's thread. What can't be freed, because the file is damaged there, raises
    Stuck once: the transaction is to be made again, and passes it over. `remains` says whether there may be more to
    free, `streams` how many streams that ended it has freed for good; while it `rests` it frees nothing."""

    def __init__(self, is_damage: Callable[[Exception], bool] = errors.is_damage) -> None:
        self._is_damage = is_damage
        self._damaged: set[int] = set()
        # Streams of which nothing could be freed since the last step, for their forks show it all: when many of these
        # go, commits don't ask for each.
        self._shown: set[int] = set()
        self._blind_until = 0.0
        self.remains = True
        self.rests = False
        self.streams = 0
        self._scale = 1.0
        self._rows = 0
        self._bytes = 0

    def along(self, db: sqlite3.Connection, rows: int, bytes: int) -> None:
        """Free twice as much as a commit adds."""
        if not self.remains or self.rests:
            return
        self._rows += 2 * rows
        self._bytes += 2 * bytes
        if self._rows < _ALONG_ROWS and self._bytes < _ALONG_BYTES:
            return
        self._free(db, max(self._rows, 8), max(self._bytes, _ALONG_BYTES), self._shown)
        self._rows = self._bytes = 0

    def step(self, db: sqlite3.Connection) -> None:
        """Free as much as takes about a fiftieth of a second."""
        if self.rests:
            return
        began = time.monotonic()
        self._shown.clear()
        self._free(db, max(4, int(_ROWS * self._scale)), int(_BYTES * self._scale), set())
        took = time.monotonic() - began
        if took > _LONGEST:
            self._scale = max(self._scale / 2, _SMALLEST)
        elif took < _LONGEST / 2:
            self._scale = min(self._scale * 2, _LARGEST)

    def found_no_room(self) -> None:
        """A step did not fit into the log of a full disk: the next are smaller."""
        self._scale = max(self._scale / 4, _SMALLEST)

    @property
    def vacuum_share(self) -> float:
        """What part of a usual step fits, where there is little room."""
        return min(1.0, self._scale)

    def _free(self, db: sqlite3.Connection, rows: int, bytes: int, later: set[int]) -> None:
        after = 0
        passed_over = False
        while rows > 0 and bytes > 0:
            # What has been freed is out of the table; what remains stands first.
            page = self._next(db, after)
            if not page:
                self.remains = passed_over
                return
            for stream, below in page:
                after = stream
                if stream in self._damaged:
                    continue
                if stream in later:
                    passed_over = True
                    rows -= 1
                    continue
                try:
                    freed, size, whole = _free_stream(db, stream, below, rows, bytes, self._shown)
                    rows -= freed + 1
                    bytes -= size
                    if not whole or rows <= 0 or bytes <= 0:
                        return
                    db.execute("DELETE FROM removed WHERE stream = ?", (stream,))
                except (sqlite3.Error, Damaged) as error:
                    if not self._is_damage(error):
                        raise
                    if len(self._damaged) >= _MOST_DAMAGED:
                        self._damaged.clear()
                    self._damaged.add(stream)
                    raise Stuck(f"what stream {stream} has left", error) from error
                self.streams += below is None

    def _next(self, db: sqlite3.Connection, after: int) -> list[tuple[int, object]]:
        if time.monotonic() < self._blind_until:
            return []
        try:
            page = db.execute(_NEXT, (after,)).fetchall()
            for stream, _ in page:
                if stream <= after:  # it would begin again and again
                    raise Damaged("what is to be freed", "the list of what is to be freed is out of order")
                after = stream
            return page
        except (sqlite3.Error, Damaged) as error:
            if not self._is_damage(error):
                raise
            self._blind_until = time.monotonic() + _BLIND_FOR
            raise Stuck("the list of what is to be freed", error) from error


def _limit(db: sqlite3.Connection, stream: int, below: object, shown: set[int]) -> int | None:
    """Below which position a stream may be freed, None where all of it may: never what it shows or its forks need,
    whatever the list says, which has no checksum. Raises Damaged where what it says can't be so."""
    found = rows.read(db, stream)
    if found is None:
        if below is not None or schema.one(db, "SELECT 1 FROM streams WHERE source = ? LIMIT 1", stream) is not None:
            raise Damaged(f"stream {stream}", f"the row of stream {stream} is missing")
        return None
    if not isinstance(below, int):
        raise Damaged(f"stream {stream}", f"stream {stream} is there, and listed as one that is not")
    below = min(below, found.tail if found.deleted else found.start)
    oldest = schema.one(db, "SELECT min(position) FROM appends WHERE stream = ?", stream)[0]
    if oldest is None or oldest >= below:
        return below  # there is nothing to ask its forks about
    # A trimmed stream's forks may begin before it does now (section 8).
    if _is_shown(db, stream, oldest):
        if len(shown) < _MOST_SHOWN:
            shown.add(stream)
        return int(oldest)
    needed = schema.one(db, schema.NEEDED, stream, oldest)[0]
    return below if needed is None else min(below, needed)


def _is_shown(db: sqlite3.Connection, stream: int, position: int) -> bool:
    """Whether a fork of a stream, or one of its forks, shows a position of it. One that does is found soon where there
    are many; those that have no forks are never looked at one by one. Raises Damaged where not all can be found."""
    ancestors = [stream]
    while ancestors:
        source = ancestors.pop()
        if schema.one(db, schema.SHOWN_BY_FORK, source, position) is not None:
            return True
        there, counted = schema.one(db, schema.COUNTED_FORKS, source)
        if there != counted:
            raise Damaged(f"stream {source}", f"an index has lost forks of stream {source}, or has too many")
        ancestors += [id for (id,) in db.execute(schema.FORKED_FORKS, (source, position))]
    return False


def _free_stream(
    db: sqlite3.Connection, stream: int, listed: object, rows: int, bytes: int, shown: set[int]
) -> tuple[int, int, bool]:
    """Free rows of one stream, all or those below a position: how many, of how many bytes, and whether that is all. One
    whose oldest a fork shows, so that nothing can be freed, is put among the `shown`."""
    freed = 0
    below = _limit(db, stream, listed, shown)
    if below is None:
        for table, key in (("producers", "id"), ("times", "at")):
            freed += db.execute(
                f"DELETE FROM {table} WHERE stream = ?1 AND {key} IN"
                f" (SELECT {key} FROM {table} WHERE stream = ?1 LIMIT ?2)",
                (stream, rows),
            ).rowcount
            if freed >= rows:
                return freed, 0, False
    last = None
    size = count = 0
    cursor = db.execute(_ROWS_OF, (stream, schema.MAX_INTEGER if below is None else below, rows - freed))
    for position, length in cursor:
        last = position
        count += 1
        size += length or 0
        if size >= bytes:
            break
    cursor.close()
    if last is not None:
        db.execute("DELETE FROM appends WHERE stream = ? AND position <= ?", (stream, last))
    return freed + count, size, count < rows - freed and size < bytes
