"""Names and options that a program has misspelt: who has none such, and, on CPython, which one is near. Loaded then."""

import sys

STREAM = (
    "token", "content_type", "headers", "params", "timeout", "live_timeout", "buffer", "max_bytes", "ca", "pin",
    "verify",
)  # fmt: skip
OUTBOX = (
    "append", "flush", "due", "close", "close_stream", "discard", "damaged", "records", "dropped", "error", "writer",
    "run",
)  # fmt: skip


def no_such(owner, name, names):
    """Raise that a class has no attribute of this name, and which one is like it."""
    raise AttributeError("%s has no %s%s" % (owner, name, _near(name, names)))


def no_option(owner, given, names):
    """Raise that a call has no option of this name, if one of those given is none of its names."""
    for name in given:
        if name not in names:
            raise TypeError("%s has no option %s%s" % (owner, name, _near(name, names)))


def _near(name, names):
    if sys.implementation.name == "micropython":
        return ""
    from ds_micro.cpython import near

    return near(name, names)
