"""A whole Durable Streams server on plain asyncio: the core decides, a dict keeps the streams.

It adds sockets, clocks and a place for bytes: python tests/embed/asyncio_server.py [port] [seconds]"""

import asyncio
import contextlib
import random
import sys
import time

from ds_core.server import create, cursors, decide, errors, heads, reads, requests, responses, stream
from ds_core.wire import chunked, http1, media, names

MAX_BODY, SSE_SECONDS = 16 << 20, 60


class Shell:
    def __init__(self, long_poll):
        self.long_poll, self.newest, self.paths, self.ids = long_poll, 0, {}, {}  # Streams by path, by id
        self.pieces = {}  # id -> its appends as (position, bytes), a fork's inherited ones included
        self.producers = {}  # (path, producer id) -> (epoch, seq)
        self.moved = asyncio.Event()  # set, and replaced, whenever anything changes

    def view(self, path):
        view = stream.View(self.paths.get(path), stream.Now(time.monotonic(), time.time()), self.newest + 1)
        self.apply(view.stream, stream.expire(view)[1])
        view.stream = self.paths.get(path)
        return view

    def decide(self, command):
        needs = decide.needs(command)
        view = self.view(needs.path)
        view.source = self.paths.get(needs.source)
        view.producer = self.producers.get((needs.path, needs.producer))
        if stream.condition(view.source, view.now) in (stream.OPEN, stream.CLOSED):
            view.piece = self.piece(view.source, create.fork_position(view.source, command, view.fresh))
        response, change = decide.decide(view, command)
        self.apply(view.stream, change)
        return response

    def apply(self, state, change):
        if isinstance(change, stream.Created):
            state, at = change.stream, change.stream.tail - len(change.data)
            self.paths[state.path] = self.ids[state.id] = state
            self.newest, inherited = state.id, self.pieces.get(change.source, [])
            self.pieces[state.id] = [(p, d[: max(0, at - p)]) for p, d in inherited] + [(at, change.data)]
            if change.source:
                self.ids[change.source].forks += 1
        elif isinstance(change, stream.Removed):
            state.deleted = True
            self.producers = {key: last for key, last in self.producers.items() if key[0] != state.path}
            while state.deleted and not state.forks:  # itself, then the ancestors that only it kept
                del self.paths[state.path], self.ids[state.id], self.pieces[state.id]
                if not state.lineage:
                    break
                state = self.ids[state.lineage[-1][0]]
                state.forks -= 1
        elif change:
            if isinstance(change, stream.Appended):
                self.pieces[state.id].append((change.at, change.data))
                if change.producer:
                    self.producers[state.path, change.producer[0]] = change.producer[1:]
            change.apply(state)
        if change:
            state.publish()
            self.moved.set()
            self.moved = asyncio.Event()

    def piece(self, state, at):  # the append that holds a position, None at the tail
        return next((p for p in self.pieces[state.id] if p[0] <= at < p[0] + len(p[1])), None)

    def show(self, plan):  # all that it can show: its place in the stream, and the stored bytes
        found = [data[max(0, plan.start - at) :] for at, data in self.pieces[plan.stream.id]]
        return plan.position(plan.tail), b"".join(found)

    async def wait(self, plan, seconds):  # until there is something to show, the stream is gone or time is up
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while plan.waits and not plan.stream.deleted:
                    await self.moved.wait()
                    plan = reads.Plan(plan.stream, plan.start, True)
        return plan

    async def read(self, command, writer):
        view = self.view(command.path)
        plan, change = reads.plan(view, command.offset, command.live is not None)
        self.apply(view.stream, change)
        if piece := self.piece(plan.stream, plan.start):
            reads.check_start(plan.stream.kind, piece, plan.start)
        cursor = cursors.next_cursor(time.time(), command.cursor, random.random())
        if command.live == names.SSE:
            return await self.events(plan, cursor, writer)
        plan = await self.wait(plan, self.long_poll)
        stream.require(self.paths.get(command.path), view.now)
        return reads.answer(command, *self.show(plan), cursor, responses.PUBLIC)

    async def events(self, plan, cursor, writer):
        head, end = responses.sse(not media.is_text(plan.stream.content_type)), time.monotonic() + SSE_SECONDS
        writer.write(responses.encode_head(head.status, head.headers, "connection: close\r\n", True, None))
        while not plan.stream.deleted:
            position, data = self.show(plan)
            writer.write(reads.events(position, data, cursor))
            await writer.drain()
            if position.closed or time.monotonic() >= end:
                break
            plan = await self.wait(reads.Plan(plan.stream, position.end, True), end - time.monotonic())
        raise EOFError  # the end of the connection ends the response

    async def receive(self, reader, writer):
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

    async def serve(self, reader, writer):
        with contextlib.suppress(EOFError, ConnectionError, asyncio.LimitOverrunError, http1.BadMessage):
            while True:
                head, body = await self.receive(reader, writer)
                try:
                    answer = await self.answer(head, body, writer)
                except errors.ProtocolError as error:
                    answer = responses.refusal(error)
                length = None if head.method == "HEAD" else len(answer.body)
                head = responses.encode_head(answer.status, answer.headers, "", True, length)
                writer.write(head + answer.body if length else head)
                await writer.drain()
        writer.close()

    async def answer(self, req, body, writer):
        if req.method == "OPTIONS":
            return responses.preflight()
        command = requests.parse(req.method, req.target, req.headers, "http://" + req.headers["host"], body)
        return await self.read(command, writer) if command.kind == requests.READ else self.decide(command)


async def main(port="4437", long_poll="30"):
    server = await asyncio.start_server(Shell(float(long_poll)).serve, "127.0.0.1", int(port), limit=MAX_BODY)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/stream", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
