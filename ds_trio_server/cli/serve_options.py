"""What `ds serve` is told: command line first, then `DS_...` variables, then defaults.

An option is one field of `Settings` (the process) or `Config` (the server). Parsers, variables, --help and the
checks of what excludes what are made from those; a new option is a new field, and the place that uses it.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from ds_core.wire.names import DEFAULT_PORT

from .. import units
from ..access import origins
from ..config import Config, Option, option, options
from ..http import listeners
from ..ops import logs
from ..store import retention
from ..store.sqlite.space import MinFree
from .parser import Parser, Usage, checked

EPILOG = (
    "TIME is in seconds, or has a unit: 90s, 15m, 12h, 7d, 4w. BYTES may have one: 64K, 16M, 2G. Every option can "
    "also be set as an environment variable: --long-poll-timeout is DS_LONG_POLL_TIMEOUT. An option on the command "
    "line wins. The variable of one that may be repeated has commas between its values."
)
GROUPS = {
    "listening": "where it listens",
    "storage": "what it keeps",
    "access": "who may come in",
    "limits": "limits",
    "logs": "what it says",
}


def _text(text: str, of: str) -> str:
    if not text or "\0" in text:
        raise ValueError(f"'{text}' is not the name of a {of}")
    return text


def _one_of(text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise ValueError(f"'{text}' is none of {', '.join(choices)}")
    return text


def _min_free(text: str) -> MinFree:
    try:
        return MinFree(share=units.share(text)) if text.endswith("%") else MinFree(bytes=units.size(text, 0))
    except ValueError:
        raise ValueError(f"'{text}' is not an amount of room; give 64M or 1G, or a share such as 5%") from None


_file: Callable[[str], str] = partial(_text, of="file")
_listening: dict[str, Any] = {"group": "listening"}
_storage: dict[str, Any] = {"group": "storage"}
_access: dict[str, Any] = {"group": "access", "metavar": "FILE"}


@dataclass(frozen=True, kw_only=True)
class Settings(Config):
    """A server's limits, and what its process needs besides: everything `ds serve` can be told."""

    host: str = option("127.0.0.1", partial(_text, of="host"), "address or name to listen on", **_listening)
    port: int = option(DEFAULT_PORT, units.port, "TCP port, 0 for a free one", **_listening)
    listen: tuple[listeners.Address, ...] = option(
        (), listeners.address, "listen here, in place of --host and --port: 127.0.0.1:4437, [::]:4437 for IPv6 and "
        "IPv4, unix:/run/ds.sock; may be repeated; sockets that systemd passes on are listened on anyway",
        metavar="ADDRESS", many=True, replaces=True, excludes=("host", "port"), **_listening)  # fmt: skip
    data: str | None = option(
        None, partial(_text, of="directory"), "directory of the SQLite file",
        metavar="DIR", shown="./data", **_storage)  # fmt: skip
    memory: bool = option(
        False, help="keep streams in memory only; all is lost at exit", excludes=("data",), **_storage)  # fmt: skip
    retain: tuple[retention.Rule, ...] = option(
        (), retention.parse, "trim streams from the front: 7d, 256M, 'logs/**=90m', 'keep/*=forever'; may be repeated, "
        "a later one wins", metavar="[GLOB=]AGE|BYTES", shown="keep everything", many=True, **_storage)  # fmt: skip
    min_free: MinFree | None = option(
        None, _min_free, "refuse appends (507) when the disk has less room than this",
        metavar="BYTES|PERCENT", shown="128M, at most 5%", **_storage)  # fmt: skip
    access: str | None = option(
        None, _file, "let in who has a token; see 'ds token'", shown="loopback only", **_access)  # fmt: skip
    insecure_open: bool = option(
        False, help="let everybody who can connect do everything", group="access", excludes=("access",))  # fmt: skip
    allow_host: tuple[str, ...] = option(
        (), origins.host_name, "without --access: answer to this name in Host too, such as that of a proxy in front; "
        "may be repeated", metavar="NAME", shown="this machine's names", many=True, group="access")  # fmt: skip
    cors: tuple[str, ...] = option(
        (), origins.origin, "without --access: let web pages from there read and write too, such as "
        "https://dashboard.example, or * for all; may be repeated", metavar="ORIGIN", shown="this machine's pages",
        many=True, group="access")  # fmt: skip
    tls_cert: str | None = option(None, _file, "certificate chain in PEM format: serve https", **_access)
    tls_key: str | None = option(None, _file, "its private key", **_access)
    tls_client_ca: str | None = option(
        None, _file, "ask clients for certificates that these sign; with --access their names have the rights of "
        "tokens, without it everybody needs one", **_access)  # fmt: skip
    log_level: str = option(
        "info", partial(_one_of, choices=logs.LEVELS), "what goes to stderr",
        metavar="|".join(logs.LEVELS), group="logs")  # fmt: skip
    log_format: str = option(
        "text", partial(_one_of, choices=logs.FORMATS), "how log lines look",
        metavar="|".join(logs.FORMATS), group="logs")  # fmt: skip


OPTIONS = options(Settings)
_DEFAULTS = {each.name: each.default for each in fields(Settings)}


def flag(name: str) -> str:
    """The option of a field."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """The environment variable of a field."""
    return "DS_" + name.upper()


def add_options(parser: Parser) -> None:
    """Add them all. What was not given is None, so that `settings` can look elsewhere."""
    for group, title in GROUPS.items():
        add = parser.add_argument_group(title).add_argument
        for name, each in OPTIONS.items():
            if each.group == group:
                _add(add, name, each)


def _add(add: Callable[..., argparse.Action], name: str, each: Option) -> None:
    default = _DEFAULTS[name]
    shown = each.shown or ("" if default in (None, False, ()) else str(default))
    help = (f"{each.help} (default: {shown})" if shown else each.help).replace("%", "%%")
    if default is False:
        add(flag(name), action="store_true", default=None, help=help)
    else:
        metavar = each.metavar or name.upper()
        action = "append" if each.many else "store"
        add(flag(name), type=checked(each.parse), action=action, default=None, metavar=metavar, help=help)


def settings(given: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """The settings of a command line and an environment. Raises Usage, which names the option or the variable."""
    found: dict[str, Any] = {name: value for name in OPTIONS if (value := getattr(given, name)) is not None}
    said = dict.fromkeys(found, flag)
    for name, each in OPTIONS.items():
        text = environment.get(variable(name))
        if text is None or (name in found and (each.replaces or not each.many)):
            continue
        if any(said.get(other) is flag for other in _excluded(name)):
            continue  # the command line wins
        try:
            value = _from_variable(text, name, each)
        except ValueError as error:
            raise Usage(f"{variable(name)}: {error}; see 'ds serve --help'") from None
        if value is False or value == ():
            continue  # as if it weren't there
        found[name] = (*value, *found.get(name, ())) if each.many else value
        said.setdefault(name, variable)
    for name in found:
        for other in _excluded(name):
            if other in found:
                raise Usage(f"{said[name](name)} is not allowed with {said[other](other)}; see 'ds serve --help'")
    values: dict[str, Any] = {name: tuple(value) if OPTIONS[name].many else value for name, value in found.items()}
    try:
        return Settings(**values)
    except ValueError as error:
        raise Usage(str(error)) from None


def _from_variable(text: str, name: str, each: Option) -> Any:
    if _DEFAULTS[name] is False:
        return units.switch(text)
    if each.many:
        return tuple(each.parse(part.strip()) for part in text.split(",") if part.strip())
    return each.parse(text)


def _excluded(name: str) -> set[str]:
    """What can't be given beside it, whichever of the two says so."""
    return {*OPTIONS[name].excludes, *(other for other, each in OPTIONS.items() if name in each.excludes)}
