"""The fast parsers that the server lends to the core: msgspec for JSON, cbor2 for CBOR.

msgspec is optional; without it the core's own splitter does the work. cbor2 is asked for
well-formedness only: every tag it would interpret is read as a plain tag, so that no client can
make it compile a pattern or build a number of a million digits, and a tag with odd content is not
an error, because RFC 8949 section 5.3 leaves validity to the application.
"""

import os
import re
from typing import Any

import cbor2

from ds_core.server import json_text
from ds_core.server.messages import Parsers
from ds_core.wire import media

try:
    import msgspec
except ImportError:  # the extra "speed" is not installed
    msgspec = None  # type: ignore[assignment]

MAX_DEPTH = 32
"""Deepest nesting of CBOR items accepted: what the core's own check and the devices' decoder take."""
MAX_MESSAGES = 500_000
"""Most JSON messages in one append: what its split list may cost in memory."""

_AMPLE = 256 * 1024 * 1024
_CONTAINERS = bytes(range(0x80, 0xC0))
_NO_CONTAINER = bytes(set(range(256)) - set(_CONTAINERS))
_BRIEF = 16 * 1024
_SENTINEL = int.from_bytes(os.urandom(8), "big") | 1 << 63
_END = b"\x1b" + _SENTINEL.to_bytes(8, "big") + b"\xff"


def _plain(value: Any, immutable: bool) -> Any:
    return 0


# Every tag that cbor2 has a decoder for.
_TAGS = dict.fromkeys(
    (*range(6), 25, 28, 29, 30, 35, 36, 37, 100, 256, 258, 260, 261, 1004, 43000, 55799), _plain
)


def _deeper(body: bytes, limit: int) -> bool:
    """Whether JSON, known to be well-formed, is nested deeper than `limit`."""
    if body.count(b"[") + body.count(b"{") <= limit:
        return False
    brackets = _STRING.sub(b"", body).translate(_AS_SQUARE, _NO_BRACKET)
    for _ in range(limit):
        brackets = brackets.replace(b"[]", b"")  # every pass takes the innermost level
        if not brackets:
            return False
    return True


_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_AS_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))


class FastParsers(Parsers):
    """`Parsers` at C speed, with memory in proportion to the body whatever it holds."""

    def split_json(self, body: bytes) -> list[bytes]:
        if msgspec is None or body.count(b",") >= MAX_MESSAGES:
            return json_text.split(body, MAX_MESSAGES)
        try:
            # msgspec looks into strings only for their ends; this refuses what is not UTF-8.
            body.decode()
            if body.lstrip(b" \t\n\r")[:1] == b"[":
                found = list(map(bytes, _ARRAY.decode(body)))
                deep = _deeper(body, json_text.MAX_DEPTH + 1)
            else:
                found = [bytes(_VALUE.decode(body))]
                deep = _deeper(body, json_text.MAX_DEPTH)
            return json_text.split(body, MAX_MESSAGES) if deep else found
        except (ValueError, RecursionError):
            # Its own words don't say where; the core's splitter does, or knows better.
            return json_text.split(body, MAX_MESSAGES)

    def check_cbor(self, body: bytes) -> None:
        # An empty container is one byte on the wire and sixty in memory: what could add up to too
        # much is checked by the slow scanner that builds nothing.
        if 64 * len(body.translate(None, _NO_CONTAINER)) + 40 * len(body) > _AMPLE:
            super().check_cbor(body)
            return
        try:
            # One call checks the whole sequence as an array. A stray break in the body would end
            # the array early, so the last item must be one that no client can know. Keys that are
            # arrays can be made to collide, at a cost that grows with the square of their number: in
            # longer bodies only strings, whose hashes nobody can know, are keys of the fast way.
            items = cbor2.loads(
                b"\x9f" + body + _END,
                max_depth=MAX_DEPTH + 1,
                semantic_decoders=_TAGS,
                strict_hashable_types=len(body) > _BRIEF,
            )
            if len(items) > 1 and items[-1] == _SENTINEL:
                return
        except (cbor2.CBORDecodeError, ValueError, TypeError, RecursionError, OverflowError):
            pass
        super().check_cbor(body)  # names the byte; or knows better, and then its word counts


if msgspec is not None:
    _ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
    _VALUE = msgspec.json.Decoder(msgspec.Raw)


class Parsed(Parsers):
    """The outcome of parsing one body ahead of time: `parse` may run in a thread."""

    def __init__(self, parsers: Parsers) -> None:
        self._parsers = parsers
        self._messages: list[bytes] = []
        self._error: ValueError | None = None

    def parse(self, kind: int, body: bytes) -> None:
        """Parse a body as that kind of stream would; the error, if any, waits until it is asked."""
        try:
            if kind == media.JSON:
                self._messages = self._parsers.split_json(body)
            elif kind == media.CBOR:
                self._parsers.check_cbor(body)
        except ValueError as error:
            self._error = error

    def split_json(self, body: bytes) -> list[bytes]:
        if self._error is not None:
            raise self._error
        return self._messages

    def check_cbor(self, body: bytes) -> None:
        if self._error is not None:
            raise self._error
