"""Exactly-once reads: catch up, then live, resuming after any break (protocol section 6).

An answer can break anywhere, and an offset names only an answer's end. So a cursor is (offset, items handled since it):
after a break the reader asks again from the offset and passes over the items that were handed out. Items are JSON
values, CBOR items, or, of any other type, single bytes. An item counts as handled once it is handed out; whoever keeps
the cursor saves it after handling the item.

    reader.query()              the query string of the next request
    reader.head(status, heads)  its answer began; raises BadResponse
    reader.feed(piece)          body bytes; then `next()` until NEED_DATA, before the piece's buffer is used again
    reader.end()                the body is complete (after a break: just ask again); MARK, if those are wanted
    reader.state                OVER when there is nothing more to ask for
"""

from ds_core.client.errors import BadResponse
from ds_core.wire.kinds import kind_of as kind_of

# An answer ends with more to come, at the tail, or at the end of a closed stream. This is also what the reader is
# in, for it goes only forward. (Without `live`, the tail is the end.)
CATCH_UP, LIVE, OVER = range(3)
NEED_DATA = object()
MARK = object()
"""Among the items, where an answer ended."""


def says(headers: dict[str, str], name: str) -> bool:
    """Whether the value of a header is "true"."""
    return headers.get(name, "").lower() == "true"


class Reader:
    """`cursor` has `offset` and `items` and is kept up to date. `live`: None, "long-poll", "sse" or "auto" (SSE for
    text and JSON). `max_bytes`: the most a server that knows the parameter sends at once. `limit`: the most bytes
    of one item. `raw`: bytes, whatever the content type; such a cursor counts bytes. `marks`: of events, next() gives a
    MARK where one ended.

    `caught_up`: there was no more when the last answer, or event, ended. `closed`: nor will there ever be.
    """

    def __init__(  # type: ignore[no-untyped-def]
        self,
        cursor,
        live: str | None = None,
        max_bytes: int = 0,
        limit: int = 65536,
        raw: bool = False,
        marks: bool = False,
    ) -> None:
        self.cursor = cursor
        self.state = CATCH_UP
        self.caught_up = self.closed = False
        self._mark = MARK if marks else None
        self._live = live
        self._max_bytes = max_bytes
        self._limit = limit
        self._raw = raw
        self._cursor: str | None = None  # the server's, echoed

    def query(self) -> list[tuple[str, object]]:
        """The parameters of the next request: a list of (name, value), ordered by name.

        What is asked for depends on `state`, which goes from CATCH_UP to LIVE to OVER and never back.
        """
        query: list[tuple[str, object]] = []
        if self.state == LIVE:
            if self._cursor:
                query.append(("cursor", self._cursor))
            query.append(("live", self._live))
        if self._max_bytes:
            query.append(("max-bytes", self._max_bytes))
        query.append(("offset", self.cursor.offset))
        return query

    def head(self, status: int, headers: dict[str, str]) -> None:
        """The answer to the last request began with this success."""
        self._next = headers.get("stream-next-offset")
        self._cursor = headers.get("stream-cursor") or self._cursor
        self._end = CATCH_UP
        if says(headers, "stream-closed"):
            self._end = OVER
        elif status == 204 or says(headers, "stream-up-to-date"):
            self._end = LIVE
        self._skip = self.cursor.items
        events = None
        content_type = headers.get("content-type", "")
        if self._live not in (None, "long-poll"):
            from ds_core.client.events import arrange

            content_type, events = arrange(self, headers, status)
        self._sse = events
        # (Blanks and & are among what is no offset, for they are no part of a query.)
        if not events and min(self._next or " ") < "'" or status != 200 and self.state != LIVE:
            raise BadResponse("no good Stream-Next-Offset (%d)" % status)
        if status == 200:
            self._type = content_type
        kind = "bytes" if self._raw else kind_of(self._type)
        self._single = kind != "bytes"
        if kind == "cbor":
            from ds_core.wire import cbor as items
        elif kind == "json":
            from ds_core.client import jsonitems as items  # type: ignore[no-redef]
        else:
            from ds_core.client import bytesitems as items  # type: ignore[no-redef]
        self._need = items.NEED_DATA
        self._decoder = items.Decoder(max_bytes=self._limit)

    def feed(self, piece: bytes | memoryview) -> None:
        """Bytes of the body."""
        (self._sse or self._decoder).feed(piece)

    def next(self, plain: bool = False):  # type: ignore[no-untyped-def]
        """The next item that was not handled before, or NEED_DATA. Raises BadResponse. (`plain`: not through
        events.)"""
        if self._sse and not plain:
            return self._sse.next()
        while True:
            try:
                item = self._decoder.next()
            except ValueError as exc:
                raise BadResponse(str(exc))
            if item is self._need:
                return NEED_DATA
            skip = self._skip
            n = 1 if self._single else len(item)  # type: ignore[arg-type]
            if skip < n:
                self._skip = 0
                self.cursor.items += n - skip
                return item[skip:] if skip else item  # type: ignore[index]
            self._skip = skip - n

    def end(self) -> object:
        """The body, or the data of an event, is complete: move the cursor to its end. MARK, if wanted."""
        end = self._end
        offset = self._next
        if not offset:
            return None  # of events, each moved it
        if self._decoder.pending:
            raise BadResponse("the body ends within an item")
        cursor = self.cursor
        if offset == cursor.offset:
            end = max(end, LIVE)  # nothing came, so this is the tail, whatever a server forgot to say
        # What is still to be passed over lies in the next answer: a server may cut its answers differently each time.
        cursor.items = self._skip
        cursor.offset = offset
        self.caught_up = end > CATCH_UP
        self.closed = end == OVER
        self.state = max(self.state, end)
        if self.state == LIVE and not self._live:
            self.state = OVER
        return self._mark
