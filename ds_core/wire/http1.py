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

_FRAMING = ("content-length", "transfer-encoding", "connection")

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


class ChunkedDecoder:
    """Reads one chunked body (RFC 9112 section 7.1). `done` turns true at its last byte; what follows belongs to the next
    message. Extensions and trailers are passed over.

    Within a line `_left` is 0; `_line` collects it. After it, `_state` says what the line was:

        0 a chunk's size    -> data, or 2 if it was 0
        1 the end of data   -> 0; it must be empty
        2 a trailer         -> 2, or done if it was empty
    """

    def __init__(self, limit: int = 4096):
        """`limit`: bytes of one line, and of all trailers."""
        self.done = False
        self._state = 0
        self._left = 0
        self._limit = limit
        self._line = b""

    def feed(self, view):
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
        for byte in view:
            used += 1
            if byte == 10:
                break
            if byte < 32 and byte != 9 and byte != 13 or line[-1:] == b"\r" or len(line) > self._limit:
                raise BadMessage("bad chunk framing")
            line += bytes((byte,))
        else:
            self._line = line
            return used, None
        state = self._state
        self._line = b""
        text = line[:-1]
        if line[-1:] != b"\r" or state == 1 and text:
            raise BadMessage("bad end of chunk")
        if state == 1:
            self._state = 0
        elif state == 2:
            self._limit -= len(line)
            self.done = not text
        else:
            for byte in text.split(b";")[0] or b"?":
                byte = b"0123456789abcdef".find(bytes((byte,)).lower())
                left = left * 16 + byte
                if byte < 0 or left > 0x3FFFFFFF:
                    raise BadMessage("bad chunk size")
            self._left = left
            self._state = 1 if left else 2
        return used, None


class ResponseParser:
    """Reads the responses of one connection from the reused bytearray `buf`.

    For each expected response call `begin()`, then `poll()` until END: HEAD once, then body slices, and NEED_DATA in
    between. `status`, `headers` (lower-case names), `keep_alive` are set at HEAD. `pending` counts bytes received beyond
    what was polled. `view` is the whole buffer: free for other use while nothing is pending. `keep`: the only header names
    worth memory besides those of the framing (None: all). `limit`: bytes of a whole head.
    """

    # _state: 0 before the status line, 1 in the fields, 2 in the body, 3 at the end.
    # _left: bytes left of the body, -1 if it is chunked, -2 if it ends with the connection.

    def __init__(self, buf: bytearray, keep=None, limit: int = 16384):
        self._buf = buf
        self.view = memoryview(buf)
        self._limit = limit
        self._keep = keep
        self.reset()

    def reset(self) -> None:
        """Forget the connection: a new one starts with an empty buffer."""
        self._start = self._end = 0
        self._state = 3
        self._eof = False

    @property
    def pending(self) -> int:
        return self._end - self._start

    @property
    def busy(self) -> bool:
        """Whether a response has begun and not ended."""
        return self._state < 3

    def begin(self, head: bool = False) -> None:
        """Expect the next response; `head`: it answers HEAD, so it has no body whatever it says."""
        assert self._state == 3, "the last response was not read to its end"
        self._state = 0
        self._no_body = head
        self._size = 0
        self._skip = False

    def space(self):
        """Where to receive: a part of the buffer, never empty. Invalidates the pieces handed out before."""
        start = self._start
        end = self._end
        view = self.view
        if end == len(view) and not start:
            # A line longer than the buffer: passed over if nobody wants its field, which its start must show.
            name, colon, _ = bytes(view[:64]).partition(b":")
            if self._state != 1 or not colon or self._wanted(str(name, "latin-1").lower()):
                raise BadMessage("a line of the head is over %d bytes" % end)
            self._skip = True
            start = end - 1
        if start:
            view[: end - start] = view[start:end]
            self._start = 0
            self._end = end = end - start
        return view[end:]

    def received(self, n: int) -> None:
        """`n` bytes were put into `space()`; 0: the peer closed."""
        self._end += n
        self._eof = not n

    def poll(self):
        """The next result: NEED_DATA, HEAD, a body slice or END. Raises BadMessage, Truncated."""
        while self._state < 2:
            start = self._start
            end = self._buf.find(b"\r\n", start, self._end)
            if end < 0:
                end = self._end
                if self._skip and end > start:
                    self._start = end - 1  # perhaps a CR
                    self._size += self._start - start
                return self._need(end - start)
            line = bytes(self.view[start:end])
            self._start = end + 2
            self._size += end + 2 - start
            if self._size > self._limit:
                self._need(0)
            if self._skip:
                self._skip = False
            elif self._state == 0:
                self._status_line(line)
            elif line:
                self._field(line)
            elif self.status < 200:
                self._state = 0  # an interim response; the real one follows
            else:
                self._framing()
                return HEAD
        left = self._left
        while self._state == 2 and left:
            piece = self.view[self._start : self._end]
            if not piece:
                if left == -2 and self._eof:
                    break
                return self._need(0)
            n = len(piece)
            if left == -1:
                n, piece = self._chunks.feed(piece)
                if self._chunks.done:
                    left = 0
            elif left > 0:
                piece = piece[:left]
                n = len(piece)
                self._left -= n
            self._start += n
            if piece:
                return piece
        self._state = 3
        return END

    def _need(self, more):
        if self._state < 2 and self._size + more > self._limit:
            raise BadMessage("a head over %d bytes" % self._limit)
        if self._eof:
            raise Truncated("the connection closed in the middle of a response")
        return NEED_DATA

    def _wanted(self, name):
        return not self._keep or name in self._keep or name in _FRAMING

    def _status_line(self, line):
        status = line[9:12]
        if line[:7] != b"HTTP/1." or line[8:9] != b" " or line[12:13] not in b" " or not status.isdigit():
            raise BadMessage("not an HTTP/1.1 response")
        self.status = int(status)
        if self.status < 100 or self.status == 101:
            raise BadMessage("status %d" % self.status)
        self.keep_alive = line[7] != 48
        self.headers = {}
        self._state = 1

    def _field(self, line):
        name, colon, value = line.partition(b":")
        bad = not name or not colon
        for byte in line:
            bad = bad or byte < 32 and byte != 9
        for byte in name:
            bad = bad or byte < 33 or byte > 126 or byte in b'"(),/;<=>?@[]{}\\'
        if bad:
            raise BadMessage("a bad header field")
        name = str(name, "ascii").lower()
        if self._wanted(name):
            value = str(value.strip(), "latin-1")
            if name in self.headers:
                value = self.headers[name] + ", " + value
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
        left = -2
        if coding:
            left = -1
            if length is not None or coding.lower() != "chunked":
                raise BadMessage("an ambiguous body")
            self._chunks = ChunkedDecoder()
        elif length is not None:
            # Two lengths were joined to something else than a number, and so are refused even when they agree.
            if not length.isdigit() or len(length) > 15:
                raise BadMessage("a bad Content-Length")
            left = int(length)
        if self._no_body or self.status in (204, 304):
            left = 0
        if left == -2:
            self.keep_alive = False
        self._left = left
        self._state = 2
