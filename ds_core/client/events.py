"""A reader's answer as server-sent events: data, then a control event with the offset after it (protocol section 6)."""

import json

from ds_core.client.errors import BadResponse
from ds_core.wire import sse

_PART = 512  # data is taken in parts of this size, so that a device never holds a whole batch


class Events:
    """Stands between the body and the decoder of `reader`: `feed`, then `next` until NEED_DATA."""

    def __init__(self, reader, base64: bool, need_data):
        self._reader = reader
        self._need = need_data
        self._base64 = base64
        self._parser = sse.Parser(_PART, partial=True)
        self._rest = b""
        self._control = b""
        self._busy = False  # the decoder has data

    def feed(self, piece) -> None:
        self._parser.feed(piece)

    def next(self):
        reader = self._reader
        while True:
            if self._busy:
                item = reader.item()
                if item is not self._need:
                    return item
                self._busy = False
            try:
                found = self._parser.next()
                if found is sse.NEED_DATA:
                    return self._need
                name, data = found
                if name == "control":
                    self._control += bytes(data)
                    if len(self._control) > 4096:
                        raise ValueError("control event over 4096 bytes")
                    if not self._parser.more:
                        self._advance(json.loads(str(self._control, "utf-8")))
                elif name == "data":
                    data = bytes(data)
                    if self._base64:
                        data, self._rest = sse.decode_base64(data, self._rest)
                    reader.feed_decoder(data)
                    self._busy = True
            except BadResponse:
                raise
            except (ValueError, KeyError, TypeError) as exc:
                raise BadResponse("bad event: %s" % exc)

    def _advance(self, control):
        if self._rest:
            raise ValueError("base64 of odd length")
        self._control = b""
        self._reader.control(
            control["streamNextOffset"],
            control.get("streamCursor"),
            control.get("upToDate"),
            control.get("streamClosed"),
        )
