"""The link to a server: what was said of it once, the pools of connections to it, and where its streams are."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple
from urllib.parse import quote, urlsplit

from ds_micro.stream import Flows

from .hints import Helpful
from .lines import Hook, Line
from .pool import Pool
from .proxies import Proxy

_PATH = "/:@!$&'()*+,;=~-._"


class Pattern(Flows):
    """What every line is made after: a stream of the device's that is never used, and its checks of all options."""

    class _net:
        def close(self) -> None:
            pass


class Settings(NamedTuple):
    """A client's options, checked; times in milliseconds."""

    base_url: str
    pattern: Pattern
    proxy: Proxy | None
    connections: int
    readers: int
    idle: int
    timeout: int
    max_bytes: int
    on_error: Hook | None


class Link(Helpful):
    """What a session is without its names: the pools, and where streams are."""

    elsewhere: ClassVar[dict[str, str]] = dict.fromkeys(
        ("create", "append", "read", "follow", "seal", "head", "delete", "fork", "producer"),
        "a stream has it, `session.stream(path)`",
    )

    def __init__(self, settings: Settings, waiting: Any) -> None:
        self._settings = settings
        self._waiting = waiting
        common = (settings.idle, settings.timeout)
        self._requests = Pool(self._line, waiting, settings.connections, *common, "connections")
        self._readers = Pool(self._line, waiting, settings.readers, *common, "readers")

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"<{name} {self._settings.base_url} ({self._waiting.name}): {self._requests!r}; {self._readers!r}>"

    def _line(self) -> Line:
        settings = self._settings
        return Line(settings.pattern, self._waiting.net(settings.proxy), settings.on_error)

    def _url(self, path: str) -> str:
        """The URL of a stream. ValueError: that is no path."""
        if not isinstance(path, str):
            raise TypeError(f"path: the stream's name below {self._settings.base_url}, not {type(path).__name__}")
        parts = path.split("/")
        if "" in parts or "." in parts or ".." in parts or "://" in path:
            raise ValueError(f"path: a name below {self._settings.base_url}, such as greenhouse/7, not {path!r}")
        return f"{self._settings.base_url}/{quote(path, safe=_PATH)}"

    def _end(self) -> None:
        self._requests.close()
        self._readers.close()
        self._waiting.end()


def path_of(url: str) -> str:
    """The path of a stream's URL, as it is sent."""
    return urlsplit(url).path
