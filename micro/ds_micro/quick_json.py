"""The values of JSON arrays, many at a time, by the scanner in C of CPython's json. Not for a device.

What `ds_core.client.jsonitems` makes of the same bytes is right, however they are cut: the scanner takes what is whole
and beyond doubt, all else goes the other's way from its first byte on, and so has its values and its errors. That is
a value which is cut, too long, too deep or wrong; one that is cut is searched for its end, and not looked at bytewise.
"""

import json
import re

from ds_core.client import exactjson, jsonitems
from ds_core.client.jsonitems import _AFTER, _FIRST, _NEXT, _OUTSIDE, _SPACE

_scan = json.JSONDecoder().scan_once
_SPACES = re.compile(r"[ \t\r\n]*")
_IN_STRING = re.compile(rb'["\\]')
_IN_BRACKETS = re.compile(rb'["\[\]{}]')
_IN_SCALAR = re.compile(rb'["\[\]{}, \t\r\n]')


class Decoder(jsonitems.Decoder):
    """`feed` a piece, then `many()` until there are none. Not both `next` and `many`."""

    _error = None
    _quick = True  # no run of whole values was taken from this piece yet

    def feed(self, piece):
        """More bytes, of which a copy is kept."""
        super().feed(bytes(piece))
        self._quick = True

    def many(self):
        """A list of all values that end in what was fed; empty: feed more. Raises ValueError where there are none."""
        if self._error:
            raise self._error
        values = []
        try:
            while self._text or self._between():
                if not self._text:
                    if self._quick:
                        self._quick = False
                        self._run(values)
                        continue
                    self._begin()
                if not self._resume():
                    break
                values.append(self._value())
        except (ValueError, RecursionError) as exc:
            if not values:
                raise
            self._error = exc
        return values

    def _between(self):
        """Pass over what is between values; whether one begins here."""
        piece = self._piece
        while self._at < len(piece):
            byte = piece[self._at]
            state = self._state
            if byte in _SPACE:
                pass
            elif state == _OUTSIDE and byte == 91:
                self._state = _FIRST
            elif byte == 93 and state in (_FIRST, _AFTER):
                self._state = _OUTSIDE
            elif byte == 44 and state == _AFTER:
                self._state = _NEXT
            elif state in (_FIRST, _NEXT) and byte not in b",]}":
                return True
            else:
                raise ValueError("not an array of JSON values")
            self._at += 1
        return False

    def _run(self, values):
        """Take whole values of one array, from the one that begins here on."""
        data = self._piece[self._at :]
        try:
            text = data.decode()
        except UnicodeDecodeError as exc:
            text = data[: exc.start].decode()  # cut, or wrong
        narrow = text.isascii()
        limit = self._limit if len(data) > self._limit else 0
        escapes = "\\u" in text
        at = 0
        state = self._state
        while True:
            try:
                value, end = _scan(text, at)
                if escapes and "\\u" in text[at:end]:
                    value = exactjson.loads(text[at:end])
            except StopIteration:
                start = _SPACES.match(text, at).end()
                if start == at:
                    break
                at = start
                continue
            except (ValueError, RecursionError):
                break
            if limit and len(text[at:end].encode()) > limit:
                break
            after = text[end : end + 1]
            if after and after in " \t\r\n":
                end = _SPACES.match(text, end).end()
                after = text[end : end + 1]
            if after == ",":
                state = _NEXT
            elif after == "]":
                state = _OUTSIDE
            else:
                break  # cut within or behind it, or wrong
            values.append(value)
            at = end + 1
            if state == _OUTSIDE:
                break
        self._at += at if narrow else len(text[:at].encode())
        self._state = state

    def _begin(self):
        """A value begins here."""
        byte = self._piece[self._at]
        self._at += 1
        self._text.append(byte)
        self._string = byte == 34
        self._depth = 1 if byte in b"[{" else 0

    def _resume(self):
        """Take more of the value that has begun; whether that is all of it."""
        piece = self._piece
        ended = False
        while not ended and self._at < len(piece):
            at = self._at
            if self._escape:
                self._escape = False
                self._take(at + 1)
                continue
            marks = _IN_STRING if self._string else _IN_BRACKETS if self._depth else _IN_SCALAR
            found = marks.search(piece, at)
            if not found:
                self._take(len(piece))
                break
            end = found.start()
            byte = piece[end]
            if self._string:
                self._escape = byte == 92
                self._string = self._escape
                ended = byte == 34 and not self._depth
            elif not self._depth and (byte in b",]" or byte in _SPACE):
                self._take(end)
                return True
            elif byte == 34:
                self._string = True
            elif byte in b"[{":
                self._depth += 1
            else:
                self._depth -= 1
                ended = not self._depth
            self._take(end + 1)
        return ended

    def _take(self, end):
        if len(self._text) + end - self._at > self._limit:
            raise ValueError("a JSON value over %d bytes" % self._limit)
        self._text += self._piece[self._at : end]
        self._at = end
