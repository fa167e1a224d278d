"""What a shell asks of storage: five calls, and the changes they carry (what sections 3 to 8 ask to be kept).

| call | what it gives |
| --- | --- |
| `load(key)` | the Stream at a path (a str) or with an id (an int), deleted ones included that have forks; or None |
| `producer(id, name)` | the last (epoch, seq) that the stream `id` accepted of a producer, or None |
| `newest()` | the highest id that a stream ever got, those that are gone included; 0 at first |
| `pieces(id, start, end)` | its appends that have bytes of that range, as (position, bytes), whole and in order |
| `commit(changes)` | nothing; all that is in a `Changes` is durable now, or nothing of it is |

What needs storage is a generator, its *steps*: it yields a call as a tuple, (name, argument, ...), and is sent what the
call gives. `run` and `run_async` are all that it takes to run one over an object that has the five as methods. That way
the same steps serve a dict, a blocking database and an awaited one, and no embedder has to know which call is next.

**One run is one transaction**: nothing else commits between its first call and its last. It never waits for anybody but
the storage. A Stream that was loaded is never changed, only a copy of it, so a store may keep and hand out its own.
"""

from . import create
from .stream import Appended, Created, Now, Removed, Renewed, Stream

TYPE_CHECKING = False  # type checkers take this name for true; MicroPython has no collections.abc
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import TypeVar

    T = TypeVar("T")


def run(steps: "Generator[tuple[object, ...], object, T]", store: object) -> "T":
    """Run steps over a store whose methods return what they give; what the steps come to."""
    given = None
    while True:
        try:
            call = steps.send(given)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        given = getattr(store, str(call[0]))(*call[1:])


async def run_async(steps: "Generator[tuple[object, ...], object, T]", store: object) -> "T":
    """As `run`, over a store whose methods are awaited, on any event loop. Others get their turn meanwhile: hold a lock
    or a transaction."""
    given = None
    while True:
        try:
            call = steps.send(given)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        given = await getattr(store, str(call[0]))(*call[1:])


class Changes:
    """What one commit makes durable, in this order.

    `drops`: streams of which everything goes: row, appends, producers. `puts`: streams as they are now, to be kept in
    place of what was there with their ids. `data`: an append, as (id, position, bytes), or None. `producer`: what
    a stream knows of a producer now, as (id, name, epoch, seq), or None. `newest`: what `newest()` gives from now on,
    or None where it stays. `now`: both clocks, to keep beside it all for `clock.Clock`, whose TTLs go on from there.
    """

    __slots__ = ("drops", "puts", "data", "producer", "newest", "now")

    def __init__(self, now: Now) -> None:
        self.drops: "list[Stream]" = []
        self.puts: "list[Stream]" = []
        self.data: "tuple[int, int, bytes] | None" = None
        self.producer: "tuple[str | int, str | int, int, int] | None" = None
        self.newest: "int | None" = None
        self.now = now

    def touched(self) -> "list[Stream]":
        """The streams whose live readers have to look again."""
        return self.puts + self.drops


class Wait:
    """Nothing to say until stream `id` goes on beyond `tail`, closes or goes, for at most so many `seconds`.

    Whoever waits may look again too early, at any commit or every second, but must not sleep over one that came since
    the run that gave this. So take the event that the next commit sets before the run, and wait for that one.
    """

    __slots__ = ("id", "tail", "seconds")

    def __init__(self, id: int, tail: int, seconds: float) -> None:
        self.id = id
        self.tail = tail
        self.seconds = seconds


def load(key: "str | int") -> "Generator[tuple[object, ...], Stream | None, Stream | None]":
    """Steps to the stream at a path or with an id."""
    return (yield ("load", key))


def producer(id: int, name: str) -> "Generator[tuple[object, ...], tuple[int, int] | None, tuple[int, int] | None]":
    """Steps to the last (epoch, seq) of a producer."""
    return (yield ("producer", id, name))


def newest() -> "Generator[tuple[object, ...], int, int]":
    """Steps to the highest id that was ever given."""
    return (yield ("newest",))


def pieces(
    stream: Stream, start: int, end: int
) -> "Generator[tuple[object, ...], list[tuple[int, bytes]], list[tuple[int, bytes]]]":
    """Steps to the appends that have bytes of a range, as this stream sees them: whole, but for an ancestor's, which
    ends where a fork left it (section 8). AssertionError for a store that doesn't have them."""
    found: "list[tuple[int, bytes]]" = []
    at = start
    for owner, first, stop in create.owners(stream, start, end):
        upto = dict(stream.lineage).get(owner, stream.tail)
        for position, data in (yield ("pieces", owner, first, stop)):
            if position + len(data) > upto:
                data = data[: upto - position]
            assert position <= at < position + len(data), "pieces(%d, %d, %d) skips %d" % (owner, first, stop, at)
            found.append((position, data))
            at = position + len(data)
        assert at >= stop, "pieces(%d, %d, %d) ends at %d" % (owner, first, stop, at)
    return found


def joined(found: "list[tuple[int, bytes]]", start: int, end: int) -> bytes:
    """The bytes of a range of which `pieces` gave the appends."""
    parts = []
    for position, data in found:
        if position < start or position + len(data) > end:
            data = data[max(0, start - position) : max(0, end - position)]
        parts.append(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def keep(
    stream: "Stream | None", change: "Created | Appended | Renewed | Removed | None", now: Now
) -> "Generator[tuple[object, ...], object, None]":
    """Steps that make a decision's change durable: `stream` is what was at the path.

    A stream that is replaced or removed releases its source, and that one, if it was deleted and had no other fork, the
    next, and so on (section 8).
    """
    if change is None:
        return
    changes = Changes(now)
    if isinstance(change, Created):
        made = change.stream
        if stream is not None:
            yield from _drop(changes, stream)
        if change.source is not None:
            (yield from _mine(changes, change.source)).forks += 1
        made.publish()
        changes.puts.append(made)
        changes.newest = made.id
        if change.data:
            changes.data = (made.id, made.tail - len(change.data), change.data)
    else:
        assert stream is not None
        if isinstance(change, Removed) and not change.soft:
            yield from _drop(changes, stream)
        else:
            stream = stream.copy()
            changes.puts.append(stream)
            if isinstance(change, Removed):
                stream.deleted = True
            else:
                change.apply(stream)
                stream.publish()
        if isinstance(change, Appended):
            if change.data:
                changes.data = (stream.id, change.at, change.data)
            if change.producer is not None:
                changes.producer = (stream.id, change.producer[0], change.producer[1], change.producer[2])
    yield ("commit", changes)


def _drop(changes: Changes, stream: Stream) -> "Generator[tuple[object, ...], object, None]":
    changes.drops.append(stream)
    while stream.lineage:
        stream = yield from _mine(changes, stream.lineage[-1][0])
        stream.forks -= 1
        if stream.forks or not stream.deleted:
            return
        changes.puts.remove(stream)
        changes.drops.append(stream)


def _mine(changes: Changes, id: int) -> "Generator[tuple[object, ...], object, Stream]":
    """The copy of a stream that a commit changes."""
    for each in changes.puts:
        if each.id == id:
            return each
    found = yield from load(id)
    assert found is not None, "load(%d) gives nothing, and a fork has its bytes" % id
    found = found.copy()
    changes.puts.append(found)
    return found


def given(headers: "object") -> "dict[str, str]":
    """Headers as `requests.parse` takes them, from a dict or from (name, value) pairs, of str or of bytes, in any case;
    what comes twice is joined by a comma (RFC 9110 section 5.3)."""
    found: "dict[str, str]" = {}
    pairs = headers.items() if isinstance(headers, dict) else headers
    for name, value in pairs:  # type: ignore[attr-defined]
        name = _text(name).lower()
        value = _text(value)
        found[name] = found[name] + ", " + value if name in found else value
    return found


def _text(raw: "str | bytes") -> str:
    return raw if isinstance(raw, str) else "".join([chr(byte) for byte in raw])
