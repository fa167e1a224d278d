"""A stream on a server: the flows behind `ds_micro.Stream` (blocking) and `ds_micro.aio.Stream`.

A flow is a coroutine over a transport (`_net`); with the blocking transport it runs to its end without ever suspending.
One connection, reused, closed before another is opened; one buffer, for requests on their way out and answers on their
way in. Every wait has a deadline: `timeout` for each step without progress, and, in an outbox, that of `flush`.

Cancelled or broken in the middle of an exchange, the connection is in an unknown state: the next exchange sees that the
parser is not at its end, or that answers are due, and opens a new one. Nothing else needs undoing.

One flow at a time: a second one is refused (blocking: it comes from another thread or a callback) or waits for its turn
(asyncio), so that no answer is ever taken for another request's.
"""

import io
import os

from ds_core.client.backoff import Backoff
from ds_core.client.errors import Disconnected, StreamError
from ds_core.client.reader import LIVE, NEED_DATA, OVER, Reader, kind_of, says
from ds_core.wire.http1 import END, NEED_DATA as MORE, ResponseParser, request_head
from ds_micro.net import now

LONGEST = 500000  # seconds; the longest wait that every port's poll takes
# The response headers that are looked at, as their lines begin.
_KEEP = (b"stream-", b"producer-", b"content-type:", b"retry-after:", b"location:")


def alone(it, call, *args):
    """Do this while nobody else uses the Stream or Outbox `it`; RuntimeError when somebody does."""
    idle = it._idle
    try:
        idle.pop()  # a thread's step that no other can be in the middle of
    except IndexError:
        raise RuntimeError("in use by another call")
    try:
        return call(*args)
    finally:
        idle.append(1)


def random(n):
    """An unpredictable integer in 0..n-1."""
    return int.from_bytes(os.urandom(4), "big") % n


class Result:
    """What a request did: `status`, next `offset`, whether it was a `duplicate`, whether the stream is `closed`
    now, and all `headers` that matter here.
    """

    def __init__(self, status, headers):
        self.status = status
        self.headers = headers
        self.offset = headers.get("stream-next-offset")
        self.duplicate = status == 204 and "producer-seq" in headers
        self.closed = says(headers, "stream-closed")

    if __debug__:  # not in what is compiled for a device

        def __repr__(self):
            state = " duplicate" * self.duplicate + " closed" * self.closed
            return "<Result %d offset %s%s>" % (self.status, self.offset, state)


class Flows:
    """All of a stream's operations; see `ds_micro.Stream` for the parameters."""

    # _net: the transport's class
    # _run: what makes a flow a method: runs it, or hands it to be awaited
    # _turn: what a step of an iteration is awaited through

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
        max_bytes=65536,
        **tls
    ):
        scheme, _, rest = url.partition("://")
        host, slash, path = rest.partition("/")
        at = host.find("]") + 1  # an IPv6 address stands in brackets
        name, _, port = host[at:].partition(":")
        if at:
            name = host[1 : at - 1]
        self.url = url
        self.content_type = content_type
        self._type = kind_of(content_type or "")
        self.path = path = slash + path
        self._params = params
        self._host = host
        self._name = name
        self._headers = headers = dict(headers or {})
        if token:
            if callable(token):
                from ds_micro.operations import bearer

                token = bearer(token)
            elif " " not in token:
                token = "Bearer " + token
            headers["Authorization"] = token
        secure = scheme == "https"
        port = port or ("443" if secure else "80")
        bad = not secure and (tls or scheme != "http") or not (slash and name and port.isdigit())
        bad = bad or min(url) < "!" or max(url) > "~" or "#" in url or int(port) >> 16
        least = min(timeout, live_timeout, buffer / 64, 1 + max_bytes)
        if bad or not 0.001 <= least <= max(timeout, live_timeout) <= LONGEST:
            from ds_micro.trouble import bad_stream

            bad_stream(url, tls, bad)
        request_head("", path, content_type or "", headers.items())  # what breaks a line is told here
        self._port = int(port)
        self._tls = None
        if secure:
            from ds_micro.tls import Wrapper

            self._tls = Wrapper(**tls)
        self._step = int(timeout * 1000)
        self._live_step = int(live_timeout * 1000)
        self._max_bytes = max_bytes
        self._until = None  # the deadline of all steps together
        self._parser = ResponseParser(bytearray(buffer), _KEEP)
        self._conn = self._net()
        self._idle = [1]
        # _wait: how long a step may take
        # _due: requests sent whose answers have not begun; -1: not connected
        # _dead: whether a request may have failed only because the connection had been kept too long
        # _owner: the iteration whose answer is being read
        self.drop()

    if __debug__:  # not in what is compiled for a device

        def __repr__(self):
            return "<%s %s %s>" % (self.__class__.__name__, self.url, self.content_type)

    # One exchange

    def _ms(self):
        """How long the next wait may take."""
        step = self._wait
        if self._until is not None:
            step = min(step, self._until - now())
            if step <= 0:
                raise OSError(110)
        return step

    def drop(self):
        """Close the connection; the next request opens another."""
        self._due = -1
        self._owner = None
        self._conn.close()
        self._parser.reset()

    def _fail(self, exc, sending=0):
        """Close the connection; raise what went wrong on it as a StreamError. Not while `sending`
        (so many requests), when the peer has hung up: perhaps after an answer, which says why.
        """
        from ds_core.client.refusals import failure

        exc = failure(exc, self.url, sending)
        if exc:
            self.drop()
            raise exc

    async def _send(self, method, headers, body, query=(), more=False):
        """Send a request. `body` has readinto. `more`: after others, not yet answered."""
        self._owner = None
        self._wait = self._step
        target = self.path
        headers = list(headers)
        for pair in self._headers.items():
            if callable(pair[1]):
                from ds_micro.operations import ask

                pair = (pair[0], await ask(pair[1]))
            headers.append(pair)
        if self._params:
            from ds_micro.operations import ordered

            query = await ordered(query, self._params)
        mark = "&" if "?" in target else "?"
        for pair in query:
            target += mark + "%s=%s" % pair
            mark = "&"
        head = request_head(method, target, self._host, headers)
        parser = self._parser
        conn = self._conn
        due = self._due
        ours = False  # whether it is the body that fails
        try:
            if due < 0 or parser.busy or not more and (due or parser.pending or conn.stale()):
                self.drop()
                self._dead = False
                await conn.open(self._name, self._port, self._ms, self._tls)
                self._due = 0
            elif not more:
                self._dead = True
            self._due += 1
            view = memoryview(bytearray(1024)) if parser.pending else parser.view
            at = 0
            for part in (io.BytesIO(head), body):
                n = 1
                while n:
                    ours = True
                    n = part.readinto(view[at:])
                    ours = False
                    at += n
                    if at == len(view):
                        await conn.send(view, self._ms)
                        at = 0
            await conn.send(view[:at], self._ms)
        except Exception as exc:
            if ours:
                self.drop()
                raise
            self._fail(exc, self._due)

    async def _poll(self):
        """The parser's next result: HEAD, a piece of the body, or END."""
        parser = self._parser
        try:
            while True:
                got = parser.poll()
                if got is not MORE:
                    break
                n = await self._conn.recv(parser.space(), self._ms)
                parser.received(n)
                if n:
                    self._dead = False
        except Exception as exc:
            self._fail(exc)
        if got is END and not parser.keep_alive:
            self.drop()
        return got

    async def _answer(self, head=False):
        """The head of the next answer; its status."""
        if self._due < 1:
            self._fail(OSError(104))  # ECONNRESET: closed after an earlier answer
        self._due -= 1
        self._parser.begin(head)
        await self._poll()  # HEAD
        return self._parser.status

    async def _text(self):
        """The first piece of the body. One that goes on is not worth reading to its end: the connection is closed."""
        piece = await self._poll()
        if piece is END:
            return b""
        text = bytes(piece)
        if await self._poll() is not END:
            self.drop()
        return text

    async def _request(self, method, headers=(), body=b"", query=(), step=0):
        """One request and the head of its answer; an answer that is no success is raised.

        A kept connection can turn out to be dead: then the request goes out once more, unless it has a body that might
        be appended twice.
        """
        while True:
            try:
                await self._send(method, headers, io.BytesIO(body), query)
                self._wait = step or self._step
                status = await self._answer(method == "HEAD")
                break
            except Disconnected:
                if not self._dead or body:
                    raise
        headers = self._parser.headers
        # (What no server says to such a request is the answer to another one, or not a stream's.)
        ours = status in (200, 201 if method == "PUT" else 204)
        if not ours or method not in "GET DELETE" and "stream-next-offset" not in headers:
            from ds_core.client.refusals import error_for

            raise error_for(status, headers, await self._text(), self.url)
        return status

    def encode(self, value):
        """The bytes of one value by content type: a CBOR item, JSON text, or the byte string itself."""
        if self._type == "cbor":
            from ds_core.wire.cbor import encode

            return encode(value)
        from ds_micro.operations import encode

        return encode(self._type, value)

    # Operations. `ds_micro.operations` has the others: append, close, head, delete, fork.

    async def _do(self, method, headers=(), body=b""):
        """A request whose answer is in its head."""
        self._until = None
        headers = list(headers)
        headers.append(("Content-Length", len(body)))
        result = Result(await self._request(method, headers, body), self._parser.headers)
        await self._text()
        return result

    def create(self, **options):
        """PUT: create the stream; 201, or 200 if it is there. `ttl` (seconds), `expires_at` (RFC 3339), `closed`,
        `values` to begin with.
        """
        headers = [("Content-Type", self.content_type)]
        body = b""
        if options or not self.content_type:
            from ds_micro.operations import creation

            body = creation(self, headers, **options)
        return self._run(self._do("PUT", headers, body))

    def __getattr__(self, name):
        from ds_micro.operations import operation

        flow = operation(name)
        return lambda *args, **options: self._run(flow(self, *args, **options))

    def read(self, cursor=None, live=None, patience=60, limit=65536, raw=False, deadline=None, marks=False):
        """Iterate over the items from `cursor` (a Cursor, an offset, "now"; default: the start) to the tail, or, with
        `live` ("long-poll", "sse" or "auto"), until the stream is closed. Broken answers are resumed; without progress
        for `patience` seconds (None: for ever) the last error is raised. `limit`: the most bytes of one item.
        `raw`: bytes, whatever the content type. `deadline`: seconds after which the iteration ends, wherever it is.
        `marks`: hand out a MARK wherever an answer ends, with or without items. (There `cursor.items` is 0; but where a
        cursor with items is resumed and the answer ended before these, it is how many are still to be passed over.)

        The iteration has `caught_up` (nothing more was there when the last answer ended) and `closed` (the stream is
        closed, and all of it was read).
        """
        if live and live != "long-poll":
            from ds_core.client.events import check

            check(live)
        if not hasattr(cursor, "items"):
            from ds_micro.cursor import Cursor

            cursor = Cursor(None, cursor or "-1")
        reader = Reader(cursor, live, self._max_bytes, limit, raw, marks)
        return self._items(self, reader, patience, deadline)


class Items:
    """An iteration over a stream. Other calls on the same stream may come in between: it then asks again."""

    def __init__(self, stream, reader, patience, deadline):
        self._stream = stream
        self._reader = reader
        self._patience = patience
        self._until = None if deadline is None else now() + int(deadline * 1000 + 0)
        self._backoff = Backoff(random)
        self._pause = 0  # before the next step
        # _soon, _from: of a live request, until when an answer comes at once, and the offset
        # _begun, _was: when the last pause was over, and where the cursor was (see retry)

    def __getattr__(self, name):
        return getattr(self._reader, name)

    if __debug__:  # not in what is compiled for a device

        def __repr__(self):
            cursor = self._reader.cursor
            return "<Items of %s after %s+%d>" % (self._stream.url, cursor.offset, cursor.items)

    def __iter__(self):
        return self

    def __next__(self):
        item = self._stream._run(self.next())
        if item is END:
            raise StopIteration
        return item

    async def next(self):
        """The next item, or END."""
        self._since = now()
        while True:
            if self._pause:
                await self._stream._conn.sleep(self._pause)
                self._pause = 0
            item = await self._stream._turn(self._step())
            if item is not NEED_DATA:
                return item

    async def _step(self):
        """The next item, or END; NEED_DATA where an answer ends, so that others may have their turn."""
        stream = self._stream
        reader = self._reader
        stream._until = until = self._until
        try:
            mine = stream._owner is self
            if reader.state == OVER or until is not None and now() >= until:
                if mine:
                    stream.drop()  # the server need not be the one who ends it
                return END
            if not mine:
                step = stream._live_step if reader.state == LIVE else 0
                self._soon = step and now() + 1000
                self._from = reader.cursor.offset
                status = await stream._request("GET", query=reader.query(), step=step)
                reader.head(status, stream._parser.headers)
                stream._owner = self
            while True:
                item = reader.next()
                if item is not NEED_DATA:
                    return item
                piece = await stream._poll()
                self._since = now()
                if piece is END:
                    stream._owner = None
                    item = reader.end() or NEED_DATA
                    # A live answer is waited for. One that comes at once, with nothing new, is asked for at leisure.
                    if self._since < self._soon and self._from == reader.cursor.offset:
                        from ds_micro.retry import pause

                        self._pause = pause(self, None)
                    return item
                reader.feed(piece)
        except StreamError as exc:
            stream.drop()
            from ds_micro.retry import pause

            self._pause = pause(self, exc)
            return NEED_DATA


Flows._items = Items
