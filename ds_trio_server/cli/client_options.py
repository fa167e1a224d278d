"""What the client commands of `ds` are told: their options, and the texts of their --help."""

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ds_core.wire.names import DEFAULT_PORT, ROOT

from .. import units
from .parser import checked

if TYPE_CHECKING:
    from .parser import Commands

CBOR, JSON = "application/cbor-seq", "application/json"

STREAM_HELP = f"""\
STREAM is a URL, or a path below STREAM_URL, an environment variable (default: http://127.0.0.1:{DEFAULT_PORT}{ROOT[:-1]}).
A path that begins with "/" is from the root of that server. STREAM_AUTH is sent as the Authorization header, such as
STREAM_AUTH='Bearer 8d91...'. --url and --auth override both.
"""

STATUS_HELP = """\
TIME is in seconds, or has a unit: 90s, 15m, 12h, 7d. BYTES may have one: 64K, 16M.

Exit status: 0 done; 1 the server, the network or the input failed; 2 wrong usage; 130 interrupted.
"""


class _Help(argparse.HelpFormatter):
    """Keeps paragraphs apart."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(super(_Help, self)._fill_text(part, width, indent) for part in text.strip().split("\n\n"))


def add_commands(commands: "Commands", run: Callable[[argparse.Namespace], int], acts: Mapping[str, object]) -> None:
    """Add them to the subparsers of `ds`; options get `run`, and `act`, the command's own of `acts`."""

    def command(name: str, help: str, text: str = "") -> Any:
        parser = commands.add_parser(
            name,
            help=help,
            description=f"{help[0].upper()}{help[1:]}.\n\n{text}".rstrip(),
            epilog=STREAM_HELP + "\n" + STATUS_HELP,
            formatter_class=_Help,
        )
        parser.set_defaults(run=run, act=acts[name])
        parser.add_argument("stream", metavar="STREAM", help="the stream's URL or path")
        return parser

    create = command("create", "create a stream", "Creating it again, the same, does no harm.")
    _add_type(create, f"of the new stream (default: {CBOR})")
    _add_expiry(create)

    append = command("append", "append records to a stream", APPEND_TEXT)
    append.add_argument("records", nargs="*", metavar="RECORD", help="what to append (default: standard input)")
    append.add_argument("--file", "-f", action="append", metavar="FILE", help="append a file; - is standard input")
    forms = append.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="records are JSON values, the stream is " + JSON)
    forms.add_argument("--cbor", action="store_true", help="records are JSON values, the stream is " + CBOR)
    forms.add_argument("--raw", action="store_true", help="bytes as they are, without lines; CBOR as encoded items")
    append.add_argument("--content-type", metavar="TYPE", help="the stream's content type (default: ask the server)")
    append.add_argument("--producer", metavar="ID", help="append exactly once, as this producer")
    append.add_argument("--producer-state", metavar="FILE", help="with --producer: go on where the last run stopped")
    append.add_argument("--batch", type=checked(partial(units.size, most=units.GIB)), metavar="BYTES",
        default=256 * units.KIB, help="most bytes in one request (default: 256K)")  # fmt: skip
    _add_patience(append, "60s", "with --producer: ")

    read = command("read", "print a stream from its start to its end", READ_TEXT)
    _add_reading(read, "-1, the start")
    _add_patience(read, "60s", "")

    tail = command("tail", "print what is appended to a stream, as it comes", TAIL_TEXT + READ_TEXT)
    _add_reading(tail, "now; the start when a new --cursor is given")
    tail.add_argument("--live", choices=("long-poll", "sse", "auto"), default="long-poll",
        help="how to wait; auto: sse for JSON and text, else long-poll (default: %(default)s)")  # fmt: skip
    _add_patience(tail, "forever", "")

    head = command("head", "show a stream's content type, end and state")
    head.add_argument("--json", action="store_true", help="as one JSON object")

    command("close", "close a stream for good", "It can still be read. Closing it again does no harm.")
    command("delete", "delete a stream", "Its data stays while forks of it need them.")

    fork = command("fork", "create a stream that begins with another one's content", FORK_TEXT)
    fork.add_argument("--from", dest="source", required=True, metavar="SOURCE",
        help="the stream to fork, on the same server; a URL or path like STREAM")  # fmt: skip
    fork.add_argument("--offset", metavar="OFFSET", help="how far to inherit (default: all of it)")
    fork.add_argument("--sub-offset", type=checked(partial(units.count, least=0, most=1 << 53)), default=0, metavar="N",
        help="and N more: messages of a JSON stream, else bytes; needs --offset")  # fmt: skip
    _add_type(fork, "of the fork (default: the source's)")
    _add_expiry(fork)

    for parser in (create, append, read, tail, head, fork, *(commands.choices[name] for name in ("close", "delete"))):
        _add_connection(parser)


APPEND_TEXT = """\
Each RECORD or line is one record. On a JSON or CBOR stream it is a JSON value (bytes of CBOR: {"$hex":"0aff"}, a tag:
{"$tag":1,"$value":0}); on any other stream a line of text, which keeps its end of line. What is there is sent at once,
and while a request is on its way the next gathers.

Without --producer a request that breaks is not repeated: the message says what may or may not have been appended. With
--producer ID it is repeated until the server has it, and the server drops what it had. A producer is one writer: a run
takes the id from an earlier one that may still be alive.

Run again, the same input is appended again, unless --producer-state FILE is given: then what the server has
acknowledged is skipped, and what was under way is sent as the same request again, so that each record is appended
exactly once, whatever was killed when. The input must begin with the same records (this is checked) and may have grown,
so this ships what is new:

ds append log --file log.txt --producer here --producer-state log.state
"""
READ_TEXT = """\
JSON and CBOR streams are printed as one JSON value per line; of CBOR, bytes as {"$hex":"0aff"} and tags as
{"$tag":1,"$value":0}, which `ds append --cbor` understands. Other streams are printed as they are, but a terminal is
shown "?" for what it would act on, and nothing binary.

With --cursor FILE reading goes on where the last run ended; the file is saved after each batch that was printed.
"""
TAIL_TEXT = """\
Ends when the stream is closed. A broken connection is made again, and nothing is lost or repeated.

"""
FORK_TEXT = """\
The content is shared, not copied; from there on the two are independent.
"""


def _add_connection(parser: Any) -> None:
    group = parser.add_argument_group("connection")
    group.add_argument("--url", metavar="URL", help="what a path is below (default: STREAM_URL)")
    group.add_argument("--auth", metavar="VALUE",
        help="the Authorization header (default: STREAM_AUTH, which other users here do not see)")  # fmt: skip
    group.add_argument("--header", "-H", action="append", default=[], metavar="HEADER", help="send 'Name: value' too")
    group.add_argument("--timeout", type=checked(units.duration), default=10.0, metavar="TIME",
        help="without an answer or progress for so long a request has failed (default: 10s)")  # fmt: skip
    group.add_argument("--ca", metavar="FILE", help="https: the CA certificates to trust (default: the system's)")
    group.add_argument("--pin", metavar="SHA256", help="https: trust only the certificate with this fingerprint")
    group.add_argument("--insecure", action="store_true", help="https: trust anybody")
    group.add_argument("--quiet", "-q", action="store_true", help="no progress, no confirmation")


def _add_type(parser: Any, what: str) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--content-type", metavar="TYPE", help="content type " + what)
    for name, value in (("--json", JSON), ("--cbor", CBOR), ("--text", "text/plain")):
        group.add_argument(name, dest="content_type", action="store_const", const=value, help=f"the same as {value}")


def _add_expiry(parser: Any) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--ttl", type=checked(partial(units.whole_duration, least=0)), metavar="TIME",
        help="delete it when it was not used for so long")  # fmt: skip
    group.add_argument("--expires-at", metavar="TIME", help="delete it at this time, such as 2027-01-31T12:00:00Z")


def _add_reading(parser: Any, start: str) -> None:
    parser.add_argument("--offset", metavar="OFFSET", help=f"where to begin: -1, now, or an offset (default: {start})")
    parser.add_argument("--cursor", metavar="FILE", help="go on where FILE says, and keep it up to date")
    parser.add_argument("--raw", action="store_true", help="the bytes as the server sends them")


def _add_patience(parser: Any, default: str, when: str) -> None:
    parser.add_argument("--retry-for", type=checked(_patience), default=_patience(default), metavar="TIME",
        help=f"{when}give up after so long without progress, or 'forever' never (default: {default})")  # fmt: skip


def _patience(text: str) -> float | None:
    return None if text == "forever" else units.duration(text)
