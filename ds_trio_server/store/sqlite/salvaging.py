"""What a start refuses and an operator may want: to go on without what stands behind damage in a log (`ds salvage`).

Not beside a server, and nothing is lost by it: the log and the database are kept as they were.
"""

import shutil
import sqlite3
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from ..base import StorageFailed, StorageFull
from . import broken_log, files, schema
from .broken_log import Broken
from .copying import sync
from .hold import Hold
from .maintenance import Unusable, check
from .shm import SharedIndex


class Salvage(NamedTuple):
    """What was `broken`, and where the `log` and the database's `file` are kept as they were."""

    broken: Broken
    log: Path
    file: Path


def salvage(folder: Path) -> Salvage | None:
    """Go on without what a broken log has behind its damage; None when there is nothing to do.

    What stands before the damage is moved into the file; where the file is better without (later pages of the log may
    be in it already), it stays as it was. Raises Unusable.
    """
    if not (folder / files.FILE).is_file():
        raise Unusable(f"{folder / files.FILE} is not there; give the directory that 'ds serve --data' is given")
    try:
        hold = Hold(folder)
        try:
            index = SharedIndex(folder)
            try:
                done = _move(folder, index)
            finally:
                index.close()
            if done is not None:
                with TemporaryDirectory(dir=folder, prefix="salvage-") as alone:
                    shutil.copyfile(done.file, Path(alone) / files.FILE)
                    if _worth(Path(alone)) > _worth(folder):
                        _put_back(folder, done.file)
            return done
        finally:
            hold.close()
    except (StorageFailed, StorageFull, OSError, sqlite3.Error) as error:
        raise Unusable(f"{folder} can't be salvaged: {error}") from error


def _worth(folder: Path) -> tuple[int, int]:
    """How good a store is: few problems, then many appends."""
    try:
        report = check(folder)
    except Unusable:
        return -sys.maxsize, 0
    return -len(report.problems), report.appends


def _move(folder: Path, index: SharedIndex) -> Salvage | None:
    """Move what a broken log has before its damage into the file, and keep both as they were before that. None when
    there is nothing to do. The directory must be held. Raises StorageFailed, OSError and sqlite3.Error."""
    index.take()
    broken = broken_log.look(folder, index, held=True)
    if broken is None:
        return None
    if not index.alone:
        raise StorageFailed(f"{folder / files.FILE} is open in another program: end that first")
    number = 1
    while any((folder / f"{name}.damaged-{number}").exists() for name in (broken.log.name, files.FILE)):
        number += 1
    kept = []
    for path in (broken.log, folder / files.FILE):
        copy = path.with_name(f"{path.name}.damaged-{number}")
        shutil.copyfile(path, copy)
        copy.chmod(0o600)
        sync(copy)
        kept.append(copy)
    sync(folder)
    db = schema.connect(folder, cache_kib=8192, access="mode=rw")
    try:
        schema.one(db, "PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        db.close()
    return Salvage(broken, *kept)


def _put_back(folder: Path, file: Path) -> None:
    """Have a database be what was kept of it, without a log. The directory must be held, and nothing of it open."""
    part = folder / (files.FILE + ".part")
    shutil.copyfile(file, part)
    part.chmod(0o600)
    sync(part)
    for end in ("-wal", "-shm"):
        (folder / (files.FILE + end)).unlink(missing_ok=True)
    part.rename(folder / files.FILE)
    sync(folder)
