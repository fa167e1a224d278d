"""A store in this process, and a clock that is set by hand."""

from __future__ import annotations

from ds_trio_server.clock import BUILT, Clock
from ds_trio_server.store.retention import Retention, parse
from ds_trio_server.store.sqlite.engine import SQLiteStore
from ds_trio_server.store.sqlite.space import MinFree


class Time:
    """A clock that is set by hand: `seconds` of the steady one, and as long since the build of the wall's."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def clock(self, steady: float = 0.0) -> Clock:
        return Clock(steady, 0.0, lambda: self.seconds, lambda: BUILT + self.seconds)


async def opened(folder, time=None, *rules):
    """An open store that keeps no room free, by a `Time` or by the real one, with rules of retention."""
    retain = Retention(map(parse, rules)) if rules else None
    store = SQLiteStore(folder, None if time is None else time.clock(), retain, MinFree())
    await store.open()
    return store
