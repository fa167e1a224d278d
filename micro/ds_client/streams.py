"""Handles of streams: what can be asked of one, blocking and awaited. A handle holds no connection.

`append`, `head` and the others are one request each, at most once: when one raises Disconnected, nobody knows whether
it took effect. What is written again until it is acknowledged, and exactly once, goes through a `producer`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Literal

from ds_micro import run

from .handles import Handle
from .hints import helpful
from .lines import Result
from .reading import AsyncItems, Items, Place

if TYPE_CHECKING:
    from .producers import AsyncProducer, Producer

Live = Literal["long-poll", "sse", "auto"]
_LIMIT = 16 << 20


@helpful
class Stream(Handle):
    """A stream, for threads. `url`, `path`, and its `content_type`, None as long as it is not known."""

    def create(
        self,
        *,
        values: Collection[object] = (),
        ttl: int | None = None,
        expires_at: str | None = None,
        closed: bool = False,
    ) -> Result:
        """Create the stream, of the handle's content type; it may be there (status 200, else 201). `values` to begin
        with, `ttl` in seconds or `expires_at` (RFC 3339), `closed` for good. Conflict: it is there, and another.
        """
        return run(self._create(values=values, ttl=ttl, expires_at=expires_at, closed=closed))

    def append(self, *values: Any, raw: bool = False, seq: str | None = None, close: bool = False) -> Result:
        """Append these values at once. `raw`: they are bytes, already encoded. `seq`: a Stream-Seq. `close`: and seal.

        At most once: Disconnected says that nobody knows. A `producer` appends exactly once.
        """
        return run(self._append(values, raw=raw, seq=seq, close=close))

    def seal(self) -> Result:
        """Close the stream for good: nobody appends to it any more. Harmless when it is."""
        return run(self._seal())

    def head(self) -> Result:
        """The tail (`offset`), whether it is `closed`, and `headers`, without data."""
        return run(self._head())

    def exists(self) -> bool:
        """Whether it is there."""
        return run(self._exists())

    def delete(self) -> Result:
        """Delete the stream."""
        return run(self._delete())

    def fork(
        self,
        source: Stream | str,
        *,
        offset: str | None = None,
        sub_offset: int = 0,
        values: Collection[object] = (),
        ttl: int | None = None,
        expires_at: str | None = None,
        closed: bool = False,
    ) -> Result:
        """Create this stream as a fork of another one of the session, up to `offset` (None: its tail) and `sub_offset`
        messages or bytes more; other options as of `create`.
        """
        more = {"values": values, "ttl": ttl, "expires_at": expires_at, "closed": closed}
        return run(self._fork(source, offset=offset, sub_offset=sub_offset, **more))

    def read(
        self,
        cursor: Place | str | None = None,
        *,
        live: Live | None = None,
        patience: float | None = 60,
        limit: int = _LIMIT,
        raw: bool = False,
        deadline: float | None = None,
    ) -> Items:
        """Iterate over the items from `cursor` (an offset, "now", or what has `offset` and `items`, as a Cursor, and is
        kept up to date; None: the start) to the tail or, with `live`, until the stream is sealed.

        What breaks is resumed after the last item; `patience` seconds without progress (None: for ever) raise the last
        error. `limit`: the most bytes of an item. `raw`: bytes as they are. `deadline`: seconds until it ends anyway.
        """
        return Items(self, cursor, live, patience, limit, raw, deadline)

    def follow(
        self,
        cursor: Place | str | None = None,
        *,
        live: Live = "auto",
        patience: float | None = None,
        raw: bool = False,
    ) -> Items:
        """As `read`, live, and as long as it takes: "auto" is events for text and JSON, long-polls for the rest."""
        return Items(self, cursor, live, patience, _LIMIT, raw, None)

    def producer(
        self, id: str, *, batch_bytes: int = 1 << 16, limit: int = 1 << 20, in_flight: int = 4, epoch: int | None = None
    ) -> Producer:
        """Appends that are repeated until they are acknowledged, and written exactly once; see `Producer`."""
        from .producers import Producer

        return Producer(self, id, batch_bytes, limit, in_flight, epoch)

    def close(self) -> None:
        """Nothing: a handle holds no connection, and the stream stays as it is. `seal()` closes the stream."""


@helpful
class AsyncStream(Handle):
    """As `Stream`, for the tasks of an event loop."""

    async def create(
        self,
        *,
        values: Collection[object] = (),
        ttl: int | None = None,
        expires_at: str | None = None,
        closed: bool = False,
    ) -> Result:
        """As `Stream.create`."""
        return await self._create(values=values, ttl=ttl, expires_at=expires_at, closed=closed)

    async def append(self, *values: Any, raw: bool = False, seq: str | None = None, close: bool = False) -> Result:
        """As `Stream.append`."""
        return await self._append(values, raw=raw, seq=seq, close=close)

    async def seal(self) -> Result:
        """As `Stream.seal`."""
        return await self._seal()

    async def head(self) -> Result:
        """As `Stream.head`."""
        return await self._head()

    async def exists(self) -> bool:
        """As `Stream.exists`."""
        return await self._exists()

    async def delete(self) -> Result:
        """As `Stream.delete`."""
        return await self._delete()

    async def fork(
        self,
        source: AsyncStream | str,
        *,
        offset: str | None = None,
        sub_offset: int = 0,
        values: Collection[object] = (),
        ttl: int | None = None,
        expires_at: str | None = None,
        closed: bool = False,
    ) -> Result:
        """As `Stream.fork`."""
        more = {"values": values, "ttl": ttl, "expires_at": expires_at, "closed": closed}
        return await self._fork(source, offset=offset, sub_offset=sub_offset, **more)

    def read(
        self,
        cursor: Place | str | None = None,
        *,
        live: Live | None = None,
        patience: float | None = 60,
        limit: int = _LIMIT,
        raw: bool = False,
        deadline: float | None = None,
    ) -> AsyncItems:
        """As `Stream.read`, for `async for`."""
        return AsyncItems(self, cursor, live, patience, limit, raw, deadline)

    def follow(
        self,
        cursor: Place | str | None = None,
        *,
        live: Live = "auto",
        patience: float | None = None,
        raw: bool = False,
    ) -> AsyncItems:
        """As `Stream.follow`, for `async for`."""
        return AsyncItems(self, cursor, live, patience, _LIMIT, raw, None)

    def producer(
        self, id: str, *, batch_bytes: int = 1 << 16, limit: int = 1 << 20, in_flight: int = 4, epoch: int | None = None
    ) -> AsyncProducer:
        """As `Stream.producer`."""
        from .producers import AsyncProducer

        return AsyncProducer(self, id, batch_bytes, limit, in_flight, epoch)

    async def aclose(self) -> None:
        """As `Stream.close`: nothing."""
