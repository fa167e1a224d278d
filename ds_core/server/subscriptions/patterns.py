"""Which streams a subscription's pattern matches (protocol section 9).

It matches whole segments: `*` is exactly one and `**` any number of them. Anything else is literal, a star inside a
longer segment too; `%2A` in a segment stands for a literal `*`.
"""

from ds_core.wire import names

from ..errors import bad_request
from ..targets import MAX_PATH, percent_decode

ONE = 1
MANY = 2


def parse(text: str) -> "tuple[int | str, ...]":
    """A pattern's segments: ONE, MANY, or the text of one. ProtocolError 400 for what could match nothing."""
    if len(text) > MAX_PATH:
        raise bad_request("a pattern has at most %d bytes" % MAX_PATH)
    parts: "list[int | str]" = []
    for segment in text.split("/"):
        if segment == "*":
            parts.append(ONE)
        elif segment == "**":
            if not parts or parts[-1] != MANY:  # two of them in a row are one
                parts.append(MANY)
        else:
            segment = percent_decode(segment, "pattern")
            if segment in ("", ".", ".."):
                raise bad_request("a pattern has no empty and no dot segments: write it as in 'site/*/temperature'")
            parts.append(segment)
    if parts[0] == names.RESERVED:
        raise bad_request("nothing under %s/ can be followed" % names.RESERVED)
    return tuple(parts)


def matches(pattern: "tuple[int | str, ...]", path: str) -> bool:
    """Whether a canonical stream path fits. Takes no longer than their lengths multiplied."""
    segments = path.split("/")
    at = done = 0
    # Only the last ** is ever tried again: where it stands, and how many segments come before it or are taken by it.
    star, taken = -1, 0
    while done < len(segments):
        part = pattern[at] if at < len(pattern) else None
        if part == MANY:
            star, taken = at, done
            at += 1
        elif part == ONE or part == segments[done]:
            at += 1
            done += 1
        elif star >= 0:
            taken += 1
            at, done = star + 1, taken
        else:
            return False
    return at == len(pattern) or (at == len(pattern) - 1 and pattern[at] == MANY)
