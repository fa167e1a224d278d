"""Streams that have no items: pieces of bytes, copied."""

NEED_DATA = b""


class Decoder:
    """`feed` a piece, then `next()` until NEED_DATA."""

    pending = 0

    def __init__(self, max_bytes: int = 0):
        self._piece: bytes | memoryview = b""

    def feed(self, piece: bytes | memoryview) -> None:
        """More bytes."""
        self._piece = piece

    def next(self) -> bytes:
        """All that was fed, or NEED_DATA."""
        piece = bytes(self._piece)
        self._piece = NEED_DATA
        return piece or NEED_DATA
