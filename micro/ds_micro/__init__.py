"""Durable Streams from a device: append and read over HTTP/1.1, exactly once, on MicroPython and CPython.

    from ds_micro import Stream, Outbox, Cursor
    s = Stream("http://192.168.1.10:4437/v1/stream/greenhouse/7", token="...")
    s.create()
    s.append({"t": 21.5})
    for item in s.read(Cursor("/cursor").load(), live="long-poll"): ...

`Stream(url, ...)`: `token` (a bearer token), `content_type`, `headers` and `params` (dicts; a token or value may
be a callable, asked for each request), `timeout` and `live_timeout` (seconds without progress, and in a live wait),
`buffer` (bytes; a line of an answer's head must fit), `max_bytes` (the most a server should send at once, and so
what may be sent again after a break; 0: as much as it likes); with https `ca`, `pin`, `verify` (ds_micro.tls).

`ds_micro.aio` has the same names on asyncio. One Stream is one connection: use one per task or thread.
"""

from ds_core.client.reader import MARK
from ds_micro.net import Net
from ds_micro.stream import Flows, alone

if __debug__:  # not in what is compiled for a device
    __all__ = [
        "Stream", "Outbox", "Cursor", "MARK", "aio", "StreamError", "Disconnected", "Timeout", "Untrusted",
        "BadResponse", "BadRequest", "Unauthorized", "Forbidden", "Fenced", "NotFound", "Conflict", "Closed", "Gone",
        "TooLarge", "Busy", "ServerError", "NoSpace", "OutboxFull",
    ]  # fmt: skip


def run(flow):
    """Run a flow over a transport that never suspends."""
    try:
        flow.send(None)
    except StopIteration as exc:
        return exc.value
    raise RuntimeError("needs asyncio")


class Stream(Flows):
    """A stream on a server, and the one connection to it; this module says with what it is made.

    `create(ttl=, expires_at=, closed=, values=)`, `append(*values, raw=, seq=, close=)`, `seal()` (close it
    for good), `head()`, `delete()`, `fork(source, offset=, sub_offset=)` and `adopt()` return a Result; `read()`
    iterates; `disconnect()` drops the connection, and the next call opens another. Each raises a
    StreamError, of the kind that the server's answer stands for, and ValueError or TypeError for a value that does not
    suit the content type.
    """

    _net = Net
    _turn = staticmethod(lambda flow: flow)

    def _run(self, flow):
        try:
            return alone(self, run, flow)
        finally:
            flow.close()  # it may not even have begun


def __getattr__(name):
    # What is loaded when it is first asked for: the outbox, cursors, and the errors. (`from ds_micro import aio` comes
    # here first on MicroPython.)
    if name in ("Outbox", "Cursor", "aio"):
        module = __import__("ds_micro." + name.lower(), None, None, ["x"])
        return getattr(module, name, module)
    from ds_core.client import refusals

    return getattr(refusals, name)
