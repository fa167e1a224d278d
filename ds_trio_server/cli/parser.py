"""How `ds` reads its words: one parser class, one exception, errors in one line.

A family of commands is a module with `add_commands(commands)`. That adds its commands to `ds` and gives each
`run`, a function from its options to the exit status: 0 done, 1 it could not be done, 2 wrong usage.
"""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction["Parser"]

T = TypeVar("T")


class Family(Protocol):
    """A module of commands."""

    def add_commands(self, commands: "Commands") -> None:
        """Add the family's commands; each has the default `run`."""


class Usage(Exception):
    """The command line, or an environment variable, is wrong: one line for the operator, exit status 2."""


class Parser(argparse.ArgumentParser):
    """Argument errors in one line, without the usage text around it."""

    def __init__(self, **options: Any) -> None:
        # An abbreviation would escape what looks for the whole word, and end with the next new option.
        super().__init__(allow_abbrev=False, **options)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As ever, but RECORDs may also stand behind options: `ds append STREAM --cbor RECORD`."""
        options, rest = self.parse_known_args(args, namespace)
        if rest and (any(word.startswith("-") for word in rest) or "records" not in options):
            hint = "; a RECORD that begins with '-' comes after '--'" if "records" in options else ""
            program = f"{self.prog} {options.command}"
            self.exit(2, f"{program}: unrecognized arguments: {' '.join(rest)}{hint}; see '{program} --help'\n")
        if rest:
            options.records += rest
        return options

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: {message}; see '{self.prog} --help'\n")


def checked(parse: Callable[[str], T]) -> Callable[[str], T]:
    """A parser whose ValueError is shown as it is (argparse would show its name instead)."""

    def parsed(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed
