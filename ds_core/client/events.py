"""A reader's answer as server-sent events: data, then a control event with the offset after it (protocol section 6)."""

import json

from ds_core.client.errors import BadResponse
from ds_core.client.reader import CATCH_UP, LIVE, NEED_DATA, OVER
from ds_core.wire import sse
from ds_core.wire.kinds import kind_of

_PART = 512  # data is taken in parts of this size, so that a device never holds a whole batch


def check(live: str) -> None:
    """Refuse what is neither None nor "long-poll" nor of ours."""
    if live not in ("sse", "auto"):
        raise ValueError("live: long-poll, sse or auto")


def arrange(reader, headers: dict[str, str], status: int) -> "tuple[str, Events | None]":  # type: ignore[no-untyped-def]
    """An answer began: the stream's content type, and what reads the answer if it is of events.

    Decides what "auto" is: events, for what they carry as it is.
    """
    content_type: str = headers.get("content-type", "")
    if reader.state == LIVE and reader._live == "sse":
        reader._next = None
        return reader._type, Events(reader, headers)
    if status == 200 and reader._live == "auto":
        text = content_type[:5] == "text/" or kind_of(content_type) == "json"
        reader._live = "sse" if text else "long-poll"
    return content_type, None


class Events:
    """A part of Reader, between the body and its decoder: `feed`, then `next` until NEED_DATA."""

    def __init__(self, reader, headers: dict[str, str]) -> None:  # type: ignore[no-untyped-def]
        content_type = headers.get("content-type", "")
        if content_type[:17] != "text/event-stream":
            raise BadResponse("asked for events, got " + content_type)
        self._reader = reader
        self._base64 = headers.get("stream-sse-data-encoding") == "base64"
        self._parser = sse.Parser(_PART, partial=True)
        self._rest = b""
        self._control = b""
        self._busy = False  # the decoder has data

    def feed(self, piece: bytes | memoryview) -> None:
        """Bytes of the body."""
        self._parser.feed(piece)

    def next(self) -> object:
        """The next item of the events so far, or NEED_DATA. Raises BadResponse."""
        reader = self._reader
        while True:
            if self._busy:
                item = reader.next(True)
                if item is not NEED_DATA:
                    return item
                self._busy = False
            try:
                found: tuple[str, memoryview] = self._parser.next()  # type: ignore[assignment]
                if found is sse.NEED_DATA:
                    return NEED_DATA
                name, part = found
                if name == "control":
                    self._control += bytes(part)
                    if len(self._control) > 4096:
                        raise ValueError("control event over 4096 bytes")
                    if not self._parser.more:
                        mark = self._advance(json.loads(str(self._control, "utf-8")))
                        if mark is not None:
                            return mark
                elif name == "data":
                    data = bytes(part)
                    if self._base64:
                        data, self._rest = sse.decode_base64(data, self._rest)
                    reader._decoder.feed(data)
                    self._busy = True
            except BadResponse:
                raise
            except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as exc:  # (nested too deeply)
                raise BadResponse("bad event: %s" % exc)

    def _advance(self, control: dict[str, str]) -> object:
        if self._rest:
            raise ValueError("base64 of odd length")
        self._control = b""
        reader = self._reader
        reader._cursor = control.get("streamCursor") or reader._cursor
        reader._next = control["streamNextOffset"]
        if min(reader._next) < "'":
            raise ValueError("no good streamNextOffset")
        reader._end = OVER if control.get("streamClosed") else LIVE if control.get("upToDate") else CATCH_UP
        mark: object = reader.end()
        reader._next = None
        return mark
