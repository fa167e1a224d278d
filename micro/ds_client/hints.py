"""Misspelt names and options: whose they are, and which one was meant."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NoReturn, TypeVar

from ds_micro.cpython import near as near

_C = TypeVar("_C", bound="type[Helpful]")


class Helpful:
    """A class whose misspelt names are told with the near one; `elsewhere` says where some others are found."""

    elsewhere: ClassVar[dict[str, str]] = {}

    def _missing(self, name: str) -> NoReturn:
        owner = type(self).__name__
        if name in self.elsewhere:
            raise AttributeError(f"{owner} has no {name}: {self.elsewhere[name]}")
        names = [each for each in {*dir(type(self)), *vars(self)} if not each.startswith("_")]
        raise AttributeError(f"{owner} has no {name}{near(name, names)}")


def helpful(cls: _C) -> _C:
    """A class whose public methods name it, and the near option, when one is given that they don't have."""
    # (Not a method, of which a type checker would think that every name is there.)
    cls.__getattr__ = cls._missing  # type: ignore[attr-defined]
    for name, method in list(vars(cls).items()):
        if inspect.isfunction(method) and (name == "__init__" or not name.startswith("_")):
            parameters = inspect.signature(method).parameters.values()
            known = [each.name for each in parameters if each.kind in (each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD)]
            if len(known) > 1:
                called = cls.__name__ if name == "__init__" else f"{cls.__name__}.{name}"
                setattr(cls, name, _checked(method, called, known[1:]))
    return cls


def _checked(method: Callable[..., Any], called: str, known: Iterable[str]) -> Callable[..., Any]:
    names = frozenset(known)

    @functools.wraps(method)
    def call(*args: Any, **given: Any) -> Any:
        if given and not names.issuperset(given):
            wrong = next(name for name in given if name not in names)
            raise TypeError(f"{called}() has no option {wrong}{near(wrong, names)}")
        return method(*args, **given)

    return call
