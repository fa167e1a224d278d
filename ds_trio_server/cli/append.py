"""`ds append`: records to a stream, as they come (`input`), exactly once if there is a producer."""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from ds_core.client.backoff import Backoff
from ds_core.client.errors import Disconnected, StreamError
from ds_core.client.reader import kind_of
from ds_core.client.writer import Writer
from ds_core.wire import cbor
from ds_micro import Outbox, Stream
from ds_micro.stream import random

from .client_options import CBOR, JSON
from .client_stream import connect
from .input import Batches, Items, Lines, Raw, Source, State
from .notation import item_of, of_any_length, printable
from .output import Progress, Signals, Stopped, size
from .parser import Usage

IN_FLIGHT = 5
FOREVER = 10**9


def append(options: argparse.Namespace, signals: Signals) -> int:
    if options.records and options.file:
        raise Usage("give records or --file, not both")
    if options.producer_state and not options.producer:
        raise Usage("--producer-state needs --producer")
    if options.producer is not None and not _is_producer(options.producer):
        raise Usage("--producer needs an id of 1 to 256 bytes on one line, without blanks around it")
    content_type = options.content_type or (JSON if options.json else CBOR if options.cbor else None)
    stream = connect(options, content_type)
    if content_type is None:
        content_type = _patiently(options, stream.head).headers.get("content-type") or "application/octet-stream"
        stream = connect(options, content_type)
    kind = kind_of(content_type)
    if (options.json and kind != "json") or (options.cbor and kind != "cbor"):
        raise Usage(f"--json and --cbor do not go with content type {content_type}")
    if options.raw and kind == "json":
        raise Usage("a JSON stream takes JSON, one value per line; leave out --raw")
    source = _source(options, kind)
    if options.file is None and not options.records and os.isatty(0) and not options.quiet:
        print("reading records from the terminal, one per line; Ctrl-D ends them", file=sys.stderr)
    raw = options.raw and kind == "bytes"
    signals.firm = True
    batches = Batches(source, content_type, kind == "json", raw, options.batch, random(1 << 30), signals)
    if options.producer_state:
        unit = "bytes" if raw else "records"
        batches.resume(State(options.producer_state, stream.url, options.producer or "", unit))
    progress = Progress(not options.quiet, source.total)
    sender = _Once(stream, options, batches) if options.producer else _Plain(stream, batches)
    try:
        while batches.wait():
            sender.send(lambda: progress.at(source.taken, 0 if raw else batches.acknowledged))
    except (StreamError, Stopped) as exc:
        exc.add_note(_so_far(batches, sender.unsure, raw))
        if isinstance(exc, StreamError) and exc.status == 413:
            batches.cut_anew()
        raise
    finally:
        progress.clear()
        source.close()
        batches.save()
    if batches.trouble:
        batches.trouble.add_note(_so_far(batches, False, raw))
        raise batches.trouble
    if not options.quiet and sys.stderr.isatty():
        print(_so_far(batches, False, raw), file=sys.stderr)
    return 0


def _so_far(batches: Batches, unsure: bool, raw: bool) -> str:
    what = size(batches.sent) if raw else f"{batches.acknowledged} record{'' if batches.acknowledged == 1 else 's'}"
    text = f"appended {what}"
    if batches.skipped:
        text += f", after {batches.skipped} of an earlier run"
    if unsure and batches.records:
        more = "the next request" if raw else f"the next {batches.records}"
        text += f"; {more} may or may not have been (--producer avoids this)"
    return text


def _source(options: argparse.Namespace, kind: str) -> Source:
    def json_text(text: bytes) -> bytes:
        of_any_length(_loads, text.decode())
        return text.strip()

    def cbor_item(text: bytes) -> bytes:
        value = of_any_length(_loads_to_keep, text.decode())
        return cbor.encode(item_of(value) if b'"$' in text or b"\\u" in text else value)

    def text_line(text: bytes) -> bytes:
        return text + b"\n"

    encode = {"json": json_text, "cbor": cbor_item, "bytes": text_line}[kind]
    if not options.records:
        splitter: Callable[[], Any] = lambda: Lines(encode, kind == "bytes")  # noqa: E731
        if options.raw:
            splitter = Items if kind == "cbor" else Raw
        return Source(options.file or ["-"], splitter)
    records = []
    for number, record in enumerate(options.records, 1):
        data = os.fsencode(record)
        try:
            if options.raw and kind == "cbor":
                raise ValueError("encoded CBOR comes from a file or standard input")
            records.append(data if options.raw else encode(data))
        except (ValueError, TypeError, RecursionError) as exc:
            raise Usage(f"record {number}, '{printable(record)[:60]}', is not a JSON value: {exc}") from None
    return Source([], Raw, filter(None, records))


def _is_producer(text: str) -> bool:
    return 0 < len(os.fsencode(text)) <= 256 and min(text) > "\x1f" and text.strip() == text


def _loads(text: str) -> object:
    return json.loads(text, parse_constant=_no_constant)


def _loads_to_keep(text: str) -> object:
    """As `_loads`, where what comes of it is kept, and not the text."""
    return json.loads(text, parse_constant=_no_constant, parse_float=_float)


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{printable(text)[:40]} is more than a float can be")
    return value


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _patiently(options: argparse.Namespace, call: Callable[[], Any]) -> Any:
    """With a producer, a server that is away is waited for from the beginning on."""
    backoff = Backoff(random)
    since = time.monotonic()
    while True:
        try:
            return call()
        except StreamError as exc:
            wait = backoff.delay(exc.retry_after) / 1000
            waited = time.monotonic() - since + wait
            patience = options.retry_for
            if not exc.retry or not options.producer or (patience is not None and waited > patience):
                raise
            time.sleep(wait)


class _Plain:
    """One POST after the other, none of them twice."""

    def __init__(self, stream: Stream, batches: Batches) -> None:
        self._stream = stream
        self._batches = batches
        self.unsure = False

    def send(self, progressed: Callable[[], None]) -> None:
        batch = self._batches.batch(0)
        if batch:
            self.unsure = True
            try:
                self._stream.append(batch.body, raw=True)
            except StreamError as exc:
                self.unsure = not 400 <= exc.status < 500
                raise
            self.unsure = False
            self._batches.done()
            progressed()


class _Once:
    """The device's outbox, with the input as its store."""

    unsure = False

    def __init__(self, stream: Stream, options: argparse.Namespace, batches: Batches) -> None:
        self._box = Outbox(None, stream, options.producer, in_flight=IN_FLIGHT)
        self._box.store = batches
        self._box.writer = Writer(batches, options.producer, Backoff(random), IN_FLIGHT)
        self._patience = FOREVER if options.retry_for is None else options.retry_for
        self._batches = batches
        self._url = stream.url
        self._error: StreamError | None = None
        self._since = time.monotonic()
        self._count = -1

    def send(self, progressed: Callable[[], None]) -> None:
        """Send for a while; raises the last error when nothing got through for too long."""
        # No new batch after a second, so that what is under way is answered before the flush ends.
        self._batches.until = time.monotonic() + 1
        if not self._batches.records:
            self._since = time.monotonic()
        left = self._since + self._patience - time.monotonic()
        left = self._box.flush(min(30.0, max(left, 0.1)))
        self._error = self._box.error or self._error
        if self._box.writer.sent != self._count:
            self._count = self._box.writer.sent
            self._since = time.monotonic()
            progressed()
        elif left and time.monotonic() - self._since >= self._patience:
            raise self._error or Disconnected("nothing got through", url=self._url)
        elif left:
            time.sleep(0.1)  # the server asked for a pause
