"""The part of `ds_core.wire.cbor` that is loaded when it is first met: rare values, errors, whole data."""

from ds_core.wire.cbor import NEED_DATA, CBORError, Decoder, _encode, _head


class CBORTruncated(CBORError):
    """The data ends within an item, or before it: more of it is needed."""


NO_LIMIT = 1 << 66  # more than any length there is

# What is wrong with the item whose head begins at a byte.
TEXTS = {
    "reserved": "reserved initial byte 0x%02x",
    "break": "break outside an indefinite item",
    "value": "break instead of a value",
    "string": "must be a definite string of major type %d",
    "ended": "ended by an earlier error",
    "bytes": "items are limited to %d bytes",
    "depth": "nesting is limited to %d",
    "simple": "simple value %d: must be 32..255 here",
    "text": "text is not UTF-8",
}


class Tag:
    """A tagged item, RFC 8949 section 3.4: `tag` is 0..2**64-1, `value` any value this module handles."""

    def __init__(self, tag: int, value: object) -> None:
        self.tag = tag
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tag) and other.tag == self.tag and other.value == self.value

    def __hash__(self) -> int:
        return hash((self.tag, self.value))

    def __repr__(self) -> str:
        return "Tag(%r, %r)" % (self.tag, self.value)


class Simple:
    """A simple value without a meaning of its own, RFC 8949 section 3.3: `value` is 0..19 or 32..255."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Simple) and other.value == self.value

    def __hash__(self) -> int:
        return self.value

    def __repr__(self) -> str:
        return "undefined" if self.value == 23 else "Simple(%r)" % self.value


undefined = Simple(23)


def truncated(at: int) -> None:
    """Raise CBORTruncated for the item that begins at byte `at`."""
    raise CBORTruncated("the data ends within the item begun at byte %d" % at)


def encode_into(out: bytearray, value: object, max_depth: int = 32) -> None:
    """Append the encoding of `value` to `out`, which is left as it was when this raises.

    TypeError: a type that CBOR has no item for here. CBORError: nested deeper than `max_depth` (a list that
    contains itself, say), a tag or simple value out of range. UnicodeError: text with lone surrogates.
    Allocates what `out` grows by and a copy of each text; `out[:] = b""` empties it and, on MicroPython,
    keeps its memory, so that one bytearray serves for ever.
    """
    start = len(out)
    try:
        _encode(out, value, max_depth)
    except Exception:
        out[start:] = b""
        raise


def simple(value: int) -> Simple:
    """What a simple value without a meaning of its own becomes."""
    return undefined if value == 23 else Simple(value)


def tagged(tag: int, value: object) -> object:
    """What a tagged item becomes."""
    if 1 < tag < 4 and isinstance(value, bytes):
        number = int.from_bytes(value, "big")
        return ~number if tag == 3 else number
    return Tag(tag, value)


def encode_bignum(out: bytearray, major: int, n: int) -> None:
    """An integer of more than 64 bits; `major` 0, or 0x20 for -1 - n."""
    size = 9
    while n >> 8 * size:
        size += 1
    out.append(0xC2 + (major >> 5))
    _head(out, 0x40, size)
    out.extend(n.to_bytes(size, "big"))


def encode_other(out: bytearray, value: object, depth: int) -> None:
    """A value that is not one of JSON's, or is too deep."""
    if isinstance(value, Simple):
        number = value.value
        if number >> 8 or 23 < number < 32:
            raise CBORError("simple value %d: must be 0..23 or 32..255" % number)
        _head(out, 0xE0, number)
    elif isinstance(value, (bytearray, memoryview)):
        size = len(value)
        _head(out, 0x40, size)
        size += len(out)
        out.extend(value)
        if len(out) != size:
            raise TypeError("memoryview must be of bytes")
    elif isinstance(value, (list, tuple, dict, Tag)) and not depth:
        raise CBORError("nested deeper than max_depth")
    elif isinstance(value, Tag):
        if value.tag >> 64:
            raise CBORError("tag %d: must be 0..2**64-1" % value.tag)
        _head(out, 0xC0, value.tag)
        _encode(out, value.value, depth - 1)
    else:
        raise TypeError("no CBOR for %s" % type(value).__name__)


def decode(data: bytes | bytearray | memoryview, max_depth: int = 32) -> object:
    """The value of the one item that `data` is. CBORTruncated when it ends early, CBORError when it goes
    on.
    """
    decoder = Decoder(max_depth, NO_LIMIT)
    decoder.feed(data)
    value = decoder.next()
    decoder.end()
    if not 0 < decoder.consumed == len(data):
        raise (CBORError if data else CBORTruncated)("byte %d: must be one item, ending here" % decoder.consumed)
    return value


def items(data: bytes | bytearray | memoryview, max_depth: int = 32):  # type: ignore[no-untyped-def]
    """The values of the items that `data` is, one by one. CBORTruncated when it ends within one."""
    decoder = Decoder(max_depth, NO_LIMIT)
    decoder.feed(data)
    while (value := decoder.next()) is not NEED_DATA:
        yield value
    decoder.end()
