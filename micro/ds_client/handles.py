"""What is asked of a stream, on a line of the pool: the flows behind its handle, whichever way one waits."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

from ds_core.client.errors import StreamError
from ds_micro import operations

from .hints import Helpful
from .lines import Line, Result
from .links import Link, path_of


class Handle(Helpful):
    """What a stream's handle is without its names: each operation as a flow, on a line of the pool's."""

    elsewhere: ClassVar[dict[str, str]] = {
        "disconnect": "it holds no connection, the session does",
        "adopt": "without content_type= a stream's own is found out",
    }

    def __init__(self, link: Link, path: str, content_type: str | None) -> None:
        self._link = link
        self.path = path
        self.content_type = content_type
        self.url = link._url(path)
        self._target = path_of(self.url)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url} {self.content_type or 'of a content type not known yet'}>"

    async def _do(self, flow: Callable[[Line], Coroutine[Any, Any, Result]]) -> Result:
        """A flow on a line of the pool's."""
        pool = self._link._requests
        line = await pool.take(self.url)
        try:
            self._speak(line)
            done = await flow(line)
            self.content_type = line.content_type  # it may have been found out
            return done
        finally:
            pool.give(line)

    def _speak(self, line: Line) -> None:
        line.about(self.url, self._target, self.content_type)

    async def _create(self, **options: Any) -> Result:
        return await self._do(lambda line: line.create(**options))

    async def _append(self, values: tuple[Any, ...], **options: Any) -> Result:
        return await self._do(lambda line: operations.append(line, *values, **options))

    async def _seal(self) -> Result:
        return await self._do(operations.seal)

    async def _head(self) -> Result:
        return await self._do(operations.adopt if self.content_type is None else operations.head)

    async def _delete(self) -> Result:
        return await self._do(operations.delete)

    async def _fork(self, source: Handle | str, **options: Any) -> Result:
        path = source._target if isinstance(source, Handle) else path_of(self._link._url(source))
        return await self._do(lambda line: operations.fork(line, path, **options))

    async def _exists(self) -> bool:
        try:
            await self._head()
        except StreamError as exc:
            if exc.status in (404, 410):
                return False
            raise
        return True
