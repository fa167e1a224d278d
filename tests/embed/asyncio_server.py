"""A whole Durable Streams server on plain asyncio: the core decides, dicts keep the streams.

It adds sockets, clocks and a place for bytes: asyncio_server.py [port] [long-poll] [chunk] [root]"""

import asyncio
import contextlib
import functools
import random
import sys
import time

from ds_core.server import heads, responses, shell, storage, stream
from ds_core.wire import chunked, http1

MAX_BODY = 16 << 20


class Store:
    def __init__(self):
        self.streams, self.last = {}, 0  # Streams by path and by id
        self.appends, self.producers = {}, {}  # id -> [(position, bytes)]; id -> {name: (epoch, seq)}
        self.moved = asyncio.Event()  # set, and replaced, by every commit

    def load(self, key):
        return self.streams.get(key)

    def producer(self, id, name):
        return self.producers[id].get(name)

    def newest(self):
        return self.last

    def pieces(self, id, start, end):
        return [(at, data) for at, data in self.appends[id] if at < end and start < at + len(data)]

    def commit(self, changes):
        for each in changes.drops:
            del self.streams[each.path], self.streams[each.id]
            del self.appends[each.id], self.producers[each.id]
        for each in changes.puts:
            self.streams[each.path] = self.streams[each.id] = each
            self.appends.setdefault(each.id, [])
            self.producers.setdefault(each.id, {})
        if changes.data:
            self.appends[changes.data[0]].append(changes.data[1:])
        if changes.producer:
            id, name, epoch, seq = changes.producer
            self.producers[id][name] = epoch, seq
        self.last = changes.newest or self.last
        self.moved.set()
        self.moved = asyncio.Event()


async def receive(reader, writer):
    head = heads.parse(await reader.readuntil(heads.END), transport=True)
    if head is None or head.length > MAX_BODY:
        raise http1.BadMessage(f"not plain HTTP/1.1, or over {MAX_BODY} bytes")
    if "expect" in head.headers:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if head.length != heads.CHUNKED:
        return head, await reader.readexactly(head.length)
    chunks, body = chunked.ChunkedDecoder(), bytearray()
    while not chunks.done:
        if len(body) > MAX_BODY:
            raise http1.BadMessage(f"a body over {MAX_BODY} bytes")
        line = await reader.readuntil(b"\n")  # a chunked body ends with one: nothing behind it is taken
        while line:
            used, piece = chunks.feed(line)
            body, line = body + (piece or b""), line[used:]
    return head, bytes(body)


async def serve(streams, store, reader, writer):
    extra = ""
    with contextlib.suppress(EOFError, ConnectionError, asyncio.LimitOverrunError, http1.BadMessage):
        while not extra:
            head, body = await receive(reader, writer)
            origin = "http://" + head.headers["host"]
            exchange = streams.exchange(head.method, head.target, head.headers, body, origin)
            while not exchange.done:
                moved, said = store.moved, storage.run(exchange.next(), store)
                if isinstance(said, storage.Wait):
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(moved.wait(), said.seconds)
                elif isinstance(said, responses.Response):
                    extra = "" if exchange.done else "connection: close\r\n"  # which ends an event stream
                    head = responses.encode_head(said.status, said.headers, extra, True, exchange.length)
                    writer.write(head + said.body)
                else:
                    writer.write(said)
                await writer.drain()
    writer.close()


async def main(port="4437", long_poll="30", chunk="16777216", root="/v1/stream/"):
    store, now = Store(), lambda: stream.Now(time.monotonic(), time.time())
    streams = shell.Shell(now, random.random, root, int(chunk), float(long_poll))
    connected = functools.partial(serve, streams, store)
    server = await asyncio.start_server(connected, "127.0.0.1", int(port), limit=MAX_BODY)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}{root.rstrip('/')}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
