"""How an operator writes numbers: sizes, durations, counts, ports, shares. One function each, for every option.

Sizes are bytes, K, M, G or T of 1024 (`64K`, `16M`); durations are `90s`, `15m`, `12h`, `7d`, `4w`,
or plain seconds. Whatever is wrong is a ValueError whose text says what would be
right, for the one who typed it.
"""

import re

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
MINUTE, HOUR, DAY, WEEK = 60, 3600, 86400, 7 * 86400

_SIZES = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": TIB}
_TIMES = {"s": 1, "m": MINUTE, "h": HOUR, "d": DAY, "w": WEEK}

# Bounds keep digits from becoming a number that takes long to make.
_SIZE = re.compile(r"(\d{1,16})([KMGT]?)", re.ASCII | re.IGNORECASE)
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,9}(?=s?$))?)([smhdw]?)", re.ASCII)  # parts of seconds only
_WHOLE = re.compile(r"\d{1,18}", re.ASCII)


def size(text: str, least: int = 1, most: int = 1 << 53) -> int:
    """Bytes: `65536`, `64K`, `16M`, `2G`."""
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError(f"'{text}' is not a size; give bytes, such as 65536, 64K, 16M or 2G")
    value = int(found[1]) * _SIZES[found[2].upper()]
    if not least <= value <= most:
        raise ValueError(f"'{text}' is out of range; a size here is {size_text(least)} to {size_text(most)}")
    return value


def duration(text: str, least: float = 0.001, most: float = DAY, plain: bool = True) -> float:
    """Seconds: `90s`, `15m`, `12h`, `7d`, `4w`, and where they are `plain` also `90` or `2.5`."""
    found = _DURATION.fullmatch(text)
    if not found or not (found[2] or plain):
        seconds = "seconds, or " if plain else ""
        raise ValueError(f"'{text}' is not a time; give {seconds}a number with its unit, such as 90s, 15m, 12h or 7d")
    value = float(found[1]) * _TIMES.get(found[2], 1)
    if not least <= value <= most:
        low = "more than 0" if 0 < least <= 0.001 else f"{duration_text(least)} or more"
        raise ValueError(f"'{text}' is out of range; a time here is {low}, and at most {duration_text(most)}")
    return value


def whole_duration(text: str, least: int = 1, most: int = 1 << 53) -> int:
    """A duration that must be whole seconds, as the protocol has them."""
    value = duration(text, least, most)
    if value != int(value):
        raise ValueError(f"'{text}' is not a number of whole seconds; give it as in 3600, 90m or 7d")
    return int(value)


def count(text: str, least: int = 1, most: int = 999_999, of: str = "") -> int:
    """A whole number `of` something."""
    if not _WHOLE.fullmatch(text) or not least <= int(text) <= most:
        raise ValueError(f"'{text}' is not a number{' of ' + of if of else ''}, from {least} to {most}")
    return int(text)


def port(text: str) -> int:
    """A TCP port, 0 for a free one."""
    if not _WHOLE.fullmatch(text) or int(text) > 65535:
        raise ValueError(f"'{text}' is not a port; a port is a number from 0 to 65535")
    return int(text)


def share(text: str) -> float:
    """A part of something: `5%` is 0.05."""
    number = text.removesuffix("%")
    if number == text or not _WHOLE.fullmatch(number) or int(number) >= 100:
        raise ValueError(f"'{text}' is not a share; give a percentage below 100, such as 5%")
    return int(number) / 100


def switch(text: str) -> bool:
    """Yes or no, as environment variables say it."""
    value = text.strip().lower()
    if value in ("1", "true", "yes", "on"):
        return True
    if value in ("", "0", "false", "no", "off"):
        return False
    raise ValueError(f"'{text}' is neither yes nor no; give 1 or 0")


def size_text(value: int) -> str:
    """A size as it may be given again: 65536 is `64K`."""
    for unit in ("T", "G", "M", "K"):
        if value and value % _SIZES[unit] == 0:
            return f"{value // _SIZES[unit]}{unit}"
    return str(value)


def duration_text(value: float) -> str:
    """A duration as it may be given again: 5400.0 is `90m`."""
    for unit in ("w", "d", "h", "m"):
        if value and value % _TIMES[unit] == 0:
            return f"{value / _TIMES[unit]:.0f}{unit}"
    return f"{value:.0f}s" if value == int(value) else f"{value:g}s"
