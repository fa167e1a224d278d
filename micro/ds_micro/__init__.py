"""Durable Streams from a device: append and read over HTTP/1.1, exactly once, on MicroPython and CPython.

    from ds_micro import Stream, Outbox, Cursor
    s = Stream("http://192.168.1.10:4437/v1/stream/greenhouse/7", token="...")
    s.create()
    s.append({"t": 21.5})
    for item in s.read(Cursor("/cursor").load(), live="long-poll"): ...

`ds_micro.aio` has the same names on asyncio. One Stream is one connection: use one per task or thread.
"""

from ds_core.client.errors import (
    BadRequest,
    BadResponse,
    Busy,
    Closed,
    Conflict,
    Disconnected,
    Fenced,
    Forbidden,
    Gone,
    NoSpace,
    NotFound,
    OutboxFull,
    ServerError,
    StreamError,
    Timeout,
    TooLarge,
    Unauthorized,
)
from ds_micro.net import Net
from ds_micro.stream import OVER, Cursor, Flows, Items, Result

try:
    from functools import wraps
except ImportError:

    def wraps(_):
        return lambda function: function


def run(coroutine):
    """Run a flow over a transport that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as exc:
        return exc.value
    raise RuntimeError("an awaitable parameter needs ds_micro.aio")


def blocking(flow):
    @wraps(flow)
    def call(*args, **options):
        return run(flow(*args, **options))

    return call


class _Items(Items):
    def __iter__(self):
        return self

    def __next__(self):
        item = run(self.next())
        if item is OVER:
            raise StopIteration
        return item


class Stream(Flows):
    _net = Net
    _items = _Items
    create = blocking(Flows.create)
    append = blocking(Flows.append)
    close = blocking(Flows.close)
    head = blocking(Flows.head)
    delete = blocking(Flows.delete)
    fork = blocking(Flows.fork)


def __getattr__(name):
    # The outbox is loaded when it is first asked for.
    if name == "Outbox":
        from ds_micro.outbox import Box

        class Outbox(Box):
            flush = blocking(Box.flush)

        globals()[name] = Outbox
        return Outbox
    raise AttributeError(name)
