"""CBOR items (RFC 8949) and sequences of them (RFC 8742), for devices: encode, and decode as bytes arrive.

Protocol section 10: the messages of `application/cbor-seq` are whole, well-formed items, back to back.
Servers check and split them with `cbor_check`, which builds no values.

    CBOR                           Python
    integers, bignums (tags 2, 3)  int
    byte / text string             bytes / str           (encode: bytearray and memoryview of bytes too)
    array                          list                  (encode: tuple too)
    map                            dict; of equal keys the last value wins
    float 16/32/64                 float                 (encode: the shortest width that is exact)
    false, true, null              False, True, None
    undefined                      `undefined`
    other simple values, tags      Simple(value), Tag(tag, value)

A map key must be hashable: within a key an array becomes a tuple and a map a tuple of (key, value) pairs,
so that there a map and an array of pairs are equal.
Encoding uses preferred serialization (RFC 8949, 4.1) and a dict's order. Decoding takes every well-formed
item whose text is UTF-8 (MicroPython's own check of UTF-8 is laxer than CPython's); a tag 2 or 3 on
anything but a byte string stays a Tag. Where MicroPython's floats are single precision, a float 64 is rounded.
A peer cannot cause recursion, nor an allocation ahead of the bytes it has sent.
"""

import struct

NO_LIMIT = 1 << 66  # more than any length there is


class CBORError(ValueError):
    """Not CBOR, or beyond a limit. The text says at which byte (from 0) and what would be right."""

    status = 400


class CBORTruncated(CBORError):
    """The data ends within an item, or before it: more of it is needed."""


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


NEED_DATA = object()  # feed more, then ask again


# Encoding


def encode(value: object, max_depth: int = 32) -> bytes:
    """The encoding of `value`. Errors as encode_into."""
    out = bytearray()
    encode_into(out, value, max_depth)
    return bytes(out)


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


def _head(out: bytearray, major: int, n: int) -> None:
    if n < 24:
        out.append(major | n)
        return
    info = 24
    size = 1
    while n >> 8 * size:
        info += 1
        size *= 2
    if size > 8:
        while not n >> 8 * size - 8:
            size -= 1
        out.append(0xC2 + (major >> 5))
        _head(out, 0x40, size)
    else:
        out.append(major | info)
    out.extend(n.to_bytes(size, "big"))


def _encode(out: bytearray, value: object, depth: int) -> None:
    if value is None:
        out.append(0xF6)
    elif value is True or value is False:
        out.append(0xF5 if value else 0xF4)
    elif isinstance(value, int):
        if value < 0:
            _head(out, 0x20, ~value)
        else:
            _head(out, 0, value)
    elif isinstance(value, float):
        _float(out, value)
    elif isinstance(value, (str, bytes, bytearray, memoryview)):
        major = 0x40
        if isinstance(value, str):
            value = value.encode()
            major = 0x60
        size = len(value)
        _head(out, major, size)
        size += len(out)
        out.extend(value)
        if len(out) != size:
            raise TypeError("memoryview must be of bytes")
    elif isinstance(value, Simple):
        size = value.value
        if size >> 8 or 23 < size < 32:
            raise CBORError("simple value %d: must be 0..23 or 32..255" % size)
        _head(out, 0xE0, size)
    else:
        depth -= 1
        if depth < 0:
            raise CBORError("nested deeper than max_depth")
        if isinstance(value, (list, tuple)):
            _head(out, 0x80, len(value))
            for item in value:
                _encode(out, item, depth)
        elif isinstance(value, dict):
            _head(out, 0xA0, len(value))
            for key, item in value.items():
                _encode(out, key, depth)
                _encode(out, item, depth)
        elif isinstance(value, Tag):
            if value.tag >> 64:
                raise CBORError("tag %d: must be 0..2**64-1" % value.tag)
            _head(out, 0xC0, value.tag)
            _encode(out, value.value, depth)
        else:
            raise TypeError("no CBOR for %s" % type(value).__name__)


def _float(out: bytearray, value: float) -> None:
    if value != value:
        out.extend(b"\xf9\x7e\x00")
        return
    try:
        raw = struct.pack(">f", value)
    except OverflowError:  # CPython, where MicroPython packs an infinity
        raw = b"\x7f\x80\0\0"
    # The half by hand, for MicroPython need not know struct's "e". Bits that do not fit are cut off, and
    # missed below.
    bits = int.from_bytes(raw, "big")
    exponent = (bits >> 23 & 0xFF) - 112
    fraction = bits & 0x7FFFFF
    if exponent > 0:
        half = min(exponent, 31) << 10 | fraction >> 13
    else:
        half = (fraction | 0x800000) >> 14 - exponent
    half |= bits >> 16 & 0x8000
    initial = 0xFA
    if _half(half) == value:
        initial = 0xF9
        raw = half.to_bytes(2, "big")
    elif struct.unpack(">f", raw)[0] != value:
        initial = 0xFB
        raw = struct.pack(">d", value)
    out.append(initial)
    out.extend(raw)


# Decoding

_SIMPLE = (False, True, None, undefined)  # from 20
_BREAK = object()
# A frame is an open array (major type 4), map (5), tag (6) or indefinite-length string (2, 3), as a list of:
#   0 its major type
#   1 what was gathered, list or dict; of a tag, its number
#   2 how many values are to come, two for each pair of a map; negative until the break
#   3 a map's key whose value is to come, else _BREAK
#   4 whether it is within a map key, and becomes a tuple


class Decoder:
    """Items out of bytes that arrive in pieces of any size.

        decoder.feed(piece)
        while (item := decoder.next()) is not NEED_DATA: ...

    `items` counts the items handed out, `consumed` their bytes (of all that was fed). Limits: `max_bytes`
    of one item's encoding, `max_depth` of nested arrays, maps, tags and indefinite-length strings,
    `max_entries` of one array (values) or map (pairs). A violation raises CBORError, and ends the decoder.

    Items are built straight from the piece; nothing is copied but the strings handed out. An item that spans
    pieces is kept as values; only a string, number or head that is itself cut is gathered in a bytearray,
    which grows with what arrives, and is then copied once. Each open array, map and tag costs a list of five.
    """

    def __init__(self, max_depth: int = 32, max_bytes: int = 65536, max_entries: int = NO_LIMIT) -> None:
        self.items = self.consumed = 0
        self._piece = memoryview(b"")
        self._at = 0  # within the piece
        self._before = 0  # bytes of all earlier pieces
        self._head = 0  # where the last head began, of all that was fed
        self._part = bytearray()  # the beginning of a cut argument or string
        self._run = self._decode(max_depth, max_bytes, max_entries)

    def feed(self, piece: bytes | bytearray | memoryview) -> None:
        """More bytes. The piece must keep its content until next() is NEED_DATA, and is let go then.

        Feeding before that works, but copies what is left.
        """
        if self._at < len(self._piece):
            piece = bytes(self._piece[self._at :]) + bytes(piece)
        self._load(piece)

    def next(self) -> object:
        """The next item, or NEED_DATA. Raises CBORError."""
        for value in self._run:
            return value
        raise CBORError("ended by an earlier error")

    @property
    def pending(self) -> int:
        """How many bytes were taken in after the last whole item: 0 between items."""
        return self._before + self._at - self.consumed

    def end(self) -> None:
        """There are no more bytes: raises CBORTruncated when that is within an item."""
        if self.pending:
            raise CBORTruncated("the data ends within the item begun at byte %d" % self.consumed)

    def _load(self, piece: bytes | bytearray | memoryview = b"") -> object:
        self._before += self._at
        self._at = 0
        self._piece = memoryview(piece)
        return NEED_DATA

    def _take(self, size: int) -> memoryview | bytearray | None:
        """`size` bytes: a view of the piece, or gathered from several; None until they are all there."""
        at = self._at
        part = self._part
        self._at = end = min(at + size - len(part), len(self._piece))
        view = self._piece[at:end]
        if not part and len(view) == size:
            return view
        part.extend(view)
        if len(part) < size:
            return None
        self._part = bytearray()
        return part

    def _fail(self, text: str) -> None:
        raise CBORError("byte %d: %s" % (self._head, text))

    def _decode(self, max_depth: int, max_bytes: int, max_entries: int):  # type: ignore[no-untyped-def]
        # A generator, because then what is in hand when the bytes run out stays in its local variables.
        fail = self._fail
        stack: list[list] = []  # type: ignore[type-arg]
        while True:
            # The initial byte. No view of the last piece may outlive it.
            raw: bytes | bytearray | memoryview | None = None
            while self._at == len(self._piece):
                yield self._load()
            self._head = self._before + self._at
            byte = self._piece[self._at]
            self._at += 1
            major = byte >> 5
            arg = info = byte & 31
            if info > 27 and (info < 31 or major < 2 or major == 6):
                fail("reserved initial byte 0x%02x" % byte)

            # May it stand here?
            frame = stack[-1] if stack else []
            frozen = False
            entries = 0
            if byte == 0xFF:
                if not frame or frame[2] >= 0:
                    fail("break outside an indefinite item")
                if frame[3] is not _BREAK:
                    fail("break instead of a value")
            elif frame:
                if frame[0] < 4 and (major != frame[0] or info == 31):
                    fail("must be a definite string of major type %d" % frame[0])
                if frame[3] is _BREAK:
                    frozen = frame[0] == 5
                    if frame[2] < 0:
                        entries = len(frame[1]) + 1
                frozen = frozen or frame[4]

            # Its argument; -1 for an indefinite length.
            if info > 30:
                arg = -1
            elif info > 23:
                while (raw := self._take(1 << info - 24)) is None:
                    yield self._load()
                arg = int.from_bytes(raw, "big")
            left = 2 * arg if major == 5 else arg
            if entries > max_entries or (3 < major < 6 and arg > max_entries):
                fail("entries are limited to %d" % max_entries)
            if self.pending + (left if 1 < major < 6 else 0) > max_bytes:
                fail("items are limited to %d bytes" % max_bytes)

            # Its value, or a new frame, to be filled by what follows.
            value: object = arg
            if 3 < major < 7 or (1 < major < 4 and info == 31):
                if len(stack) >= max_depth:
                    fail("nesting is limited to %d" % max_depth)
                stack.append([major, arg if major == 6 else {} if major == 5 else [], left, _BREAK, frozen])
                if left or major == 6:
                    continue
                value = _BREAK
            elif major == 1:
                value = ~arg
            elif major == 7:
                if info == 31:
                    value = _BREAK
                elif info > 25:
                    value = struct.unpack(">f" if info == 26 else ">d", raw or b"")[0]
                elif info == 25:
                    value = _half(arg)
                elif 19 < info < 24:
                    value = _SIMPLE[info - 20]
                elif info == 24 and arg < 32:
                    fail("simple value %d: must be 32..255 here" % arg)
                else:
                    value = Simple(arg)
            elif major:
                while (raw := self._take(arg)) is None:
                    yield self._load()
                if major == 2:
                    value = bytes(raw)
                else:
                    try:
                        value = str(raw, "utf-8")
                    except UnicodeError:
                        fail("text is not UTF-8")

            # A whole value, or the end of the innermost frame: put it where it belongs, which may end more
            # frames.
            while stack:
                major, box, left, key, frozen = frame = stack[-1]
                if value is not _BREAK:
                    if major == 6:
                        stack.pop()
                        if 1 < box < 4 and isinstance(value, bytes):
                            value = int.from_bytes(value, "big")
                            if box == 3:
                                value = ~value
                        else:
                            value = Tag(box, value)
                        continue
                    if major != 5:
                        box.append(value)
                    elif key is _BREAK:
                        frame[3] = value
                    else:
                        box[key] = value
                        frame[3] = _BREAK
                    frame[2] = left - 1
                    if left != 1:
                        break
                stack.pop()
                value = box
                if major == 2:
                    value = b"".join(box)
                elif major == 3:
                    value = "".join(box)
                elif frozen:
                    value = tuple(box.items() if major == 5 else box)
            else:
                self.items += 1
                self.consumed = self._before + self._at
                yield value


def _half(bits: int) -> float:
    fraction = bits & 0x3FF
    exponent = bits >> 10 & 31
    if exponent == 31:
        value = float("nan") if fraction else float("inf")
    elif exponent:
        value = ((fraction | 0x400) << exponent) / 33554432
    else:
        value = fraction / 16777216
    return -value if bits & 0x8000 else value


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
