"""JSON text and values, exactly, where the interpreter's own `json` is not exact, or takes no integer that is so long;
loaded when that may matter.

MicroPython's prints a float with fewer digits than tell it apart, reads one some units in the last place off, and
leaves the halves of an escaped surrogate pair as they are (ds_core.wire.utf8). Here numbers go through integers, in
both directions; of several texts that mean a float, one of the shortest is written. Where floats are single precision
and a number is whole but has no exact float, it becomes an int: no time is rounded, and nothing becomes infinite.
"""

import json
import struct
import sys

from ds_core.wire import utf8

_SINGLE = 1.0 + 1.0 / (1 << 30) == 1.0
# Of this interpreter's floats: struct's letter, bits, bits of the fraction, the exponent's bias, fewest sure digits.
_KIND = (">f", 32, 23, 127, 6) if _SINGLE else (">d", 64, 52, 1023, 15)


def loads(text: str) -> object:
    """The value of a JSON text; ValueError, also for text that is not UTF-8."""
    if sys.implementation.name != "micropython":
        return _restored(json.loads(text, parse_int=_integer), "")
    text, mark = _marked(text)
    return _restored(json.loads(text), mark)


def _integer(text: str) -> int:
    """An integer of any length. (CPython's own takes at most 4,300 digits, and less where somebody says so.)"""
    if len(text) < 600:
        return int(text)
    half = len(text) // 2
    above = _integer(text[:-half])
    below = _integer(text[-half:])
    shift: int = 10**half
    return above * shift + (-below if text[0] == "-" else below)


def _digits(value: int) -> str:
    """The decimal text of an integer of any length; str() of CPython has the limits of int()."""
    if -1 << 2000 < value < 1 << 2000:
        return str(value)
    if value < 0:
        return "-" + _digits(-value)
    half = _length(value) * 301 // 2000
    shift: int = 10**half
    below = _digits(value % shift)
    return _digits(value // shift) + "0" * (half - len(below)) + below


def dumps(value: object) -> str:
    """The JSON text of a value; TypeError (a key that is no string, a set, bytes, ...), ValueError."""
    if isinstance(value, float):
        return text_of(value)
    if isinstance(value, (list, tuple)):
        return "[" + ",".join([dumps(item) for item in value]) + "]"
    if isinstance(value, dict):
        return "{" + ",".join([_text(_key(key)) + ":" + dumps(value[key]) for key in value]) + "}"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return _digits(value)
    if value is not None and not isinstance(value, bool):
        raise TypeError("JSON has no %s" % type(value).__name__)
    return json.dumps(value)


def _key(key: object) -> object:
    if not isinstance(key, str):
        raise TypeError("a JSON object's keys are strings: %r is none" % (key,))
    return key


def _text(value: object) -> str:
    # With the characters themselves on CPython as well, so that halves of pairs show.
    return json.dumps(value) if sys.implementation.name == "micropython" else json.dumps(value, ensure_ascii=False)


def text_of(value: float) -> str:
    """A decimal text that means this float and no other. ValueError: infinite, or not a number."""
    letter, _, size, bias, digits = _KIND
    raw = int.from_bytes(struct.pack(letter, value), "big")
    exponent = raw >> size & 2 * bias + 1
    if exponent > 2 * bias:
        raise ValueError("not a JSON number: " + str(value))
    text = str(value)
    if float_of(text) == value:
        return text
    fraction = raw & (1 << size) - 1
    if exponent:
        fraction |= 1 << size
    exponent = max(exponent, 1) - bias - size
    above, below = (fraction << exponent, 1) if exponent > 0 else (fraction, 1 << -exponent)
    while True:
        # above / below, with so many digits: an integer, times ten to the power of -shift
        shift = digits - (_length(above) - _length(below)) * 301 // 1000
        while True:
            whole, part = above, below
            if shift > 0:
                whole *= 10**shift
            else:
                part *= 10**-shift
            found = str((2 * whole + part) // (2 * part))
            if len(found) <= digits:
                break
            shift -= 1
        text = "%s%s.%se%d" % ("-" if value < 0 else "", found[0], found[1:] or "0", len(found) - 1 - shift)
        if float_of(text) == value:
            return text
        digits += 1


def float_of(text: str) -> "float | int":
    """What a decimal text means: the nearest float there is, or an int (see above). ValueError."""
    letter, bits, size, bias, _ = _KIND
    negative = text[0] == "-"
    mantissa, _, power = text.lower().partition("e")
    whole, _, part = mantissa.partition(".")
    digits = whole.replace("-", "") + part
    above = int(digits)
    exponent = int(power or "0") - len(part)
    if not above or exponent + len(digits) < -400:
        return -0.0 if negative else 0.0
    if exponent + len(digits) > 400:
        return float("-inf" if negative else "inf")
    below = 1
    if exponent > 0:
        above *= 10**exponent
    else:
        below = 10**-exponent
    scale = max(_length(above) - _length(below) - size - 1, 1 - bias - size)
    while True:
        top = above << max(0, -scale)
        bottom = below << max(0, scale)
        found = top // bottom
        if not found >> size + 1:
            break
        scale += 1
    rest = 2 * (top - found * bottom)
    if rest > bottom or rest == bottom and found & 1:
        found += 1
        if found >> size + 1:
            found >>= 1
            scale += 1
    exponent = scale + bias + size if found >> size else 0
    if _SINGLE and exponent and above % below == 0 and (exponent > 2 * bias or rest):
        return -(above // below) if negative else above // below
    if exponent > 2 * bias:
        return float("-inf" if negative else "inf")
    raw = (negative << bits - 1) + (exponent << size) + (found & (1 << size) - 1)
    value: float = struct.unpack(letter, raw.to_bytes(bits // 8, "big"))[0]
    return value


def _length(number: int) -> int:
    """Its bits."""
    return len(bin(number)) - 2


def _marked(text: str) -> "tuple[str, str]":
    """The text with each number that has a point or an exponent as a string that begins with a mark; and the mark."""
    for mark in "~^`|$%@#":
        if mark not in text and "\\u00%02x" % ord(mark) not in text.lower():
            break
    else:
        return text, ""
    out = []
    at = 0
    size = len(text)
    while at < size:
        start = at
        char = text[at]
        at += 1
        if char == '"':
            while text[at : at + 1] not in ('"', ""):
                at += 2 if text[at] == "\\" else 1
            at += 1
        elif char in "-0123456789":
            while at < size and text[at] in "+-.eE0123456789":
                at += 1
            token = text[start:at]
            if "." in token or "e" in token.lower():
                out.append('"' + mark + token + '"')
                continue
        out.append(text[start:at])
    return "".join(out), mark


def _restored(value: object, mark: str) -> object:
    if isinstance(value, str):
        if mark and value[:1] == mark:
            return float_of(value[1:])
        return utf8.encode(value).decode()
    if isinstance(value, list):
        for i in range(len(value)):
            value[i] = _restored(value[i], mark)
    elif isinstance(value, dict):
        return {_restored(key, ""): _restored(value[key], mark) for key in value}
    return value
