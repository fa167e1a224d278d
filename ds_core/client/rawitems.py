"""Streams that have no items: pieces of bytes, copied."""

# Shapes that only typing could name (a store, a decoder) are in the docstrings; MicroPython has no typing.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-any-generics, no-warn-return-any, no-warn-unreachable

NEED_DATA = b""


class Decoder:
    """`feed` a piece, then `next()` until NEED_DATA."""

    pending = 0

    def __init__(self, max_bytes: int = 0):
        self._piece = b""

    def feed(self, piece) -> None:
        self._piece = piece

    def next(self):
        """All that was fed, or NEED_DATA."""
        piece = bytes(self._piece)
        self._piece = NEED_DATA
        return piece or NEED_DATA
