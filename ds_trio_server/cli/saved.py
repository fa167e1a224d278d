"""Small files that let a command go on where an earlier run of it stopped: JSON objects that say whose they are."""

import json
from collections.abc import Callable, Mapping
from typing import TypeVar

from ds_micro.flash import replace

T = TypeVar("T")


class SavedError(Exception):
    """A file is not what this command keeps, or is of another stream or input."""


def load(path: str, kind: str, owner: Mapping[str, str], take: Callable[[dict[str, object]], T]) -> T | None:
    """What `take` makes of the object in a file; None when there is no file.

    `take` may raise ValueError, KeyError or TypeError for what it can't be. Raises SavedError, which says that it is no
    `kind` or not of this `owner`, and OSError.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return None
    try:
        found = json.loads(data)
        for name, value in owner.items():
            if found[name] != value:
                raise SavedError(f"{path} is a {kind} for {name} {found[name]}, not {value}")
        return take(found)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise SavedError(f"{path} is not a {kind} of `ds`") from None


def save(path: str, owner: Mapping[str, str], values: Mapping[str, object]) -> None:
    """Write such a file, whole or not at all."""
    replace(path, json.dumps({**owner, **values}).encode() + b"\n")
