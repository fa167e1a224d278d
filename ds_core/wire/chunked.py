"""Chunked bodies (RFC 9112 section 7.1), of responses and, in a server, of requests."""

from ds_core.wire.http1 import BadMessage


class ChunkedDecoder:
    """Reads one chunked body (RFC 9112 section 7.1). `done` turns true at its last byte; what follows belongs to
    the next message. Extensions and trailers are passed over, but a trailer must be one: a field line of a name, a
    colon and a value, not folded (section 7.1.2).

    Space between a size and its extension's semicolon is read as none (BWS, section 7.1.1). Space that no semicolon
    follows is an error: the grammar has none there, and peers differ in what they make of it.

    Within a line `_left` is 0; `_line` collects it. After it, `_state` says what the line was:

        0 a chunk's size    -> data, or 2 if it was 0
        1 the end of data   -> 0; it must be empty
        2 a trailer         -> 2, or done if it was empty
    """

    def __init__(self, limit: int = 4096) -> None:
        """`limit`: bytes of one line, and of all trailers."""
        self.done = False
        self._state = 0
        self._left = 0
        self._limit = limit
        self._line = b""

    def feed(self, view: memoryview) -> tuple[int, memoryview | None]:
        """One step: (bytes of `view` used, a slice of `view` with body bytes or None). Raises BadMessage.

        Call again with the rest until all is used or `done`.
        """
        left = self._left
        if left:
            piece = view[:left]
            self._left -= len(piece)
            return len(piece), piece
        line = self._line
        used = 0
        while line[-1:] != b"\n":
            # In steps: what is there may be much, and a line is short.
            some = bytes(view[used : used + 64])
            if not some:
                self._line = line
                return used, None
            end = some.find(b"\n") + 1
            line += some[:end] if end else some
            used += end or len(some)
            if len(line) > self._limit:
                raise BadMessage("bad chunk framing")
        line = line[:-1]
        # Nothing that ends a line for anybody, but for a tab no control at all.
        if min(line[:-1].replace(b"\t", b" ") or b" ") < 32:
            raise BadMessage("bad chunk framing")
        state = self._state
        self._line = b""
        text = line[:-1]
        if line[-1:] != b"\r" or state == 1 and text:
            raise BadMessage("bad end of chunk")
        # (Other methods of bytes would do this in fewer words. They cost each device more, for what these names stand
        # for in its files is not free then.)
        parts = text.split(b":" if state else b";")
        first = parts[0].lower()
        if state == 1:
            self._state = 0
        elif state == 2:
            self._limit -= len(line)
            self.done = not text
            bad = text and (len(parts) < 2 or not first)
            for byte in first:
                bad = bad or b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz".find(bytes((byte,))) < 0
            if bad:
                raise BadMessage("bad trailer")
        else:
            while len(parts) > 1 and first[-1:] in (b" ", b"\t"):
                first = first[:-1]
            for byte in first or b"?":
                byte = b"0123456789abcdef".find(bytes((byte,)))
                left = left * 16 + byte
                if byte < 0 or left > 0x3FFFFFFF:
                    raise BadMessage("bad chunk size")
            self._left = left
            self._state = 1 if left else 2
        return used, None


def decoder(coding: str, length: "str | None") -> ChunkedDecoder:
    """What reads a body with this Transfer-Encoding; BadMessage when it is another, or has a Content-Length besides."""
    if length is not None or coding.lower() != "chunked":
        raise BadMessage("a bad length")
    return ChunkedDecoder()
