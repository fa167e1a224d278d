"""A stream on a server: the flows behind `ds_micro.Stream` (blocking) and `ds_micro.aio.Stream`.

A flow is a coroutine over a transport (`_net`); with the blocking transport it runs to its end without ever suspending.
One connection, reused, closed before another is opened; one buffer, for requests on their way out and answers on their
way in. Every wait has a deadline: `timeout` for each step without progress, and, in an outbox, that of `flush`.

Cancelled or broken in the middle of an exchange, the connection is in an unknown state: the next exchange sees that the
parser is not at its end, or that answers are due, and opens a new one. Nothing else needs undoing.
"""

import io
import os

from ds_core.client.backoff import Backoff
from ds_core.client.errors import BadResponse, Disconnected, StreamError, Timeout
from ds_core.client.reader import LIVE, NEED_DATA, OVER, Reader, kind_of
from ds_core.wire.http1 import END, NEED_DATA as MORE, BadMessage, ResponseParser, Truncated, request_head
from ds_micro.net import ticks_diff, ticks_ms

# The response headers that are looked at, as their lines begin.
_KEEP = (b"stream-", b"producer-", b"content-type:", b"location:", b"retry-after:")


def random(n):
    """An unpredictable integer in 0..n-1."""
    return int.from_bytes(os.urandom(4), "big") % n


class Cursor:
    """Where a reader is: `offset`, and `items` handled since. `path`: a file to keep it in."""

    def __init__(self, path=None, offset="-1", items=0):
        self.path = path
        self.offset = offset
        self.items = items

    def load(self):
        """Read the file; without one, stay where we are. Returns the cursor."""
        try:
            with open(self.path) as f:
                self.offset, items = f.read().split()
            self.items = int(items)
        except OSError:
            pass
        return self

    def save(self):
        """Replace the file: after a power cut it holds the old cursor or the new one."""
        from ds_micro.flash import replace

        replace(self.path, b"%s %d\n" % (self.offset.encode(), self.items))


class Flows:
    """All of a stream's operations; see `ds_micro.Stream` for the parameters."""

    _net = None  # the transport's class
    _run = None  # what makes a flow a method: runs it, or hands it to be awaited

    def __init__(
        self,
        url,
        token=None,
        content_type="application/cbor-seq",
        headers=None,
        params=None,
        timeout=10,
        live_timeout=90,
        buffer=1024,
        max_bytes=0,
        **tls
    ):
        scheme, _, rest = url.partition("://")
        host, slash, path = rest.partition("/")
        name, _, port = host.partition(":")
        self.url = url
        self.content_type = content_type
        self._type = kind_of(content_type)
        self.path = slash + path
        self._params = params
        self._host = host
        self._name = name
        self._port = int(port or (443 if scheme == "https" else 80))
        self._headers = dict(headers or {})
        if token:
            self._headers["Authorization"] = token
        self._tls = None
        if scheme == "https":
            from ds_micro.tls import Wrapper

            self._tls = Wrapper(**tls)
        elif scheme != "http" or tls or not name:
            raise ValueError("bad URL, or options for https only")
        b"".join(request_head("", self.path, host))
        self._step = int(timeout * 1000)
        self._live_step = int(live_timeout * 1000)
        self._max_bytes = max_bytes
        self._until = None  # the deadline of all steps together
        self._parser = ResponseParser(bytearray(buffer), _KEEP)
        self._conn = self._net()
        self._due = -1  # requests sent whose answers have not begun; -1: not connected
        self._heard = 0  # whether bytes of the answer came
        self._address = None
        self._owner = None  # the iteration whose answer is being read

    # One exchange

    def _ms(self, step=0):
        """How long the next step may take."""
        step = step or self._step
        if self._until is not None:
            step = min(step, ticks_diff(self._until, ticks_ms()))
            if step <= 0:
                raise Timeout("deadline passed")
        return step

    def drop(self):
        """Close the connection; the next request opens another."""
        self._due = -1
        self._owner = None
        self._conn.close()
        self._parser.reset()

    def _fail(self, exc):
        """Close the connection; raise what went wrong on it as a StreamError."""
        self.drop()
        kind = Disconnected
        if isinstance(exc, BadMessage):
            if not isinstance(exc, Truncated):
                kind = BadResponse
        elif not isinstance(exc, OSError):
            raise exc
        elif exc.errno in (110, 116, 60):
            kind = Timeout
        raise kind(str(exc), url=self.url)

    async def _send(self, method, headers, body=None, query=(), more=False):
        """Send a request; whether on an old connection. `body` has readinto. `more`: after others, not yet answered."""
        self._owner = None
        if self._params:
            from ds_micro.more import ordered

            query = await ordered(query, self._params)
        target = self.path
        mark = "?"
        for pair in query:
            target += mark + "%s=%s" % pair
            mark = "&"
        headers = list(headers)
        for name in self._headers:
            value = self._headers[name]
            if callable(value):
                value = value()
                if hasattr(value, "send"):
                    value = await value
            if name == "Authorization" and " " not in value:
                value = "Bearer " + value
            headers.append((name, value))
        parser = self._parser
        conn = self._conn
        due = self._due
        reused = not parser.busy and (more if due else not parser.pending and not conn.stale()) and due >= 0
        try:
            if not reused:
                self.drop()
                address = self._address
                self._address = None  # looked up again if this fails
                if not address:
                    address = await conn.resolve(self._name, self._port, self._ms())
                await conn.open(address, self._ms(), self._tls, self._name)
                self._address = address
                self._due = 0
            self._due += 1
            view = memoryview(bytearray(1024)) if parser.pending else parser.view
            at = 0
            for line in request_head(method, target, self._host, headers):
                n = len(line)
                if at + n > len(view):
                    await conn.send(view[:at], self._ms())
                    at = 0
                if n > len(view):
                    await conn.send(line, self._ms())
                else:
                    view[at : at + n] = line
                    at += n
            while at:
                if body and at < len(view):
                    n = body.readinto(view[at:])
                    at += n
                    if n:
                        continue
                await conn.send(view[:at], self._ms())
                at = body.readinto(view) if body else 0
        except Exception as exc:
            self._fail(exc)
        return reused

    async def _poll(self, step=0):
        """The parser's next result: HEAD, a piece of the body, or END."""
        parser = self._parser
        try:
            while True:
                got = parser.poll()
                if got is not MORE:
                    break
                n = await self._conn.recv(parser.space(), self._ms(step))
                parser.received(n)
                self._heard = self._heard or n
        except Exception as exc:
            self._fail(exc)
        if got is END and not parser.keep_alive:
            self.drop()
        return got

    async def _answer(self, head=False, step=0):
        """The head of the next answer; its status."""
        self._heard = 0
        if self._due < 1:
            raise Disconnected("closed after an earlier answer", url=self.url)
        self._due -= 1
        self._parser.begin(head)
        await self._poll(step)
        return self._parser.status

    async def _text(self):
        """Read the body to its end; its first piece as text."""
        text = b""
        for _ in range(16):
            piece = await self._poll()
            if piece is END:
                break
            text = text or bytes(piece)
        else:
            self.drop()
        try:
            return text.decode()
        except UnicodeError:
            return ""

    async def _request(self, method, headers=(), body=b"", query=(), step=0):
        """One request and the head of its answer; an answer that is no success is raised.

        A kept connection can turn out to be dead: then the request goes out once more, unless it has a body that might
        be appended twice.
        """
        while True:
            reused = await self._send(method, headers, io.BytesIO(body), query)
            try:
                status = await self._answer(method == "HEAD", step)
                break
            except Disconnected as exc:
                if not reused or self._heard or body or isinstance(exc, Timeout):
                    raise
        if status > 299:
            from ds_core.client.refusals import error_for

            raise error_for(status, self._parser.headers, await self._text(), self.url)
        return status

    def encode(self, value):
        """The bytes of one value by content type: a CBOR item, JSON text, or the byte string itself."""
        if self._type == "cbor":
            from ds_core.wire.cbor import encode

            return encode(value)
        from ds_micro.more import encode

        return encode(self._type, value)

    # Operations. `ds_micro.more` has all but read: create, append, close, head, delete, fork.

    def __getattr__(self, name):
        import ds_micro.more

        flow = getattr(ds_micro.more, name)
        return lambda *args, **options: self._run(flow(self, *args, **options))

    def read(self, cursor=None, live=None, patience=60, limit=65536, raw=False):
        """Iterate over the items from `cursor` (a Cursor, an offset, "now"; default: the start) to the tail, or, with
        `live` ("long-poll", "sse" or "auto"), until the stream is closed. Broken answers are resumed; without progress
        for `patience` seconds (None: for ever) the last error is raised. `limit`: the most bytes of one item.
        `raw`: bytes, whatever the content type.
        """
        if live not in (None, "long-poll", "sse", "auto"):
            raise ValueError("live: long-poll, sse or auto")
        if not hasattr(cursor, "items"):
            cursor = Cursor(None, cursor or "-1")
        return self._items(self, Reader(cursor, live, self._max_bytes, limit, raw), patience)


class Items:
    """An iteration over a stream. Other calls on the same stream may come in between: it then asks again."""

    def __init__(self, stream, reader, patience):
        self._stream = stream
        self._reader = reader
        self.cursor = reader.cursor
        self._patience = patience
        self._backoff = Backoff(random)

    def __iter__(self):
        return self

    def __next__(self):
        item = self._stream._run(self.next())
        if item is OVER:
            raise StopIteration
        return item

    async def next(self):
        """The next item, or OVER."""
        self._since = ticks_ms()
        stream = self._stream
        reader = self._reader
        while True:
            try:
                mine = stream._owner is self
                if reader.state == OVER:
                    if mine:
                        stream.drop()  # the server need not be the one who ends it
                    return OVER
                step = stream._live_step if reader.state == LIVE else 0
                if not mine:
                    status = await stream._request("GET", query=reader.query(), step=step)
                    reader.head(status, stream._parser.headers)
                    stream._owner = self
                item = reader.next()
                if item is not NEED_DATA:
                    return item
                piece = await stream._poll(step)
                self._backoff.reset()
                self._since = ticks_ms()
                if piece is END:
                    stream._owner = None
                    reader.end()
                else:
                    reader.feed(piece)
            except StreamError as exc:
                stream.drop()
                ms = self._backoff.delay(exc.retry_after)
                waited = ticks_diff(ticks_ms(), self._since) + ms
                if not exc.retry or self._patience is not None and waited > self._patience * 1000:
                    raise
                await stream._conn.sleep(ms)


Flows._items = Items
