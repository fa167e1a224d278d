"""CBOR items, many at a time, by cbor2, which is in machine code. Not for a device.

What `ds_core.wire.cbor` makes of the same bytes is right, however they are cut: cbor2 takes whole items of the usual
kinds, and every other goes the other's way from its first byte on, and so has its value or its error. That is an item
that is cut, too long, nested nearly too deep or wrong; that has equal keys in a map, simple values, maps as keys or
containers in tags. For the two differ there, or may: see the docstring of tests/core/wire/test_cbor_cpython.py.
"""

from io import BytesIO

import cbor2

from ds_core.wire import cbor
from ds_core.wire.cbor import NEED_DATA, Tag
from ds_core.wire.cbor_values import tagged

_PLAIN = frozenset((int, float, str, bytes, bool, type(None)))
_SCALARS = _PLAIN | {Tag}
# The tags that cbor2 has a meaning for; here they have none.
_KNOWN = (*range(6), 25, 28, 29, 30, 35, 36, 37, 100, 256, 258, 260, 261, 1004, 43000, 55799)


class _Odd(Exception):
    """For the other decoder."""


def _tag(number):
    def decode(value, immutable):
        if type(value) not in _PLAIN:
            raise _Odd
        return tagged(number, value)

    return decode


def _other_tag(found, immutable):
    if type(found.value) not in _PLAIN:
        raise _Odd
    return Tag(found.tag, found.value)


_TAGS = {number: _tag(number) for number in _KNOWN}


def _alike(value):
    """Whether both decoders make the same of what cbor2 has made this of, its equal keys aside."""
    kind = type(value)
    if kind is dict:
        try:
            "".join(value)  # the fastest way to see that all keys are text
        except TypeError:
            if not _SCALARS.issuperset(map(type, value)):
                return False
        value = value.values()
    elif kind is not list:
        return kind in _SCALARS
    if not _SCALARS.issuperset(map(type, value)):
        for item in value:
            if not _alike(item):
                return False
    return True


class Decoder(cbor.Decoder):
    """`feed` a piece, then `many()` until there are none. Not both `next` and `many`."""

    _error = None

    def __init__(self, max_depth=32, max_bytes=65536):
        super().__init__(max_depth, max_bytes)
        self._max_bytes = max_bytes
        # Less one tag and one indefinite string, which cbor2 does not count.
        self._max_depth = max_depth - 2

    def many(self):
        """A list of all items that end in what was fed; empty: feed more. Raises CBORError where there are none."""
        if self._error:
            raise self._error
        items = []
        source = None
        try:
            while True:
                if not self.pending and self._at < len(self._piece) and self._max_depth > 0:
                    if source is None:
                        begin = self._at
                        source = BytesIO(self._piece[begin:])
                    source.seek(self._at - begin)
                    self._usual(source, items)
                item = self.next()
                if item is NEED_DATA:
                    break
                items.append(item)
        except cbor.CBORError as exc:
            if not items:
                raise
            self._error = exc
        return items

    def _usual(self, source, items):
        """Take usual items, from the one that begins here on."""
        decode = cbor2.CBORDecoder(
            source,
            tag_hook=_other_tag,
            semantic_decoders=_TAGS,
            read_size=64,  # each item reads again what the last one read ahead
            max_depth=self._max_depth,
            allow_duplicate_keys=False,
        ).decode
        tell = source.tell
        limit = self._max_bytes
        begin = at = tell()
        count = len(items)
        try:
            while True:
                item = decode()
                end = tell()
                if end - at > limit or not _alike(item):
                    break
                items.append(item)
                at = end
        except (cbor2.CBORDecodeError, _Odd, ValueError, TypeError, RecursionError, OverflowError):
            pass
        self.items += len(items) - count
        self.consumed += at - begin
        self._at += at - begin
