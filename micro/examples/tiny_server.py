"""A whole Durable Streams server in a device's RAM: ds_core decides, asyncio serves, nothing else is needed.

Sensors around it append and readers follow, over HTTP/1.1, with long-poll, SSE, forks and exactly-once producers.
Memory is bounded everywhere: streams, bytes kept of each (the oldest appends go first; who still asks for them gets
410), producers, connections, bodies, answers. All is lost at a reset, and clients learn of it by 404 or 410, never by
wrong bytes.

    micropython tiny_server.py [PORT]                                        on a computer; all it needs is ds_core
    mpremote cp -r ds_core : + cp micro/examples/tiny_server.py :main.py     on a board
"""

import asyncio
import gc
import os
import sys
import time

from ds_core.server import create, cursors, decide, errors, heads, reads, requests, responses, stream
from ds_core.wire import media, names
from ds_core.wire.http1 import BadMessage

WIFI = None  # ("name", "password"); None: the network is up already
HOST = "0.0.0.0"
PORT = 4437
TOKEN = None  # what clients have to give as `Authorization: Bearer TOKEN`; None: whoever can connect may do everything

# For some 150 KB of heap: the program takes 55 KB, streams at most STREAMS * STREAM_BYTES, and each connection HEAD +
# MAX_BODY bytes of a request and about twice CHUNK of an answer. An ESP32 or a Pico W has room for these; an ESP8266
# for none of it.
STREAMS = 8
STREAM_BYTES = 4096
PRODUCERS = 8  # of each stream; each costs about 100 bytes for as long as the stream lives
CONNECTIONS = 4  # more are turned away with 503; lwIP has 5 unless a port sets more (ESP32: 10 to 16)
HEAD = 2048
MAX_BODY = 1024
CHUNK = 1024

LONG_POLL = 30  # seconds that an empty long-poll waits
SSE = 60  # seconds that an SSE answer lasts before its reader comes back
DISCARD = 65536  # of a body that was refused, so that its sender gets to see why
PATIENCE = 30  # seconds without progress before a peer is given up, so that half-open sockets do not pile up

# The only file: how often this server was started. It makes offsets of an earlier start recognisable.
BOOTS = "tiny_server.boots"

_OVERHEAD = 48  # bytes of heap that one append costs besides its data


def refuse(status, code, message):
    return errors.ProtocolError(status, code, message, (("Retry-After", "5"),) if status == 503 else ())


class Clock:
    """Seconds that never jump, and UNIX time as far as it can be believed."""

    def __init__(self):
        self._last = time.ticks_ms()
        self._ms = 0
        # Boards count from 2000, the Unix port from 1970.
        self._epoch = 946684800 if time.gmtime(0)[0] == 2000 else 0

    def now(self):
        # ticks_ms() wraps round after some days; the sum of small differences does not.
        ticks = time.ticks_ms()
        self._ms += time.ticks_diff(ticks, self._last)
        self._last = ticks
        return stream.Now(self._ms / 1000, self.wall())

    def wall(self):
        # Before NTP has answered a board lives in the past. That must not look like a time.
        now = int(time.time()) + self._epoch
        return now if now > 1700000000 else 0


class Shell:
    """Keeps what the core decides about: the streams, their bytes, and who waits for more."""

    def __init__(self):
        self.newest = boots() * 1000000
        self.paths = {}  # path -> Stream
        self.ids = {}  # id -> Stream
        self.pieces = {}  # id -> its appends as [position, bytes]; a fork's inherited ones are the same objects
        self.producers = {}  # id -> its producers: name -> (epoch, seq) of the last append
        self.clock = Clock()
        self.moved = asyncio.Event()  # set, and replaced, whenever anything changes
        self.connections = 0

    def view(self, path):
        view = stream.View(self.paths.get(path), self.clock.now(), self.newest + 1)
        self.apply(view.stream, stream.expire(view)[1])
        view.stream = self.paths.get(path)
        return view

    def decide(self, command):
        """Any request but a GET: the response, after its change has been made."""
        needs = decide.needs(command)
        view = self.view(needs.path)
        known = self.producers[view.stream.id] if view.stream else {}
        view.producer = known.get(needs.producer)
        if command.kind == requests.CREATE:
            view.source = self.paths.get(needs.source)
            if stream.condition(view.source, view.now) in (stream.OPEN, stream.CLOSED):
                view.piece = self.piece(view.source, create.fork_position(view.source, command, view.fresh))
        response, change = decide.decide(view, command)
        if isinstance(change, stream.Created):
            if len(self.ids) >= STREAMS and not self.sweep(view.now):
                raise refuse(507, "TOO_MANY_STREAMS", "this device keeps %d streams; delete one" % STREAMS)
        elif isinstance(change, stream.Appended) and change.producer:
            if len(known) >= PRODUCERS and needs.producer not in known:
                raise refuse(507, "TOO_MANY_PRODUCERS", "this device knows %d producers a stream" % PRODUCERS)
            known[needs.producer] = change.producer[1:]
        self.apply(view.stream, change)
        return response

    def sweep(self, now):
        """Remove expired streams; whether there is room for one more."""
        for path in list(self.paths):
            self.view(path)
        return len(self.ids) < STREAMS

    def apply(self, state, change):
        if change is None:
            return
        if isinstance(change, stream.Created):
            state = change.stream
            self.paths[state.path] = self.ids[state.id] = state
            self.newest = state.id
            at = state.tail - len(change.data)
            pieces = []
            for first, data in self.pieces.get(change.source, ()):
                if first + len(data) > at:
                    data = data[: max(0, at - first)]
                if data:
                    pieces.append((first, data))
            self.pieces[state.id] = pieces
            self.producers[state.id] = {}
            self.keep(state, at, change.data)
            if change.source is not None:
                self.ids[change.source].forks += 1
        elif isinstance(change, stream.Removed):
            self.remove(state)
        else:
            if isinstance(change, stream.Appended):
                self.keep(state, change.at, change.data)
            change.apply(state)
        state.publish()
        self.moved.set()
        self.moved = asyncio.Event()

    def keep(self, state, at, data):
        """Keep an append, and let the oldest ones go for it."""
        pieces = self.pieces[state.id]
        if data:
            pieces.append((at, data))
        size = 0
        for _, data in pieces:
            size += len(data) + _OVERHEAD
        while size > STREAM_BYTES and len(pieces) > 1:
            size -= len(pieces.pop(0)[1]) + _OVERHEAD
            state.start = pieces[0][0]

    def remove(self, state):
        # Itself, then the ancestors that were kept for it alone.
        state.deleted = True
        while state.deleted and not state.forks:
            del self.paths[state.path], self.ids[state.id], self.pieces[state.id], self.producers[state.id]
            if not state.lineage:
                break
            state = self.ids[state.lineage[-1][0]]
            state.forks -= 1

    def piece(self, state, at):
        """The append that holds a position, None at the tail."""
        for piece in self.pieces[state.id]:
            if piece[0] <= at < piece[0] + len(piece[1]):
                return piece
        return None

    def show(self, plan, limit):
        """The next answer: its place in the stream, and its bytes. One copy of at most about `limit` bytes."""
        state = plan.stream
        if plan.start < state.start:
            raise refuse(410, "OFFSET_TRIMMED", "this was trimmed; start again from offset=-1")
        end = plan.tail
        if end - plan.start > limit:
            first, data = self.piece(state, plan.start + limit)
            end = reads.chunk_end(state.kind, plan.start, limit, (first, first + len(data)), data)
        found = []
        for first, data in self.pieces[state.id]:
            if first < end and first + len(data) > plan.start:
                if first < plan.start or first + len(data) > end:
                    data = data[max(0, plan.start - first) : end - first]
                found.append(data)
        return plan.position(end), b"".join(found)

    async def wait(self, plan, seconds):
        """Until there is something to show, the stream is gone or time is up; the plan as it is then."""
        end = time.ticks_add(time.ticks_ms(), int(seconds * 1000))
        while plan.waits and not plan.stream.deleted:
            left = time.ticks_diff(end, time.ticks_ms())
            if left <= 0:
                break
            try:
                await asyncio.wait_for(self.moved.wait(), left / 1000)
            except asyncio.TimeoutError:
                break
            plan = reads.Plan(plan.stream, plan.start, True)
        return plan

    async def read(self, command, connection):
        view = self.view(command.path)
        plan, change = reads.plan(view, command.offset, command.live is not None)
        self.apply(view.stream, change)
        piece = self.piece(plan.stream, plan.start)
        if piece:
            reads.check_start(plan.stream.kind, piece, plan.start)
        random = int.from_bytes(os.urandom(2), "big") / 65536
        cursor = cursors.next_cursor(self.clock.wall(), command.cursor, random)
        if command.live == names.SSE:
            return await self.events(plan, cursor, connection)
        plan = await self.wait(plan, LONG_POLL)
        stream.require(self.paths.get(command.path), self.clock.now())
        position, data = self.show(plan, min(CHUNK, command.max_bytes or CHUNK))
        return reads.answer(command, position, data, cursor, responses.PUBLIC)

    async def events(self, plan, cursor, connection):
        head = responses.sse(not media.is_text(plan.stream.content_type))
        await connection.send(responses.encode_head(200, head.headers, "connection: close\r\n", True, None))
        end = time.ticks_add(time.ticks_ms(), SSE * 1000)
        while not plan.stream.deleted and plan.start >= plan.stream.start:
            position, data = self.show(plan, CHUNK)
            await connection.send(reads.events(position, data, cursor))
            left = time.ticks_diff(end, time.ticks_ms())
            if position.closed or left <= 0:
                break
            plan = await self.wait(reads.Plan(plan.stream, position.end, True), left / 1000)
        raise EOFError  # the end of the connection ends the answer

    async def answer(self, head, body, connection):
        if head.method == "OPTIONS":
            return responses.preflight()
        if TOKEN and head.headers.get("authorization") != "Bearer " + TOKEN:
            headers = (("WWW-Authenticate", "Bearer"),)
            raise errors.ProtocolError(401, "UNAUTHORIZED", "give the token of this device", headers)
        origin = "http://" + head.headers["host"]
        command = requests.parse(head.method, head.target, head.headers, origin, body)
        if command.kind == requests.READ:
            return await self.read(command, connection)
        return self.decide(command)

    async def serve(self, reader, writer):
        """One connection, to its end."""
        connection = Connection(reader, writer)
        self.connections += 1
        try:
            full = self.connections > CONNECTIONS
            if self.connections > CONNECTIONS * 2:
                raise EOFError  # not even that
            while await self.exchange(connection, full) and not full:
                pass
        except (EOFError, OSError, BadMessage, asyncio.TimeoutError):
            pass  # gone, stalled, or not HTTP/1.1
        finally:
            self.connections -= 1
            writer.close()
            try:
                await writer.wait_closed()
            except OSError:
                pass

    async def exchange(self, connection, full):
        """One request and its answer; whether the connection goes on."""
        on = not full
        head = await connection.head()
        try:
            if full:
                connection.unread = min(head.length, DISCARD)
                raise refuse(503, "BUSY", "this device serves %d connections" % CONNECTIONS)
            body = await connection.body(head)
            if head.method == "GET":
                gc.collect()  # before the largest allocation, so that the heap does not fray
            answer = await self.answer(head, body, connection)
        except errors.ProtocolError as exc:
            answer = responses.refusal(exc)
            on = on and exc.status != 413
        except MemoryError:
            gc.collect()
            answer = responses.refusal(refuse(503, "NO_MEMORY", "out of memory; try again"))
            on = False
        on = on and head.headers.get("connection", "").lower() != "close"
        length = None if head.method == "HEAD" else len(answer.body)
        extra = "" if on else "connection: close\r\n"
        await connection.send(responses.encode_head(answer.status, answer.headers, extra, True, length))
        if length and answer.status not in (204, 304):
            await connection.send(answer.body)
        if not on:
            await connection.linger()
        return on


class Connection:
    """Reads requests and writes answers, with deadlines and limits."""

    def __init__(self, reader, writer):
        self._reader = reader
        self._writer = writer
        self._data = b""  # received, not yet used
        self.unread = 0  # bytes of a refused body that may be on their way

    async def more(self):
        data = await asyncio.wait_for(self._reader.read(512), PATIENCE)
        if not data:
            raise EOFError
        self._data += data

    async def send(self, data):
        self._writer.write(data)
        await asyncio.wait_for(self._writer.drain(), PATIENCE)

    async def head(self):
        while True:
            at = self._data.find(heads.END)
            if at >= 0:
                break
            if len(self._data) > HEAD:
                raise BadMessage("too long a head")
            await self.more()
        head = heads.parse(self._data[: at + 4], transport=True)
        if head is None:
            raise BadMessage("not plain HTTP/1.1")
        self._data = self._data[at + 4 :]
        return head

    async def body(self, head):
        length = head.length
        if length > MAX_BODY:
            self.unread = min(length, DISCARD) - len(self._data)
            raise refuse(413, "TOO_LARGE", "a body may have %d bytes" % MAX_BODY)
        if "expect" in head.headers:
            await self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if length == heads.CHUNKED:
            return await self.chunks()
        while len(self._data) < length:
            await self.more()
        body = self._data[:length]
        self._data = self._data[length:]
        return body

    async def linger(self):
        # Closing on unread bytes resets the connection, and the answer is lost with it.
        left = self.unread
        while left > 0:
            left -= len(await asyncio.wait_for(self._reader.read(512), PATIENCE)) or left

    async def chunks(self):
        from ds_core.wire.chunked import ChunkedDecoder  # no device sends chunks, but `curl -T -` does

        decoder = ChunkedDecoder()
        body = b""
        while not decoder.done:
            if not self._data:
                await self.more()
            used, piece = decoder.feed(self._data)
            self._data = self._data[used:]
            body += piece or b""
            if len(body) > MAX_BODY:
                self.unread = DISCARD
                raise refuse(413, "TOO_LARGE", "a body may have %d bytes" % MAX_BODY)
        return body


def boots():
    """How often this was called on this device, kept on flash: one small write a start."""
    try:
        with open(BOOTS) as f:
            count = int(f.read())
    except (OSError, ValueError):
        count = 0
    count += 1
    with open(BOOTS + ".new", "w") as f:
        f.write(str(count))
    os.rename(BOOTS + ".new", BOOTS)
    return count


def connect():
    """Join the Wi-Fi and say under which address."""
    if not WIFI:
        return HOST
    import network

    wlan = network.WLAN(network.STA_IF)
    wlan.active(True)
    wlan.connect(*WIFI)
    for _ in range(300):
        if wlan.isconnected():
            return wlan.ifconfig()[0]
        time.sleep_ms(100)
    raise OSError("no Wi-Fi, or no address")


async def run(host, port):
    await asyncio.start_server(Shell().serve, host, port, backlog=CONNECTIONS + 2)
    gc.collect()
    print("listening on http://%s:%d%s (%d bytes free)" % (connect(), port, names.ROOT[:-1], gc.mem_free()))
    while True:
        await asyncio.sleep(3600)


def main(port=PORT):
    asyncio.run(run(HOST, int(port)))


if __name__ == "__main__":
    main(*sys.argv[1:])
