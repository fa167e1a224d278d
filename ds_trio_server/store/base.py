"""The door to storage: what the gateway asks of a backend, and nothing about how it is done.

A backend keeps streams (`ds_core.server.stream.Stream`) and their bytes. The core decides, the
backend makes the decision durable in one atomic step and only then hands out the response. All
methods are called from the trio thread. Every backend passes one contract suite.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

from ds_core.server.decide import Needs
from ds_core.server.errors import ProtocolError
from ds_core.server.stream import Appended, Created, Now, Removed, Renewed, Stream, Trimmed, View

from ..stats import Commits, Upkeep

T = TypeVar("T")
Change = Created | Appended | Renewed | Removed | Trimmed
"""What a decision may change."""
Decide = Callable[[View], tuple[T, Change | None]]
"""A decision: pure, from a view to a response and a change, None where there is nothing to store."""
Done = Callable[[T, Exception | None], object]
"""Told the response of a decision when it is durable, or why it never will be; must not raise."""
Piece = tuple[int, bytes]
"""An append: the position of its first byte, and its stored bytes."""

Watcher = Callable[[Stream, int, bytes], None]
"""Called with a stream, a position and the bytes that readers may see from there on since the last
call; with no bytes when the stream was closed or removed."""


class StorageFailed(Exception):
    """The store can't promise anything any more (a failed fsync, a file that is damaged for all): stop serving."""


class StoreClosed(RuntimeError):
    """A store was used before it was opened, or after it was closed."""

    def __init__(self) -> None:
        super().__init__("the store is not open: use it between open() and close(), or in the block of its Gateway")


class Vanished(Exception):
    """The stream was removed, or trimmed past this position, while it was being read."""


class Unwritable(ProtocolError):
    """Nothing can be stored now, and nothing of the request was; reads go on. Made without arguments, but for
    LogHeld."""

    def __init__(self) -> None:
        raise NotImplementedError


class StorageFull(Unwritable):
    """507: no space left on the device; nothing of the request was stored."""

    def __init__(self) -> None:
        ProtocolError.__init__(
            self, 507, "NO_SPACE", "the server's disk is full; appends resume when there is room"
        )


class StorageReadOnly(Unwritable):
    """503: the file system or the directory can only be read."""

    def __init__(self) -> None:
        ProtocolError.__init__(
            self, 503, "READ_ONLY", "the server's disk can only be read; appends resume when it can be written",
            (("Retry-After", "30"),),
        )  # fmt: skip


class StorageBusy(Unwritable):
    """503: somebody else keeps a lock on the file."""

    def __init__(self) -> None:
        ProtocolError.__init__(
            self, 503, "BUSY", "another program has a lock on the server's data; try again shortly",
            (("Retry-After", "1"),),
        )  # fmt: skip


class LogHeld(Unwritable):
    """503: what is appended while somebody reads the file takes more than it may by now. Made with what stands in the
    way, as half a sentence."""

    def __init__(self, why: str) -> None:
        ProtocolError.__init__(
            self, 503, "LOG_HELD",
            f"the log of the server's database is full, and {why}; appends resume at the end of that",
            (("Retry-After", "5"),),
        )  # fmt: skip


class Damaged(ProtocolError):
    """500: what was stored of one stream is not there any more as it was; nothing is wrong with the others.

    Its text is for the operator, and so is `what`: whose it was, in a few words. A client is told less.
    """

    def __init__(self, what: str, text: str) -> None:
        super().__init__(
            500, "STREAM_DAMAGED",
            "the stored data of this stream is damaged; the server's log and 'ds check' tell its operator more",
        )  # fmt: skip
        self.what = what
        self.text = text

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__


class Overloaded(ProtocolError):
    """503: more is waiting for the disk than the server may hold in memory."""

    def __init__(self) -> None:
        super().__init__(
            503, "OVERLOADED", "the disk can't keep up; try again shortly", (("Retry-After", "1"),)
        )


class TooManyProducers(ProtocolError):
    """429: the stream knows as many producers as it may; those it knows go on."""

    def __init__(self) -> None:
        super().__init__(
            429, "TOO_MANY_PRODUCERS",
            f"the stream knows {MOST_PRODUCERS} producers, as many as it may: go on with a Producer-Id that it knows; "
            f"one that appends nothing for {FORGET_PRODUCERS_AFTER // 86400} days is forgotten",
        )  # fmt: skip


@dataclass(frozen=True)
class Usage:
    """What a store holds: how many streams, and the bytes they take where they are kept."""

    streams: int
    bytes: int


class Store(ABC):
    """Streams and their bytes, durable as far as the backend promises; `commits` counts that, and `upkeep` what
    is done beside."""

    commits: Commits
    upkeep: Upkeep
    is_open = False
    """Between `open` and `close`. In between alone a backend does anything but tell the time."""

    def check_open(self) -> None:
        """Raise StoreClosed."""
        if not self.is_open:
            raise StoreClosed

    @abstractmethod
    async def open(self) -> None:
        """Make ready to serve. Raises OSError or StorageFailed with a line for the operator."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what was accepted and let go of everything; nothing, when that is done. Raises StorageFailed when it
        fails, unless it had failed before."""

    @abstractmethod
    async def transact(self, needs: Needs, decide: Decide[T]) -> T:
        """Show `decide` the present state, make its change durable, return its response.

        All that it `needs` is loaded into its view before it runs. It must be pure: a backend may run it
        again. Whatever it returns or raises leaves only when all it was based on is durable. Raises what
        `decide` raises, Unwritable, Overloaded, Damaged or StorageFailed.
        """

    def transact_nowait(
        self, needs: Needs, decide: Decide[T], done: Done[T]
    ) -> None:
        """As `transact`, but `done(response, error)` is called instead of waiting, possibly at
        once; it must not raise. Raises what `decide` raises, and trio.WouldBlock when that may rest on a
        change that isn't durable: nothing has been decided then, and `transact` will tell."""
        raise trio.WouldBlock

    def look_nowait(self, path: str, decide: Decide[T]) -> T:
        """As `look` where that needs no waiting. Raises trio.WouldBlock where it does."""
        raise trio.WouldBlock

    def read_nowait(self, stream: Stream, start: int, end: int) -> list[bytes]:
        """All of a range, where that needs no waiting. Raises trio.WouldBlock where it does, and Vanished."""
        raise trio.WouldBlock

    def span_nowait(self, stream: Stream, position: int) -> tuple[int, int]:
        """As `span` where that needs no waiting. Raises trio.WouldBlock where it does, and Vanished."""
        raise trio.WouldBlock

    async def discard(self, path: str) -> None:
        """Remove the stream at a path whose state is damaged; a whole one is removed by a decision. Raises Damaged
        where that can't be done either."""
        raise NotImplementedError

    @abstractmethod
    async def look(self, path: str, decide: Decide[T]) -> T:
        """As `transact` for reads of the stream at `path` alone: decides on what is durable now and waits
        for no append.

        Nothing is awaited after the decision, so that what it saw is still so when this returns.
        """

    @abstractmethod
    async def read(self, stream: Stream, start: int, end: int) -> list[bytes]:
        """The stored bytes from `start`, in slices: all up to `end`, or a first part of about
        `WINDOW` bytes, in at most about `SLICES` slices. Forks' inherited bytes come from their
        ancestors. Never empty for `start < end`; raises Vanished when the stream has been removed
        or trimmed meanwhile, and Damaged rather than give what was not stored."""

    @abstractmethod
    async def span(self, stream: Stream, position: int) -> tuple[int, int]:
        """First and end position of the append that holds the byte at `position`, as this
        stream sees it: a fork ends an ancestor's append where it left."""

    async def append_at(self, stream: Stream, position: int) -> Piece:
        """The append that holds the byte at `position`, whole."""
        first, end = await self.span(stream, position)
        slices: list[bytes] = []
        at = first
        while at < end:
            found = await self.read(stream, at, end)
            slices += found
            at += sum(map(len, found))
        return first, b"".join(slices)

    @abstractmethod
    def watch(self, stream: Stream, watcher: Watcher) -> None:
        """Call `watcher` whenever readers may see more of the stream, or its end."""

    @abstractmethod
    def unwatch(self, stream: Stream, watcher: Watcher) -> None:
        """Stop calling it."""

    @abstractmethod
    async def sweep(self) -> int:
        """Remove streams whose time is over, trim those that keep more than they should, and free
        some of what both left behind. Called every second or so; returns how many it removed.

        A stream that it can't look after is counted, told once in a while, and left alone."""

    @abstractmethod
    async def paths(self) -> list[str]:
        """The paths of all streams that live, in order."""

    @abstractmethod
    async def usage(self) -> Usage:
        """What it holds now. Raises StorageFailed."""

    async def verify(self) -> None:
        """Look for damage that answers would not show, once after the start and beside the first of
        them; a stream is made only behind it. Raises StorageFailed where it can't be told whose it is."""
        self.check_open()
        await trio.lowlevel.checkpoint()

    def check_writable(self) -> None:
        """Raise what an append would, StorageFailed or Unwritable, whatever its stream."""
        self.check_open()

    async def wait_failed(self) -> StorageFailed:
        """Wait until the store can't go on, if ever; what to tell the operator."""
        self.check_open()
        await trio.sleep_forever()
        raise AssertionError

    @abstractmethod
    def now(self) -> Now:
        """The time that decisions are made with."""


MOST_PRODUCERS = 100_000
"""How many producers a stream knows at most. A new one beyond that is refused: to forget one that may still retry would
take its exactly-once away."""
FORGET_PRODUCERS_AFTER = 90 * 86400
"""After so many seconds without an append a producer is forgotten, where the store outlives its process."""
WINDOW = 256 * 1024
"""About how many bytes `read` returns at once: what one reader may hold in memory."""
SLICES = 1024
"""At most about how many slices, or appends joined to one: what may be gone through before others have their turn."""
