"""Does the time of a refusal tell how much of a guess was right? Interleaved rounds, medians.

    python -m tests.access.timing
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ds_core.server.errors import ProtocolError
from ds_trio_server.access import file as access_file
from ds_trio_server.access.file import Access

from .conftest import Keys

ROUNDS, CALLS = 400, 100
TARGET = "/v1/stream/a"


def guesses(secret: str, prefix: int) -> dict[str, str]:
    """Wrong in the first, the middle or the last character, or in all of them."""

    def changed(at: int) -> str:
        other = "A" if secret[at] != "A" else "B"
        return secret[:at] + other + secret[at + 1 :]

    return {
        "first": changed(prefix),
        "middle": changed((prefix + len(secret)) // 2),
        "last": changed(len(secret) - 2),  # the last one of base64 has bits that mean nothing
        "all": secret[:prefix] + "".join("A" if char != "A" else "B" for char in secret[prefix:]),
    }


def measure(control: Access, requests: dict[str, tuple[dict[str, str], str]]) -> dict[str, float]:
    """Microseconds until each is refused."""
    times: dict[str, list[float]] = {name: [] for name in requests}
    names: Sequence[str] = list(requests)
    for round in range(ROUNDS):
        for name in (*names[round % len(names) :], *names[: round % len(names)]):
            headers, target = requests[name]
            began = time.perf_counter()
            for _ in range(CALLS):
                try:
                    control.policy.identify(headers, target)
                except ProtocolError:
                    continue
                raise AssertionError("a wrong secret was let in")
            times[name].append((time.perf_counter() - began) / CALLS * 1e6)
    return {name: statistics.median(found) for name, found in times.items()}


def run(folder: Path) -> dict[str, dict[str, float]]:
    keys = Keys(folder / "access.json")
    token = keys.token("someone", read=["**"])
    link = access_file.link(keys.file, "a", 4_000_000_000).removeprefix("share=")
    control = Access(keys.file)
    tokens = {name: ({"authorization": f"Bearer {guess}"}, TARGET) for name, guess in guesses(token, 3).items()}
    start = link.rindex(".") + 1
    links: dict[str, tuple[dict[str, str], str]] = {
        name: ({}, f"{TARGET}?share={guess}") for name, guess in guesses(link, start).items()
    }
    return {"a token": measure(control, tokens), "a link": measure(control, links)}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for what, found in run(Path(folder)).items():
            spread = max(found.values()) / min(found.values()) - 1
            wrong = ", ".join(f"{name} {took:.2f}" for name, took in found.items())
            print(f"{what} that is wrong in its: {wrong} microseconds; {spread:.1%} apart")


if __name__ == "__main__":
    main()
