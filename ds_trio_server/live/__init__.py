"""One append, a thousand readers: long-polls and event streams."""

from .fanout import QUIET, SHARED, FanOut, Feed, Remote, Subscriber
from .subscribers import EventStream, LiveReads, LongPoll

__all__ = ["LiveReads", "LongPoll", "EventStream", "FanOut", "Feed", "Subscriber", "Remote", "SHARED", "QUIET"]
