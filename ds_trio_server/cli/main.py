"""Where ``ds`` starts. The client commands load no server: each is a process of its own in somebody's loop or pipe, and
on a small gateway the server's libraries take longer to import than a request takes.
"""

import argparse
import os
import sys
from typing import Any

from ds_core import __version__

CLIENT = ("create", "append", "read", "tail", "head", "close", "delete", "fork")


class Parser(argparse.ArgumentParser):
    """Argument errors in one line, without the usage text around it."""

    def __init__(self, **options: Any) -> None:
        # An abbreviation would escape what looks for the whole word, and end with the next new option.
        super().__init__(allow_abbrev=False, **options)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As ever, but RECORDs may also stand behind options: ``ds append STREAM --cbor RECORD``."""
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


def seconds(text: str) -> float:
    """A time that an option gives."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError(f"'{text}' is not a time; give seconds, more than 0 and at most 86400")
    return value


def parsers() -> tuple[Parser, Any]:
    """The parser of ``ds`` and its, still empty, commands."""
    parser = Parser(prog="ds", description="Durable Streams for the edge: a server, and its streams from the shell.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(
        dest="command",
        required=True,
        metavar="COMMAND",
        title="commands",
        description="'ds COMMAND --help' explains each",
        parser_class=Parser,
    )
    return parser, commands


def main() -> int:
    """Run the command line; returns the exit status."""
    arguments = sys.argv[1:]
    command = " ".join(["ds", *arguments[:1]])
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (for as long as we live)
    if sys.stdout is None:
        if arguments[:1] != ["serve"]:
            print(f"{command}: can't write: standard output is closed", file=sys.stderr)
            return 1
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if arguments and arguments[0] in CLIENT:
        from . import client

        parser, commands = parsers()
        client.add_commands(commands)
        return client.run(parser.parse_args(arguments))
    from . import serve

    try:
        status = serve.main(arguments)
        sys.stdout.flush()
    except OSError as exc:
        if exc.filename:
            raise
        # Nobody has seen the result; what was done is done.
        from .client import broken_pipe, discard_output

        if isinstance(exc, BrokenPipeError):
            return broken_pipe()
        discard_output()
        print(f"{command}: can't write: {exc.strerror}", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
