"""What the server is busy with when it is cut off: everything at once, all of it noted in a history.

- `log/N`: streams that stay until they are large, with idempotent producers that also repeat themselves;
- `cycle/N`: created, appended to by several producers, closed or not, deleted meanwhile, created again;
- `fork/N`: forks of the logs at an offset that was handed out, appended to, deleted, forked again;
- `ttl/N`: streams with a short TTL that are used for a while and then left to expire.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import trio

from .client import Client, Cut
from .history import NEVER, Found, History, Life, Violation

UNWRITABLE = (503, 507)
"""No room, read-only, locked: nothing of the request was stored."""


class Workload:
    """A history and those who make it. `mark` tells the present mark for acknowledgements."""

    def __init__(self, seed: int, size: int = 4, mark: Callable[[], float] = time.monotonic) -> None:
        self.random = random.Random(seed)
        self.history = History()
        self._size = size
        self._mark = mark
        self._port = 0
        self._cut = False
        self.refusals: dict[int, int] = {}

    @property
    def paths(self) -> list[str]:
        """All paths that the workload uses."""
        return [f"{kind}/{n}" for kind in ("log", "cycle", "fork", "ttl") for n in range(self._size)]

    async def run(self, port: int, seconds: float) -> None:
        """Keep the server busy for a while, or until it is cut off."""
        self._port = port
        self._cut = False
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for n in range(self._size):
                    nursery.start_soon(self._until_cut, self._log, f"log/{n}")
                    nursery.start_soon(self._until_cut, self._cycle, f"cycle/{n}")
                    nursery.start_soon(self._until_cut, self._fork, f"fork/{n}")
                    nursery.start_soon(self._until_cut, self._mortal, f"ttl/{n}")

    async def _until_cut(self, work: Callable[..., object], *args: str) -> None:
        client = Client(self._port)
        try:
            while not self._cut:
                await work(client, *args)  # type: ignore[misc]
                await trio.sleep(self.random.random() * 0.01)
        except* Cut:
            self._cut = True
        finally:
            with trio.CancelScope(shield=True):
                await client.close()

    def _refused(self, status: int) -> None:
        self.refusals[status] = self.refusals.get(status, 0) + 1

    # Kinds of work

    async def _log(self, client: Client, path: str) -> None:
        life = self.history.current(path) or await self._create(client, path)
        if life is None:
            return
        async with trio.open_nursery() as nursery:
            for n in range(3):
                nursery.start_soon(self._until_cut_once, life, f"p{n}", self.random.randint(3, 30), False)
        if len(life.records) > 2000 and not self._cut:
            await self._delete(client, life)  # a large one, freed in the background

    async def _cycle(self, client: Client, path: str) -> None:
        life = self.history.current(path) or await self._create(client, path)
        if life is None:
            return
        async with trio.open_nursery() as nursery:
            for n in range(2):
                closes = n == 0 and self.random.random() < 0.3
                nursery.start_soon(self._until_cut_once, life, f"p{n}", self.random.randint(1, 12), closes)
            if self.random.random() < 0.5:
                await trio.sleep(self.random.random() * 0.05)
                await self._delete(client, life)
        if life.ended == NEVER and self.random.random() < 0.4:
            await self._close(client, life)
        if life.ended == NEVER and self.random.random() < 0.6:
            await self._delete(client, life)

    async def _fork(self, client: Client, path: str) -> None:
        life = self.history.current(path)
        if life is None:
            source = f"{self.random.choice(('log', 'cycle'))}/{self.random.randrange(self._size)}"
            origin = self.history.current(source)
            known = [] if origin is None else [r for r in origin.records.values() if r.acked < NEVER]
            if not known:
                return
            record = self.random.choice(known)
            assert record.offset is not None
            life = await self._create(
                client, path, after=record.line, Stream_Forked_From=f"/v1/stream/{source}",
                Stream_Fork_Offset=record.offset,
            )  # fmt: skip
        if life is not None:
            await self._produce(client, life, "p0", self.random.randint(1, 6), False)
            if self.random.random() < 0.5:
                await self._delete(client, life)

    async def _mortal(self, client: Client, path: str) -> None:
        life = self.history.current(path) or await self._create(client, path, ttl=1)
        if life is None:
            return
        await self._produce(client, life, "p0", 3, False)
        if self.random.random() < 0.2:
            await trio.sleep(1.2)
            found = await self.look(client, path)
            self.history.settle(path, self.history.check(path, found, seconds=time.monotonic()), self._mark())

    # Operations

    async def _create(
        self, client: Client, path: str, ttl: int | None = None, after: bytes | None = None, **headers: str
    ) -> Life | None:
        life = self.history.begin(path, self._mark(), ttl, after)
        if ttl is not None:
            headers["Stream_TTL"] = str(ttl)
        began = time.monotonic()
        status, fields, _ = await client("PUT", path, life.marker, **headers)
        if status == 201:
            self.history.created(life, self._mark(), fields["stream-next-offset"])
            life.used = began
            return life
        # A deleted source that forks still hold keeps its path.
        assert status in ((404, 409, 410, *UNWRITABLE) if after else (409, *UNWRITABLE)), (status, path)
        self._refused(status)
        life.ending = life.ended = self._mark()
        return None

    async def _until_cut_once(self, life: Life, producer: str, count: int, closes: bool) -> None:
        client = Client(self._port)
        try:
            await self._produce(client, life, producer, count, closes)
        except Cut:
            self._cut = True
        finally:
            with trio.CancelScope(shield=True):
                await client.close()

    async def _produce(self, client: Client, life: Life, producer: str, count: int, closes: bool) -> None:
        """Append as an idempotent producer: the first that isn't acknowledged yet, then new ones."""
        mine = [record for record in life.records.values() if record.producer == producer]
        last = next((record for record in reversed(mine) if record.acked < NEVER), None)
        if last is not None and self.random.random() < 0.5:
            await self._append(client, life, producer, last.seq, last.closes)  # it may have been lost
        seq = next((record.seq for record in mine if record.acked == NEVER), len(mine))
        for n in range(count):
            known = seq < len(mine) and mine[seq].closes
            closing = known or (closes and n == count - 1)
            if not await self._append(client, life, producer, seq, closing):
                return
            if self.random.random() < 0.1 and not await self._append(client, life, producer, seq, closing):
                return
            seq += 1

    async def _append(self, client: Client, life: Life, producer: str, seq: int, closes: bool) -> bool:
        record = life.record(producer, seq, self._mark(), closes)
        closes = record.closes
        headers = {"Producer_Id": producer, "Producer_Epoch": "0", "Producer_Seq": str(seq)}
        if closes:
            headers["Stream_Closed"] = "true"
        began = time.monotonic()
        status, fields, _ = await client("POST", life.path, record.line, **headers)
        if status == 200 or (status == 204 and closes):
            life.acknowledge(record, self._mark(), fields["stream-next-offset"])
        elif status == 204 and record.acked == NEVER:
            raise Violation(f"{life.path}: {record.line[:60]!r} was taken for a duplicate")
        elif status != 204:
            expired = life.ttl is not None and time.monotonic() >= life.used + life.ttl
            if status in (404, 410) and life.ending == NEVER and not expired:
                raise Violation(f"{life.path}: life {life.number} is gone, though nobody has ended it")
            if status == 409 and life.closing == NEVER:
                raise Violation(f"{life.path}: {record.line[:60]!r} is refused: {fields}")
            assert status in (404, 409, 410, *UNWRITABLE), (status, life.path, fields)
            self._refused(status)
            if record.acked == NEVER and status in UNWRITABLE:
                del life.records[record.line]
            if expired and status == 404:
                life.ending = life.ended = self._mark()
            return False
        life.used = max(life.used, began)
        return not closes

    async def _close(self, client: Client, life: Life) -> None:
        life.closing = min(life.closing, self._mark())
        status, _, _ = await client("POST", life.path, Stream_Closed="true")
        if status == 204:
            life.closed = min(life.closed, self._mark())
        else:
            assert status in (404, 410, *UNWRITABLE), (status, life.path)
            self._refused(status)

    async def _delete(self, client: Client, life: Life) -> None:
        life.ending = min(life.ending, self._mark())
        status, _, _ = await client("DELETE", life.path)
        if status in UNWRITABLE:
            self._refused(status)
            life.ending = NEVER
            return
        assert status == 204 or (status in (404, 410) and life.ttl is not None), (status, life.path)
        life.ended = self._mark()

    async def look(self, client: Client, path: str) -> Found:
        """What is at a path, all of it."""
        body = b""
        offset = "-1"
        while True:
            status, headers, part = await client("GET", f"{path}?offset={offset}")
            if status in (404, 410):
                return Found(None)
            assert status == 200, (status, path)
            body += part
            offset = headers["stream-next-offset"]
            if "stream-up-to-date" in headers:
                return Found(body, "stream-closed" in headers, offset)

    async def verify(self, port: int) -> None:
        """Look at every path and explain what is there. Raises Violation."""
        client = Client(port)
        try:
            for path in self.paths:
                began = time.monotonic()
                found = await self.look(client, path)
                shown = self.history.check(path, found, seconds=time.monotonic())
                self.history.settle(path, shown, self._mark())
                if shown is not None:
                    shown.used = began
                    if shown.incarnation is None:
                        self.history.created(shown, self._mark(), found.offset)
                    self.history.saw(shown, found)
                    self._adopt(shown, found)
        finally:
            await client.close()

    def _adopt(self, life: Life, found: Found) -> None:
        # What was under way at the cut and has happened counts from now on.
        assert found.body is not None
        at = found.body.index(life.marker) + len(life.marker)
        for line in found.body[at:].splitlines(keepends=True):
            at += len(line)
            record = life.records[line]
            if record.acked == NEVER:
                life.acknowledge(record, self._mark(), f"{life.incarnation:016d}_{at:016d}")
        if found.closed:
            life.closed = min(life.closed, self._mark())
