"""How long to wait before the next attempt: exponential, with jitter, and never less than the server asked for."""


class Backoff:
    """`first` and `most` in milliseconds; `random(n)` returns an integer in 0..n-1."""

    def __init__(self, random, first: int = 500, most: int = 60000) -> None:  # type: ignore[no-untyped-def]
        if __debug__:  # not in what is compiled for a device
            if not callable(random) or random(1) != 0:
                raise TypeError("random: a function of n that returns 0..n-1, as random.randrange does")
            if not 0 < first <= most:
                raise ValueError("first, most: milliseconds, from 1 on, and first not above most")
        self._random = random
        self.first = first
        self.most = most
        self.failures = 0

    def reset(self) -> None:
        """The peer answered."""
        self.failures = 0

    def delay(self, retry_after: str | None = None) -> int:
        """Milliseconds to wait after one more failure: a random half to whole of `first` * 2**failures, at most `most`.

        `retry_after`: the header's value. Its seconds win when they are more, up to an hour; a date counts as nothing,
        for a device may have no clock.
        """
        span = min(self.most, self.first << min(self.failures, 16))
        self.failures += 1
        wait: int = span - self._random(span // 2 + 1)
        if retry_after and retry_after.encode().isdigit():  # (a text has more digits than 0 to 9)
            wait = max(wait, min(int(retry_after[:7]), 3600) * 1000)
        return wait
