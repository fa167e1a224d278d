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
anything but a byte string stays a Tag. Where MicroPython's floats are single precision, a float 64 that they do not
have becomes an int if it is whole (a time in seconds; all beyond their range are), and else is rounded.
A peer cannot cause recursion, nor an allocation ahead of the bytes it has sent.

What sensors seldom send (Tag, Simple, undefined, bignums), what is said of errors, and `decode` and `items`, which take
whole data, are in `cbor_values`, loaded when one of them is first met; their names work here too.
"""

import struct


class CBORError(ValueError):
    """Not CBOR, or beyond a limit. The text says at which byte (from 0) and what would be right."""

    status = 400


NEED_DATA = object()  # feed more, then ask again


def __getattr__(name: str):  # type: ignore[no-untyped-def]
    from ds_core.wire import cbor_values

    return getattr(cbor_values, name)


# Encoding


def encode(value: object, max_depth: int = 32) -> bytes:
    """The encoding of `value`. Errors as encode_into."""
    out = bytearray()
    _encode(out, value, max_depth)
    return bytes(out)


def _head(out: bytearray, major: int, n: int) -> None:
    if n < 24:
        out.append(major | n)
    elif n >> 64:
        __getattr__("encode_bignum")(out, major, n)
    else:
        size = 1
        major |= 24
        while n >> 8 * size:
            major += 1
            size *= 2
        out.append(major)
        out.extend(n.to_bytes(size, "big"))


def _encode(out: bytearray, value: object, depth: int) -> None:
    if value is None:
        out.append(0xF6)
    elif isinstance(value, bool):
        out.append(0xF5 if value else 0xF4)
    elif isinstance(value, int):
        if value < 0:
            _head(out, 0x20, ~value)
        else:
            _head(out, 0, value)
    elif isinstance(value, float):
        _float(out, value)
    elif isinstance(value, (str, bytes)):
        major = 0x40
        if isinstance(value, str):
            text = value
            value = text.encode("utf-8", "surrogatepass")
            if len(value) > len(text):
                value = bytes(__getattr__("strict")(value))
            major = 0x60
        _head(out, major, len(value))
        out.extend(value)
    elif depth and isinstance(value, (list, tuple)):
        _head(out, 0x80, len(value))
        for item in value:
            _encode(out, item, depth - 1)
    elif depth and isinstance(value, dict):
        _head(out, 0xA0, len(value))
        for key, item in value.items():
            _encode(out, key, depth - 1)
            _encode(out, item, depth - 1)
    else:
        __getattr__("encode_other")(out, value, depth)


def _float(out: bytearray, value: float) -> None:
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
    if value != value:
        half = 0x7E00
    initial = 0xFA
    if value != value or _half(half) == value:
        initial = 0xF9
        raw = half.to_bytes(2, "big")
    elif struct.unpack(">f", raw)[0] != value:
        initial = 0xFB
        raw = struct.pack(">d", value)
    out.append(initial)
    out.extend(raw)


# Decoding

_SINGLE = 1.0 + 2.0**-30 == 1.0  # this interpreter's floats are single precision
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
    of one item's encoding, and so of all that is in it; `max_depth` of nested arrays, maps, tags and
    indefinite-length strings. A violation raises CBORError, and ends the decoder.

    Items are built straight from the piece; nothing is copied but the strings handed out. An item that spans
    pieces is kept as values; only a string, number or head that is itself cut is gathered in a bytearray,
    which grows with what arrives, and is then copied once. Each open array, map and tag costs a list of five.
    """

    def __init__(self, max_depth: int = 32, max_bytes: int = 65536) -> None:
        self.items = self.consumed = 0
        self._piece = memoryview(b"")
        self._at = 0  # within the piece
        self._before = 0  # bytes of all earlier pieces
        self._head = 0  # where the last head began, of all that was fed
        self._part = bytearray()  # the beginning of a cut argument or string
        self._run = self._decode(max_depth, max_bytes)

    def feed(self, piece: bytes | bytearray | memoryview) -> None:
        """More bytes. The piece must keep its content until next() is NEED_DATA, and is let go then.

        Feeding before that works, but copies what is left.
        """
        if self._at < len(self._piece):
            piece = bytes(self._piece[self._at :]) + bytes(piece)
        self._before += self._at
        self._at = 0
        self._piece = memoryview(piece)

    def next(self) -> object:
        """The next item, or NEED_DATA. Raises CBORError."""
        for value in self._run:
            if value is NEED_DATA:
                self.feed(b"")
            return value
        return self._fail("ended")

    @property
    def pending(self) -> int:
        """How many bytes were taken in after the last whole item: 0 between items."""
        return self._before + self._at - self.consumed

    def end(self) -> None:
        """There are no more bytes: raises CBORTruncated when that is within an item."""
        if self.pending:
            __getattr__("truncated")(self.consumed)

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

    def _fail(self, what: str, value: object = ()) -> object:
        raise CBORError("byte %d: " % self._head + __getattr__("TEXTS")[what] % value)

    def _decode(self, max_depth: int, max_bytes: int):  # type: ignore[no-untyped-def]
        # A generator, because then what is in hand when the bytes run out stays in its local variables.
        fail = self._fail
        stack: list[list] = []  # type: ignore[type-arg]
        while True:
            # The initial byte. No view of the last piece may outlive it.
            raw: bytes | bytearray | memoryview | None = None
            while self._at == len(self._piece):
                yield NEED_DATA
            self._head = self._before + self._at
            byte = self._piece[self._at]
            self._at += 1
            major = byte >> 5
            arg = info = byte & 31

            # May it stand here?
            frame = stack[-1] if stack else []
            frozen = False
            if info > 27 or frame and frame[0] < 4:
                __getattr__("check_place")(fail, byte, frame, _BREAK)
            if frame:
                frozen = frame[4] or frame[0] == 5 and frame[3] is _BREAK

            # Its argument; -1 for an indefinite length.
            if info > 30:
                arg = -1
            elif info > 23:
                while (raw := self._take(1 << info - 24)) is None:
                    yield NEED_DATA
                arg = int.from_bytes(raw, "big")
            left = 2 * arg if major == 5 else arg
            if self.pending + (left if 1 < major < 6 else 0) > max_bytes:
                fail("bytes", max_bytes)

            # Its value, or a new frame, to be filled by what follows.
            value: object = arg
            if 3 < major < 7 or (1 < major < 4 and info == 31):
                if len(stack) >= max_depth:
                    fail("depth", max_depth)
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
                    if _SINGLE and info > 26:
                        value = __getattr__("double")(arg, value)
                elif info == 25:
                    value = _half(arg)
                elif 19 < info < 23:
                    value = (False, True, None)[info - 20]
                else:
                    value = __getattr__("simple")(arg, info, fail)
            elif major:
                while (raw := self._take(arg)) is None:
                    yield NEED_DATA
                if major == 2:
                    value = bytes(raw)
                else:
                    try:
                        value = str(raw, "utf-8")
                        if len(value) < arg:
                            __getattr__("check_text")(raw)
                    except ValueError:  # of which UnicodeError is one
                        fail("text")

            # A whole value, or the end of the innermost frame: put it where it belongs, which may end more
            # frames.
            while stack:
                major, box, left, key, frozen = frame = stack[-1]
                if value is not _BREAK:
                    if major == 6:
                        stack.pop()
                        value = __getattr__("tagged")(box, value)
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
                if frozen or major < 4:
                    value = __getattr__("closed")(major, box)
            else:
                self.items += 1
                self.consumed = self._before + self._at
                yield value


def _half(bits: int) -> float:
    fraction = bits & 0x3FF
    exponent = bits >> 10 & 31
    if exponent == 31:
        value = float("nan" if fraction else "inf")
    elif exponent:
        value = ((fraction | 0x400) << exponent) / 33554432
    else:
        value = fraction / 16777216
    return -value if bits & 0x8000 else value
