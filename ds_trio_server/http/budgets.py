"""What all connections together may hold of what was sent to them: bodies, and what is no request yet."""

from typing import Protocol

from ds_core.server.errors import ProtocolError

from ..units import MIB


class BodyBudget:
    """How many bytes of request bodies all connections together may hold, until they are done with."""

    # Smaller ones are bounded by the number of connections, and not worth counting.
    FREE = 4096

    def __init__(self, limit: int) -> None:
        self._left = limit

    def take(self, holder: "Holder", size: int) -> None:
        """Reserve room for so many bytes of one body in all, or refuse with 503."""
        if size <= self.FREE:
            return
        more = size - holder.held
        if more > self._left:
            raise ProtocolError(
                503, "OVERLOADED", "too many large bodies at once; try again shortly", (("Retry-After", "1"),)
            )
        self._left -= more
        holder.held = size

    def give_back(self, holder: "Holder") -> None:
        """Return all that was taken for a body."""
        self._left += holder.held
        holder.held = 0


class Holder(Protocol):
    """Whose body it is; `held` is what it has of the budget."""

    held: int


class Backlog:
    """What was received and is no request yet: heads that aren't whole, and requests that came ahead of their turn.

    Whoever can connect can have the server hold such bytes, before anyone knows who it is. So all connections share
    `limit` of them, and when that is full the one that made no progress for longest is cut off: newcomers, who are
    mostly honest, are not.
    """

    def __init__(self, limit: int = 32 * MIB) -> None:
        self._limit = limit
        self._held: dict[Hoarder, int] = {}
        self._size = 0

    def hold(self, hoarder: "Hoarder", size: int) -> None:
        """So many bytes it is now for this one, who has just made progress."""
        self._size += size - self._held.pop(hoarder, 0)
        if not size:
            return
        self._held[hoarder] = size
        while self._size > self._limit:
            slowest = next(iter(self._held))
            self._size -= self._held.pop(slowest)
            slowest.let_go()


class Hoarder(Protocol):
    """Who holds bytes of a connection."""

    def let_go(self) -> None:
        """Cut off the connection, and hold nothing of it from this moment on: the memory is needed now, and the
        connection's task may be long in coming to its end."""
