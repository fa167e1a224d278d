"""Whether bytes are CBOR data items, and where each ends, without building values (RFC 8949, 5.3.1; RFC 8742).

For servers, on CPython and MicroPython: what an appended body must be, where a fork may cut (protocol
sections 8 and 10). It accepts what `cbor.Decoder` decodes, so that no reader is ever stopped by what a
server let in: the item is well-formed, its text strings are UTF-8, and it is nested no deeper than
`max_depth`. Errors are `cbor.CBORTruncated` when more bytes could make it right, else `cbor.CBORError`.
"""

from ds_core.wire.cbor import CBORError, CBORTruncated
from ds_core.wire.utf8 import check as check_text


def next_end(data: bytes | bytearray | memoryview, start: int = 0, max_depth: int = 32) -> int:
    """Where the item that begins at byte `start` ends. Allocates nothing but a number per open container."""
    size = len(data)
    at = start
    # Of each open array, map or tag, how many items are to come; an indefinite-length one is -1 (array),
    # -2 (map before a key), -3 (map before a value), or its major type - 8 (-6 and -5: string).
    stack: list[int] = []
    while True:
        if at >= size:
            break
        head = at
        byte = data[at]
        at += 1
        major = byte >> 5
        arg = info = byte & 31
        top = stack[-1] if stack else 0
        if info > 27 and (info < 31 or major < 2 or major == 6):
            raise CBORError("byte %d: reserved initial byte 0x%02x" % (head, byte))

        if byte == 0xFF:
            if top >= 0:
                raise CBORError("byte %d: break outside an indefinite item" % head)
            if top == -3:
                raise CBORError("byte %d: break instead of a value" % head)
            stack.pop()
        else:
            if top < -4 and (major - 8 != top or info == 31):
                raise CBORError("byte %d: must be a definite string of major type %d" % (head, top + 8))
            if 23 < info < 28:
                end = at + (1 << info - 24)
                if end > size:
                    break
                arg = int.from_bytes(data[at:end], "big")
                at = end
            if 3 < major < 7 or (1 < major < 4 and info == 31):
                if len(stack) >= max_depth:
                    raise CBORError("byte %d: nesting is limited to %d" % (head, max_depth))
                if info == 31:
                    stack.append(major - 8 if major < 4 else 3 - major)
                    continue
                if major == 6:
                    arg = 1
                elif major == 5:
                    arg *= 2
                if arg:
                    stack.append(arg)
                    continue
            elif major == 7:
                if info == 24 and arg < 32:
                    raise CBORError("byte %d: simple value %d: must be 32..255 here" % (head, arg))
            elif major > 1:
                end = at + arg
                if end > size:
                    break
                if major == 3:
                    try:
                        str(data[at:end], "utf-8")
                        check_text(data[at:end])
                    except ValueError:  # of which UnicodeError is one
                        raise CBORError("byte %d: text is not UTF-8" % head) from None
                at = end

        # An item or a container has ended, which may end the containers around it.
        while stack:
            top = stack[-1]
            if top < 0:
                if -4 < top < -1:
                    stack[-1] = -5 - top
                break
            if top > 1:
                stack[-1] = top - 1
                break
            stack.pop()
        else:
            return at
    raise CBORTruncated("byte %d: the data ends within the item begun at byte %d" % (size, start))


def boundaries(data: bytes | bytearray | memoryview, max_depth: int = 32) -> list[int]:
    """Where each of the items that `data` is ends; [] for no data. Errors as next_end."""
    ends = []
    at = 0
    while at < len(data):
        at = next_end(data, at, max_depth)
        ends.append(at)
    return ends


def check(data: bytes | bytearray | memoryview, max_depth: int = 32) -> int:
    """How many whole items `data` is: no fewer than one, or it raises CBORTruncated."""
    count = at = 0
    while not count or at < len(data):
        at = next_end(data, at, max_depth)
        count += 1
    return count
