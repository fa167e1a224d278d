"""The command ``ds``: its options, their environment variables, and how a server process ends."""

import argparse
import logging
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import fields

import trio

from ds_core.wire.names import DEFAULT_PORT

from .. import server
from ..config import Config
from ..ops import logs, systemd
from ..store import retention
from ..store.base import StorageFailed, Store
from ..store.memory import MemoryStore
from ..store.sqlite.engine import SQLiteStore
from ..store.sqlite.space import DefaultMinFree, MinFree
from . import client, maintenance, security, tokens
from .main import parsers, seconds

log = logging.getLogger("ds")

_LEVELS = ("debug", "info", "warning", "error")
_OPPOSITE = {"data": "--memory", "access": "--insecure-open"}
_DEFAULTS = {field.name: field.default for field in fields(Config)}


def _parser() -> argparse.ArgumentParser:
    parser, commands = parsers()
    serving = commands.add_parser(
        "serve",
        help="run a server",
        description="Serve durable streams over HTTP/1.1.",
        epilog="Every option can also be set as an environment variable: --long-poll-timeout is "
        "DS_LONG_POLL_TIMEOUT. An option on the command line wins.",
    )
    _add_serve_options(serving)
    checking = commands.add_parser(
        "check",
        help="verify a data directory",
        description="Verify a data directory, also one that a server is using. Exits with 1 when it is damaged.",
    )
    checking.add_argument("folder", metavar="DIR", help="what 'ds serve --data' is given")
    checking.set_defaults(run=maintenance.run_check)
    copying = commands.add_parser(
        "backup",
        help="copy a data directory, also a live one",
        description="Copy one consistent state of a data directory, also one that a server is using, and verify it.",
    )
    copying.add_argument("folder", metavar="DIR", help="what 'ds serve --data' is given")
    copying.add_argument("target", metavar="DEST", help="a new directory; serve it with 'ds serve --data DEST'")
    copying.set_defaults(run=maintenance.run_backup)
    tokens.add_commands(commands)
    client.add_commands(commands)
    return parser


def _add_serve_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address or name to listen on (default: %(default)s)")
    add("--port", type=_port, default=DEFAULT_PORT, help="TCP port, 0 for a free one (default: %(default)s)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--data", metavar="DIR", help="directory of the SQLite file (default: ./data)")
    where.add_argument("--memory", action="store_true", help="keep streams in memory only; all is lost at exit")
    add("--long-poll-timeout", type=seconds, metavar="S", default=_DEFAULTS["long_poll_timeout"],
        help="how long a long-poll waits for data (default: %(default)s)")  # fmt: skip
    add("--sse-max", type=seconds, metavar="S", default=_DEFAULTS["sse_max"],
        help="how long an SSE connection lasts before its client comes back (default: %(default)s)")  # fmt: skip
    add("--max-body", type=_size, metavar="BYTES", default=_DEFAULTS["max_body"],
        help="largest request body; K, M and G are understood (default: 16M)")  # fmt: skip
    add("--chunk", type=_size, metavar="BYTES", default=_DEFAULTS["chunk"],
        help="most bytes of a stream in one response (default: 1M)")  # fmt: skip
    add("--max-per-client", type=_count, metavar="N", default=_DEFAULTS["max_per_client"],
        help="most connections of one address at once, more are 429; not for a server behind a proxy, where all come "
        "from one (default: no limit)")  # fmt: skip
    add("--retain", type=_rule, action="append", default=[], metavar="[GLOB=]AGE|BYTES",
        help="trim streams from the front: 7d, 256M, 'logs/**=90m', 'keep/*=forever'; may be repeated, a later one "
        "wins; in DS_RETAIN separated by commas (default: keep everything)")  # fmt: skip
    add("--min-free", type=_min_free, default=DefaultMinFree(), metavar="BYTES|PERCENT",
        help="refuse appends (507) when the disk has less room than this (default: 128M, at most 5%%)")  # fmt: skip
    security.add_options(parser)
    add("--log-level", choices=_LEVELS, default="info", help="what goes to stderr (default: %(default)s)")


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port; a port is a number from 0 to 65535")
    return int(text)


def _size(text: str) -> int:
    number, unit = (text[:-1], text[-1:].upper()) if text[-1:].isalpha() else (text, "")
    if not number.isdigit() or unit not in ("", "K", "M", "G"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a size; give bytes, such as 65536, 64K or 16M")
    value = int(number) << {"": 0, "K": 10, "M": 20, "G": 30}[unit]
    if not 1 <= value <= 1 << 30:
        raise argparse.ArgumentTypeError(f"'{text}' is out of range; a size is 1 byte to 1G")
    return value


def _count(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,5}", text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of connections, from 1 to 999999")
    return int(text)


def _rule(text: str) -> retention.Rule:
    try:
        return retention.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _min_free(text: str) -> MinFree:
    found = re.fullmatch(r"(\d{1,12})([KMGT%]?)", text.upper(), re.ASCII)
    if found and found[2] == "%" and int(found[1]) < 100:
        return MinFree(share=int(found[1]) / 100)
    if found and found[2] != "%":
        return MinFree(bytes=int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[found[2]])
    raise argparse.ArgumentTypeError(f"'{text}' is not an amount of room; give 64M or 1G, or a share such as 5%")


def _with_environment(arguments: Sequence[str]) -> list[str]:
    """Options from DS_... variables put before those of the command line, which win."""
    if not arguments or arguments[0] != "serve":
        return list(arguments)
    given = {word.split("=", 1)[0] for word in arguments}
    extra: list[str] = []
    for name in (
        *("host", "port", "data", "long-poll-timeout", "sse-max", "max-body", "chunk", "max-per-client", "min-free"),
        "log-level",
        *security.OPTIONS,
    ):
        value = os.environ.get("DS_" + name.upper().replace("-", "_"))
        if value is None or _OPPOSITE.get(name) in given:
            continue
        extra += [f"--{name}={value}"]
    for rule in filter(None, os.environ.get("DS_RETAIN", "").split(",")):
        extra += [f"--retain={rule.strip()}"]
    if _is_set("DS_INSECURE_OPEN") and "--access" not in given:
        extra.append("--insecure-open")
    if _is_set("DS_MEMORY") and "--data" not in given:
        extra = [word for word in extra if not word.startswith("--data=")] + ["--memory"]
    return [arguments[0], *extra, *arguments[1:]]


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() not in ("", "0", "false", "no")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = _with_environment(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    if not arguments:
        parser.print_help()
        return 0
    options = parser.parse_args(arguments)
    return options.run(options) if "run" in options else _serve(options)


def _serve(options: argparse.Namespace) -> int:
    logs.configure(options.log_level, options.log_format)
    server.raise_file_limit()
    config = Config(
        long_poll_timeout=options.long_poll_timeout,
        sse_max=options.sse_max,
        max_body=options.max_body,
        chunk=options.chunk,
        max_per_client=options.max_per_client,
    )
    folder = options.data or "data"
    if options.memory and options.retain:
        print(
            "ds serve: --retain trims what is kept on disk, and --memory keeps nothing there: give --data DIR instead "
            "of --memory, or leave --retain out and give streams a Stream-TTL",
            file=sys.stderr,
        )
        return 2
    store: Store = (
        MemoryStore()
        if options.memory
        else SQLiteStore(folder, retain=retention.Retention(options.retain), min_free=options.min_free)
    )
    try:
        listeners = server.listen(options.host, options.port)
    except OSError as error:
        print(f"ds serve: can't listen on {options.host} port {options.port}: {error.strerror}", file=sys.stderr)
        return 1
    try:
        doors = security.Doors(options)
        doors.check(listeners)
    except security.Refused as error:
        for listener in listeners:
            listener.close()
        print(f"ds serve: {error}", file=sys.stderr)
        return 2

    async def run() -> None:
        async with trio.open_nursery() as nursery:

            def started(running: server.Server) -> None:
                nursery.start_soon(doors.obey, signals, running.stop)
                nursery.start_soon(systemd.watchdog)
                log.info("streams are %s", "in memory only" if options.memory else f"in {folder}")
                doors.announce(listeners)

            # Before the first word to the outside, so that whoever acts on it finds us listening.
            with trio.open_signal_receiver(*doors.signals()) as signals:
                await server.serve(store, config, listeners, started, doors.access, doors.tls)
            nursery.cancel_scope.cancel()

    problems: list[BaseException] = []
    try:
        trio.run(run)
    except* (StorageFailed, OSError) as failures:
        problems = _leaves(failures)
    for problem in problems:
        print(f"ds serve: {problem}", file=sys.stderr)
    if not problems:
        log.info("stopped")
    return 1 if problems else 0


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


if __name__ == "__main__":
    sys.exit(main())
