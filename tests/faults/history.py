"""A history of operations on streams, and what may be found on the disk after it was cut off.

Everything that a client asked is noted before it is sent, and its acknowledgement when it comes.
What is found later, after a crash, must be explained by it:

- every acknowledged operation has happened, and no acknowledged one is undone;
- what was not acknowledged has happened wholly or not at all;
- no record is there twice, none of a producer is missing before a later one, none is anybody else's;
- a deleted or expired stream does not come back, a closed one stays closed, and a record that
  closed its stream is there only when it did;
- what has been seen once stays, and every offset that was handed out still names the same bytes;
- no incarnation is ever given to two streams;
- a sliding TTL is never cut short.

Marks are positions in time, whatever the caller counts in: seconds, or bytes of a disk's log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

NEVER = float("inf")
LATEST = 1e300


class Violation(AssertionError):
    """The history can't explain what was found."""


class Record:
    """One append: a line that says whose it is, and may be long."""

    __slots__ = ("line", "producer", "seq", "closes", "started", "acked", "offset")

    def __init__(self, line: bytes, producer: str, seq: int, closes: bool, started: float) -> None:
        self.line = line
        self.producer = producer
        self.seq = seq
        self.closes = closes
        self.started = started
        self.acked = NEVER
        self.offset: str | None = None


class Life:
    """One stream from its creation to its end. Its first own line tells it from all others."""

    def __init__(self, path: str, number: int, started: float, ttl: int | None, after: bytes | None) -> None:
        self.path = path
        self.number = number
        self.marker = b"life %s %d\n" % (path.encode(), number)
        self.ttl = ttl
        self.after = after  # a fork's last inherited line
        self.started = started
        self.created = NEVER
        self.ending = NEVER  # when its deletion was asked for
        self.ended = NEVER
        self.closing = NEVER
        self.closed = NEVER
        self.used = 0.0  # seconds: when the last use that was acknowledged began
        self.records: dict[bytes, Record] = {}
        self.seen = b""
        self.seen_closed = False
        self.incarnation: int | None = None

    def record(self, producer: str, seq: int, started: float, closes: bool = False) -> Record:
        """Note an append that is about to be sent; the same one again when it is a retry."""
        # Some are so large that a store keeps them elsewhere, and a few in several parts, which it
        # may write in several steps.
        large = seq % 61 == 60 or (seq == 1 and self.number % 50 == 4)
        size = 300_000 if large else 1500 if seq % 9 == 8 else 0
        line = b"%s %d of %s %d%s\n" % (producer.encode(), seq, self.path.encode(), self.number, b"." * size)
        found = self.records.get(line)
        if found is None:
            found = self.records[line] = Record(line, producer, seq, closes, started)
        if closes:
            self.closing = min(self.closing, started)
        return found

    def acknowledge(self, record: Record, mark: float, offset: str) -> None:
        """Its success has come in."""
        record.acked = min(record.acked, mark)
        record.offset = record.offset or offset
        if record.closes:
            self.closed = min(self.closed, mark)


class Found:
    """What a look at a path showed: `body` is None when there is no stream; `offset` is its tail."""

    __slots__ = ("body", "closed", "offset")

    def __init__(self, body: bytes | None, closed: bool = False, offset: str = "") -> None:
        self.body = body
        self.closed = closed
        self.offset = offset


class History:
    """All lives of all paths, in the order in which they were asked for, one after the other per path."""

    def __init__(self) -> None:
        self.lives: dict[str, list[Life]] = {}
        self._incarnations: dict[int, Life] = {}

    def begin(self, path: str, started: float, ttl: int | None = None, after: bytes | None = None) -> Life:
        """Note a creation that is about to be sent."""
        lives = self.lives.setdefault(path, [])
        life = Life(path, len(lives), started, ttl, after)
        lives.append(life)
        return life

    def current(self, path: str) -> Life | None:
        """The life that goes on at a path, as far as its client knows."""
        lives = self.lives.get(path)
        return lives[-1] if lives and lives[-1].ended == NEVER else None

    def created(self, life: Life, mark: float, offset: str) -> None:
        """A creation was acknowledged with this offset."""
        life.created = min(life.created, mark)
        incarnation = int(offset.split("_")[0])
        if life.after is None:
            other = self._incarnations.setdefault(incarnation, life)
            if other is not life:
                raise Violation(f"incarnation {incarnation} was given to {other.marker!r} and {life.marker!r}")
        life.incarnation = incarnation

    def newest(self, at: float = LATEST) -> int:
        """The highest incarnation that was acknowledged by then."""
        return max((i for i, life in self._incarnations.items() if life.created <= at), default=0)

    def check(self, path: str, found: Found, at: float = LATEST, seconds: float = 0.0) -> Life | None:
        """Explain what was found at a path after a cut at `at`; returns the life it shows.

        `seconds` is the time of the look, for TTLs. Raises Violation.
        """
        lives = [life for life in self.lives.get(path, ()) if life.started <= at]
        shown = None
        if found.body is not None:
            markers = re.findall(rb"(?m)^life %s (\d+)\n" % re.escape(path.encode()), found.body)
            if len(markers) != 1:
                raise Violation(f"{path} holds {len(markers)} beginnings: {found.body[:200]!r}")
            number = int(markers[0])
            shown = next((life for life in lives if life.number == number), None)
            if shown is None:
                raise Violation(f"{path} holds life {number}, which nobody has begun")
        for life in lives:
            if life is shown:
                if life.ended <= at:
                    raise Violation(f"{path}: life {life.number} is back after its end was acknowledged")
            elif life.created <= at and life.ending > at:
                # It may have been seen to end by itself, or be on its way there.
                expired = life.ttl is not None and seconds >= life.used + life.ttl
                if not expired:
                    raise Violation(f"{path}: life {life.number} is lost: {_show(found)}")
            if shown is not None and life.number > shown.number and life.created <= at:
                raise Violation(f"{path}: life {shown.number} is back, though {life.number} was acknowledged")
        if shown is not None:
            self._check_content(shown, found, at)
        return shown

    def _check_content(self, life: Life, found: Found, at: float) -> None:
        body = found.body
        assert body is not None
        inherited, _, own = body.partition(life.marker)
        if life.after is None and inherited:
            raise Violation(f"{life.path} begins with somebody else's bytes: {inherited[:80]!r}")
        if life.after is not None and not inherited.endswith(life.after):
            raise Violation(f"{life.path} is a fork after {life.after!r}, but inherits {inherited[-80:]!r}")
        if own and not own.endswith(b"\n"):
            raise Violation(f"{life.path} ends in half a record: {own[-80:]!r}")
        lines = own.splitlines(keepends=True)
        if len(set(lines)) != len(lines):
            twice = sorted(line for line in set(lines) if lines.count(line) > 1)
            raise Violation(f"{life.path} holds {len(twice)} records twice: {[line[:60] for line in twice[:3]]}")
        expected: dict[str, int] = {}
        for line in lines:
            record = life.records.get(line)
            if record is None or record.started > at:
                raise Violation(f"{life.path} holds {line[:60]!r}, which nobody has sent")
            if record.seq != expected.get(record.producer, 0):
                raise Violation(f"{life.path}: {line[:60]!r} comes where {expected.get(record.producer, 0)} is due")
            expected[record.producer] = record.seq + 1
            if record.closes and not found.closed:
                raise Violation(f"{life.path}: {line[:60]!r} closed it, but it is open")
        self._check_acknowledged(life, found, set(lines), at)
        if not body.startswith(life.seen):
            raise Violation(f"{life.path}: {len(life.seen)} bytes were seen before, now {len(body)} others are there")
        if life.seen_closed and not found.closed:
            raise Violation(f"{life.path} was closed and is open")

    def _check_acknowledged(self, life: Life, found: Found, lines: set[bytes], at: float) -> None:
        body = found.body
        assert body is not None
        for record in life.records.values():
            if record.acked <= at:
                if record.line not in lines:
                    raise Violation(f"{life.path}: {record.line[:60]!r} was acknowledged and is lost")
                assert record.offset is not None
                incarnation, position = map(int, record.offset.split("_"))
                if incarnation != life.incarnation or not body.endswith(record.line, 0, position):
                    raise Violation(f"{life.path}: {record.offset} named {record.line[:60]!r} and does no more")
        if life.closed <= at and not found.closed:
            raise Violation(f"{life.path}: its closing was acknowledged, and it is open")
        if found.closed and life.closing > at:
            raise Violation(f"{life.path} is closed, which nobody has asked for")

    def saw(self, life: Life, found: Found) -> None:
        """What was seen and explained must stay."""
        assert found.body is not None
        life.seen = found.body
        life.seen_closed = found.closed

    def settle(self, path: str, shown: Life | None, mark: float) -> None:
        """After a look: what was under way has happened or has not, from now on for good."""
        for life in self.lives.get(path, ()):
            if life is shown:
                life.created = min(life.created, mark)
                life.ending = NEVER if life.ended == NEVER else life.ending
            elif life.ended == NEVER:
                life.ending = life.ended = mark

    def counts(self, lives: Iterable[Life] | None = None) -> tuple[int, int]:
        """How many records were acknowledged, and how many streams."""
        if lives is None:
            lives = [life for each in self.lives.values() for life in each]
        records = streams = 0
        for life in lives:
            streams += life.created < NEVER
            records += sum(record.acked < NEVER for record in life.records.values())
        return records, streams


def _show(found: Found) -> str:
    return "nothing is there" if found.body is None else f"{found.body[:120]!r} is there"
