"""Which storage errors mean what: no room, read-only, locked by somebody else, and damage; each as its users see it."""

from __future__ import annotations

import contextlib
import errno
import json
import resource
import sqlite3
import subprocess
import threading
import time

import pytest

from ds_trio_server.store.base import StorageBusy, StorageFull, StorageReadOnly
from ds_trio_server.store.sqlite import errors, files, rows
from tests.faults import volume
from tests.faults.servers import ask
from tests.tools import serve


def run(*args):
    return subprocess.run([*serve.command(), *map(str, args)], capture_output=True, text=True, timeout=60)


def code(body):
    return json.loads(body)["error"]["code"]


def eventually(condition, timeout=10.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)


# No room


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EFBIG"])
@pytest.mark.parametrize("how", [1, 2])
def test_no_room_is_no_room_by_whatever_name(faulty, name, how):
    it = faulty()
    assert it.ask("PUT", "a", b"one")[0] == 201
    it.disk["error"] = getattr(errno, name)
    it.disk["full"] = how
    for _ in range(3):
        status, _, body = it.ask("POST", "a", b"y" * 3_000_000)
        assert (status, code(body)) == (507, "NO_SPACE")
        assert it.ask("GET", "a")[2] == b"one"
        assert it.ask("GET", "/readyz")[0] == 503
    it.disk["full"] = 0
    answer = it.ask("POST", "a", b"two")
    assert answer[0] == 204, answer
    assert it.ask("GET", "a")[2] == b"onetwo" and it.ask("GET", "/readyz")[0] == 200


def test_a_write_that_fails_for_another_reason_still_ends_the_server(faulty):
    it = faulty()
    it.disk["fail_write"] = 1
    assert it.ask("PUT", "a", b"one")[0] == 503
    assert it.server.wait(60) == 1
    assert "the disk has failed" in it.server.output and "it is damaged" not in it.server.output


@contextlib.contextmanager
def file_limit(size):
    """What this process starts meanwhile may have no larger file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def start_limited(size, *args):
    with file_limit(size):
        return serve.start(*args)


@pytest.mark.parametrize("options", [(), ("--min-free", "0")])
def test_a_file_that_may_not_grow_is_a_full_disk(tmp_path, options):
    most = 4 << 20
    body = b"x" * 100_000
    with start_limited(most, "--data", tmp_path, *options) as server:
        assert ask(server, "PUT", "b", b"small")[0] == 201
        stored = 0
        while (status := ask(server, "POST", "b", body)[0]) == 204:
            stored += 1
            assert stored < 200, "it grows without end"
        assert status == 507
        assert ask(server, "GET", "b?max-bytes=5")[0] == 200
    # It starts, reads, and can be emptied: then there is room again.
    with start_limited(most, "--data", tmp_path, *options) as server:
        assert ask(server, "GET", "b?max-bytes=5")[0] == 200
        assert int(ask(server, "HEAD", "b")[1]["stream-next-offset"].partition("_")[2]) == stored * 100_000 + 5
    done = run("check", tmp_path)
    assert done.returncode == 0 and "all well" in done.stdout, done.stderr


def test_low_room_in_the_file_refuses_what_grows_and_nothing_else(tmp_path):
    with start_limited(32 << 20, "--data", tmp_path, "--min-free", "8M") as server:
        assert ask(server, "PUT", "a", b"one")[0] == 201
        for _ in range(40):
            assert ask(server, "POST", "a", b"x" * 1_000_000)[0] in (204, 507)
        # What is smaller may still go in, as long as there is room for it.
        for size in (50_000, 2_000, 1):
            eventually(lambda size=size: ask(server, "POST", "a", b"x" * size)[0] == 507, 60)
        assert ask(server, "POST", "a", Stream_Closed="true")[0] == 204
        assert ask(server, "DELETE", "a")[0] == 204
        eventually(lambda: ask(server, "PUT", "b", b"room again")[0] == 201, 60)


@pytest.mark.parametrize("reserve", [True, False])
def test_it_starts_on_a_full_disk_and_goes_on_when_there_is_room(tmp_path, reserve):
    with volume.mounted(tmp_path / "v", "16M") as small:
        data = small.path / "data"
        with serve.start("--data", data) as server:
            assert ask(server, "PUT", "a", b"one")[0] == 201
        if not reserve:
            (data / files.RESERVE).unlink()
        small.fill()
        done = run("check", data)
        assert done.returncode == 0 and "all well" in done.stdout, done.stderr
        with serve.start("--data", data) as server:
            assert ask(server, "GET", "a")[2] == b"one"
            status, _, body = ask(server, "PUT", "b", b"x" * 1_000_000)
            assert (status, code(body)) == (507, "NO_SPACE")
            if reserve:
                assert ask(server, "DELETE", "a")[0] == 204, "what was set aside lets it free something"
                continued = 404
            else:
                assert "served for reading alone" in server.output and ask(server, "GET", "/readyz")[0] == 503
                continued = 200
            small.empty()
            eventually(lambda: ask(server, "PUT", "b", b"two")[0] == 201)
            assert ask(server, "GET", "/readyz")[0] == 200
            assert ask(server, "GET", "a")[0] == continued
            assert ask(server, "GET", "b")[2] == b"two"
            eventually((data / files.RESERVE).exists)  # set aside again
        done = run("check", data)
        assert done.returncode == 0, done.stderr


# Read-only


def test_a_disk_that_can_only_be_read_any_more_is_served_for_reading(faulty):
    it = faulty()
    assert it.ask("PUT", "a", b"one")[0] == 201
    assert it.ask("PUT", "t", b"ttl", Stream_TTL="100")[0] == 201
    it.disk["read_only"] = 1
    for _ in range(2):
        status, headers, body = it.ask("POST", "a", b"two")
        assert (status, code(body)) == (503, "READ_ONLY") and headers["retry-after"]
        assert it.ask("GET", "a")[2] == b"one" and it.ask("GET", "t")[2] == b"ttl"
        assert it.ask("GET", "/readyz")[0] == 503 and it.ask("GET", "/healthz")[0] == 200
    time.sleep(1.5)  # a sweep has been there
    assert it.server.process.poll() is None
    assert it.server.output.count("can only be read") == 1, "said once"
    it.disk["read_only"] = 0
    eventually(lambda: it.ask("GET", "/readyz")[0] == 200)
    assert it.ask("POST", "a", b"two")[0] == 204
    assert it.ask("GET", "a")[2] == b"onetwo"


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_read_only_file_system_is_served_for_reading_until_it_can_be_written(tmp_path, end):
    with volume.mounted(tmp_path / "v", "16M") as small:
        data = small.path / "data"
        with serve.start("--data", data) as server:
            assert ask(server, "PUT", "a", b"one")[0] == 201
            assert ask(server, "PUT", "gone", b"x", Stream_TTL="1")[0] == 201
            getattr(server, end)()
        small.read_only(True)
        for command in (("check", data), ("backup", data, tmp_path / "copy")):
            done = run(*command)
            assert done.returncode == 0 and "all well" in done.stdout, done.stderr
        with serve.start("--data", data) as server:
            assert "can only be read" in server.output
            assert ask(server, "GET", "a")[2] == b"one"
            for method, path, body in (("POST", "a", b"two"), ("PUT", "b", b"new"), ("DELETE", "a", b"")):
                status, _, answer = ask(server, method, path, body)
                assert (status, code(answer)) == (503, "READ_ONLY")
            assert ask(server, "GET", "/readyz")[0] == 503
            # Its time is over, though it can't be removed.
            eventually(lambda: ask(server, "GET", "gone")[0] == 404)
            with pytest.raises(RuntimeError, match="in use by another server"):
                serve.start("--data", data)
            small.read_only(False)
            eventually(lambda: ask(server, "GET", "/readyz")[0] == 200)
            assert ask(server, "POST", "a", b"two")[0] == 204
            assert ask(server, "GET", "a")[2] == b"onetwo"
        with serve.start("--data", data) as server:
            assert ask(server, "GET", "a")[2] == b"onetwo"


def test_a_log_that_can_only_be_read_by_writing_is_not_left_out_in_silence(tmp_path):
    with volume.mounted(tmp_path / "v", "16M") as small:
        data = small.path / "data"
        with serve.start("--data", data) as server:
            assert ask(server, "PUT", "a", b"one")[0] == 201
            server.kill()
        (data / "streams.db-shm").unlink()
        small.read_only(True)
        with pytest.raises(RuntimeError, match="can't be read without writing"):
            serve.start("--data", data)
        done = run("check", data)
        assert done.returncode == 2 and "can't be read without writing" in done.stderr
        assert "backup" not in done.stderr


@pytest.mark.parametrize("why", ["full", "read-only"])
def test_a_new_directory_that_cannot_be_written_is_named_with_the_cause(tmp_path, why):
    with volume.mounted(tmp_path / "v", "1M") as small:
        (small.path / "data").mkdir()
        if why == "full":
            small.fill()
        else:
            small.read_only(True)
        with pytest.raises(RuntimeError, match=r"streams\.db can't be made: the server's disk") as caught:
            serve.start("--data", small.path / "data")
        assert "Traceback" not in str(caught.value) and "backup" not in str(caught.value)


# Busy


def test_somebody_elses_lock_is_waited_for_told_and_over_when_it_is_over(tmp_path):
    with serve.start("--data", tmp_path) as server:
        assert ask(server, "PUT", "a", b"one")[0] == 201
        shell = sqlite3.connect(tmp_path / "streams.db", isolation_level=None)
        shell.execute("BEGIN IMMEDIATE")
        status, headers, body = ask(server, "POST", "a", b"two")
        assert (status, code(body)) == (503, "BUSY") and headers["retry-after"]
        started = time.monotonic()
        assert ask(server, "POST", "a", b"two")[0] == 503
        assert time.monotonic() - started < 2, "who comes later is not kept waiting as long"
        assert ask(server, "GET", "/readyz")[0] == 503
        assert ask(server, "GET", "a")[2] == b"one", "reads go on"
        assert run("check", tmp_path).returncode == 0
        time.sleep(1.5)
        shell.execute("ROLLBACK")
        eventually(lambda: ask(server, "GET", "/readyz")[0] == 200)
        assert ask(server, "POST", "a", b"two")[0] == 204
        shell.close()
        assert ask(server, "GET", "a")[2] == b"onetwo"
        assert server.process.poll() is None


def test_a_short_lock_costs_nobody_more_than_its_time(tmp_path):
    with serve.start("--data", tmp_path) as server:
        assert ask(server, "PUT", "a", b"one")[0] == 201
        shell = sqlite3.connect(tmp_path / "streams.db", isolation_level=None, check_same_thread=False)
        shell.execute("BEGIN IMMEDIATE")


        threading.Timer(1.0, shell.execute, ("ROLLBACK",)).start()
        assert ask(server, "POST", "a", b"two")[0] == 204
        shell.close()


def test_a_file_that_another_program_has_for_itself_is_called_locked_and_not_damaged(tmp_path):
    with serve.start("--data", tmp_path) as server:
        assert ask(server, "PUT", "a", b"one")[0] == 201
    shell = sqlite3.connect(tmp_path / "streams.db", isolation_level=None)
    shell.execute("PRAGMA locking_mode = EXCLUSIVE")
    shell.execute("BEGIN IMMEDIATE")
    with pytest.raises(RuntimeError, match="locked by another program") as caught:
        serve.start("--data", tmp_path)
    assert "backup" not in str(caught.value) and "damage" not in str(caught.value)
    done = run("check", tmp_path)
    assert done.returncode == 2 and "lock" in done.stderr
    assert "backup" not in done.stderr
    shell.close()
    with serve.start("--data", tmp_path) as server:
        assert ask(server, "GET", "a")[2] == b"one"


# The table


def of(name):
    error = sqlite3.OperationalError(name)
    error.sqlite_errorcode = getattr(sqlite3, name)
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("SQLITE_FULL", StorageFull),
        ("SQLITE_IOERR_SHMSIZE", StorageFull),
        ("SQLITE_READONLY", StorageReadOnly),
        ("SQLITE_READONLY_CANTINIT", StorageReadOnly),
        ("SQLITE_BUSY", StorageBusy),
        ("SQLITE_BUSY_SNAPSHOT", StorageBusy),
        ("SQLITE_READONLY_DBMOVED", type(None)),
        ("SQLITE_IOERR_WRITE", type(None)),
        ("SQLITE_IOERR_FSYNC", type(None)),
        ("SQLITE_IOERR_DIR_FSYNC", type(None)),
        ("SQLITE_IOERR_TRUNCATE", type(None)),
        ("SQLITE_IOERR_READ", type(None)),
        ("SQLITE_CORRUPT", type(None)),
        ("SQLITE_NOTADB", type(None)),
        ("SQLITE_CANTOPEN", type(None)),
    ],
)
def test_the_store_goes_on_behind_what_is_over_some_time_and_nothing_else(tmp_path, name, kind):
    assert type(errors.refusal(tmp_path, of(name))) is kind


def test_what_is_over_before_it_can_be_asked_about_is_no_failure(tmp_path, monkeypatch):
    refusals = errors.Refusals(tmp_path)
    assert refusals.of(of("SQLITE_IOERR_WRITE")) is None, "nobody knows why"
    hindered = [StorageFull(), None, None]
    monkeypatch.setattr(errors, "hindrance", lambda folder: hindered.pop(0))
    assert type(refusals.of(of("SQLITE_IOERR_WRITE"))) is StorageFull
    assert type(refusals.of(of("SQLITE_IOERR_WRITE"))) is StorageFull
    for name in ("SQLITE_IOERR_FSYNC", "SQLITE_IOERR_READ", "SQLITE_CORRUPT"):
        assert refusals.of(of(name)) is None
    monkeypatch.setattr(errors, "_OVER_IN", 0.0)
    assert refusals.of(of("SQLITE_IOERR_WRITE")) is None, "what stays is another matter"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (of("SQLITE_CORRUPT"), "it is damaged"),
        (of("SQLITE_CORRUPT_INDEX"), "it is damaged"),
        (of("SQLITE_NOTADB"), "it is damaged"),
        (rows.damaged_data(1, 0), "it is damaged"),
        (sqlite3.DatabaseError("the row of stream 1 is damaged"), "it is damaged"),
        (of("SQLITE_IOERR_FSYNC"), "the disk has failed"),
        (of("SQLITE_IOERR_READ"), "the disk has failed"),
        (of("SQLITE_CANTOPEN"), "it can't be used"),
        (sqlite3.ProgrammingError("closed"), "it can't be used"),
        (ValueError("ours"), "it can't be used"),
        (MemoryError(), "no memory"),
    ],
)
def test_only_damage_is_called_damage(tmp_path, error, says):
    text = str(errors.failed(tmp_path, error))
    assert says in text and str(tmp_path / "streams.db") in text
    assert ("it is damaged" in text) == (says == "it is damaged")
