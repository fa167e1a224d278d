"""`ds check` and `ds backup`: looking after a data directory, both beside a running server; `ds salvage` after one."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from ..store.sqlite.maintenance import Report, Unusable, backup, check
from ..store.sqlite.salvaging import salvage

if TYPE_CHECKING:
    from .parser import Commands


def add_commands(commands: "Commands") -> None:
    """Add `check`, `backup` and `salvage`."""
    checking = commands.add_parser(
        "check",
        help="verify a data directory",
        description="Verify a data directory, also one that a server is using. Exits with 1 when it is damaged.",
    )
    checking.add_argument("folder", metavar="DIR", help="what 'ds serve --data' is given")
    checking.set_defaults(run=run_check)
    copying = commands.add_parser(
        "backup",
        help="copy a data directory, also a live one",
        description="Copy one consistent state of a data directory, also one that a server is using, and verify it.",
    )
    copying.add_argument("folder", metavar="DIR", help="what 'ds serve --data' is given")
    copying.add_argument("target", metavar="DEST", help="a new directory; serve it with 'ds serve --data DEST'")
    copying.set_defaults(run=run_backup)
    salvaging = commands.add_parser(
        "salvage",
        help="go on without what a damaged log has lost",
        description="Go on without the appends that stand behind damage in a data directory's log, which a server "
        "refuses to do by itself. The log and the database are kept beside it, as they were.",
    )
    salvaging.add_argument("folder", metavar="DIR", help="what 'ds serve --data' is given")
    salvaging.set_defaults(run=run_salvage)


def run_check(options: Namespace) -> int:
    """`ds check DIR`: 0 when all is well, 1 when something is damaged, 2 when there is nothing."""
    folder = Path(options.folder)
    try:
        report = check(folder)
    except Unusable as error:
        print(f"ds check: {error}", file=sys.stderr)
        return 2
    return _tell("check", folder, report)


def run_backup(options: Namespace) -> int:
    """`ds backup DIR DEST`: 0 when the copy is there and well."""
    try:
        report = backup(Path(options.folder), Path(options.target))
    except (Unusable, OSError) as error:
        print(f"ds backup: {error}", file=sys.stderr)
        return 2
    return _tell("backup", Path(options.target), report)


def run_salvage(options: Namespace) -> int:
    """`ds salvage DIR`: as `ds check`, behind what it does."""
    folder = Path(options.folder)
    try:
        done = salvage(folder)
    except Unusable as error:
        print(f"ds salvage: {error}", file=sys.stderr)
        return 2
    if done is None:
        print(f"{folder}: its log is not damaged in a way that loses appends; nothing was changed")
    else:
        broken, log, file = done
        print(f"{folder}: its log had {broken.commits} commits behind damage; what was there is kept as {log}, {file}")
    return run_check(options)


def _tell(command: str, folder: Path, report: Report) -> int:
    for problem in report.problems:
        print(f"ds {command}: {problem}", file=sys.stderr)
    if report.problems:
        print(
            f"ds {command}: {folder} is damaged; stop the server, keep a copy of the directory, "
            "and restore it from a backup",
            file=sys.stderr,
        )
        return 1
    print(f"{folder}: {report.streams} streams, {report.appends} appends, {report.bytes} bytes, all well")
    return 0
