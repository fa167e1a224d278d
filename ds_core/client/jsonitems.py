"""The values of a top-level JSON array, one by one, as its bytes arrive (protocol section 10).

A scanner finds where each value ends by its brackets and strings; `json.loads` decides whether it is one. Holds
one value's text, at most `max_bytes`.
"""

import json
import sys

from ds_core.wire import utf8

# Whether the interpreter's json reads floats as they are meant.
_EXACT = sys.implementation.name != "micropython"
NEED_DATA = object()

# Where the scanner is, outside of values: outside of arrays, after "[", after ",", after a value. Live, each event
# has an
# array of its own, so another may follow.
_OUTSIDE, _FIRST, _NEXT, _AFTER = range(4)
_SPACE = b" \t\r\n"


class Decoder:
    """`feed` a piece, then `next()` until NEED_DATA. Raises ValueError. `pending` is 0 outside of an array."""

    def __init__(self, max_bytes: int = 65536) -> None:
        self._limit = max_bytes
        self._state = _OUTSIDE
        self._piece: bytes | memoryview = b""
        self._at = 0
        self._text = bytearray()
        self._depth = 0
        self._string = False
        self._escape = False

    @property
    def pending(self) -> int:
        """0 outside of an array: the body may end here."""
        return 0 if self._state == _OUTSIDE else 1

    def feed(self, piece: bytes | memoryview) -> None:
        """More bytes, kept until `next()` is NEED_DATA."""
        self._piece = piece
        self._at = 0

    def next(self) -> object:
        """The next value, or NEED_DATA."""
        piece = self._piece
        text = self._text
        while self._at < len(piece):
            byte = piece[self._at]
            if text:
                # Within a value. A scalar ends before what cannot belong to it.
                ended = False
                if self._string:
                    if self._escape:
                        self._escape = False
                    elif byte == 92:
                        self._escape = True
                    elif byte == 34:
                        self._string = False
                        ended = not self._depth
                elif not self._depth and (byte in b",]" or byte in _SPACE):
                    return self._value()
                elif byte == 34:
                    self._string = True
                elif byte in b"[{":
                    self._depth += 1
                elif byte in b"]}":
                    self._depth -= 1
                    ended = not self._depth
                self._at += 1
                text.append(byte)
                if len(text) > self._limit:
                    raise ValueError("a JSON value over %d bytes" % self._limit)
                if ended:
                    return self._value()
                continue
            self._at += 1
            state = self._state
            if byte in _SPACE:
                pass
            elif state == _OUTSIDE and byte == 91:
                self._state = _FIRST
            elif state == _FIRST and byte == 93 or state == _AFTER and byte == 93:
                self._state = _OUTSIDE
            elif state == _AFTER and byte == 44:
                self._state = _NEXT
            elif state in (_FIRST, _NEXT) and byte not in b",]}":
                text.append(byte)
                self._string = byte == 34
                self._depth = 1 if byte in b"[{" else 0
            else:
                raise ValueError("not an array of JSON values")
        self._piece = b""
        self._at = 0
        return NEED_DATA

    def _value(self) -> object:
        data = self._text
        text = str(data, "utf-8")
        self._text = bytearray()
        self._state = _AFTER
        if len(text) < len(data):
            utf8.check(data)
        try:
            if "\\u" in text or len(text) > 4300 or not _EXACT and ("." in text or "e" in text or "E" in text):
                from ds_core.client import exactjson

                return exactjson.loads(text)
            value: object = json.loads(text)
            return value
        except RuntimeError:  # of which RecursionError is one
            raise ValueError("a JSON value nested too deeply")
