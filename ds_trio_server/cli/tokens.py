"""The commands `ds token` and `ds share`: who may do what, kept in an access file."""

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ds_core.server import targets
from ds_core.server.errors import ProtocolError
from ds_core.wire.names import DEFAULT_PORT, ROOT

from .. import units
from ..access import file as access_file
from ..clock import BUILT
from .parser import checked

if TYPE_CHECKING:
    from .parser import Commands

_LONGEST = 366 * units.DAY


def add_commands(commands: "Commands") -> None:
    """Add `token` and `share`; each also has `act`, what `run` runs."""
    token = commands.add_parser("token", help="give and take back access", description="Who may do what, by token.")
    actions = token.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=type(token))
    new = actions.add_parser(
        "new",
        help="make a token and print it, once",
        description="Make a token and print it, once. A GLOB is a stream path in which * stands for one segment "
        "or a part of one, and ** for any number of segments: 'greenhouse/**' is greenhouse and what is below it.",
    )
    add = new.add_argument
    _file(new)
    add("--name", required=True, help="whose token it is; also the name in a client certificate")
    add("--read", action="append", default=[], metavar="GLOB", help="may read these streams")
    add("--write", action="append", default=[], metavar="GLOB", help="may append to these streams and close them")
    add("--create", action="append", default=[], metavar="GLOB", help="may create and delete these streams")
    add("--metrics", action="store_true", help="may read /metrics")
    add("--certificate-only", action="store_true", help="make no token: a client certificate of that name is needed")
    new.set_defaults(run=run, act=_new)
    listing = actions.add_parser("list", help="show names and what they may do")
    _file(listing)
    listing.set_defaults(run=run, act=_list)
    revoke = actions.add_parser("revoke", help="take a token back")
    revoke.add_argument("name", metavar="NAME")
    _file(revoke)
    revoke.set_defaults(run=run, act=_revoke)

    share = commands.add_parser(
        "share",
        help="make a link with which anybody can read one stream",
        description="Print a link with which anybody can read one stream, until it expires. A browser will do.",
    )
    what = share.add_mutually_exclusive_group(required=True)
    what.add_argument("stream", metavar="STREAM", nargs="?", help="its path, such as greenhouse/7, or its URL")
    what.add_argument("--revoke-all", action="store_true", help="end all links that were ever given out")
    _file(share)
    share.add_argument("--expires", type=checked(_expires), default=units.HOUR, metavar="TIME",
        help="such as 90s, 15m, 1h or 7d (default: 1h)")  # fmt: skip
    share.add_argument("--base", type=checked(_base), metavar="URL",
        help=f"how the server is reached from outside (default: http://127.0.0.1:{DEFAULT_PORT})")  # fmt: skip
    share.set_defaults(run=run, act=_share)


def _file(parser: argparse.ArgumentParser) -> None:
    usual = os.environ.get("DS_ACCESS") or None
    parser.add_argument("--access", required=usual is None, default=usual, type=Path, metavar="FILE",
        help="the server's access file (default: DS_ACCESS)")  # fmt: skip


def _expires(text: str) -> int:
    return int(units.duration(text, 1, _LONGEST, plain=False))


def _base(text: str) -> str:
    if not _is_url(text):
        raise ValueError(f"'{text}' is not a URL such as https://gateway.example:4437")
    return text.rstrip("/").removesuffix(ROOT.rstrip("/"))


def _is_url(text: str) -> bool:
    url = urlsplit(text)
    return url.scheme in ("http", "https") and bool(url.netloc) and not url.query and not url.fragment


def run(options: argparse.Namespace) -> int:
    """Run a command that `add_commands` added; returns the exit status."""
    try:
        status: int = options.act(options)
    except (access_file.AccessFileError, ValueError) as error:
        print(f"ds {options.command}: {error}", file=sys.stderr)
        return 1
    return status


def _new(options: argparse.Namespace) -> int:
    entry = {
        "name": options.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "read": options.read,
        "write": options.write,
        "create": options.create,
    }
    if options.metrics:
        entry["metrics"] = True
    if not (options.metrics or options.read or options.write or options.create):
        raise ValueError("a token without a right is of no use: give --read, --write, --create or --metrics")
    with access_file.edit(options.access, create=True) as content:
        token = access_file.add_token(content, entry, not options.certificate_only)
    if token:
        print(token)
    _note("the token is shown only now" if token else f"who has a certificate named '{options.name}' has these rights")
    return _reload(options)


def _list(options: argparse.Namespace) -> int:
    for entry in access_file.entries(options.access):
        rights = [f"{right} {glob}" for right in ("read", "write", "create") for glob in entry.get(right, ())]
        rights += ["metrics"] if entry.get("metrics") else []
        kind = "" if entry.get("hash") else " (certificate only)"
        print(f"{entry['name']}{kind}: {', '.join(rights) or 'nothing'}")
    return 0


def _revoke(options: argparse.Namespace) -> int:
    with access_file.edit(options.access) as content:
        left = [entry for entry in content["tokens"] if entry.get("name") != options.name]
        if len(left) == len(content["tokens"]):
            raise ValueError(f"there is no token named '{options.name}' in {options.access}")
        content["tokens"] = left
    return _reload(options)


def _share(options: argparse.Namespace) -> int:
    if options.revoke_all:
        with access_file.edit(options.access) as content:
            access_file.renew_share_key(content)
        return _reload(options)
    now = time.time()
    if now < BUILT:
        raise ValueError("this machine's clock is not set, so no time can be given to a link")
    base = options.base
    try:
        if "://" in options.stream:
            if not _is_url(options.stream):
                raise ValueError(f"'{options.stream}' is not the URL of a stream; give it without a query")
            url = urlsplit(options.stream)
            path = targets.stream_path(url.path)
            base = base or f"{url.scheme}://{url.netloc}"
        else:
            path = targets.stream_path(targets.url_path(options.stream.removeprefix(ROOT)))
    except ProtocolError as error:
        raise ValueError(f"{options.stream}: {error}") from None
    query = access_file.link(options.access, path, int(now) + options.expires)
    print(f"{base or f'http://127.0.0.1:{DEFAULT_PORT}'}{targets.url_path(path)}?{query}")
    return 0


def _reload(options: argparse.Namespace) -> int:
    _note("a running server takes this on at SIGHUP (systemctl reload)")
    return 0


def _note(text: str) -> None:
    # Not to stdout: that is for the token, so that it can go into a variable or a file.
    print(text, file=sys.stderr)
