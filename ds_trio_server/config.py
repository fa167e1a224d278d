"""What an operator can set: each option of `ds serve` is one field here or in `cli.serve_options.Settings`.

A field's line has everything there is to say about it: its name (`max_body` is `--max-body` and `DS_MAX_BODY`),
default, how it is written (`units`), bounds and help. A limit without a help text is for embedders only.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from . import units
from .units import DAY, GIB, MIB


class Unusable(Exception):
    """A file that the operator named can't be used; one line that says why."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """How a setting is given. `parse` makes its value of a text, or raises ValueError with what would be right."""

    parse: Callable[[str], Any]
    help: str
    metavar: str = ""
    group: str = "limits"
    shown: str = ""
    """Its default, for people."""
    many: bool = False
    """It may be repeated (its variable: separated by commas); the value is a tuple."""
    replaces: bool = False
    """Of one that is `many`: the command line's values come instead of the variable's, not behind them."""
    excludes: tuple[str, ...] = ()
    """Fields that can't be given beside it."""


def option(default: Any, parse: Callable[[str], Any] = str, help: str = "", **more: Any) -> Any:
    """A field that is an option; a default of False makes it a switch."""
    return field(default=default, metadata={"option": Option(parse=parse, help=help, **more)})


def limit(default: float, unit: str, least: float, most: float, help: str = "", **more: Any) -> Any:
    """A field with a number between bounds, an option if there is a `help`."""
    parse, text, metavar = _UNITS[unit]
    metadata: dict[str, Any] = {"bounds": (least, most, text)}
    if help:
        more = {"metavar": metavar, "shown": text(default), **more}
        metadata["option"] = Option(help=help, **{"parse": partial(parse, least=least, most=most), **more})
    return field(default=default, metadata=metadata)


def duration(default: float, help: str = "", most: float = DAY, **more: Any) -> Any:
    """A time in seconds, more than none."""
    return limit(default, "duration", 0.001, most, help, **more)


def size(default: int, help: str = "", least: int = 1, most: int = GIB, **more: Any) -> Any:
    """A number of bytes."""
    return limit(default, "size", least, most, help, **more)


def count(default: int, help: str = "", least: int = 1, most: int = 999_999, **more: Any) -> Any:
    """A number of things."""
    return limit(default, "count", least, most, help, **more)


_UNITS: dict[str, tuple[Callable[..., Any], Callable[[Any], str], str]] = {
    "duration": (units.duration, units.duration_text, "TIME"),
    "size": (units.size, units.size_text, "BYTES"),
    "count": (units.count, str, "N"),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Limits and times of a server; sizes in bytes, times in seconds. ValueError for what is out of bounds."""

    long_poll_timeout: float = duration(25.0, "how long a long-poll waits for data")
    sse_max: float = duration(60.0, "how long an SSE connection lasts before its client comes back")
    max_body: int = size(16 * MIB, "largest request body")
    chunk: int = size(16 * MIB, "most bytes of a stream in one response")
    max_connections: int = count(20_000)
    """Connections there may be at once; the next is told 503."""
    max_per_client: int = count(
        0, "most connections of one address at once, more are 429 (closed, over TLS); not for a server behind a proxy, "
        "where all come from one", parse=partial(units.count, of="connections"), shown="no limit", least=0)  # fmt: skip
    """Connections that one address may have at once; 0 is no limit."""
    body_memory: int = size(64 * MIB)
    """Bytes of request bodies held at once, over all connections."""
    head_timeout: float = duration(10.0)
    """From the first byte of a head to its last."""
    body_timeout: float = duration(30.0)
    """For a body, plus what its size takes at `slowest_body`."""
    slowest_body: int = size(512)
    """Bytes a second below which a body counts as stalled."""
    idle_timeout: float = duration(75.0)
    """How long a kept-alive connection may wait for its next request."""
    send_timeout: float = duration(30.0)
    """How long a client may take nothing of a response."""
    grace: float = limit(10.0, "duration", 0.0, DAY)
    """How long a stop waits for what is in flight."""
    private: bool = False
    """Answers are for their client alone: access control is on."""

    def __post_init__(self) -> None:
        for each in fields(self):
            if "bounds" in each.metadata:
                least, most, text = each.metadata["bounds"]
                if not least <= getattr(self, each.name) <= most:
                    name = each.name.replace("_", "-")
                    raise ValueError(f"{name} is {getattr(self, each.name)}, but must be {text(least)} to {text(most)}")
        if self.max_body > self.body_memory:
            object.__setattr__(self, "body_memory", self.max_body)


def options(kind: type[Config]) -> dict[str, Option]:
    """The options among the fields of a configuration, by field name."""
    return {each.name: each.metadata["option"] for each in fields(kind) if "option" in each.metadata}
