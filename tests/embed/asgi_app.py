"""Streams as an ASGI application, in a SQLite file: asgi_app.py FILE [port] [long-poll] [chunk] [root]

The database is asked in threads, and event streams and long-polls wait on the loop."""

import asyncio
import contextlib
import random
import socket
import sys

import uvicorn

from ds_core.server import errors, responses, shell, storage
from sqlite_store import Store

MAX_BODY = 16 << 20
TOO_LARGE = errors.ProtocolError(413, "BODY_TOO_LARGE", f"a body has at most {MAX_BODY} bytes")


class Streams:
    """The application; it is made, and called, on one event loop."""

    def __init__(self, file, **options):
        self.loop, self.moved = asyncio.get_running_loop(), asyncio.Event()
        self.store = Store(file, lambda: self.loop.call_soon_threadsafe(self.wake))
        self.shell = shell.Shell(self.store.clock.now, random.random, **options)

    def wake(self):
        self.moved.set()
        self.moved = asyncio.Event()  # for those who begin to wait from now on

    async def __call__(self, scope, receive, send):
        assert scope["type"] == "http", "no WebSockets here, and nothing to do at the start"
        body, more = b"", True
        while more and len(body) <= MAX_BODY:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if len(body) > MAX_BODY:
            refused = responses.refusal(TOO_LARGE)
            await send(head(refused, len(refused.body)))
            await send(part(refused.body))
        elif message["type"] == "http.request":
            await self.answer(scope, body, send)

    async def answer(self, scope, body, send):
        headers = scope["headers"]
        target = (scope["raw_path"] + b"?" + scope["query_string"]).decode("latin-1")
        origin = scope["scheme"] + "://" + dict(headers).get(b"host", b"localhost").decode("latin-1")
        exchange = self.shell.exchange(scope["method"], target, headers, body, origin)
        while not exchange.done:
            moved = self.moved
            said = await asyncio.to_thread(self.store.run, exchange.next())
            if isinstance(said, storage.Wait):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(moved.wait(), said.seconds)
            elif isinstance(said, responses.Response):
                await send(head(said, exchange.length))
                await send(part(said.body, not exchange.done))
            else:
                await send(part(said, not exchange.done))


def head(said, length):
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in responses.pairs(said, length)]
    return {"type": "http.response.start", "status": said.status, "headers": pairs}


def part(data, more=False):
    return {"type": "http.response.body", "body": data, "more_body": more}


async def main(file, port="4437", long_poll="30", chunk="16777216", root="/v1/stream/"):
    app = Streams(file, long_poll=float(long_poll), chunk=int(chunk), root=root)
    listener = socket.create_server(("127.0.0.1", int(port)))
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}{root.rstrip('/')}", flush=True)
    await uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off")).serve([listener])
    app.store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
