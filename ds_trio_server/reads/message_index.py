"""Where the messages of large appends meet: found once, so that no read has to parse one from its beginning.

Any client may read from any offset, in chunks of any size. Of a JSON or CBOR append of megabytes, enough of
the boundaries are kept for each such read to look at no more than `STEP` bytes.
"""

from array import array
from bisect import bisect_right

import trio

from ds_core.server import messages
from ds_core.server.stream import Stream

from ..store.base import Store

STEP = 16 * 1024
_MOST = 256


def find(kind: int, data: bytes) -> "array[int]":
    """Some boundaries of an append, its start and its end among them: between two neighbours there is one
    message, or there are at most `STEP` bytes."""
    found = array("I", [0])
    before = 0
    for end in messages.ends(kind, data):
        if end - found[-1] > STEP:
            if before > found[-1]:
                found.append(before)
            if end - before > STEP:
                found.append(end)
        before = end
    if before > found[-1]:
        found.append(before)
    return found


class MessageIndex:
    """The boundaries that are known of the appends that were read last, of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[tuple[int, int], array[int]] = {}
        # It takes seconds of a processor and all of an append in memory: one at a time.
        self._finding = trio.Lock()

    async def around(self, stream: Stream, append: tuple[int, int], position: int) -> tuple[int, int]:
        """Whole messages that hold a position of an append, given by where it begins and ends: one message,
        or at most `STEP` bytes. Raises Vanished."""
        first, end = append
        if end - first <= STEP:
            return append
        key = (stream.id, first)
        if key not in self._known:
            async with self._finding:
                if key not in self._known:
                    _, data = await self._store.append_at(stream, first)
                    found = await trio.to_thread.run_sync(find, stream.kind, data)
                    while len(self._known) >= _MOST:
                        del self._known[next(iter(self._known))]
                    self._known[key] = found
        found = self._known[key]
        index = bisect_right(found, position - first)
        return first + found[index - 1], first + found[index]
