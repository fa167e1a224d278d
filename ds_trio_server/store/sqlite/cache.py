"""States in memory, with a bound: idle streams cost nothing but their row.

A state that holds a change which is not durable yet, or that someone watches, is never dropped:
for everything else the file is the truth and is asked again. What may not be dropped is neither counted nor in line:
it gets a new place when its last change is durable, or its last watcher has left (`release`).
"""

from collections import OrderedDict
from collections.abc import Callable

from ds_core.server.stream import Stream

from . import rows
from .batches import Batch, Entry
from .queries import Queries


class StreamCache:
    """Entries by path and by stream id, loaded on demand, at most about `limit` of them beside those in use.

    What loads one raises StorageFailed when the file can't be read, and Damaged where what it says is not what was
    written.
    """

    def __init__(self, queries: Queries, limit: int, watched: Callable[[Stream], bool]) -> None:
        self._queries = queries
        self._limit = limit
        self._watched = watched
        self._by_path: dict[str, Entry] = {}
        self._by_id: dict[int, Entry] = {}
        # Those that may be dropped, the next one first; some may be in use since they were put in line.
        self._line: OrderedDict[Entry, None] = OrderedDict()

    def entry(self, path: str) -> Entry:
        """The entry of a path; an empty one, not kept, when there is no stream."""
        entry = self._by_path.get(path)
        if entry is None:
            entry = Entry(path, self._queries.run_nowait(rows.load, path))
            if entry.stream is not None:
                self.keep(entry)
            else:
                self._queries.damages.check_hidden(path)
        return entry

    def sources(self, stream: Stream) -> list[Entry]:
        """The entries that lose a fork when `stream` is removed: its source's and, as long as that is a deleted one
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
        """The entry of a stream that must exist, because a fork needs it; `lineage` as for `rows.load`."""
        entry = self._by_id.get(id)
        if entry is None:
            stream = self._queries.run_nowait(rows.load_needed, id, lineage)
            entry = Entry(stream.path, stream)
            self.keep(entry)
        return entry

    def __len__(self) -> int:
        return len(self._by_path)

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
        self.release(entry)

    def release(self, entry: Entry) -> None:
        """Put an entry in line to be dropped, unless it is: to be called when it isn't in use any more."""
        if entry not in self._line:
            self._line[entry] = None
            while len(self._line) > self._limit:
                first, _ = self._line.popitem(last=False)
                if first.batch is None and (first.stream is None or not self._watched(first.stream)):
                    self.drop(first)

    def touch(self, entry: Entry, batch: Batch, structural: bool = False) -> None:
        """Note that a batch will hold a change of an entry, which stays in until that is durable:
        it is the only copy of that state."""
        if entry.batch is batch and not structural:
            return  # it is in already
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
        self._line.pop(entry, None)
        self.forget_id(entry)

    def forget_id(self, entry: Entry) -> None:
        """Take an entry's stream out of the index by id."""
        if entry.stream is not None and self._by_id.get(entry.stream.id) is entry:
            del self._by_id[entry.stream.id]
