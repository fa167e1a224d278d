"""The outbox on a modelled disk: the power cut at every single operation, torn writes and lost renames included."""

from __future__ import annotations

import os
import random

import pytest

from ds_core.client.backoff import Backoff
from ds_core.client.writer import AGAIN, DONE, DUPLICATE, Writer
from ds_micro import Outbox, Stream, cpython, flash, recovery
from ds_micro.closing import close
from tests.micro.model import Disk, PowerCut, Server

SIZE = 160


class Device:
    """A device's life between two power cuts: appends numbered records, flushes now and then."""

    def __init__(self, disk: Disk, server: Server, rng: random.Random, full="refuse", limit=1 << 20, every=1):
        self.rng = rng
        self.server = server
        self.store = flash.FlashStore("/box", rng.getrandbits(20), "text/plain", False, limit, SIZE, 0, full, every)
        self.writer = Writer(self.store, "p", Backoff(lambda n: 0))

    def flush(self, lossy: bool = True) -> None:
        while (batch := self.writer.request()) is not None:
            body = b""
            view = memoryview(bytearray(50))
            while n := batch.readinto(view):
                body += bytes(view[:n])
            assert len(body) == batch.length
            if lossy and self.rng.random() < 0.2:
                self.writer.broken()  # the request was lost
                return
            status, headers = self.server.post(batch.epoch, batch.seq, body)
            if lossy and self.rng.random() < 0.3:
                self.writer.broken()  # the answer was lost
                return
            assert self.writer.answer(batch, status, headers) in (DONE, DUPLICATE, AGAIN)


def use(monkeypatch, disk: Disk) -> None:
    for module in (flash, recovery, cpython):
        monkeypatch.setattr(module, "os", disk)
    for module in (flash, recovery):
        monkeypatch.setattr(module, "OWNERS", {})
        monkeypatch.setattr(module, "open", disk.file, raising=False)


def run(monkeypatch, seed: int, cuts: list[int], **options: object):
    """Lives that end with a cut at operation cuts[i] of each, and a last one that flushes all.

    Returns the operations of the first life, the last device, the records whose append returned, those cut off
    within it, and those that arrived.
    """
    rng = random.Random(seed)
    disk, server = Disk(rng), Server()
    use(monkeypatch, disk)
    safe: list[int] = []
    unsure: list[int] = []
    number = 0
    first = 0
    for cut in cuts:
        disk.ops, disk.cut = 0, cut
        flash.TROUBLE[0] = 0  # as after a restart
        try:
            device = Device(disk, server, rng, **options)
            for _ in range(25):
                number += 1
                unsure.append(number)
                if device.store.append(b"%06d," % number):
                    safe.append(unsure.pop())
                if rng.random() < 0.15:
                    device.flush()
        except PowerCut:
            pass
        first = first or disk.ops
        disk.crash()
    device = Device(disk, server, rng, **options)
    device.flush(lossy=False)
    assert device.store.records == 0
    arrived = [int(word) for word in b"".join(server.bodies).split(b",")[:-1]]
    return first, device, safe, unsure, arrived


def check(safe: list[int], unsure: list[int], arrived: list[int]) -> None:
    assert arrived == sorted(set(arrived)), "out of order or twice"
    assert set(safe) <= set(arrived), "lost"
    assert set(arrived) <= {*safe, *unsure}


@pytest.mark.parametrize("seed", range(4))
def test_a_cut_at_every_operation_loses_and_repeats_nothing(monkeypatch, seed):
    operations, *_ = run(monkeypatch, seed, [0])
    assert operations > 50
    for cut in range(1, operations + 5):
        _, _, safe, unsure, arrived = run(monkeypatch, seed, [cut])
        check(safe, unsure, arrived)


def test_cuts_upon_cuts(monkeypatch):
    for seed in range(int(os.environ.get("DS_TEST_CUTS", "30")) * 50):
        rng = random.Random(seed)
        cuts = [rng.randint(1, 60) for _ in range(rng.randint(2, 8))]
        _, _, safe, unsure, arrived = run(monkeypatch, seed, cuts)
        check(safe, unsure, arrived)


def test_records_are_lost_in_a_row_from_the_end_at_most_when_several_share_a_sync(monkeypatch):
    for seed in range(200):
        _, _, safe, _, arrived = run(monkeypatch, seed, [random.Random(seed).randint(10, 80)], every=5)
        lost = [number for number in safe if number not in arrived]
        assert arrived == sorted(set(arrived))
        assert len(lost) < 5 and lost == safe[len(safe) - len(lost) :]


def test_dropping_the_oldest_counts_every_record_and_repeats_none(monkeypatch):
    for seed in range(300):
        rng = random.Random(seed)
        cuts = [rng.randint(20, 80) for _ in range(rng.randint(0, 6))] + [0]
        _, device, safe, unsure, arrived = run(monkeypatch, seed, cuts, full="drop-oldest", limit=4 * SIZE)
        assert arrived == sorted(set(arrived))
        assert set(arrived) <= {*safe, *unsure}
        lost = len(set(safe) - set(arrived))
        # A record that was only perhaps stored may be among the dropped.
        assert lost <= device.store.dropped <= lost + len(unsure)


def test_a_torn_tail_of_any_length_keeps_all_before_it(tmp_path):
    whole = tmp_path / "whole"
    store = flash.FlashStore(str(whole), 7, "text/plain", False, 65536, 4096, 0, "refuse", 1)
    ends = [36]
    for i in range(5):
        store.append(b"record %d" % i)
        ends.append(ends[-1] + 6 + 8)
    close(store)
    data = (whole / "00000001.out").read_bytes()
    assert len(data) == ends[-1]
    for cut in range(len(data) + 1):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "00000001.out").write_bytes(data[:cut])
        store = flash.FlashStore(str(folder), 8, "text/plain", False, 65536, 4096, 0, "refuse", 1)
        kept = sum(end <= cut for end in ends[1:])
        assert store.records == kept
        assert store.append(b"next") and store.records == kept + 1
        close(store)
        again = flash.FlashStore(str(folder), 9, "text/plain", False, 65536, 4096, 0, "refuse", 1)
        assert again.records == kept + 1
        batch = again.batch(0)
        assert batch.seq == 0 and batch.epoch == (7 if cut >= 36 else 8)
        close(again)


def test_a_flipped_bit_ends_the_segment_and_is_never_sent(tmp_path):
    whole = tmp_path / "whole"
    store = flash.FlashStore(str(whole), 7, "text/plain", False, 65536, 4096, 0, "refuse", 1)
    for i in range(3):
        store.append(b"record %d" % i)
    close(store)
    data = (whole / "00000001.out").read_bytes()
    for at in range(36, len(data)):
        folder = tmp_path / str(at)
        folder.mkdir()
        (folder / "00000001.out").write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
        store = flash.FlashStore(str(folder), 8, "text/plain", False, 65536, 4096, 0, "refuse", 1)
        assert store.records == (at - 36) // 14
        close(store)


def test_one_sync_per_record_and_few_per_segment(monkeypatch):
    rng = random.Random(1)
    disk, server = Disk(rng), Server()
    use(monkeypatch, disk)
    device = Device(disk, server, rng)
    before = disk.syncs
    for i in range(8):
        device.store.append(b"%06d," % i)
    assert disk.syncs - before == 8
    before = disk.syncs
    device.flush(lossy=False)
    assert disk.syncs - before <= 5  # the new file, the old one's deletion, and the folder for both


def test_a_directory_that_once_shows_less_than_there_is_loses_and_repeats_nothing(tmp_path, monkeypatch):
    """As MicroPython's listdir() does when a block can't be read: without a word."""
    folder = str(tmp_path / "box")
    box = Outbox(folder, Stream("http://127.0.0.1:1/s"), "p", limit=1 << 16, segment=64)
    for number in range(60):
        box.append(number)
    box.close()
    whole, shown = os.listdir, []

    def listdir(path):
        names = whole(path)
        shown.append(names[: len(names) // 3] if len(shown) < 2 else names)
        return shown[-1]

    monkeypatch.setattr(recovery.os, "listdir", listdir)
    monkeypatch.setattr(recovery.os, "ilistdir", lambda path: iter(whole(path)), raising=False)
    box = Outbox(folder, Stream("http://127.0.0.1:1/s"), "p", limit=1 << 16, segment=64)
    assert box.records == 60 and len(shown) == 3
    box.close()
    monkeypatch.setattr(recovery.os, "listdir", lambda path: whole(path)[:1])
    with pytest.raises(OSError, match="5"):
        Outbox(folder, Stream("http://127.0.0.1:1/s"), "p", limit=1 << 16, segment=64)
