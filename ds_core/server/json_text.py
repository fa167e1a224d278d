"""Splitting JSON text into messages without re-serializing it (RFC 8259, protocol section 10).

Pure and iterative: a peer's nesting costs one byte a level, and what was sent comes back byte for
byte. A server with a C parser at hand passes its own splitter instead; this one runs everywhere.
"""

MAX_DEPTH = 128
"""Deepest nesting of arrays and objects accepted."""

_SPACE = b" \t\n\r"
_DIGITS = b"0123456789"
_HEX = b"0123456789abcdefABCDEF"
_ESCAPES = b'"\\/bfnrt'
_ARRAY = 0x5B
_OBJECT = 0x7B
_QUOTE = 0x22


def split(text: bytes, most: int = 0x3FFFFFFF) -> "list[bytes]":
    """The messages of a JSON body: the elements of a top-level array, else the one value.

    Each is the exact bytes that were sent, without the whitespace around it. Allocates the list and
    a copy of every message. Raises ValueError naming the byte where the text stops being JSON, or
    when there are more than `most` messages, as soon as that is known.
    """
    try:
        # Validates UTF-8 once, in C, so that the scanner need not look into strings.
        str(text, "utf-8")
    except UnicodeError:
        raise ValueError("JSON text must be UTF-8") from None
    at = _skip_space(text, 0)
    if text[at : at + 1] != b"[":
        end = value_end(text, at)
        _expect_end(text, end)
        return [text[at:end]]
    messages: "list[bytes]" = []
    at = _skip_space(text, at + 1)
    if text[at : at + 1] == b"]":
        _expect_end(text, at + 1)
        return messages
    while True:
        if len(messages) == most:
            raise ValueError("one append has at most %d messages; send several" % most)
        end = value_end(text, at)
        messages.append(text[at:end])
        at = _skip_space(text, end)
        mark = text[at : at + 1]
        if mark == b"]":
            _expect_end(text, at + 1)
            return messages
        if mark != b",":
            raise _wrong(text, at, "a comma or ]")
        at = _skip_space(text, at + 1)


def value_end(text: bytes, at: int, max_depth: int = MAX_DEPTH) -> int:
    """Where the one JSON value that begins at `at` ends. ValueError when there is none."""
    # The stack holds the kind of every open container; the innermost is its last byte.
    stack = bytearray()
    while True:
        char = text[at] if at < len(text) else -1
        if char == _ARRAY or char == _OBJECT:
            if len(stack) == max_depth:
                raise ValueError("JSON is nested deeper than %d levels" % max_depth)
            at = _skip_space(text, at + 1)
            if text[at : at + 1] == (b"]" if char == _ARRAY else b"}"):
                at += 1
            else:
                stack.append(char)
                if char == _OBJECT:
                    at = _member_name(text, at)
                continue
        else:
            at = _scalar_end(text, at, char)
        # A value has ended: close containers until one goes on.
        while stack:
            at = _skip_space(text, at)
            mark = text[at : at + 1]
            at += 1
            if mark == b",":
                at = _skip_space(text, at)
                if stack[-1] == _OBJECT:
                    at = _member_name(text, at)
                break
            if mark != (b"]" if stack[-1] == _ARRAY else b"}"):
                raise _wrong(text, at - 1, "a comma or the end of the container")
            stack = stack[:-1]
        else:
            return at


def _skip_space(text: bytes, at: int) -> int:
    size = len(text)
    while at < size and text[at] in _SPACE:
        at += 1
    return at


def _member_name(text: bytes, at: int) -> int:
    if text[at : at + 1] != b'"':
        raise _wrong(text, at, "a member name in double quotes")
    at = _skip_space(text, _string_end(text, at))
    if text[at : at + 1] != b":":
        raise _wrong(text, at, "a colon")
    return _skip_space(text, at + 1)


def _scalar_end(text: bytes, at: int, char: int) -> int:
    if char == _QUOTE:
        return _string_end(text, at)
    if char == 0x2D or 0x30 <= char <= 0x39:
        return _number_end(text, at)
    for word in (b"true", b"false", b"null"):
        if text[at : at + len(word)] == word:
            return at + len(word)
    raise _wrong(text, at, "a JSON value")


def _string_end(text: bytes, at: int) -> int:
    size = len(text)
    at += 1
    while at < size:
        char = text[at]
        if char == _QUOTE:
            return at + 1
        if char < 0x20:
            raise _wrong(text, at, "control characters escaped")
        if char == 0x5C:
            at += 1
            escape = text[at : at + 1]
            if escape == b"u":
                for place in range(at + 1, at + 5):
                    if place >= size or text[place] not in _HEX:
                        raise _wrong(text, place, "four hex digits")
                at += 4
            elif not escape or escape not in _ESCAPES:
                raise _wrong(text, at, "a known escape")
        at += 1
    raise _wrong(text, size, "the end of a string")


def _number_end(text: bytes, at: int) -> int:
    if text[at] == 0x2D:
        at += 1
    if text[at : at + 1] == b"0":
        at += 1
    else:
        at = _digits_end(text, at)
    if text[at : at + 1] == b".":
        at = _digits_end(text, at + 1)
    if text[at : at + 1] in (b"e", b"E"):
        at += 1
        if text[at : at + 1] in (b"+", b"-"):
            at += 1
        at = _digits_end(text, at)
    return at


def _digits_end(text: bytes, at: int) -> int:
    start = at
    size = len(text)
    while at < size and text[at] in _DIGITS:
        at += 1
    if at == start:
        raise _wrong(text, at, "a digit")
    return at


def _expect_end(text: bytes, at: int) -> None:
    at = _skip_space(text, at)
    if at < len(text):
        raise _wrong(text, at, "nothing more")


def _wrong(text: bytes, at: int, wanted: str) -> ValueError:
    if at >= len(text):
        return ValueError("JSON ends at byte %d where %s should be" % (len(text), wanted))
    return ValueError("JSON is wrong at byte %d: %s should be there" % (at, wanted))
