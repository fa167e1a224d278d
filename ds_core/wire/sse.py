"""Server-sent events: encoded by servers, parsed by clients as bytes arrive (protocol section 6, `live=sse`).

The grammar is WHATWG's event stream (HTML standard, 9.2.5 and 9.2.6). It carries lines, not bytes: CR, LF and
CRLF within a payload all arrive as LF, so text with carriage returns does not make the round trip, and
everything that is neither text nor JSON goes as base64. An `id` or `retry` field is ignored.
"""

import binascii
import json

NEED_DATA = object()  # feed more, then ask again

_NOWHERE = bytearray()


class SSEError(ValueError):
    """A stream of events that is beyond the parser's limit, or whose event name is not UTF-8."""


# Encoding


def event(name: str, text: str | bytes) -> bytes:
    """One event. Each line of `text` becomes a `data:` line, so that no text can end or forge an event."""
    if "\n" in name or "\r" in name:
        raise ValueError("an event's name must be one line, not %r" % name)
    data = text.encode() if isinstance(text, str) else text
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    # Peers write no space after the colon, so only a line that begins with one gets one to be taken off.
    lines = (b"\n" + data).replace(b"\n", b"\ndata:").replace(b"\ndata: ", b"\ndata:  ")
    return b"".join((b"event: ", name.encode(), lines, b"\n\n"))


def data_event(payload: bytes, binary: bool) -> bytes:
    """A batch as an `event: data`: UTF-8 text as it is, or, when `binary`, standard base64 in one line."""
    return event("data", binascii.b2a_base64(payload)[:-1] if binary else payload)


def control_event(
    next_offset: str, cursor: str | None = None, up_to_date: bool = False, closed: bool = False
) -> bytes:
    """An `event: control`; its data is a JSON object, in which what is None or False is left out."""
    text = '{"streamNextOffset":' + json.dumps(next_offset)
    if cursor is not None:
        text += ',"streamCursor":' + json.dumps(cursor)
    if up_to_date:
        text += ',"upToDate":true'
    if closed:
        text += ',"streamClosed":true'
    return event("control", text + "}")


# Parsing


class Parser:
    """Events out of bytes that arrive in pieces of any size.

        parser.feed(piece)
        while (found := parser.next()) is not NEED_DATA:
            name, data = found

    `name` is a str ("message" if the event gave none). `data` is the parser's own bytearray, its lines joined
    with LF: it is good until the next call of next(), which empties and fills it again; bytes(data) keeps it.

    `limit` is how many bytes of data, and of name, the parser holds. An event with more is an SSEError; with
    `partial` its data is handed out `limit` bytes at a time instead, with `more` True for all but the
    last. So a device never holds a whole batch. An `event:` line that comes only after a first part is
    missed.

    Allocates the bytearray, which grows up to `limit` and on MicroPython keeps its memory, and per piece and
    line a view. Lines that do not matter are never held. An event cut off by the end of the stream is
    dropped.
    """

    def __init__(self, limit: int = 65536, partial: bool = False) -> None:
        self.more = False
        self._piece: bytes | bytearray | memoryview = b""
        self._at = 0
        self._run = self._parse(limit, partial)

    def feed(self, piece: bytes | bytearray | memoryview) -> None:
        """More bytes. The piece must keep its content until next() is NEED_DATA, and is let go then.

        Feeding before that works, but copies what is left. bytes and bytearrays are searched faster than
        views.
        """
        if self._at < len(self._piece):
            piece = bytes(self._piece[self._at :]) + bytes(piece)
        self._piece = piece
        self._at = 0

    def next(self) -> object:
        """(name, data) of the next event, or NEED_DATA. Raises SSEError, which ends the parser."""
        for found in self._run:
            return found
        raise SSEError("ended by an earlier error")

    def _end_of_line(self) -> int:
        """Where the line in hand ends: at a CR or LF, else where the piece does."""
        piece = self._piece
        at = self._at
        end = len(piece)
        if isinstance(piece, memoryview):
            while at < end and piece[at] != 10 and piece[at] != 13:
                at += 1
            return at
        found = piece.find(b"\n", at)
        if found >= 0:
            end = found
        found = piece.find(b"\r", at, end)
        return found if found >= 0 else end

    def _parse(self, limit: int, partial: bool):  # type: ignore[no-untyped-def]
        # A generator, because then what is in hand when the bytes run out stays in its local variables.
        data = bytearray()
        name = bytearray()
        field = bytearray()
        # Where the line's value goes: data, name or _NOWHERE; None while in the field's name.
        sink: bytearray | None = None
        has_data = after_cr = space = False
        mark = b"\xef\xbb\xbf"  # a byte order mark may come first of all
        while True:
            while self._at >= len(self._piece):
                run = None
                self.feed(b"")
                yield NEED_DATA
            if after_cr:
                after_cr = False
                if self._piece[self._at] == 10:
                    self._at += 1
                    continue
            end = self._end_of_line()
            ended = end < len(self._piece)
            run = memoryview(self._piece)[self._at : end]
            self._at = end
            if ended:
                self._at += 1
                after_cr = self._piece[end] == 13

            newline = False
            if sink is None:
                colon = 0
                while colon < len(run) and run[colon] != 58:
                    colon += 1
                if len(field) < 9:  # a mark and "event" are 8; what is longer does not matter
                    field.extend(run[: min(colon, 9)])
                if colon == len(run) and not ended:
                    continue
                if mark:
                    if field[:3] == mark:
                        field = field[3:]
                    mark = b""
                space = True
                sink = _NOWHERE
                if field == b"data":
                    sink = data
                    newline = has_data
                    has_data = True
                elif field == b"event":
                    sink = name
                    name[:] = b""
                elif not field and colon == len(run):  # an empty line: the event ends
                    if has_data:
                        yield _text(name), data
                        data[:] = b""
                        has_data = False
                    name[:] = b""
                field[:] = b""
                run = run[colon + 1 :]
            if space and len(run):
                space = False
                if run[0] == 32:
                    run = run[1:]
            while sink is not _NOWHERE and (newline or len(run)):
                left = limit - len(sink)
                if left <= 0:
                    if not partial or sink is name:
                        raise SSEError("events are limited to %d bytes" % limit)
                    self.more = True
                    yield _text(name), data
                    self.more = False
                    data[:] = b""
                elif newline:
                    newline = False
                    data.append(10)
                else:
                    sink.extend(run[:left])
                    run = run[left:]
            if ended:
                sink = None


def _text(name: bytearray) -> str:
    try:
        return str(name, "utf-8") or "message"
    except UnicodeError:
        raise SSEError("an event's name is not UTF-8") from None


def decode_base64(data: bytes | bytearray | memoryview, rest: bytes = b"") -> tuple[bytes, bytes]:
    """What `rest` and `data` of an `event: data` decode to, and the rest to give with its next part: b""
    at its end.

    Line ends within are passed over. ValueError: not base64. Allocates `data` twice at most.
    """
    text = rest + bytes(data).replace(b"\n", b"")
    end = len(text) & ~3
    return binascii.a2b_base64(text[:end]), text[end:]
