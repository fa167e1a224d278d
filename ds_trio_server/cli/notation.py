"""How items are written for people and shells, a line each: JSON, and CBOR as JSON.

CBOR knows more than JSON. What JSON has no word for is written as an object with one or two names that begin with "$",
and `ds append --cbor` reads it back as the same item:

    bytes                        {"$hex":"0aff"}
    a tag                        {"$tag":0,"$value":"2013-03-21T20:04:00Z"}
    undefined, other simples     {"$simple":23}
    NaN and infinities           {"$float":"nan"}     "inf", "-inf"
    a map with other keys        {"$map":[[1,"a"],[2,"b"]]}

A map that has a text key beginning with "$" is written as the last, so nothing is ambiguous.
"""

import json
import math
import re
import sys
from collections.abc import Callable
from itertools import chain
from typing import Any, TypeVar

from ds_core.wire.cbor import Simple, Tag, undefined

T = TypeVar("T")

# A terminal may act on these, and JSON does not escape them.
_CONTROLS = re.compile("[\x7f-\x9f\u2028\u2029]")
_FLOATS = ("nan", "inf", "-inf")


def plain(value: Any) -> Any:
    """A CBOR item as what `json` can write."""
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(value)}
    if isinstance(value, bytes):
        return {"$hex": value.hex()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        if all(isinstance(key, str) and key[:1] != "$" for key in value):
            return {key: plain(item) for key, item in value.items()}
        return {"$map": [[plain(key), plain(item)] for key, item in value.items()]}
    if isinstance(value, Tag):
        return {"$tag": value.tag, "$value": plain(value.value)}
    if value is undefined:
        return {"$simple": 23}
    if isinstance(value, Simple):
        return {"$simple": value.value}
    return value


def item_of(value: Any) -> Any:
    """The CBOR item that `plain` wrote like this. Raises ValueError."""
    if isinstance(value, list):
        return [item_of(item) for item in value]
    if not isinstance(value, dict):
        return value
    names = sorted(value)
    if not names or names[0][:1] != "$":
        return {key: item_of(item) for key, item in value.items()}
    try:
        if names == ["$hex"]:
            return bytes.fromhex(value["$hex"])
        if names == ["$tag", "$value"] and type(value["$tag"]) is int and value["$tag"] >= 0:
            return Tag(value["$tag"], item_of(value["$value"]))
        if names == ["$simple"] and type(value["$simple"]) is int:
            number = value["$simple"]
            return {20: False, 21: True, 22: None, 23: undefined}.get(number, Simple(number))
        if names == ["$float"] and value["$float"] in _FLOATS:
            return float(value["$float"])
        if names == ["$map"]:
            return {_key(item_of(key)): item_of(item) for key, item in value["$map"]}
    except (ValueError, TypeError):
        pass
    raise ValueError(f"{json.dumps(value)[:60]} is none of $hex, $tag with $value, $simple, $float, $map")


def _key(value: Any) -> Any:
    """As a key of a dict: what cannot be one becomes a tuple, as in the decoder."""
    if isinstance(value, list):
        return tuple(_key(item) for item in value)
    if isinstance(value, dict):
        return tuple((_key(key), _key(item)) for key, item in value.items())
    if isinstance(value, Tag):
        return Tag(value.tag, _key(value.value))
    return value


def printable(text: str) -> str:
    """One line that no terminal acts on."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))


_JSON = frozenset((int, float, str, bool, type(None)))
_encode_any = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_encode_finite = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
# All values of a batch are encoded at once, with this string behind each; that one has it itself is told by counting.
_MARK = "\x1e"
_MARKED = _encode_any(_MARK)


def of_any_length(convert: Callable[[Any], T], value: Any) -> T:
    """What a function makes of a value whose integers may have more digits than the interpreter reads and writes
    unless it is told to: how long an item may be has a bound of its own."""
    try:
        return convert(value)
    except ValueError:
        limit = sys.get_int_max_str_digits()
        sys.set_int_max_str_digits(0)
        try:
            return convert(value)
        finally:
            sys.set_int_max_str_digits(limit)


def _encode(value: Any) -> str:
    return of_any_length(_encode_any, value)


def json_lines(values: list[Any], encode: Callable[[Any], str] = _encode) -> bytes:
    """JSON values as UTF-8, each in a line of its own."""
    marked = [_MARK] * (2 * len(values))
    marked[::2] = values
    text = encode(marked)
    if text.count(_MARKED) == len(values):
        text = text[1 : -len(_MARKED) - 2].replace(f",{_MARKED},", "\n") + "\n"
    else:
        text = "".join([encode(value) + "\n" for value in values])
    if not text.isascii() or "\x7f" in text:
        text = _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return text.encode()


def cbor_lines(items: list[Any]) -> bytes:
    """CBOR items as UTF-8, each as JSON in a line of its own."""
    try:
        if _are_json(items):
            return json_lines(items, _encode_finite)
        return json_lines([item if _is_json(item) else plain(item) for item in items], _encode_finite)
    except ValueError:  # a float that is not finite, or an integer of thousands of digits
        return json_lines([plain(item) for item in items])


def _are_json(items: list[Any]) -> bool:
    """Whether all items are JSON because they are maps of text to scalars, as most are; at a fraction of the cost."""
    if set(map(type, items)) != {dict}:
        return False
    try:
        if "$" in "".join(chain.from_iterable(items)):
            return False
    except TypeError:  # a key that is no text
        return False
    return _JSON.issuperset(map(type, chain.from_iterable(map(dict.values, items))))


def _is_json(item: Any) -> bool:
    """Whether JSON has words for all that is in a CBOR item, if all floats are finite."""
    kind = type(item)
    values = item
    if kind is dict:
        try:
            if "$" in "".join(item):
                return False
        except TypeError:  # a key that is no text
            return False
        values = item.values()
    elif kind is not list:
        return kind in _JSON
    return _JSON.issuperset(map(type, values)) or all(map(_is_json, values))
