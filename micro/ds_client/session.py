"""A session: a server's streams by path, and the pools of connections to it."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import quote, urlsplit

from .hints import Helpful, helpful
from .lines import Line
from .pool import Pool

if TYPE_CHECKING:
    from .client import Client
    from .streams import AsyncStream, Stream

_PATH = "/:@!$&'()*+,;=~-._"


class _Session(Helpful):
    elsewhere: ClassVar[dict[str, str]] = dict.fromkeys(
        ("create", "append", "read", "follow", "seal", "head", "delete", "fork", "producer"),
        "a stream has it, `session.stream(path)`",
    )

    def __init__(self, client: Client, waiting: Any) -> None:
        self._client = client
        self._waiting = waiting
        self._pattern: Any = client._pattern
        common = (client._idle, client._timeout)
        self._requests = Pool(self._line, waiting, client._connections, *common, "connections")
        self._readers = Pool(self._line, waiting, client._readers, *common, "readers")

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"<{name} {self._client.base_url} ({self._waiting.name}): {self._requests!r}; {self._readers!r}>"

    def _line(self) -> Line:
        client = self._client
        return Line(client._pattern, self._waiting.net(client._proxy), client._on_error)

    def _url(self, path: str) -> str:
        """The URL of a stream. ValueError: that is no path."""
        if not isinstance(path, str):
            raise TypeError(f"path: the stream's name below {self._client.base_url}, not {type(path).__name__}")
        parts = path.split("/")
        if "" in parts or "." in parts or ".." in parts or "://" in path:
            raise ValueError(f"path: a stream's name below {self._client.base_url}, such as greenhouse/7, not {path!r}")
        return f"{self._client.base_url}/{quote(path, safe=_PATH)}"

    def _end(self) -> None:
        self._requests.close()
        self._readers.close()
        self._waiting.end()


def path_of(url: str) -> str:
    """The path of a stream's URL, as it is sent."""
    return urlsplit(url).path


@helpful
class Session(_Session):
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
class AsyncSession(_Session):
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
