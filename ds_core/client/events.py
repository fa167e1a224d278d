"""A reader's answer as server-sent events: data, then a control event with the offset after it (protocol section 6)."""

import json

from ds_core.client.errors import BadResponse
from ds_core.client.reader import CATCH_UP, LIVE, OVER, kind_of
from ds_core.wire import sse

_PART = 512  # data is taken in parts of this size, so that a device never holds a whole batch


def check(live: str) -> None:
    """Refuse what is neither None nor "long-poll" nor of ours."""
    if live not in ("sse", "auto"):
        raise ValueError("live: long-poll, sse or auto")


def choose(content_type: str) -> str:
    """What live="auto" means for a stream: events for what they carry as it is."""
    text = content_type[:5] == "text/" or kind_of(content_type) == "json"
    return "sse" if text else "long-poll"


class Events:
    """A part of Reader, between the body and its decoder: `feed`, then `next` until NEED_DATA."""

    def __init__(self, reader, headers: dict[str, str], need_data: object) -> None:  # type: ignore[no-untyped-def]
        content_type = headers.get("content-type", "")
        if content_type[:17] != "text/event-stream":
            raise BadResponse("asked for events, got " + content_type)
        self._reader = reader
        self._need = need_data
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
                if item is not self._need:
                    return item
                self._busy = False
            try:
                found: tuple[str, memoryview] = self._parser.next()  # type: ignore[assignment]
                if found is sse.NEED_DATA:
                    return self._need
                name, part = found
                if name == "control":
                    self._control += bytes(part)
                    if len(self._control) > 4096:
                        raise ValueError("control event over 4096 bytes")
                    if not self._parser.more:
                        self._advance(json.loads(str(self._control, "utf-8")))
                elif name == "data":
                    data = bytes(part)
                    if self._base64:
                        data, self._rest = sse.decode_base64(data, self._rest)
                    reader._decoder.feed(data)
                    self._busy = True
            except BadResponse:
                raise
            except (ValueError, KeyError, TypeError, AttributeError) as exc:
                raise BadResponse("bad event: %s" % exc)

    def _advance(self, control: dict[str, str]) -> None:
        if self._rest:
            raise ValueError("base64 of odd length")
        self._control = b""
        reader = self._reader
        reader._cursor = control.get("streamCursor") or reader._cursor
        reader._next = control["streamNextOffset"]
        reader._end = OVER if control.get("streamClosed") else LIVE if control.get("upToDate") else CATCH_UP
        reader.end()
        reader._next = None
