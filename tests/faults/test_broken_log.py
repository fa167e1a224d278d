"""A damaged log is refused, a torn one is not: SQLite itself drops what stands behind either without a word."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess

import pytest

from ds_trio_server.store.base import StorageFailed
from ds_trio_server.store.sqlite import broken_log, files, maintenance, salvaging
from ds_trio_server.store.sqlite.shm import SharedIndex
from ds_trio_server.store.sqlite.wal import FRAME
from tests.tools import serve

from .servers import ask
from .stores import opened
from .streams import append, find, put, read

HEADER = 32
LOG = files.FILE + "-wal"
APPENDS = 40


async def crashed(folder, image, last=b""):
    """What a crash leaves of a store with many commits in its log, `last` behind them."""
    store = await opened(folder)
    await put(store, "a")
    for n in range(APPENDS):
        await append(store, "a", b"%04d " % n)
    if last:
        await append(store, "a", last)
    shutil.copytree(folder, image)
    await store.close()


def log_of(folder):
    return bytearray((folder / LOG).read_bytes())


def commits(data):
    """The places of last frames of commits."""
    frames = range(HEADER, len(data) - FRAME + 1, FRAME)
    salt = data[16:24]
    return [at for at in frames if any(data[at + 4 : at + 8]) and data[at + 8 : at + 16] == salt]


def looked(folder):
    """What a look finds, asking SQLite and working it out; both must agree."""
    index = SharedIndex(folder)
    index.take()
    found = broken_log.look(folder, index)
    index.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broken_log, "_end", lambda folder, index: None)
        index.take()
        assert broken_log.look(folder, index) == found
        index.close()
    return found


def flipped(data, at, bit=0):
    data[at] ^= 1 << bit
    return data


def zeroed(data, at, size):
    data[at : at + size] = bytes(size)
    return data


def noise(data, at, size):
    data[at : at + size] = random.Random(1).randbytes(size)
    return data


HARM = {
    "a bit of a page": lambda data, at: flipped(data, at + 24 + 700, 3),
    "a sector": lambda data, at: noise(data, (at + 1024) // 512 * 512, 512),
    "a frame": lambda data, at: zeroed(data, at, FRAME),
    "some frames": lambda data, at: zeroed(data, at, 5 * FRAME),
    "the log's header": lambda data, at: flipped(data, 20),
    "the log's header, all of it": lambda data, at: zeroed(data, 0, 32),
    "the log's first sector": lambda data, at: zeroed(data, 0, 512),
    "the log's first block": lambda data, at: noise(data, 0, 4096),
}


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("harm", HARM)
async def test_nothing_is_lost_silently_and_an_operator_goes_on(tmp_path, harm, shared):
    image = tmp_path / "image"
    await crashed(tmp_path / "data", image)
    if not shared:
        (image / (files.FILE + "-shm")).unlink()
    whole = log_of(image)
    harmed = HARM[harm](log_of(image), commits(whole)[20])
    (image / LOG).write_bytes(harmed)
    before = (image / files.FILE).read_bytes()
    for _ in range(2):
        with pytest.raises(StorageFailed, match=r"later commits.*acknowledged.*ds salvage"):
            await opened(image)
        problems = maintenance.check(image).problems
        assert "later commits" in problems[0] and "ds salvage" in problems[0]
        with pytest.raises(maintenance.Unusable, match="later commits"):
            maintenance.backup(image, tmp_path / "copy")
        assert log_of(image) == harmed and (image / files.FILE).read_bytes() == before, "the evidence stays"
    done = salvaging.salvage(image)
    assert done is not None
    broken, kept, file = done
    assert broken.commits >= 15 and kept.read_bytes() == harmed and kept.stat().st_mode & 0o777 == 0o600
    assert file.read_bytes() == before and file.stat().st_mode & 0o777 == 0o600
    assert not list(image.glob("salvage-*")) and not list(image.glob("*.part"))
    assert salvaging.salvage(image) is None
    for number in range(2):
        if harm.startswith("the log's"):  # all of it
            store = await opened(image)
            assert await find(store, "a") is None
        else:
            store = await opened(image)
            body = await read(store, "a")
            rest = b"".join(b"%04d " % n for n in range(APPENDS))
            assert len(body) < len(rest) and body == rest[: len(body) - 4 * number] + b"NEW " * number
            await append(store, "a", b"NEW ")
        await store.close()


async def test_a_file_that_has_more_than_the_log_before_its_damage_is_not_written_over(tmp_path):
    """All of the log had been moved into the file before the crash, and only then it was damaged."""
    image = tmp_path / "image"
    await crashed(tmp_path / "data", image)
    db = sqlite3.connect(image / files.FILE)
    log = log_of(image)
    moved = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    assert moved[1] == moved[2] > 0
    whole = (image / files.FILE).read_bytes()
    db.close()
    for end in ("", "-wal", "-shm"):
        (image / (files.FILE + end)).unlink(missing_ok=True)
    (image / files.FILE).write_bytes(whole)
    (image / LOG).write_bytes(flipped(log, commits(log)[20]))
    with pytest.raises(StorageFailed, match="later commits"):
        await opened(image)
    done = salvaging.salvage(image)
    assert done is not None and done.file.read_bytes() == whole
    assert not maintenance.check(image).problems
    store = await opened(image)
    assert await read(store, "a") == b"".join(b"%04d " % n for n in range(APPENDS))
    await store.close()


async def test_a_start_beside_a_check_loses_nothing_either(tmp_path):
    """`ds check` runs for long, and has the log's index; a server that is started meanwhile looks all the same."""
    image = tmp_path / "image"
    await crashed(tmp_path / "data", image)
    harmed = flipped(log_of(image), commits(log_of(image))[20])
    (image / LOG).write_bytes(harmed)
    with maintenance._opened(image) as (_, _, broken):
        assert broken is not None
        for _ in range(2):
            with pytest.raises(StorageFailed, match="later commits"):
                await opened(image)
        with pytest.raises(maintenance.Unusable, match="open in another program"):
            salvaging.salvage(image)
        assert log_of(image) == harmed
    with pytest.raises(StorageFailed, match="later commits"):
        await opened(image)


async def test_every_byte_of_the_headers_counts(tmp_path):
    await crashed(tmp_path / "data", tmp_path / "image")
    image = tmp_path / "image"
    whole = log_of(image)
    at = commits(whole)[20]
    places = [*range(HEADER), *range(at, at + 24), *range(at - FRAME, at - FRAME + 24)]
    for place in places:
        for bit in (0, 7):
            (image / LOG).write_bytes(flipped(bytearray(whole), place, bit))
            assert looked(image) is not None, (place - at, bit)
    (image / LOG).write_bytes(whole)
    assert looked(image) is None


async def test_any_bit_before_the_last_commit_counts(tmp_path):
    await crashed(tmp_path / "data", tmp_path / "image")
    image = tmp_path / "image"
    whole = log_of(image)
    last = commits(whole)[-2] + FRAME
    rng = random.Random(7)
    for _ in range(200):
        place = rng.randrange(last)
        (image / LOG).write_bytes(flipped(bytearray(whole), place, rng.randrange(8)))
        assert looked(image) is not None, place


async def test_the_last_commit_can_be_torn_in_any_way(tmp_path):
    """Frames of it may be there, lost, or half, in any order: that is what a power cut leaves."""
    await crashed(tmp_path / "data", tmp_path / "image", b"x" * 60_000)
    image = tmp_path / "image"
    whole = log_of(image)
    begin = commits(whole)[-2] + FRAME
    assert commits(whole)[-1] - begin > 10 * FRAME
    for seed in range(60):
        rng = random.Random(seed)
        torn = bytearray(whole)
        chance = rng.choice((0.02, 0.3, 0.7, 1.0))
        for at in range(begin, len(torn), 512):
            if rng.random() < chance:
                torn[at : min(at + 512, len(torn))] = bytes(min(512, len(torn) - at))
        (image / LOG).write_bytes(torn if rng.random() < 0.7 else torn[: rng.randrange(begin, len(torn))])
        assert looked(image) is None, seed
    store = await opened(image)
    assert (await read(store, "a")).startswith(b"".join(b"%04d " % n for n in range(APPENDS)))
    await store.close()


@pytest.mark.parametrize("seed", range(4))
async def test_what_many_power_cuts_leave_in_one_log_is_no_damage(tmp_path, seed):
    """Each leaves commits behind the end, torn at their beginning, that the next start writes over in part."""
    rng = random.Random(seed)
    folder = tmp_path / "0"
    store = await opened(folder)
    await put(store, "a")
    kept = b""
    for cut in range(12):
        body = rng.randbytes(3)
        await append(store, "a", body)
        kept += body
        before = len((folder / LOG).read_bytes()), commits(log_of(folder))[-1]
        await append(store, "a", b"L" * rng.choice((20_000, 60_000, 100_000)))
        image = tmp_path / f"{cut + 1}"
        shutil.copytree(folder, image)
        await store.close()
        data = log_of(image)
        begin = _end_of(folder, image, before)
        torn = rng.randrange(1, 4)
        data[begin : begin + torn * FRAME] = bytes(torn * FRAME)
        (image / LOG).write_bytes(data)
        assert looked(image) is None
        folder = image
        store = await opened(folder)
        assert await read(store, "a") == kept
    await store.close()
    assert not maintenance.check(folder).problems


def _end_of(folder, image, before):
    """Where the last append's frames begin: behind the commit before it."""
    data = log_of(image)
    at = HEADER
    ends = []
    frames = broken_log._Frames(image / LOG, data)
    sums, number = frames._header, 1
    while at + FRAME <= len(data) and frames._is_ours(number) and frames._follows(sums, number):
        sums = frames._stored(number)
        number, at = number + 1, at + FRAME
        if any(data[at - FRAME + 4 : at - FRAME + 8]):
            ends.append(at)
    # The large append was staged and published: all that it wrote is after the small one's commit.
    return ends[-2]


def test_a_process_says_so_in_one_line(tmp_path):
    data = tmp_path / "data"
    with serve.start("--data", data, "--min-free", "0") as server:
        ask(server, "PUT", "a", b"x")
        for n in range(20):
            assert ask(server, "POST", "a", b"%d" % n)[0] == 204
        server.kill()
    log = log_of(data)
    (data / LOG).write_bytes(flipped(log, len(log) // 2))
    command = [*serve.command(), "serve", "--data", str(data), "--port", "0"]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        lines = [line for line in done.stderr.splitlines() if "later commits" in line]
        assert len(lines) == 1 and "ds salvage" in lines[0]
        check = subprocess.run([*serve.command(), "check", str(data)], capture_output=True, text=True)
        assert check.returncode == 1 and "later commits" in check.stderr
    done = subprocess.run([*serve.command(), "salvage", str(data)], capture_output=True, text=True)
    assert done.returncode == 0 and "is kept as" in done.stdout, done
    with serve.start("--data", data, "--min-free", "0") as server:
        assert ask(server, "GET", "a")[0] == 200
        salvage = subprocess.run([*serve.command(), "salvage", str(data)], capture_output=True, text=True)
        assert salvage.returncode == 2 and "in use" in salvage.stderr


async def test_a_check_beside_a_server_is_none_of_this(tmp_path):
    """What a running server writes is no log that was left."""
    store = await opened(tmp_path)
    await put(store, "a")
    for n in range(50):
        await append(store, "a", b"%d" % n)
        assert not maintenance.check(tmp_path).problems
    await store.close()
