"""Iterations: the device's, decoded many items at a time, each on a line of its own while it lasts.

What an iteration has handed out is handled, and its `cursor` is where the next one goes on: after each item, or after
each list of `batches()`. It ends, and gives its connection back, at the stream's end, by `close()` or `with`, and when
nobody has it any more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from ds_core.client.reader import OVER
from ds_micro import run, stream as flows
from ds_micro.batches import Reader
from ds_micro.cursor import Cursor

from .hints import Helpful, helpful

if TYPE_CHECKING:
    from .handles import Handle
    from .lines import Line

END: Any = flows.END


class Place(Protocol):
    """Where a reader is: a Cursor, or what a program keeps like one."""

    offset: str
    items: int


class _Steps(flows.Items):  # type: ignore[type-arg]
    """The device's iteration; its stream is a line, as long as it has one."""

    _stream: Line | None
    _reader: Reader


class _Items(Helpful):
    cursor: Place

    def __init__(
        self,
        handle: Handle,
        cursor: Place | str | None,
        live: str | None,
        patience: float | None,
        limit: int,
        raw: bool,
        deadline: float | None,
    ) -> None:
        self._held: Line | None = None
        if live and live != "long-poll":
            from ds_core.client.events import check

            check(live)
        place: Place = Cursor(None, cursor or "-1") if cursor is None or isinstance(cursor, str) else cursor
        here = Cursor(None, place.offset, place.items)
        self._reader = Reader(here, live, handle._link._settings.max_bytes, limit, raw)
        self._steps = _Steps(None, self._reader, patience, deadline)  # type: ignore[arg-type]
        self._handle = handle
        self._pool = handle._link._readers
        self._idle = [1]
        self._batch: list[Any] = []
        self._at = 0
        self._weight = 1
        self._ended = False
        self.cursor = place

    def __repr__(self) -> str:
        state = "ended" if self._ended else "at the tail" if self.caught_up else "reading"
        return f"<{type(self).__name__} of {self._handle.url} after {self.cursor.offset}+{self.cursor.items}, {state}>"

    @property
    def caught_up(self) -> bool:
        """Whether there was nothing more when the last answer ended."""
        return self._reader.caught_up

    @property
    def closed(self) -> bool:
        """Whether the stream is sealed, and all of it was read."""
        return self._reader.closed

    def _item(self) -> Any:
        """The next of those that are here; END: there is none."""
        at = self._at
        if at == len(self._batch):
            return END
        self._at = at + 1
        self.cursor.items += self._weight
        return self._batch[at]

    def _rest(self) -> list[Any]:
        """All that are here."""
        found = self._batch[self._at :]
        self._at = len(self._batch)
        self.cursor.items += self._weight * len(found)
        return found

    async def _more(self) -> bool:
        """Have more here; False: there is no more. One call at a time."""
        try:
            self._idle.pop()
        except IndexError:
            raise RuntimeError("in use by another call: an iteration is one thread's, or one task's") from None
        try:
            if self._ended or self._reader.state == OVER:
                return self._end()
            if self._held is None:
                self._held = line = await self._pool.take(self._handle.url)
                self._handle._speak(line)
                self._steps._stream = line
            found = await self._steps.next()
            if found is END:
                return self._end()
            self._place(found)
            return True
        except BaseException:
            self._let_go()
            raise
        finally:
            self._idle.append(1)

    def _end(self) -> bool:
        self._place([])
        self._let_go()
        self._ended = True
        return False

    def _place(self, found: Any) -> None:
        """What was found is here, and the cursor is before it."""
        whole = isinstance(found, bytes)
        self._weight = len(found) if whole else 1
        self._batch = [found] if whole else found
        self._at = 0
        here = self._reader.cursor
        self.cursor.offset = here.offset
        self.cursor.items = here.items - len(found)

    def _let_go(self) -> None:
        line = self._held
        if line:
            self._held = self._steps._stream = None
            if line._owner is self._steps:  # type: ignore[attr-defined]
                line.drop()
            self._pool.give(line)

    def _close(self) -> None:
        self._ended = True
        self._batch = []
        self._at = 0
        self._let_go()

    def __del__(self) -> None:
        line = self.__dict__.get("_held")
        if line:
            # The garbage collector may be in any thread, and the loop over: the pool sees to it when it is used next.
            self._held = self._steps._stream = None
            self._pool.leave(line)


@helpful
class Items(_Items):
    """An iteration, for one thread: `cursor`, `caught_up`, `closed`; also `with`, and `batches()`."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        while (item := self._item()) is END:
            if not run(self._more()):
                raise StopIteration
        return item

    def batches(self) -> Iterator[list[Any]]:
        """Iterate over the items in lists, as they came: at a fraction of the cost, for programs that read millions."""
        while True:
            found = self._rest()
            if found:
                yield found
            elif not run(self._more()):
                return

    def close(self) -> None:
        """End the iteration, and give its connection back."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()


@helpful
class AsyncItems(_Items):
    """As `Items`, for one task: `async for`, `async with`."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while (item := self._item()) is END:
            if not await self._more():
                raise StopAsyncIteration
        return item

    def batches(self) -> AsyncIterator[list[Any]]:
        """As `Items.batches`, for `async for`."""
        return _AsyncBatches(self)

    async def aclose(self) -> None:
        """As `Items.close`."""
        self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()


class _AsyncBatches:
    """(No generator, which a loop would have to close when it is left.)"""

    def __init__(self, items: AsyncItems) -> None:
        self._items = items

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Any]:
        while not (found := self._items._rest()):
            if not await self._items._more():
                raise StopAsyncIteration
        return found
