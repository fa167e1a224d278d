"""HTTP/1.1 heads and bodies, sans-IO: what both ends of a connection share (RFC 9112).

`request_head` encodes a request. `ResponseParser` reads the responses of one connection, one after the other, out of
one reused buffer: the caller receives into `space()`, reports with `received(n)`, and takes results from `poll()`.
`ChunkedDecoder` reads a chunked body, of a response or, in a server, of a request.

Rules: a line ends with CRLF and nothing else; whatever makes the end of a body ambiguous is an error; a connection
that closes before a body's announced end is `Truncated`, never a short success. Body pieces are slices of the
buffer: nothing is copied, and a piece is valid until the next `space()`. A head may be longer than the buffer: only
one line at a time must fit, and a field that is not in `keep` need not even do that.
"""

NEED_DATA = object()  # receive more, then poll again
HEAD = object()  # status and headers are complete
END = object()  # the body is complete

# Where a parser is.
_STATUS, _FIELDS, _BODY, _DONE = 0, 1, 2, 3
# How a body ends, when it does not end after a number of bytes that is still left.
_CHUNKED, _UNTIL_CLOSE = -1, -2


class BadMessage(ValueError):
    """The peer sent what is not HTTP/1.1, or what no two readers would read alike."""

    status = 400


class Truncated(BadMessage):
    """The connection closed in the middle of a message."""


def request_head(method: str, target: str, host: str, headers=()) -> bytes:
    """The head of a request; `headers` is a sequence of (name, value) pairs.

    Raises ValueError, naming the part, when a value would break out of its line. Allocates the result and one list.
    """
    lines = [method + " " + target + " HTTP/1.1", "Host: " + host]
    for name, value in headers:
        lines.append(name + ": " + str(value))
    if target[:1] != "/" or " " in target or " " in method:
        raise ValueError("bad request target: " + target)
    for line in lines:
        for char in "\r\n\0":
            if char in line:
                raise ValueError("line break in " + line.split(" ")[0])
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


# A chunked body byte by byte (RFC 9112 section 7.1), for all that is not data. State -> byte class -> next state.
# Byte classes: h hex digit, r CR, n LF, s semicolon, t tab, o any other visible or space.
_SIZE0, _SIZE, _EXT, _SIZE_LF, _DATA, _DATA_CR, _DATA_LF, _LINE, _TRAILER, _TRAILER_LF, _LAST_LF, _OVER = range(12)
_CHUNK = (
    {"h": 1},  # the size needs a digit
    {"h": 1, "s": 2, "r": 3},
    {"h": 2, "s": 2, "t": 2, "o": 2, "r": 3},  # an extension, ignored
    {"n": 4},  # -> data, or -> trailer line when the size was 0
    {},
    {"r": 6},
    {"n": 0},
    {"h": 8, "o": 8, "r": 10},  # a trailer line, or the empty line
    {"h": 8, "s": 8, "t": 8, "o": 8, "r": 9},
    {"n": 7},
    {"n": 11},
    {},
)


class ChunkedDecoder:
    """Reads one chunked body. `done` turns true at its last byte; what follows belongs to the next message."""

    def __init__(self, limit: int = 4096):
        """`limit`: bytes of extensions between two chunks, and of all trailers."""
        self._state = _SIZE0
        self._size = 0
        self._limit = limit
        self._extra = 0

    @property
    def done(self) -> bool:
        return self._state == _OVER

    def feed(self, view):
        """One step: (bytes of `view` used, a slice of `view` with body bytes or None). Raises BadMessage.

        Call again with the rest until all is used or `done`.
        """
        state = self._state
        used = 0
        for byte in view:
            if state == _DATA or state == _OVER:
                break
            if byte == 13:
                kind = "r"
            elif byte == 10:
                kind = "n"
            elif byte == 59:
                kind = "s"
            elif byte == 9:
                kind = "t"
            elif byte < 32 or byte == 127:
                kind = ""
            elif 48 <= byte <= 57 or 65 <= (byte & 0xDF) <= 70:
                kind = "h"
            else:
                kind = "o"
            before = state
            state = _CHUNK[before].get(kind)
            self._extra += 1
            if state is None or self._extra > self._limit:
                raise BadMessage("bad chunk framing")
            if state == _SIZE:
                self._size = self._size * 16 + (byte - 48 if byte < 58 else (byte & 0xDF) - 55)
                if self._size > 0x3FFFFFFF:
                    raise BadMessage("chunk over 1 GiB")
            elif state == _DATA and not self._size:
                state = _LINE
            elif state == _SIZE0:
                self._extra = 0
            used += 1
        piece = None
        if state == _DATA:
            piece = view[used : used + self._size]
            used += len(piece)
            self._size -= len(piece)
            if not self._size:
                state = _DATA_CR
        self._state = state
        return used, piece if piece else None


class ResponseParser:
    """Reads the responses of one connection from the reused bytearray `buf`.

    For each expected response call `begin()`, then `poll()` until END: HEAD once, then body slices, and NEED_DATA in
    between. `status`, `headers` (lower-case names), `keep_alive` are set at HEAD. `pending` counts bytes received beyond
    what was polled. `view` is the whole buffer: free for other use while nothing is pending. `keep`: the only header names worth memory (None: all). `limit`: bytes of a whole head.
    """

    def __init__(self, buf: bytearray, keep=None, limit: int = 16384):
        self._buf = buf
        self.view = memoryview(buf)
        self._start = self._end = 0
        self._limit = limit
        self._keep = keep
        self.reset()

    def reset(self) -> None:
        """Forget the connection: a new one starts with an empty buffer."""
        self._start = self._end = 0
        self._state = _DONE
        self._eof = False
        self.keep_alive = True

    @property
    def pending(self) -> int:
        return self._end - self._start

    @property
    def busy(self) -> bool:
        """Whether a response has begun and not ended."""
        return self._state != _DONE

    def begin(self, head: bool = False) -> None:
        """Expect the next response; `head`: it answers HEAD, so it has no body whatever it says."""
        assert self._state == _DONE, "the last response was not read to its end"
        self._state = _STATUS
        self._no_body = head
        self._size = 0
        self._skip = False

    def space(self):
        """Where to receive: a part of the buffer, never empty. Invalidates the pieces handed out before."""
        start, end, view = self._start, self._end, self.view
        if start == end:
            start = end = 0
        elif end == len(view):
            if not start:
                # A line longer than the buffer: passed over if nobody wants its field, which its start must show.
                name = bytes(view[:64]).split(b":")
                if self._state != _FIELDS or len(name) < 2 or self._wanted(name[0].decode().lower()):
                    raise BadMessage("line in the head over %d bytes" % end)
                self._skip = True
                start = end - 1
            view[: end - start] = view[start:end]
            end -= start
            start = 0
        self._start, self._end = start, end
        return view[end:]

    def received(self, n: int) -> None:
        """`n` bytes were put into `space()`; 0: the peer closed."""
        self._end += n
        if not n:
            self._eof = True

    def poll(self):
        """The next result: NEED_DATA, HEAD, a body slice or END. Raises BadMessage, Truncated."""
        while self._state < _BODY:
            end = self._buf.find(b"\r\n", self._start, self._end)
            if end < 0:
                if self._skip:
                    self._size += self._end - self._start - 1
                    self._start = self._end - 1
                return self._need(self._size + self.pending)
            line = self.view[self._start : end]
            self._size += end + 2 - self._start
            self._start = end + 2
            if self._size > self._limit:
                return self._need(self._size)
            if self._skip:
                self._skip = False
            elif self._state == _STATUS:
                self._status_line(bytes(line))
            elif len(line):
                self._field(bytes(line))
            elif self.status >= 200:
                self._framing()
                return HEAD
            else:
                self._state = _STATUS  # an interim response; the real one follows
        if self._state == _DONE:
            return END
        left = self._left
        if left == _CHUNKED:
            while self.pending:
                used, piece = self._chunks.feed(self.view[self._start : self._end])
                self._start += used
                if piece:
                    return piece
                if self._chunks.done:
                    break
            if not self._chunks.done:
                return self._need(0)
        elif left:
            if self.pending:
                piece = self.view[self._start : self._end]
                if left > 0:
                    piece = piece[:left]
                    self._left = left - len(piece)
                self._start += len(piece)
                return piece
            if left > 0 or not self._eof:
                return self._need(0)
        self._state = _DONE
        return END

    def _need(self, size):
        if size > self._limit:
            raise BadMessage("head over %d bytes" % self._limit)
        if self._eof:
            raise Truncated("closed in the %s" % ("body" if self._state == _BODY else "head"))
        return NEED_DATA

    def _wanted(self, name):
        return (
            self._keep is None
            or name in self._keep
            or name in ("content-length", "transfer-encoding", "connection")
        )

    def _status_line(self, line):
        if line[:7] != b"HTTP/1." or line[8:9] != b" " or line[12:13] not in (b" ", b"") or not line[9:12].isdigit():
            raise BadMessage("not an HTTP/1.1 status line")
        self.status = int(line[9:12])
        if self.status < 100 or self.status == 101:
            raise BadMessage("status %d" % self.status)
        self.keep_alive = line[7:8] != b"0"
        self.headers = {}
        self._state = _FIELDS

    def _field(self, line):
        name, colon, value = line.partition(b":")
        for byte in line:
            if byte < 32 and byte != 9:
                colon = b""
        for byte in name:
            if byte < 33 or byte > 126 or byte in b'"(),/;<=>?@[]{}\\':
                colon = b""
        if not colon or not name:
            raise BadMessage("bad header field")
        name = name.decode().lower()
        if self._wanted(name):
            value = str(value.strip(), "latin-1")
            if name in self.headers:
                old = self.headers[name]
                value = old if name == "content-length" and old == value else old + ", " + value
            self.headers[name] = value

    def _framing(self):
        """How long the body is: RFC 9112 section 6.3."""
        headers = self.headers
        close = headers.get("connection", "").lower()
        if "close" in close:
            self.keep_alive = False
        elif "keep-alive" in close:
            self.keep_alive = True
        coding = headers.get("transfer-encoding")
        length = headers.get("content-length")
        if coding is not None:
            if length is not None or coding.lower() != "chunked":
                raise BadMessage("ambiguous body framing")
            self._chunks = ChunkedDecoder(self._limit)
            self._left = _CHUNKED
        elif length is not None:
            if not length.isdigit() or len(length) > 15:
                raise BadMessage("bad Content-Length")
            self._left = int(length)
        else:
            self._left = _UNTIL_CLOSE
        if self._no_body or self.status in (204, 304):
            self._left = 0
        elif self._left == _UNTIL_CLOSE:
            self.keep_alive = False
        self._state = _BODY
