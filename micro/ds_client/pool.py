"""A pool of lines: so many at most, kept for a while, given in the order of asking.

Who asks while all are lent waits for its turn, and for `timeout` at most. What comes back with an answer due or half
read on it is closed, so that nobody is ever told another's answer.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable

from ds_core.client.refusals import Timeout
from ds_micro.net import now

from .lines import Line
from .waiting import Event, Waiting


class _Turn:
    """Somebody's place in the queue."""

    __slots__ = ("event", "line")

    def __init__(self, event: Event) -> None:
        self.event = event
        self.line: Line | None = None


class Pool:
    """`most` lines, made by `make`; idle ones are closed `idle` ms later, at the next use of the pool."""

    def __init__(
        self, make: Callable[[], Line], waiting: Waiting, most: int, idle: int, timeout: int, name: str
    ) -> None:
        self._make = make
        self._waiting = waiting
        self._most = most
        self._keep = idle
        self._timeout = timeout
        self._name = name
        self._lock = threading.Lock()
        self._idle: deque[tuple[Line, int]] = deque()  # the last used last
        self._lent: set[Line] = set()
        self._queue: deque[_Turn] = deque()
        self._left: deque[Line] = deque()  # by who may not wait for the lock
        self._over = False
        self._process = os.getpid()

    def __repr__(self) -> str:
        return f"{len(self._lent)} of {self._most} {self._name} in use, {len(self._idle)} idle"

    async def take(self, url: str) -> Line:
        """A line of one's own, to be given back. Raises Timeout."""
        if os.getpid() != self._process:
            # Two processes on one connection would be told each other's answers.
            raise RuntimeError("this session was opened by another process: open one in each")
        with self._lock:
            turn = self._next()
        self._collect()
        if turn.line is None:
            try:
                await self._waiting.wait(turn.event, self._timeout)
            except BaseException:
                line = self._withdraw(turn)
                if line:
                    self.give(line)
                raise
            line = self._withdraw(turn)
            if line is None:
                if self._over:
                    raise RuntimeError("the session is over")
                raise Timeout(f"all {self._most} {self._name} of the pool are in use", url=url)
            return line
        return turn.line

    def _next(self) -> _Turn:
        turn = _Turn(self._waiting.event())
        if self._over:
            raise RuntimeError("the session is over")
        self._expire()
        if self._idle:
            turn.line = self._idle.pop()[0]
        elif len(self._lent) < self._most:
            turn.line = self._make()
        else:
            self._queue.append(turn)
        if turn.line:
            self._lent.add(turn.line)
        return turn

    def _withdraw(self, turn: _Turn) -> Line | None:
        """Leave the queue; the line that has come meanwhile, if one has."""
        with self._lock:
            if turn.line is None and turn in self._queue:
                self._queue.remove(turn)
            return turn.line

    def give(self, line: Line) -> None:
        """Give a line back, as it is."""
        self._left.append(line)
        self._collect()

    def leave(self, line: Line) -> None:
        """Give a line back from anywhere, at any time: an event loop's is taken in when the pool is used next."""
        self._left.append(line)
        if self._over or self._waiting.name == "threads":
            with contextlib.suppress(RuntimeError):  # the loop is over, too
                self._collect()

    def _collect(self) -> None:
        # Without waiting for the lock: what is forgotten is given back by the garbage collector, at any moment, perhaps
        # in the middle of the block below. Who has the lock comes here after it.
        while self._left and self._lock.acquire(blocking=False):
            try:
                while self._left:
                    self._back(self._left.popleft())
            finally:
                self._lock.release()

    def _back(self, line: Line) -> None:
        if not line.idle or self._over:
            line.drop()
        if self._queue:
            turn = self._queue.popleft()
            turn.line = line
            turn.event.set()
            return
        self._lent.discard(line)
        if line.idle:
            self._idle.append((line, now()))
        self._expire()

    def _expire(self) -> None:
        while self._idle and now() - self._idle[0][1] >= self._keep:
            self._idle.popleft()[0].drop()

    def close(self) -> None:
        """Close what is idle and end what is under way."""
        with self._lock:
            self._over = True
            for line, _ in self._idle:
                line.drop()
            self._idle.clear()
            for line in self._lent:
                line.over = True
                line._conn.hang_up()
            for turn in self._queue:
                turn.event.set()
        self._collect()
