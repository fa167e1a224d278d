"""A stream on a server: the flows behind `ds_micro.Stream` (blocking) and `ds_micro.aio.Stream`.

A flow is a coroutine over a transport (`net`); with the blocking transport it runs to its end without ever suspending.
One connection, reused, closed before another is opened; one buffer, for requests on their way out and answers on their
way in. Every wait has a deadline: `timeout` for each step without progress, and, in an outbox, that of `flush`.

Cancelled or broken in the middle of an exchange, the connection is in an unknown state: the next exchange sees that the
parser is not at its end and opens a new one. Nothing else needs undoing.
"""

import io

from ds_core.client.backoff import Backoff
from ds_core.client.errors import BadResponse, Disconnected, StreamError, Timeout, error_for
from ds_core.client.reader import LIVE, NEED_DATA, OVER, Reader, kind_of
from ds_core.wire import http1
from ds_micro.net import ticks_diff, ticks_ms

# The response headers that are looked at.
_KEEP = (
    "content-type",
    "location",
    "retry-after",
    "stream-next-offset",
    "stream-up-to-date",
    "stream-closed",
    "stream-cursor",
    "stream-ttl",
    "stream-expires-at",
    "stream-sse-data-encoding",
    "producer-epoch",
    "producer-seq",
    "producer-expected-seq",
)


def random(n):
    """An unpredictable integer in 0..n-1."""
    import os

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

        replace(self.path, ("%s %d\n" % (self.offset, self.items)).encode())


class Result:
    """What a request did: `status`, next `offset`, whether it was a `duplicate`, whether the stream is `closed` now, and
    all `headers` that matter here.
    """

    def __init__(self, status, headers):
        self.status = status
        self.headers = headers
        self.offset = headers.get("stream-next-offset")
        self.duplicate = status == 204 and "producer-seq" in headers
        self.closed = headers.get("stream-closed", "").lower() == "true"


class Flows:
    """All of a stream's operations; see `ds_micro.Stream` for the parameters."""

    _net = None  # the transport's class

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
        if scheme not in ("http", "https") or not name or not path or timeout <= 0 or buffer < 256:
            raise ValueError("bad URL, timeout or buffer: " + url)
        self.url = url
        self.content_type = content_type
        self._type = kind_of(content_type)
        self._path, _, query = (slash + path).partition("?")
        self._query = [tuple(pair.split("=", 1)) for pair in query.split("&")] if query else []
        self._query += (params or {}).items()
        self._host = host
        self._name = name
        self._port = int(port) if port else 443 if scheme == "https" else 80
        self._headers = dict(headers or {})
        if token:
            self._headers["Authorization"] = (
                (lambda: "Bearer " + token()) if callable(token) else "Bearer " + token
            )
        self._tls = None
        if scheme == "https":
            from ds_micro.tls import wrapper

            self._tls = wrapper(self._net, **tls)
        elif tls:
            raise ValueError("for https only: " + ", ".join(tls))
        self._step = int(timeout * 1000)
        self._live_step = int(live_timeout * 1000)
        self._until = None
        self._max_bytes = max_bytes
        self._parser = http1.ResponseParser(bytearray(buffer), _KEEP)
        self._conn = self._net()
        self._open = False
        self._due = 0  # requests sent, whose answers have not begun
        self._address = None
        self._owner = None  # the iteration whose answer is being read

    # One exchange

    def _ms(self, step=None):
        """How long the next step may take."""
        step = step or self._step
        if self._until is not None:
            step = min(step, ticks_diff(self._until, ticks_ms()))
            if step <= 0:
                raise Timeout("the deadline passed")
        return step

    def drop(self):
        """Close the connection; the next request opens another."""
        self._open = False
        self._due = 0
        self._conn.close()
        self._parser.reset()

    def _fail(self, exc):
        """Whatever went wrong on the connection, as a StreamError; the connection is closed."""
        self.drop()
        if isinstance(exc, OSError):
            kind = Timeout if exc.errno in (110, 116, 60) else Disconnected
        elif isinstance(exc, http1.BadMessage):
            kind = Disconnected if isinstance(exc, http1.Truncated) else BadResponse
        else:
            raise exc
        raise kind(str(exc) or "broken", url=self.url)

    async def _send(self, method, headers, body=None, query=(), path=None, more=False):
        """Send a request; whether on an old connection. `body` has readinto. `more`: after others, not yet answered."""
        self._owner = None
        pairs = list(query) + self._query
        pairs.sort(key=_first)
        target = path or self._path
        mark = "?"
        for name, value in pairs:
            target += "%s%s=%s" % (mark, name, await _ask(value))
            mark = "&"
        fields = list(headers)
        for name in self._headers:
            fields.append((name, await _ask(self._headers[name])))
        head = http1.request_head(method, target, self._host, fields)
        parser = self._parser
        conn = self._conn
        reused = self._open and not parser.busy
        if reused:
            reused = more if self._due else not parser.pending and not conn.stale()
        try:
            if not reused:
                self.drop()
                address = self._address
                self._address = None  # looked up again if this fails
                if not address:
                    address = await conn.resolve(self._name, self._port, self._ms())
                await conn.open(address, self._ms(), self._tls, self._name)
                self._address = address
                self._open = True
            self._due += 1
            view = memoryview(bytearray(1024)) if parser.pending else parser.view
            while len(head) > len(view):
                await conn.send(head[: len(view)], self._ms())
                head = head[len(view) :]
            at = len(head)
            view[:at] = head
            while at:
                if body and at < len(view):
                    n = body.readinto(view[at:])
                    at += n
                    if n and at < len(view):
                        continue
                await conn.send(view[:at], self._ms())
                at = body.readinto(view) if body else 0
        except Exception as exc:
            self._fail(exc)
        return reused

    async def _poll(self, step=None):
        """HEAD, a piece of the body, or END."""
        parser = self._parser
        try:
            while True:
                got = parser.poll()
                if got is not http1.NEED_DATA:
                    break
                n = await self._conn.recv(parser.space(), self._ms(step))
                parser.received(n)
                self._heard = self._heard or n
        except Exception as exc:
            self._fail(exc)
        if got is http1.END and not parser.keep_alive:
            self.drop()
        return got

    async def _answer(self, method="", step=None):
        """The head of the next answer; its status."""
        self._due -= 1
        self._heard = 0
        self._parser.begin(method == "HEAD")
        await self._poll(step)
        return self._parser.status

    async def _text(self):
        """Read the body to its end; at most its first piece as text."""
        text = ""
        for _ in range(16):
            piece = await self._poll()
            if piece is http1.END:
                return text
            text = text or str(bytes(piece), "utf-8")
        self.drop()
        return text

    async def _request(self, method, headers=(), body=None, query=(), path=None, again=True, step=None):
        """One request and the head of its answer; an answer that is no success is raised.

        A kept connection can turn out to be dead: then the request goes out once more, if that is harmless (`again`).
        """
        while True:
            reused = await self._send(method, headers, body, query, path)
            try:
                status = await self._answer(method, step)
                break
            except Disconnected as exc:
                if not (reused and again) or self._heard or isinstance(exc, Timeout):
                    raise
        if status > 299:
            raise error_for(status, self._parser.headers, await self._text(), self.url)
        return status

    async def _do(self, method, headers=(), body=None, path=None, again=True):
        """A request whose answer is in its head."""
        headers = list(headers)
        if body is not None:
            headers.append(("Content-Length", len(body)))
            if again:
                again = not body
            body = io.BytesIO(body)
        status = await self._request(method, headers, body, path=path, again=again)
        result = Result(status, self._parser.headers)
        await self._text()
        return result

    def encode_one(self, value):
        """The bytes of one value by content type: a CBOR item, JSON text, or the byte string itself."""
        if self._type == "cbor":
            from ds_core.wire.cbor import encode

            return encode(value)
        if self._type == "json":
            import json

            return json.dumps(value).encode()
        return value

    def encode(self, values):
        """The bytes of one POST: CBOR items, one JSON array, or byte strings joined."""
        body = (b"," if self._type == "json" else b"").join([self.encode_one(value) for value in values])
        return b"[" + body + b"]" if self._type == "json" else body

    # Operations

    async def create(self, *values, ttl=None, expires_at=None, closed=False):
        """PUT: create the stream with these first values. `ttl` in seconds or `expires_at` (RFC 3339)."""
        headers = [("Content-Type", self.content_type)] + _life(ttl, expires_at, closed)
        return await self._do("PUT", headers, self.encode(values) if values else b"")

    async def append(self, *values, seq=None, close=False, raw=False):
        """POST these values at once, or, `raw`, bytes that are already encoded. `seq`: Stream-Seq. `close`: as the last.

        At most once: raises Disconnected when the outcome is unknown. An Outbox appends exactly once.
        """
        headers = [("Content-Type", self.content_type)] + _life(None, None, close)
        if seq is not None:
            headers.append(("Stream-Seq", seq))
        body = b"".join(values) if raw else self.encode(values)
        if not body or not values:
            raise ValueError("nothing to append")
        return await self._do("POST", headers, body)

    async def close(self):
        """Close the stream for good; harmless when it is."""
        return await self._do("POST", _life(None, None, True), b"")

    async def head(self):
        """The tail (`offset`), content type and state, without data."""
        return await self._do("HEAD")

    async def delete(self):
        return await self._do("DELETE")

    async def fork(self, source, offset=None, sub_offset=0, ttl=None, expires_at=None):
        """Create this stream as a fork of `source`, a path or another Stream, up to `offset` (default: its tail)."""
        headers = [("Stream-Forked-From", getattr(source, "_path", source))] + _life(ttl, expires_at, False)
        if offset is not None:
            headers.append(("Stream-Fork-Offset", offset))
        if sub_offset:
            headers.append(("Stream-Fork-Sub-Offset", sub_offset))
        return await self._do("PUT", headers, b"")

    def read(self, cursor=None, live=None, patience=60, limit=65536, raw=False):
        """Iterate over the items from `cursor` (a Cursor, an offset, "now"; default: the start) to the tail, or, with
        `live` ("long-poll", "sse" or "auto"), until the stream is closed. Broken answers are resumed; without progress
        for `patience` seconds (None: for ever) the last error is raised. `limit`: the most bytes of one item.
        """
        if live not in (None, "long-poll", "sse", "auto"):
            raise ValueError("live must be None, long-poll, sse or auto")
        if not hasattr(cursor, "items"):
            cursor = Cursor(None, cursor or "-1")
        return self._items(self, Reader(cursor, live, self._max_bytes, limit, raw), patience)


class Items:
    """An iteration over a stream. Other calls on the same stream may come in between: it then asks again."""

    def __init__(self, stream, reader, patience):
        self._stream = stream
        self.reader = reader
        self.cursor = reader.cursor
        self._patience = patience
        self._backoff = Backoff(random)
        self._since = ticks_ms()

    async def next(self):
        """The next item, or OVER."""
        stream = self._stream
        reader = self.reader
        while True:
            try:
                if reader.state == OVER:
                    if stream._owner is self:
                        stream.drop()  # the server need not be the one who ends it
                    return OVER
                if stream._owner is not self:
                    step = stream._live_step if reader.state == LIVE else None
                    status = await stream._request("GET", query=reader.query(), step=step)
                    reader.head(status, stream._parser.headers)
                    stream._owner = self
                item = reader.next()
                if item is not NEED_DATA:
                    return item
                piece = await stream._poll(stream._live_step)
                self._backoff.reset()
                self._since = ticks_ms()
                if piece is http1.END:
                    stream._owner = None
                    reader.end()
                else:
                    reader.feed(piece)
            except StreamError as exc:
                stream.drop()
                stream._owner = None
                if not exc.retry:
                    raise
                ms = self._backoff.delay(exc.retry_after)
                if self._patience is not None and ticks_diff(ticks_ms(), self._since) + ms > self._patience * 1000:
                    raise
                await stream._conn.sleep(ms)


def _first(pair):
    return pair[0]


async def _ask(value):
    """A parameter's value; of a callable, what it returns now, which may be awaitable."""
    if callable(value):
        value = value()
        if hasattr(value, "send"):
            value = await value
    return value


def _life(ttl, expires_at, closed):
    headers = []
    if ttl is not None:
        if expires_at or not isinstance(ttl, int) or ttl < 0:
            raise ValueError("ttl must be whole seconds, and without expires_at")
        headers.append(("Stream-TTL", ttl))
    if expires_at:
        headers.append(("Stream-Expires-At", expires_at))
    if closed:
        headers.append(("Stream-Closed", "true"))
    return headers
