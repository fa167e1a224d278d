"""Path patterns, as operators write them: in tokens' rights and in rules of retention, with one meaning.

`*` is any part of one segment, none included; `**` is any number of segments, none included:
`a/**` is `a` and everything below it, `a/*` what is one segment below it.
"""


class Glob:
    """A path pattern. Raises ValueError for one that could not match anything, with what would be right."""

    __slots__ = ("text", "_parts")

    def __init__(self, text: str) -> None:
        # The pieces between a segment's stars; None is any number of segments.
        parts: list[tuple[str, ...] | None] = []
        for segment in text.split("/"):
            if segment in ("", ".", ".."):
                raise ValueError(f"'{text}' has an empty or a dot segment; write it as in 'greenhouse/*/temperature'")
            if segment == "**":
                parts.append(None)
            elif "**" in segment:
                raise ValueError(f"'{text}' has '**' in a part of a segment; a part is '*', and '**' stands alone")
            else:
                parts.append(tuple(segment.split("*")))
        self.text = text
        self._parts = parts

    def matches(self, path: str) -> bool:
        """Whether a canonical path fits; however many stars there are, the last one alone is tried again."""
        parts, segments = self._parts, path.split("/")
        at = done = 0
        # Where the last ** stands, and how many segments are before it or taken by it.
        star, taken = -1, 0
        while done < len(segments):
            if at < len(parts) and (part := parts[at]) is None:
                star, taken = at, done
                at += 1
            elif at < len(parts) and part is not None and _fits(part, segments[done]):
                at += 1
                done += 1
            elif star >= 0:
                taken += 1
                at, done = star + 1, taken
            else:
                return False
        return all(part is None for part in parts[at:])


def _fits(pieces: tuple[str, ...], segment: str) -> bool:
    if len(pieces) == 1:
        return pieces[0] == segment
    first, *middle, last = pieces
    if not segment.startswith(first):
        return False
    at = len(first)
    for piece in middle:
        found = segment.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return len(segment) - at >= len(last) and segment.endswith(last)
