"""Which bytes are text: UTF-8 of RFC 3629, on both interpreters and both ends (protocol section 10).

MicroPython's own strings may hold, and its decoder takes, halves of a surrogate pair, overlong forms and more than
U+10FFFF; CPython's strings may hold halves. JSON can escape a pair in two halves, and MicroPython's `json.loads` leaves
them so. Here the halves of a pair that stand together become the character that they mean, and everything else that is
not UTF-8 is refused where it is met: nothing that one end takes can stop the other.
"""


def strict(data: bytes | bytearray | memoryview) -> bytes:
    """UTF-8 with all pairs joined. ValueError: not UTF-8. Allocates `data` once or twice."""
    data = bytes(data)
    at = data.find(b"\xed")
    while at >= 0:
        if data[at + 1] > 0x9F:
            # U+D800 to U+DBFF, and U+DC00 to U+DFFF behind it
            if data[at + 1] > 0xAF or data[at + 3 : at + 4] != b"\xed" or data[at + 4] < 0xB0:
                raise ValueError("text with half of a surrogate pair")
            high = (data[at + 1] & 15) << 6 | data[at + 2] & 63
            low = (data[at + 4] & 15) << 6 | data[at + 5] & 63
            code = 0x10000 + (high << 10) + low
            pair = bytes((0xF0 | code >> 18, 0x80 | code >> 12 & 63, 0x80 | code >> 6 & 63, 0x80 | code & 63))
            data = data[:at] + pair + data[at + 6 :]
        at = data.find(b"\xed", at + 1)
    if not is_strict(data, 0, len(data)):
        raise ValueError("text that is not UTF-8")
    return data


def encode(text: str) -> bytes:
    """The bytes of a text; ValueError as strict()."""
    raw = text.encode("utf-8", "surrogatepass")
    return strict(raw) if len(raw) > len(text) else raw


def check(data: bytes | bytearray | memoryview) -> None:
    """ValueError when what the interpreter took for UTF-8 is not."""
    if _LAX and not is_strict(data, 0, len(data)):
        raise ValueError("text that is not UTF-8")


try:
    str(b"\xc0\x80", "utf-8")
    _LAX = True  # MicroPython
except UnicodeError:
    _LAX = False


def is_strict(data: bytes | bytearray | memoryview, at: int, end: int) -> bool:
    """Whether what passed for UTF-8 has neither surrogates, nor overlong forms, nor more than U+10FFFF."""
    while at < end:
        byte = data[at]
        at += 1
        if byte >= 0xC0:
            after = data[at]
            if (
                byte < 0xC2
                or byte > 0xF4
                or (byte == 0xE0 and after < 0xA0)
                or (byte == 0xED and after > 0x9F)
                or (byte == 0xF0 and after < 0x90)
                or (byte == 0xF4 and after > 0x8F)
            ):
                return False
    return True
