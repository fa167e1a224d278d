"""``ds check`` and ``ds backup``: looking after a data directory, both beside a running server."""

import sys
from argparse import Namespace
from pathlib import Path

from ..store.sqlite.maintenance import Report, Unusable, backup, check


def run_check(options: Namespace) -> int:
    """``ds check DIR``: 0 when all is well, 1 when something is damaged, 2 when there is nothing."""
    folder = Path(options.folder)
    try:
        report = check(folder)
    except Unusable as error:
        print(f"ds check: {error}", file=sys.stderr)
        return 2
    return _tell("check", folder, report)


def run_backup(options: Namespace) -> int:
    """``ds backup DIR DEST``: 0 when the copy is there and well."""
    try:
        report = backup(Path(options.folder), Path(options.target))
    except (Unusable, OSError) as error:
        print(f"ds backup: {error}", file=sys.stderr)
        return 2
    return _tell("backup", Path(options.target), report)


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
