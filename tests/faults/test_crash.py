"""The short variants of `make soak`: a few kills, power cuts and I/O errors, and the checker itself."""

from __future__ import annotations

import os
import random

import pytest

from ds_core.server.offsets import token

from . import disk, errors, kill, power
from .history import Found, History, Violation

SEED = int(os.environ.get("SEED", "0")) or random.randrange(1 << 30)


@pytest.mark.timeout(300)
def test_kill_9_in_the_middle_of_everything(tmp_path):
    cycles = int(os.environ.get("CYCLES", "6"))
    print(f"CYCLES={cycles} SEED={SEED}")
    workload = kill.run(tmp_path / "data", cycles, SEED)
    records, streams = workload.history.counts()
    assert records > 100 and streams > 20


@pytest.mark.timeout(300)
def test_power_cuts_at_sync_points(tmp_path):
    print(f"SEED={SEED}")
    rng = random.Random(SEED)
    shim = disk.library(tmp_path)
    history, paths, log = power.work(shim, tmp_path / "work", 1.0, rng.randrange(1 << 30))
    points, images = power.replay(log, history, paths, tmp_path / "left", rng, images=2, most=40)
    assert points > 20 and images == 2 * points


def test_power_cuts_while_a_store_is_made_and_reopened(tmp_path):
    """Every sync point of the very first second, where the file itself comes to be."""
    rng = random.Random(SEED)
    shim = disk.library(tmp_path)
    history, paths, log = power.work(shim, tmp_path / "work", 0.05, rng.randrange(1 << 30))
    points, _ = power.replay(log, history, paths, tmp_path / "left", rng, images=4, most=25, first=True)
    assert points > 5


@pytest.mark.timeout(300)
def test_io_errors_anywhere(tmp_path):
    print(f"SEED={SEED}")
    struck = errors.run(tmp_path, 2 * len(errors.KINDS), SEED)
    assert sum(struck.values()) >= 5


class TestTheChecker:
    """It must not be content with everything."""

    def setup_method(self):
        self.history = History()
        self.life = self.history.begin("a", 0)
        self.history.created(self.life, 1, token(1, len(self.life.marker)))
        self.at = len(self.life.marker)
        self.body = self.life.marker
        for n in range(3):
            self.append(n)

    def append(self, seq, acknowledged=True, closes=False):
        record = self.life.record("p", seq, 2 + seq, closes)
        self.at += len(record.line)
        self.body += record.line
        if acknowledged:
            self.life.acknowledge(record, 2.5 + seq, token(1, self.at))
        return record

    def refused(self, found, match, **at):
        with pytest.raises(Violation, match=match):
            self.history.check("a", found, **at)

    def test_content_with_what_was_acknowledged(self):
        assert self.history.check("a", Found(self.body)) is self.life

    def test_content_with_what_may_have_been_under_way(self):
        before = self.body
        self.append(3, acknowledged=False)
        for body in (before, self.body):
            self.history.check("a", Found(body))

    def test_lost(self):
        self.refused(Found(self.life.marker), "lost")
        self.refused(Found(None), "lost")

    def test_twice(self):
        self.refused(Found(self.body + self.body.splitlines(True)[-1]), "twice")

    def test_half(self):
        self.refused(Found(self.body[:-1]), "half")

    def test_out_of_order(self):
        lines = self.body.splitlines(True)
        self.refused(Found(b"".join([lines[0], lines[2], lines[1], lines[3]])), "is due")

    def test_foreign(self):
        self.refused(Found(self.body + b"garbage\n"), "nobody has sent")
        self.refused(Found(b"garbage\n" + self.body), "somebody else's")

    def test_back_after_its_end(self):
        self.life.ending = self.life.ended = 9
        self.history.check("a", Found(None))
        self.history.check("a", Found(self.body), at=8)
        self.refused(Found(self.body), "is back")

    def test_its_predecessor_is_back(self):
        self.life.ending = 9
        second = self.history.begin("a", 10)
        second.created = 11
        self.refused(Found(self.body), "is back|lost")

    def test_open_after_it_was_closed(self):
        self.append(3, closes=True)
        self.history.check("a", Found(self.body, True))
        self.refused(Found(self.body, False), "open")

    def test_closed_by_nobody(self):
        self.refused(Found(self.body, True), "nobody has asked")

    def test_an_offset_that_names_something_else(self):
        other = self.life.record("q", 0, 3)
        self.refused(Found(self.life.marker + other.line + self.body[len(self.life.marker) :]), "does no more")

    def test_what_was_seen_is_gone(self):
        before = self.body
        self.append(3, acknowledged=False)
        self.history.saw(self.life, Found(self.body))
        self.refused(Found(before), "were seen")

    def test_an_incarnation_for_two(self):
        with pytest.raises(Violation, match="incarnation"):
            self.history.created(self.history.begin("b", 5), 6, token(1, 0))

    def test_an_early_expiry(self):
        self.life.ttl, self.life.used = 10, 100.0
        self.refused(Found(None), "lost", seconds=109.9)
        self.history.check("a", Found(None), seconds=110.1)
