"""Where `ds` starts: it loads the family of the command that is asked for, and no other.

A client command is a process of its own in somebody's loop or pipe, and on a small gateway the server's libraries take
longer to import than a request takes.
"""

import signal
import sys
from collections.abc import Sequence

from ds_core import __version__

from . import stdio
from .parser import Family, Parser, Usage

FAMILIES = {
    "serve": ("serve",),
    "maintenance": ("check", "backup", "salvage"),
    "tokens": ("token", "share"),
    "client": ("create", "append", "read", "tail", "head", "close", "delete", "fork"),
}


def _load(family: str) -> Family:
    # Late imports, to start sooner.
    if family == "serve":
        from . import serve

        return serve
    if family == "maintenance":
        from . import maintenance

        return maintenance
    if family == "tokens":
        from . import tokens

        return tokens
    from . import client

    return client


def parser_for(word: str) -> Parser:
    """The parser of `ds` with the commands of the word's family, or with all when it is of none."""
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
    asked = [family for family, words in FAMILIES.items() if word in words]
    for family in asked or (() if word == "--version" else FAMILIES):
        _load(family).add_commands(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. Raises SystemExit for --help and for words that it can't read."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = " ".join(["ds", *words[:1]])
    if not stdio.replace_closed() and words[:1] != ["serve"]:
        print(f"{command}: can't write: standard output is closed", file=sys.stderr)
        return 1
    if words[:1] == ["serve"]:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what is read anew later is not read yet
    parser = parser_for(words[0] if words else "")
    try:
        if words:
            options = parser.parse_args(words)
            status: int = options.run(options)
        else:
            parser.print_help()
            status = 0
        sys.stdout.flush()
    except Usage as error:
        print(f"{command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return stdio.broken_pipe()
    except OSError as error:
        if error.filename:
            raise
        # Nobody has seen the result; what was done is done.
        stdio.discard_output()
        print(f"{command}: can't write: {error.strerror}", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
