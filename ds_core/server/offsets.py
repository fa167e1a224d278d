"""Offsets: `<incarnation>_<position>`, sixteen decimal digits each (protocol section 2).

Clients treat them as opaque. The incarnation is a number that the store never uses twice, so an
offset of a deleted stream never names bytes of its successor; the position counts stored bytes.
"""

from ds_core.wire import names

from .errors import ProtocolError, bad_request

START = (0, 0)
"""What `-1` and the all-zeros token mean: the earliest position, of whichever incarnation."""

MAX_POSITION = 9999999999999999


def token(incarnation: int, position: int) -> str:
    """The offset a client is given; lexicographic order is stream order within an incarnation."""
    return "%016d_%016d" % (incarnation, position)


def parse(text: str) -> "tuple[int, int] | str":
    """`(incarnation, position)`, START for the beginning, or the sentinel `names.NOW`.

    Raises ProtocolError 400 for anything that this server never hands out.
    """
    if text == names.START:
        return START
    if text == names.NOW:
        return text
    if len(text) == 33 and text[16] == "_":
        incarnation, position = text[:16], text[17:]
        if incarnation.isdigit() and position.isdigit():
            try:
                pair = (int(incarnation), int(position))
            except ValueError:
                pair = START
            # Comparing the token minted from the numbers refuses digits of other scripts.
            if token(*pair) == text:
                return pair
    raise bad_request(
        "offset must be -1, now, or a Stream-Next-Offset value exactly as a response gave it",
        "INVALID_OFFSET",
    )


def position(
    offset: "tuple[int, int]", incarnation: int, earliest: int, tail: int, newest: int
) -> int:
    """The position an offset names in a stream, `earliest <= position <= tail`.

    `newest` is the highest incarnation the store has issued. 410 when the offset belongs to
    another incarnation or to trimmed data, 400 when it was never handed out.
    """
    if offset == START:
        return earliest
    number, at = offset
    if number != incarnation:
        if 0 < number <= newest:
            raise ProtocolError(
                410,
                "OFFSET_GONE",
                "this offset belongs to an earlier stream at this path, which is gone; "
                "start again from offset=-1",
            )
        raise bad_request("this offset was never issued by this server", "INVALID_OFFSET")
    if at > tail:
        raise bad_request(
            "offset is beyond the tail %s of the stream" % token(incarnation, tail), "INVALID_OFFSET"
        )
    if at < earliest:
        raise ProtocolError(
            410,
            "OFFSET_TRIMMED",
            "data before %s has been trimmed; resume there or from offset=-1"
            % token(incarnation, earliest),
            ((names.EARLIEST_OFFSET, token(incarnation, earliest)),),
        )
    return at
