"""Cursors: a number that makes the URLs of live requests differ (protocol section 6).

A shared cache collapses long-polls with the same URL. The cursor counts 20-second intervals, so
that readers who come at the same time share an answer, and always moves forward for a reader that
comes back with the cursor it was given, so that no cached answer is served to it in a loop.
"""

EPOCH = 1728432000
"""2024-10-09T00:00:00Z as UNIX seconds."""

INTERVAL = 20
"""Seconds in one interval."""

_LONGEST_STEP = 3600 // INTERVAL


def next_cursor(wall: float, given: "str | None", random: float) -> str:
    """The cursor for a live response.

    `wall` is UNIX seconds, `given` the request's `cursor` or None (what is no decimal number
    counts as None), `random` uniform in [0, 1).
    """
    current = max(0, int(wall - EPOCH) // INTERVAL)
    if given and len(given) <= 15 and given.isdigit():
        try:
            asked = int(given)
        except ValueError:
            asked = -1
        if asked >= current:
            return str(asked + 1 + int(random * (_LONGEST_STEP - 1)))
    return str(current)


def shared_cursor(wall: float, given: "str | None") -> "str | None":
    """The cursor that all live responses of this interval may have, None for a reader who is ahead of it: that one
    gets one of its own by `next_cursor`, and may not go back."""
    usual = next_cursor(wall, None, 0.0)
    return usual if given is None or next_cursor(wall, given, 0.0) == usual else None
