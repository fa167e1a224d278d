"""Durable Streams for applications on CPython: many streams at once, from threads, asyncio or trio.

    from ds_client import Client

    with Client("http://127.0.0.1:4437/v1/stream", token="...") as session:
        notes = session.stream("notes", content_type="application/json")
        notes.create()
        notes.append({"text": "first"})
        for note in notes.follow(): ...

    async with Client("https://gateway.example/v1/stream", ca="ca.pem") as session:    # asyncio or trio
        async for note in session.stream("notes").read(): ...

A session has a pool of connections; a stream's handle costs nothing and holds none. Appends go out once each, a
`Producer` repeats them and has them written exactly once. The protocol is that of `ds_core.client` and of the device's
flows (`ds_micro.stream`); here are the pool, the three ways to wait, and the names.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ds_core.client.errors import StreamError
    from ds_micro import (
        BadRequest,
        BadResponse,
        Busy,
        Closed,
        Conflict,
        Cursor,
        Disconnected,
        Fenced,
        Forbidden,
        Gone,
        NoSpace,
        NotFound,
        OutboxFull,
        ServerError,
        Timeout,
        TooLarge,
        Unauthorized,
        Untrusted,
    )

    from .client import Client
    from .lines import Result
    from .producers import AsyncProducer, Producer
    from .reading import AsyncItems, Items
    from .session import AsyncSession, Session
    from .streams import AsyncStream, Stream

__all__ = [
    "Client", "Session", "AsyncSession", "Stream", "AsyncStream", "Items", "AsyncItems", "Producer", "AsyncProducer",
    "Result", "Cursor",
    "StreamError", "Disconnected", "Timeout", "Untrusted", "BadResponse", "BadRequest", "Unauthorized", "Forbidden",
    "Fenced", "NotFound", "Conflict", "Closed", "Gone", "TooLarge", "Busy", "ServerError", "NoSpace", "OutboxFull",
]  # fmt: skip


def __getattr__(name: str) -> object:
    # Loaded when it is asked for: the errors of a program that only catches them cost nothing.
    if name == "Client":
        from .client import Client

        return Client
    if name in ("Session", "AsyncSession"):
        from . import session

        return getattr(session, name)
    if name in ("Stream", "AsyncStream"):
        from . import streams

        return getattr(streams, name)
    if name in ("Items", "AsyncItems"):
        from . import reading

        return getattr(reading, name)
    if name in ("Producer", "AsyncProducer"):
        from . import producers

        return getattr(producers, name)
    if name == "Result":
        from .lines import Result

        return Result
    if name == "Cursor":
        from ds_micro.cursor import Cursor

        return Cursor
    if name in __all__:
        from ds_core.client import refusals

        return getattr(refusals, name)
    from .hints import near

    raise AttributeError(f"ds_client has no {name}{near(name, __all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
