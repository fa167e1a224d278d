"""A data directory checked and copied, beside a running server.

Neither needs the server's help. A check reads one state of the file, whatever is written meanwhile;
a backup is a complete copy of one state, or it isn't there. Both take files of the versions that this code upgrades,
as they are, so that there can be a backup before the upgrade; neither changes what it looks at.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..base import Damaged, StorageFailed, StorageFull, StorageReadOnly
from . import broken_log, copying, errors, files, meta, rows, schema
from .broken_log import Broken
from .shm import SharedIndex

_MOST_PROBLEMS = 20


class Unusable(Exception):
    """There is nothing that could be checked or copied; says why, to the operator."""


class Report:
    """What a check counted, and each problem that it found, in words."""

    def __init__(self) -> None:
        self.streams = self.appends = self.bytes = 0
        self.problems: list[str] = []

    def add(self, problem: str) -> None:
        """Note a problem; beyond a few more of them say nothing new."""
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(problem)


def check(folder: Path) -> Report:
    """Verify everything in a data directory. Raises Unusable when it is none."""
    report = Report()
    with _opened(folder) as (db, _, broken):
        if broken is not None:
            report.add(f"{broken}; 'ds salvage {folder}' goes on without them")
        try:
            if broken is None or schema.is_known(db):  # all that made it one may be in the log
                _check(db, report, folder)
        except sqlite3.Error as error:
            _note(report, folder, error)
    return report


def _check(db: sqlite3.Connection, report: Report, folder: Path) -> None:
    db.text_factory = lambda text: text.decode("utf-8", "backslashreplace")  # damaged text is to be told, too
    for statement in schema.as_current(db):
        db.execute(statement)
    db.execute("PRAGMA query_only = 1")
    db.execute("BEGIN")
    for (text,) in db.execute(f"PRAGMA integrity_check({_MOST_PROBLEMS})"):
        if text != "ok":
            report.add(text)
    for part in (_check_streams, _check_appends, _check_lists, _check_leftovers):
        # What one of them stumbles over keeps nobody from what the others find.
        try:
            part(db, report)
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            # What a damaged page holds can look like a row whose values are of any kind.
            report.add(f"a row can't be understood: {error}")
        except sqlite3.Error as error:
            _note(report, folder, error)


def _note(report: Report, folder: Path, error: sqlite3.Error) -> None:
    """Damage is a problem to report; what only keeps a check from being made now is not. Raises Unusable for that."""
    refusal = errors.refusal(folder, error)
    if refusal is not None:
        raise Unusable(f"{folder / files.FILE} can't be checked now: {error}: {refusal.message}") from error
    report.add(f"{error} ({getattr(error, 'sqlite_errorname', 'SQLITE_ERROR')})")


def backup(folder: Path, target: Path) -> Report:
    """Copy a data directory into another one, and check the copy. Raises Unusable or OSError."""
    file = target / files.FILE
    if file.exists():
        raise Unusable(f"{file} is there already; give a new directory")
    part = target / (files.FILE + ".part")
    with _opened(folder) as (_, access, broken):
        if broken is not None:
            raise Unusable(f"{broken}; see 'ds check {folder}'")
        files.make_folder(target)
        part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            copying.copy(schema.uri(folder, access), part)
        except BaseException as error:
            part.unlink(missing_ok=True)
            if isinstance(error, sqlite3.Error):
                raise Unusable(f"{folder / files.FILE} can't be copied: {error}; see 'ds check {folder}'") from error
            raise
    part.rename(file)
    copying.sync(target)
    return check(target)


@contextmanager
def _opened(folder: Path) -> Iterator[tuple[sqlite3.Connection, str, Broken | None]]:
    """A connection that changes nothing, to a file of any version that this code knows, the query of its URI, and what
    is broken of its log."""
    file = folder / files.FILE
    if not file.is_file():
        raise Unusable(f"{file} is not there; give the directory that 'ds serve --data' is given")
    index = SharedIndex(folder)
    try:
        db, access, broken = _connect(folder, index)
        try:
            yield db, access, broken
        finally:
            db.close()
    finally:
        index.close()


def _connect(folder: Path, index: SharedIndex) -> tuple[sqlite3.Connection, str, Broken | None]:
    file = folder / files.FILE
    try:
        db, access, broken = _open(folder, index)
        try:
            if broken is None and not schema.is_known(db):
                raise Unusable(f"{file} is not a stream store of version {schema.VERSION}, or of one before it")
        except BaseException:
            db.close()
            raise
    except UnicodeDecodeError as error:
        raise Unusable(f"{file} is damaged: {errors.NO_TEXT}; restore the directory from a backup") from error
    except sqlite3.Error as error:
        refusal = errors.refusal(folder, error)
        why = "restore the directory from a backup" if refusal is None else refusal.message
        raise Unusable(
            f"{file}: {error} ({getattr(error, 'sqlite_errorname', 'SQLITE_ERROR')}); {why}"
        ) from error
    except StorageFailed as error:
        raise Unusable(str(error)) from error
    return db, access, broken


def _open(folder: Path, index: SharedIndex) -> tuple[sqlite3.Connection, str, Broken | None]:
    # What has a log is left with it: only who may write would move it into the file. Without one, who may write also
    # takes away again what SQLite makes to read.
    log = folder / (files.FILE + "-wal")
    access = "mode=ro" if log.exists() else "mode=rw"
    try:
        index.take()
        broken = broken_log.look(folder, index)
        return _open_as(folder, access), access, broken
    except (StorageFull, sqlite3.Error) as error:
        if not isinstance(errors.refusal(folder, error), (StorageFull, StorageReadOnly)):
            raise
        access = schema.access_to_read(folder)
        return _open_as(folder, access), access, broken_log.look(folder, index)


def _open_as(folder: Path, access: str) -> sqlite3.Connection:
    db = schema.connect(folder, cache_kib=8192, access=access)
    try:
        schema.one(db, "SELECT count(*) FROM sqlite_master")  # the first look at the log and its shared memory
    except BaseException:
        db.close()
        raise
    return db


def _check_streams(db: sqlite3.Connection, report: Report) -> None:
    for problem in meta.problems(db):
        report.add(problem)
    newest = db.execute("SELECT coalesce(max(value), 0) FROM meta WHERE name = 'newest'").fetchone()[0]
    newest = newest if isinstance(newest, int) else schema.MAX_INTEGER
    streams = db.execute(
        "SELECT s.id, s.path, s.incarnation, s.start, s.tail, s.source, s.fork_at, s.forks, s.deleted, s.closed_by,"
        " (SELECT count(*) FROM streams f WHERE f.source = s.id), o.incarnation, o.tail, r.stream"
        " FROM streams s LEFT JOIN streams o ON o.id = s.source"
        " LEFT JOIN removed r ON r.stream = s.id AND r.below IS NULL"
    )
    for id, path, incarnation, start, tail, source, at, forks, deleted, by, actual, root, limit, removed in streams:
        report.streams += not deleted
        name = f"stream {id} ({path})"
        try:
            rows.read(db, id)
        except Damaged as error:
            report.add(str(error))
        if not 0 < incarnation <= id <= newest:
            report.add(f"{name}: its number or incarnation {incarnation} is beyond the newest issued, {newest}")
        if not 0 <= start <= tail:
            report.add(f"{name}: it begins at {start} and ends at {tail}")
        if forks != actual:
            report.add(f"{name}: it counts {forks} forks and has {actual}")
        if deleted and not actual:
            report.add(f"{name}: it is deleted and has no forks, but was not removed")
        if removed is not None:
            report.add(f"{name}: its data is to be freed while it is still there")
        if by is not None and len(by.split(" ", 2)) != 3:
            report.add(f"{name}: who closed it can't be read")
        if source is None:
            if incarnation != id:
                report.add(f"{name}: it is no fork, but its offsets belong to stream {incarnation}")
        elif root is None:
            report.add(f"{name}: its source, stream {source}, is missing")
        elif incarnation != root or source >= id or not at <= min(limit, tail):
            report.add(f"{name}: it does not fit to its source, stream {source}")


def _check_appends(db: sqlite3.Connection, report: Report) -> None:
    expected = _expected(db)
    at = next(expected, None)
    stream, known = 0, _Rows(0, 0, 0)
    for id, position, part, sum, data in db.execute(
        "SELECT stream, position, part, sum, data FROM stored ORDER BY stream, position"
    ):
        if id != stream:
            known.finish(report)
            stream, known = id, _Rows(id, position, position, schema.MAX_INTEGER)
            while at is not None and at[0] < id:
                if at[3] > at[2]:
                    report.add(f"stream {at[0]}: its bytes from {at[2]} to {at[3]} are missing")
                at = next(expected, None)
            if at is not None and at[0] == id:
                _, base, first, tail = at
                known = _Rows(id, position, tail, first)
                if position < base or (position > first and first < tail):
                    report.add(f"stream {id}: its first append is at {position}, expected {first}")
                at = next(expected, None)
            else:
                known.orphan = not db.execute(
                    "SELECT 1 FROM removed WHERE stream = ? AND below IS NULL", (id,)
                ).fetchone()
        known.add(report, position, part, sum, data)
    known.finish(report)
    while at is not None:
        if at[3] > at[2]:
            report.add(f"stream {at[0]}: its bytes from {at[2]} to {at[3]} are missing")
        at = next(expected, None)


def _expected(db: sqlite3.Connection) -> Iterator[tuple[int, int, int, int]]:
    """For each stream: id, where its own bytes begin, from where on they must be there, tail."""
    needed = _needed(db)
    for id, base, first, tail in db.execute(
        f"SELECT id, coalesce(fork_at, 0), {schema.SHOWN_FROM}, tail FROM streams ORDER BY id"
    ):
        yield id, base, max(base, min(first, needed.get(id, first))), tail


def _needed(db: sqlite3.Connection) -> dict[int, int]:
    """From which position on forks need the bytes of a stream, of streams that have such forks: what `schema.NEEDED`
    says of one, for all at once."""
    forks = {
        id: (source, at, first)
        for id, source, at, first in db.execute(
            f"SELECT id, source, fork_at, {schema.SHOWN_FROM} FROM streams WHERE source IS NOT NULL"
        )
    }
    needed: dict[int, int] = {}
    for source, upto, first in forks.values():
        while source is not None and first < upto:
            above, base, _ = forks.get(source, (None, 0, 0))
            if upto > base:  # or what it shows is above, and nothing here
                needed[source] = min(first, needed.get(source, first))
            source, upto = above, min(upto, base)
    return needed


class _Rows:
    """The rows of one stream, as they come."""

    def __init__(self, stream: int, first: int, tail: int, shown: int = 0) -> None:
        self.stream = stream
        self.shown = shown
        self.next = first
        self.tail = tail
        self.known = tail > first
        self.orphan = False
        self._in_append: int | None = None

    def add(self, report: Report, position: int, part: int, sum: int, data: Any) -> None:
        """Take the next row."""
        report.appends += part == 0
        if data is None:
            report.add(f"stream {self.stream}: the blob of its append at {position} is missing")
            self.known = False
            return
        report.bytes += len(data)
        if position != self.next and self.known:
            report.add(f"stream {self.stream}: bytes from {self.next} to {position} are missing or there twice")
        begins = self._in_append is None and position < self.shown  # what is before it may be freed in part
        if not isinstance(part, int) or (part and part != self._in_append and not begins):
            report.add(f"stream {self.stream}: the append at {position} is not whole")
            part = 0
        if not part and sum & rows.CONTINUES:
            report.add(f"stream {self.stream}: the data at position {position} does not begin an append")
        elif not rows.is_whole(self.stream, position, part, sum, data):
            report.add(f"stream {self.stream}: its data at position {position} is damaged")
        self.next = position + len(data)
        self._in_append = part + len(data)

    def finish(self, report: Report) -> None:
        """There are no more."""
        if self.orphan:
            report.add(f"stream {self.stream}: it is gone, but its data was left behind")
        elif self.known and self.next != self.tail:
            report.add(f"stream {self.stream}: its data ends at {self.next} and not at its tail {self.tail}")


def _check_lists(db: sqlite3.Connection, report: Report) -> None:
    """What says what is to be freed: a row of it that can't be so is passed over by a server, or does less."""
    for stream, kind, below, shown, needed in db.execute(
        f"SELECT r.stream, typeof(r.below), r.below, {schema.SHOWN_FROM},"
        " s.id IS NULL AND EXISTS (SELECT 1 FROM streams f WHERE f.source = r.stream)"
        " FROM removed r LEFT JOIN streams s ON s.id = r.stream"
    ):
        whole = kind == "null"
        if needed or not (whole or (kind == "integer" and shown is not None and 0 <= below <= shown)):
            what = "all of it" if whole else f"what is below {below!r:.40}"
            report.add(f"stream {stream}: {what} is listed to be freed, which can't be so")
    if not schema.is_ours(db):
        return  # an earlier version's have no checksums
    for stream, at, position, sum in db.execute("SELECT stream, at, position, sum FROM times"):
        if schema.sum_of(stream, at, position) != sum:
            report.add(f"stream {stream}: what it says of its age, {position!r:.40} at {at!r:.40}, can't be so")
    for blob, *rest in db.execute("SELECT blob, stream, position, sum FROM staged"):
        if rest != [None, None, None] and tuple(rest) != schema.staged(blob, *rest[:2])[1:]:
            report.add(f"blob {blob}: that it is staged can't be so")


def _check_leftovers(db: sqlite3.Connection, report: Report) -> None:
    if schema.is_ours(db):  # an earlier version doesn't count them
        for id, there, counted in db.execute(
            "SELECT p.stream, p.there, ifnull(c.count, 0) FROM (SELECT stream, count(*) AS there FROM producers"
            " GROUP BY stream) p LEFT JOIN producing c ON c.stream = p.stream WHERE ifnull(c.count, 0) != p.there"
        ):
            report.add(f"stream {id}: it counts {counted} producers and has {there}")
    used = ", typeof(used) NOT IN ('integer', 'null')" if schema.is_ours(db) else ", 0"
    for stream, id, wrong, late in db.execute(
        "SELECT stream, CAST(id AS BLOB), typeof(stream) != 'integer' OR typeof(id) != 'text'"
        f" OR typeof(epoch) != 'integer' OR typeof(seq) != 'integer' OR min(epoch, seq) < 0{used} FROM producers"
    ):
        if wrong or late or not _is_text(id):
            report.add(f"stream {stream}: what it says of producer {id!r:.60} can't be so")
    for (id,) in db.execute(
        "SELECT id FROM blobs WHERE id NOT IN (SELECT blob FROM appends WHERE blob IS NOT NULL)"
        " AND id NOT IN (SELECT blob FROM staged)"
    ):
        report.add(f"blob {id}: no append has it")
    for table in ("producers", "times"):
        for (id,) in db.execute(
            f"SELECT DISTINCT stream FROM {table} WHERE stream NOT IN (SELECT id FROM streams)"
            " AND stream NOT IN (SELECT stream FROM removed WHERE below IS NULL)"
        ):
            report.add(f"stream {id}: it is gone, but its {table} were left behind")


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
