"""Helpers for tests that run unchanged under pytest on CPython and on MicroPython.

A portable test file (tests/core/**/test_*.py, unless its name ends in `_cpython.py`) has plain `test_*`
functions with bare asserts, loops instead of parametrize, and imports nothing but ds_core and this module.
"""


class raises:
    """`with raises(ValueError, "text") as caught:` the block must raise it, with `text` in its message.

    The exception is `caught.value` afterwards.
    """

    def __init__(self, expected, text=""):
        self.expected = expected
        self.text = text
        self.value = None

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        if kind is None:
            raise AssertionError("%s was not raised" % self.expected.__name__)
        if not issubclass(kind, self.expected):
            return False
        self.value = value
        if self.text not in str(value):
            raise AssertionError("%r is not in the message %r" % (self.text, str(value)))
        return True


def pieces(data, size):
    """`data` cut into pieces of `size` bytes; the last may be shorter. For feeding parsers bit by bit."""
    return [data[i : i + size] for i in range(0, len(data), size)]
