"""What the command line shows: a stream's items, a reader's cursor in a file, a progress line."""

import codecs
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from . import notation, saved

_ACTIVE = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?!\n)")  # of a text; a tab and an end of line do no harm
FLUSH_SECONDS = 0.5
PROGRESS_AFTER = 1.0


class Position:
    """A reader's cursor that notices when an answer is through: the reader sets `items`, then `offset`.

    At that moment everything that was handed out has been handled, for the reader was asked for more.
    """

    def __init__(self, offset: str, items: int, moved: Callable[[], None]) -> None:
        self._offset = offset
        self.items = items
        self._moved = moved

    @property
    def offset(self) -> str:
        return self._offset

    @offset.setter
    def offset(self, offset: str) -> None:
        self._offset = offset
        self._moved()


class CursorFile:
    """Keeps (offset, items) for one stream; `unit` says what `items` counts, "items" or, read raw, "bytes"."""

    def __init__(self, path: str, stream: str, unit: str) -> None:
        self._path = path
        self._who = {"stream": stream, "unit": unit}
        self._saved: tuple[str, int] | None = None

    def load(self) -> tuple[str, int] | None:
        """None when there is no file. Raises SavedError."""
        self._saved = saved.load(self._path, "cursor", self._who, _place)
        return self._saved

    def save(self, place: tuple[str, int]) -> None:
        if place != self._saved:
            saved.save(self._path, self._who, {"offset": place[0], "items": place[1]})
            self._saved = place


def _place(found: dict[str, Any]) -> tuple[str, int]:
    return str(found["offset"]), int(found["items"])


class Stopped(BaseException):
    """SIGINT or SIGTERM."""

    def __init__(self, number: int) -> None:
        self.number = number


class Signals:
    """SIGINT and SIGTERM as an exception, but not within a `with` of this: an item and its place go together.

    A second signal does not wait, for what blocks may be whoever should read our output; unless it is `firm`.
    """

    firm = False

    def __init__(self) -> None:
        self._held = 0
        self._got = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        if self._held and (self.firm or not self._got):
            self._got = number
        else:
            self._stop(number)

    def _stop(self, number: int) -> None:
        # Whoever asks again while this is being cleaned up gets what a program without any handler does.
        for each in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(each) == self._handle:
                signal.signal(each, signal.SIG_DFL)
        raise Stopped(number)

    def __enter__(self) -> None:
        self._held += 1

    def __exit__(self, *exc: object) -> None:
        self._held -= 1
        if self._got and not self._held:
            self._stop(self._got)


class Output:
    """Standard output, flushed at the end of each batch of items, and the place in the stream that belongs to it.

    The file is saved after what it counts was flushed: whatever ends the process, nothing is missing from the output.
    After an end that can be caught nothing is repeated either; after SIGKILL, at most what was printed since then.
    """

    def __init__(
        self, kind: str, place: tuple[str, int], file: CursorFile | None, progress: "Progress", signals: Signals
    ) -> None:
        self._out = sys.stdout.buffer
        self._kind = kind
        self._prompt = sys.stdout.isatty()
        self._text = codecs.getincrementaldecoder("utf-8")("replace") if self._prompt and kind == "bytes" else None
        self._file = file
        self._progress = progress
        self._signals = signals
        self._flushed = time.monotonic()
        self.position = Position(*place, self.settle)
        self._place = place

    def write(self, batch: Any) -> None:
        """A list of items, or a piece of bytes. Its place is that of the reader now."""
        items = 0 if self._kind == "bytes" else len(batch)
        if self._kind == "cbor":
            data = notation.cbor_lines(batch)
        elif self._kind == "json":
            data = notation.json_lines(batch)
        elif self._text:
            data = _ACTIVE.sub("?", self._text.decode(batch)).encode()
        else:
            data = batch
        with self._signals:
            self._out.write(data)
            self._place = self.position.offset, self.position.items
        self._progress.add(len(data), items)
        if self._prompt:
            self._out.flush()
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.save()

    def settle(self) -> None:
        """An answer is through."""
        self._place = self.position.offset, self.position.items
        self.save()

    def save(self) -> None:
        """Flush, and save the place that belongs to what was written."""
        with self._signals:
            self._out.flush()
            self._flushed = time.monotonic()
            if self._file:
                self._file.save(self._place)


def size(count: float) -> str:
    """Bytes for people."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("KB", "MB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} GB"


class Progress:
    """A line on standard error while a transfer takes more than a second, when that is a terminal.

    `total` bytes, if known. What else writes to the terminal must not be disturbed, hence `show`.
    """

    def __init__(self, show: bool, total: int | None = None) -> None:
        self._show = show and sys.stderr.isatty()
        self._total = total
        self._began = self._drawn = time.monotonic()
        self._wide = 0
        self.bytes = self.items = 0

    def add(self, count: int, items: int = 1) -> None:
        self.at(self.bytes + count, self.items + items)

    def at(self, count: int, items: int) -> None:
        self.bytes = count
        self.items = items
        now = time.monotonic()
        if self._show and now - self._began > PROGRESS_AFTER and now - self._drawn > 0.1:
            self._drawn = now
            self._draw(now)

    def _draw(self, now: float) -> None:
        text = f"{size(self.bytes)}  {size(self.bytes / (now - self._began))}/s"
        if self.items:
            text = f"{self.items} records  {text}"
        if self._total:
            part = min(1.0, self.bytes / self._total)
            text = f"[{'#' * round(30 * part):30}] {part:4.0%}  {text}"
        text = text[: os.get_terminal_size(2).columns - 1]
        sys.stderr.write("\r" + text.ljust(self._wide))
        sys.stderr.flush()
        self._wide = len(text)

    def clear(self) -> None:
        if self._wide:
            sys.stderr.write("\r" + " " * self._wide + "\r")
            sys.stderr.flush()
            self._wide = 0
