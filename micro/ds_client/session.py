"""A session: a server's streams by path."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from .hints import helpful
from .links import Link

if TYPE_CHECKING:
    from .streams import AsyncStream, Stream


@helpful
class Session(Link):
    """A server's streams, for threads: any number of them may share it. `with Client(...) as session:` makes one."""

    def stream(self, path: str, content_type: str | None = None) -> Stream:
        """The stream of this path below the client's `base_url` (any text; percent-encoded here). Nothing is sent.

        `content_type`: what `create()` makes it of, and appends are; None: what the stream turns out to have.
        """
        from .streams import Stream

        return Stream(self, path, content_type)

    def close(self) -> None:
        """Close all connections. Iterations and calls under way end with a RuntimeError or a StreamError."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@helpful
class AsyncSession(Link):
    """A server's streams, for the tasks of one event loop: `async with Client(...) as session:` makes one."""

    def stream(self, path: str, content_type: str | None = None) -> AsyncStream:
        """As `Session.stream`."""
        from .streams import AsyncStream

        return AsyncStream(self, path, content_type)

    async def aclose(self) -> None:
        """As `Session.close`."""
        self._end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
