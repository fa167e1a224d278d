"""States in memory, with a bound: idle streams cost nothing but their row.

A state that holds a change which is not durable yet, or that someone watches, is never dropped:
for everything else the file is the truth and is asked again.
"""

from collections.abc import Callable

from ds_core.server.stream import Stream

from . import rows
from .batches import Batch, Entry
from .queries import Queries


class StreamCache:
    """Entries by path and by stream id, loaded on demand, at most about ``limit`` of them.

    What loads one raises StorageFailed when the file can't say, and DamagedRow when what it says is not what was
    written.
    """

    def __init__(self, queries: Queries, limit: int, watched: Callable[[Stream], bool]) -> None:
        self._queries = queries
        self._limit = limit
        self._watched = watched
        self._by_path: dict[str, Entry] = {}
        self._by_id: dict[int, Entry] = {}

    def entry(self, path: str) -> Entry:
        """The entry of a path; an empty one, not kept, when there is no stream."""
        entry = self._by_path.get(path)
        if entry is None:
            entry = Entry(path, self._queries.run_nowait(rows.load, "path", path))
            if entry.stream is not None:
                self.keep(entry)
        return entry

    def sources(self, stream: Stream) -> list[Entry]:
        """The entries that lose a fork when ``stream`` is removed: its source's and, as long as that is a deleted one
        without another fork, which goes with it, the next one's up the chain (section 8)."""
        found = []
        lineage = stream.lineage
        while lineage:
            above = lineage[:-1]
            entry = self.ancestor(lineage[-1][0], above)
            found.append(entry)
            assert entry.stream is not None
            if entry.stream.forks > 1 or not entry.stream.deleted:
                break
            lineage = above
        return found

    def ancestor(self, id: int, lineage: tuple[tuple[int, int], ...] | None = None) -> Entry:
        """The entry of a stream that must exist, because a fork needs it; ``lineage`` as for ``rows.load``."""
        entry = self._by_id.get(id)
        if entry is None:
            stream = self._queries.run_nowait(rows.load, "id", id, lineage)
            if stream is None:
                raise rows.DamagedRow(id)
            entry = Entry(stream.path, stream)
            self.keep(entry)
        return entry

    def get(self, id: int) -> Entry | None:
        """The entry of a stream id if it is in memory."""
        return self._by_id.get(id)

    def pending(self, path: str) -> Batch | None:
        """The batch with the last change at a path that is not durable yet, if there is one."""
        entry = self._by_path.get(path)
        return None if entry is None else entry.batch

    def keep(self, entry: Entry) -> None:
        """Put an entry in, and the oldest idle ones out."""
        self._hold(entry)
        if len(self._by_path) > self._limit:
            self._evict(len(self._by_path) - self._limit)

    def touch(self, entry: Entry, batch: Batch, structural: bool = False) -> None:
        """Note that a batch will hold a change of an entry, which stays in until that is durable:
        it is the only copy of that state."""
        entry.batch = batch
        if structural:
            entry.structural = batch
        batch.entries[entry] = None
        self._hold(entry)

    def _hold(self, entry: Entry) -> None:
        self._by_path[entry.path] = entry
        if entry.stream is not None:
            self._by_id[entry.stream.id] = entry

    def drop(self, entry: Entry) -> None:
        """Take an entry out: the file is the truth again."""
        if self._by_path.get(entry.path) is entry:
            del self._by_path[entry.path]
        self.forget_id(entry)

    def forget_id(self, entry: Entry) -> None:
        """Take an entry's stream out of the index by id."""
        if entry.stream is not None and self._by_id.get(entry.stream.id) is entry:
            del self._by_id[entry.stream.id]

    def _evict(self, excess: int) -> None:
        # First in, first out. What is in use goes to the end of the line, so that a crowd of
        # watched streams at the front isn't looked at again and again.
        oldest = [entry for _, entry in zip(range(excess + 16), self._by_path.values(), strict=False)]
        for entry in oldest:
            busy = entry.batch is not None or (entry.stream is not None and self._watched(entry.stream))
            if busy:
                del self._by_path[entry.path]
                self._by_path[entry.path] = entry
            elif excess > 0:
                self.drop(entry)
                excess -= 1
