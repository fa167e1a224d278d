"""Streams in one SQLite file: the five storage calls, one transaction a run. For threads, and for one process."""

import sqlite3
import threading
import time

from ds_core.server import clock, rows, storage

COLUMNS = ", ".join(rows.COLUMNS)
SCHEMA = f"""
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS streams ({COLUMNS}, PRIMARY KEY (id), UNIQUE (path));
CREATE TABLE IF NOT EXISTS appends (id, at, data, PRIMARY KEY (id, at));
CREATE TABLE IF NOT EXISTS producers (id, name, epoch, seq, PRIMARY KEY (id, name));
CREATE TABLE IF NOT EXISTS meta AS SELECT {rows.VERSION} AS version, 0 AS newest, 0.0 AS steady, 0.0 AS wall;
"""


class Store:
    """`committed()` is called after each commit, by whichever thread made it."""

    def __init__(self, file, committed=lambda: None):
        self.db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self.db.executescript(SCHEMA)
        self.lock, self.committed = threading.Lock(), committed
        version, _, steady, wall = self.one("SELECT * FROM meta")
        if version != rows.VERSION:
            raise SystemExit(f"{file} is of version {version}, and this program knows {rows.VERSION}")
        self.clock = clock.Clock(steady, wall, time.monotonic, time.time)

    def one(self, query, *values):
        return self.db.execute(query, values).fetchone()

    def run(self, steps):
        """One transaction: nobody else's commit comes in between."""
        with self.lock:
            self.changed = False
            self.db.execute("BEGIN IMMEDIATE")
            try:
                result = storage.run(steps, self)
                self.db.execute("COMMIT")
            except BaseException:
                self.db.execute("ROLLBACK")
                raise
            changed = self.changed
        if changed:
            self.committed()
        return result

    def load(self, key):
        row = self.one(f"SELECT * FROM streams WHERE {'id' if isinstance(key, int) else 'path'} = ?", key)
        return row and rows.stream(row)

    def producer(self, id, name):
        return self.one("SELECT epoch, seq FROM producers WHERE id = ? AND name = ?", id, name)

    def newest(self):
        return self.one("SELECT newest FROM meta")[0]

    def pieces(self, id, start, end):
        first = self.one("SELECT max(at) FROM appends WHERE id = ? AND at <= ?", id, start)[0]
        query = "SELECT at, data FROM appends WHERE id = ? AND at BETWEEN ? AND ? ORDER BY at"
        return self.db.execute(query, (id, first, end - 1)).fetchall()

    def commit(self, changes):
        for each in changes.drops:
            for table in ("streams", "appends", "producers"):
                self.db.execute(f"DELETE FROM {table} WHERE id = ?", (each.id,))
        for each in changes.puts:
            marks = ", ".join("?" * len(rows.COLUMNS))
            self.db.execute(f"REPLACE INTO streams VALUES ({marks})", rows.row(each))
        if changes.data:
            self.db.execute("INSERT INTO appends VALUES (?, ?, ?)", changes.data)
        if changes.producer:
            self.db.execute("REPLACE INTO producers VALUES (?, ?, ?, ?)", changes.producer)
        now = changes.now
        self.db.execute(
            "UPDATE meta SET newest = ifnull(?, newest), steady = ?, wall = ?", (changes.newest, now.steady, now.wall)
        )
        self.changed = True

    def close(self):
        self.db.close()
