"""Reading in batches on CPython, for programs that read millions of items: decoded in machine code, given in lists.

    for batch in batches(stream, Cursor("cursor").load(), live="long-poll"):
        for item in batch: ...

As `stream.read()` with the same parameters, of `ds_micro.Stream` or (`async for`) of `ds_micro.aio.Stream`, and the
same items in the same order; of a stream without items (text, bytes) a batch is a piece of bytes, as there. A batch is
what came together: it may be one item, is never empty, and has at most what the Stream's `buffer` holds and one item.
All of a batch counts as handled once it is handed out, so the cursor is saved after its last item. Not for a device.
"""

from ds_core.client import reader
from ds_core.client.errors import BadResponse
from ds_core.client.reader import NEED_DATA


class Reader(reader.Reader):
    """Its `next()` gives lists of items."""

    def head(self, status, headers):
        super().head(status, headers)
        kind = reader.kind_of(self._type)
        if not self._single:
            return
        if kind == "cbor":
            from ds_micro.quick_cbor import Decoder
        else:
            from ds_micro.quick_json import Decoder
        self._decoder = Decoder(max_bytes=self._limit)

    def feed(self, piece):
        """Bytes of the body."""
        # (In bytes the ends of an event's lines are found in machine code.)
        super().feed(bytes(piece) if self._sse else piece)

    def next(self, plain=False):
        if not self._single or self._sse and not plain:
            return super().next(plain)
        while True:
            try:
                items = self._decoder.many()
            except ValueError as exc:
                raise BadResponse(str(exc))
            if not items:
                return NEED_DATA
            skip = self._skip
            count = len(items)
            if skip < count:
                self._skip = 0
                self.cursor.items += count - skip
                return items[skip:] if skip else items
            self._skip = skip - count


def batches(stream, cursor=None, live=None, patience=60, limit=65536, raw=False, deadline=None, marks=False):
    """Iterate over batches of items; see above. Errors, parameters and attributes are those of `stream.read()`."""
    items = stream.read(cursor, live, patience, limit, raw, deadline, marks)
    old = items._reader
    items._reader = Reader(old.cursor, live, old._max_bytes, limit, raw, marks)
    return items
