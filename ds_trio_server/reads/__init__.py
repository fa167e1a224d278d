"""From an offset to bytes: what all reads have in common, and answers to those that need not wait."""

from .catchup import Answer, CatchUp, accepted, send
from .reading import Reading, vanished

__all__ = ["Reading", "CatchUp", "Answer", "accepted", "send", "vanished"]
