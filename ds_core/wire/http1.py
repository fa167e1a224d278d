"""HTTP/1.1 heads and bodies, sans-IO: what both ends of a connection share (RFC 9112).

`request_head` encodes a request's head. `ResponseParser` reads the responses of one connection, one after the
other, out of one reused buffer: the caller receives into `space()`, reports with `received(n)`, and takes results
from `poll()`. `ds_core.wire.chunked` reads a chunked body, and is loaded when the first one comes.

Rules: a line ends with CRLF and nothing else; whatever makes the end of a body ambiguous is an error; a connection
that closes before a body's announced end is `Truncated`, never a short success. Body pieces are slices of the
buffer: nothing is copied, and a piece is valid until the next `space()`. A head may be longer than the buffer: only
one line at a time must fit, and a field that is not in `keep` need not even do that.
"""

NEED_DATA = object()  # receive more, then poll again
HEAD = object()  # status and headers are complete
END = object()  # the body is complete

_FRAMING = (b"content-length:", b"transfer-encoding:", b"connection:")

class BadMessage(ValueError):
    """The peer sent what is not HTTP/1.1, or what no two readers would read alike."""

    status = 400


class Truncated(BadMessage):
    """The connection closed in the middle of a message."""


def request_head(method: str, target: str, host: str, headers=()) -> bytes:  # type: ignore[no-untyped-def]
    """The head of a request; `headers` is a sequence of (name, value) pairs.

    Raises ValueError when a value would break out of its line.
    """
    lines = ["%s %s HTTP/1.1" % (method, target), "Host: " + host]
    for pair in headers:
        lines.append("%s: %s" % pair)
    head = "\r\n".join(lines)
    breaks = len(lines) - 1
    if (
        head.count("\n") != breaks
        or head.count("\r") != breaks
        or "\0" in head
        or target[:1] != "/"
        or lines[0].count(" ") != 2
    ):
        raise ValueError("bad URL or header")
    return (head + "\r\n\r\n").encode()


class ResponseParser:
    """Reads the responses of one connection from the reused bytearray `buf`.

    For each expected response call `begin()`, then `poll()` until END: HEAD once, then body slices, and NEED_DATA in
    between. `status`, `headers` (lower-case names), `keep_alive` are set at HEAD. `busy`: a response has begun and not
    ended. `pending` counts bytes received beyond what was polled. `view` is the whole buffer: free for other use while
    nothing is pending. `keep`: how the field lines that are worth memory begin, in lower case and at most 20
    bytes, besides those of the framing; the others are not looked at. A head has at most 250 lines, each
    buffer full of a longer one counted as one.
    """

    # _state: 0 before the status line, 1 in the fields, 2 in the body.
    # _left: bytes left of the body, -1 if it is chunked, -2 if it ends with the connection.

    def __init__(self, buf: bytearray, keep: tuple[bytes, ...] = (b"",)) -> None:
        self._buf = buf
        self.view = memoryview(buf)
        self._keep = _FRAMING + keep
        self.reset()

    def reset(self) -> None:
        """Forget the connection: a new one starts with an empty buffer."""
        self._start = self._end = 0
        self.busy = self._eof = False

    @property
    def pending(self) -> int:
        """How many bytes were received and not polled yet."""
        return self._end - self._start

    def begin(self, head: bool = False) -> None:
        """Expect the next response; `head`: it answers HEAD, so it has no body whatever it says."""
        assert not self.busy, "the last response was not read to its end"
        self.busy = True
        self._state = self._count = self.status = 0
        self._no_body = head
        self._skip = False

    def space(self) -> memoryview:
        """Where to receive: a part of the buffer, never empty. Invalidates the pieces handed out before."""
        start = self._start
        end = self._end
        view = self.view
        if end == len(view) and not start:
            # A line longer than the buffer: passed over if nobody wants its field, which its start must show.
            # (Within one that is passed over, what looks like the start of a field is none.)
            if self._state != 1 or not self._skip and self._wanted(0):
                raise BadMessage("head too long")
            self._skip = True
            self._count += 1
            start = end - 1  # perhaps a CR
        if start:
            view[: end - start] = view[start:end]
            self._start = 0
            self._end = end = end - start
        return view[end:]

    def received(self, n: int) -> None:
        """`n` bytes were put into `space()`; 0: the peer closed."""
        self._end += n
        self._eof = not n

    def poll(self) -> object:
        """The next result: NEED_DATA, HEAD, a body slice or END. Raises BadMessage, Truncated."""
        if not self.busy:
            return END
        while self._state < 2:
            start = self._start
            end = self._buf.find(b"\r\n", start, self._end)
            if end < 0:
                return self._more()
            self._start = end + 2
            self._count += 1
            if self._count > 250:
                raise BadMessage("head too long")
            if self._skip:
                self._skip = False
            elif self._state and end > start and self._buf[start] > 32 and not self._wanted(start):
                pass  # not even copied
            elif self._line(bytes(self.view[start:end])):
                return HEAD
        left = self._left
        while left:
            piece = self.view[self._start : self._end]
            if not piece:
                if left == -2 and self._eof:
                    break
                return self._more()
            n = len(piece)
            if left == -1:
                n, piece = self._chunks.feed(piece)  # type: ignore[assignment]
                if self._chunks.done:
                    left = 0
            elif left > 0:
                piece = piece[:left]
                n = len(piece)
                self._left -= n
            self._start += n
            if piece:
                return piece
        self.busy = False
        return END

    def _more(self) -> object:
        if self._eof:
            raise Truncated("closed within a message")
        return NEED_DATA

    def _wanted(self, start: int) -> bool:
        line = bytes(self.view[start : start + 20]).lower()
        for prefix in self._keep:
            if line.startswith(prefix):
                return True
        return False

    def _line(self, line: bytes) -> bool:
        """A line of the head; true when it is the last."""
        if self._state == 0:
            # Sliced, and not split, so that every byte is what it must be.
            status = line[9:12]
            self.status = int(status) if status.isdigit() else 0
            fixed = line[:7] + line[8:9] + (line[12:13] or b" ")
            if fixed != b"HTTP/1.  " or self.status < 100 or self.status == 101:
                raise BadMessage("not HTTP/1.1")
            self.keep_alive = line[7] != 48
            self.headers: dict[str, str] = {}
            self._state = 1
            return False
        headers = self.headers
        if line:
            name, colon, value = line.partition(b":")
            bad = not name or not colon
            for byte in value:
                bad = bad or byte < 32 and byte != 9
            for byte in name:
                bad = bad or byte < 33 or byte > 126 or byte in b'"(),/;<=>?@[]{}\\'
            if bad:
                raise BadMessage("a bad header field")
            field = name.decode().lower()
            text = str(value.strip(), "latin-1")
            if field in headers:
                text = headers[field] + ", " + text
            headers[field] = text
            return False
        if self.status < 200:
            self._state = 0  # an interim response; the real one follows
            return False
        # How long the body is: RFC 9112 section 6.3.
        connection = headers.get("connection", "").lower()
        if "close" in connection or "keep-alive" in connection:
            self.keep_alive = "close" not in connection
        coding = headers.get("transfer-encoding")
        length = headers.get("content-length")
        left = -2
        if coding:
            from ds_core.wire.chunked import decoder

            left = -1
            self._chunks = decoder(coding, length)
        elif length is not None:
            # Two lengths were joined to something else than a number, and so are refused even when they agree.
            # (As bytes, of which none but 0 to 9 are digits: a text has more of them.)
            if not length.encode().isdigit() or len(length) > 15:
                raise BadMessage("a bad length")
            left = int(length)
        if self._no_body or self.status in (204, 304):
            left = 0
        if left == -2:
            self.keep_alive = False
        self._left = left
        self._state = 2
        return True
