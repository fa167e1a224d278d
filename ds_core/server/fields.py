"""Values of request headers: numbers, flags and instants, each strict (protocol sections 1, 3, 5)."""

from .errors import bad_request


def decimal(text: str, name: str, maximum: int) -> int:
    """A non-negative decimal integer of at most `maximum`; 400 for everything else."""
    if 0 < len(text) <= 16:
        for char in text:
            if not "0" <= char <= "9":
                break
        else:
            value = int(text)
            if value <= maximum:
                return value
    raise bad_request("%s must be a decimal integer from 0 to %d" % (name, maximum))


def seconds(text: str) -> int:
    """Stream-TTL: a decimal integer of seconds without leading zeros."""
    value = decimal(text, "Stream-TTL", 999999999999)
    if str(value) != text:
        raise bad_request("Stream-TTL must be written without leading zeros")
    return value


def flag(text: "str | None") -> bool:
    """Stream-Closed: set only by `true` in any case; anything else is as if absent."""
    return text is not None and text.lower() == "true"


_SINGLE = 1.0 + 2.0**-30 == 1.0
_WRONG_INSTANT = "Stream-Expires-At must be an RFC 3339 time such as 2030-01-31T12:00:00Z"


def instant(text: str) -> "int | float":
    """UNIX seconds of an RFC 3339 date-time with `Z` or a numeric zone: an int when they are whole.

    Where floats are single precision (MicroPython on most boards), the next whole second: they
    would be a minute off.
    """
    if len(text) < 20 or text[4] != "-" or text[7] != "-" or text[10] not in "Tt ":
        raise bad_request(_WRONG_INSTANT)
    if text[13] != ":" or text[16] != ":":
        raise bad_request(_WRONG_INSTANT)
    try:
        year, month, day = _digits(text[0:4]), _digits(text[5:7]), _digits(text[8:10])
        hour, minute, second = _digits(text[11:13]), _digits(text[14:16]), _digits(text[17:19])
        rest = text[19:]
        fraction = 0.0
        if rest.startswith("."):
            size = 1
            while size < len(rest) and "0" <= rest[size] <= "9":
                size += 1
            fraction = _digits(rest[1:size][:9]) / 10 ** min(size - 1, 9)
            rest = rest[size:]
        zone = _zone(rest)
    except ValueError:
        raise bad_request(_WRONG_INSTANT) from None
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    lengths = (31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    if not (1 <= month <= 12 and 1 <= day <= lengths[month - 1]):
        raise bad_request(_WRONG_INSTANT)
    if hour > 23 or minute > 59 or second > 60:
        raise bad_request(_WRONG_INSTANT)
    # Days since 1970 by counting from March, so that the leap day comes last in its year.
    shifted = year - 1 if month <= 2 else year
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    days = 365 * shifted + shifted // 4 - shifted // 100 + shifted // 400 + of_year - 719468
    whole = days * 86400 + hour * 3600 + minute * 60 + second - zone
    if not fraction:
        return whole
    return whole + 1 if _SINGLE else whole + fraction


def _zone(text: str) -> int:
    if text in ("Z", "z"):
        return 0
    if len(text) != 6 or text[0] not in "+-" or text[3] != ":":
        raise ValueError
    hours, minutes = _digits(text[1:3]), _digits(text[4:6])
    if hours > 23 or minutes > 59:
        raise ValueError
    return (hours * 3600 + minutes * 60) * (1 if text[0] == "+" else -1)


def _digits(text: str) -> int:
    if not text:
        raise ValueError
    for char in text:
        if not "0" <= char <= "9":
            raise ValueError
    return int(text)
