"""The three ways to wait, for one text of a test: threads, asyncio, trio.

A test's body is a coroutine function. In threads what it awaits never suspends: a blocking session stands behind it.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from ds_client import Client
from ds_micro import run

NAMES = ("threads", "asyncio", "trio")


class Awaited:
    """A blocking object whose methods are awaited, and whose iterations are `async for`."""

    def __init__(self, it: Any) -> None:
        self.it = it

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.it, {"aclose": "close"}.get(name, name))
        if name == "batches":
            return lambda: Awaited(found())
        if not inspect.ismethod(found):
            return found
        if name in ("stream", "producer", "read", "follow", "put"):
            return lambda *args, **options: Awaited(found(*args, **options))

        async def call(*args: Any, **options: Any) -> Any:
            args = tuple(each.it if isinstance(each, Awaited) else each for each in args)
            return found(*args, **options)

        return call

    def __aiter__(self) -> Awaited:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self.it)
        except StopIteration:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Awaited:
        self.it.__enter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        self.it.__exit__(*exc)


class Way:
    def __init__(self, name: str) -> None:
        self.name = name

    @asynccontextmanager
    async def session(self, url: str, **options: Any) -> AsyncIterator[Any]:
        client = Client(url, **{"trust_env": False, **options})
        if self.name == "threads":
            with client as session:
                yield Awaited(session)
        else:
            async with client as session:
                yield session

    async def together(self, *calls: Callable[[], Awaitable[Any]]) -> list[Any]:
        """What each of these comes to, at once: its value, or the error."""
        found: list[Any] = [None] * len(calls)

        async def one(i: int) -> None:
            try:
                found[i] = await calls[i]()
            except Exception as exc:
                found[i] = exc

        if self.name == "threads":
            threads = [threading.Thread(target=lambda i=i: run(one(i))) for i in range(len(calls))]  # type: ignore[misc]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
                assert not thread.is_alive()
        elif self.name == "asyncio":
            await asyncio.wait_for(asyncio.gather(*map(one, range(len(calls)))), 60)
        else:
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    for i in range(len(calls)):
                        nursery.start_soon(one, i)
        return found

    async def turn(self) -> None:
        """Let others go on."""
        if self.name == "asyncio":
            await asyncio.sleep(0)
        else:
            await trio.lowlevel.checkpoint()

    def run(self, body: Callable[[], Awaitable[Any]]) -> Any:
        """A test's body, to its end."""
        if self.name == "threads":
            return run(body())  # type: ignore[arg-type]
        if self.name == "asyncio":
            return asyncio.run(body())  # type: ignore[arg-type]
        return trio.run(body)
