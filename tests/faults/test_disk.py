"""A server on a disk that fails: what its clients, its operator and the next start see."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from tests.faults.servers import ask
from tests.tools import serve


def test_a_failed_fsync_ends_the_server_and_is_never_tried_again(faulty, tmp_path):
    it = faulty()
    assert it.ask("PUT", "a", b"one")[0] == 201
    it.disk["fail_sync"] = 1
    status, headers, _ = it.ask("POST", "a", b"two")
    assert status == 503 and headers["retry-after"], "nobody is told that it is stored"
    assert it.server.wait(60) == 1
    assert "fsync" in it.server.output.lower()
    assert "streams.db" in it.server.output and "ds check" in it.server.output
    assert it.disk["failed"] == 1 and it.disk["after"] == 0, "nothing was written or synced behind the failure"
    # The disk is well again: what was acknowledged is there, what was not may be.
    with serve.start("--data", it.data) as server:
        assert ask(server, "GET", "a")[2] in (b"one", b"onetwo")


def test_a_failed_fsync_of_a_checkpoint_ends_the_server_too(faulty):
    it = faulty()
    assert it.ask("PUT", "a", b"one")[0] == 201
    it.disk["fail_home"] = 1
    acknowledged = 0
    with contextlib.suppress(http.client.HTTPException, OSError):
        while it.ask("POST", "a", b"x" * 200_000)[0] == 204:
            acknowledged += 1
    assert acknowledged > 1, "it was durable before the checkpoint began"
    assert it.server.wait(60) == 1
    assert "streams.db" in it.server.output
    assert it.disk["after"] == 0
    with serve.start("--data", it.data) as server:
        tail = int(ask(server, "HEAD", "a")[1]["stream-next-offset"].partition("_")[2])
        assert tail in (acknowledged * 200_000 + 3, (acknowledged + 1) * 200_000 + 3)


def test_a_failed_checkpoint_between_the_steps_of_a_large_append_ends_the_server(faulty):
    it = faulty()
    assert it.ask("PUT", "a", b"one")[0] == 201
    it.disk["fail_home"] = 1
    assert it.ask("POST", "a", b"x" * 8_000_000)[0] == 503
    assert it.server.wait(60) == 1
    with serve.start("--data", it.data) as server:
        assert ask(server, "GET", "a")[2] == b"one", "what was staged of it is not there"
    done = subprocess.run([*serve.command(), "check", str(it.data)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_directory_that_is_deleted_ends_the_server_and_nothing_is_acknowledged_into_it(tmp_path):
    data = tmp_path / "data"
    with serve.start("--data", data) as server:
        assert ask(server, "PUT", "a", b"one")[0] == 201
        shutil.rmtree(data)
        status, headers, _ = ask(server, "POST", "a", b"lost")
        assert status == 503 and headers["retry-after"]
        assert server.wait(60) == 1
        assert "deleted, renamed or replaced" in server.output and str(data) in server.output
        assert not data.exists(), "and makes no other in its place"


def test_everyone_who_waits_is_told_when_the_disk_fails(faulty):
    it = faulty()
    assert it.ask("PUT", "a", b"one")[0] == 201
    found = []

    def append():
        # However many of them share a commit, it comes to the one that fails.
        last = 204
        while last == 204:
            try:
                last = it.ask("POST", "a", b"x")[0]
            except (http.client.HTTPException, OSError):
                last = 0
        found.append(last)

    it.disk["fail_sync"] = 3
    threads = [threading.Thread(target=append) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 40 and set(found) <= {503, 0}, "nobody hangs"
    assert it.server.wait(60) == 1


@pytest.mark.parametrize("how", [1, 2])
def test_a_full_disk_refuses_appends_serves_reads_and_recovers_by_itself(faulty, how):
    it = faulty()
    assert it.ask("PUT", "a", b"one")[0] == 201
    assert it.ask("PUT", "t", b"ttl", Stream_TTL="100")[0] == 201
    producer = {"Producer_Id": "p", "Producer_Epoch": "0"}
    assert it.ask("POST", "a", b"-", Producer_Seq="0", **producer)[0] == 200
    assert it.ask("GET", "/readyz")[0] == 200
    it.disk["full"] = how
    for _ in range(3):
        status, _, body = it.ask("POST", "a", b"y" * 3_000_000, Producer_Seq="1", **producer)
        assert status == 507 and json.loads(body)["error"]["code"] == "NO_SPACE"
        assert it.ask("GET", "a")[2] == b"one-"
        assert it.ask("HEAD", "a")[0] == 200
        assert it.ask("GET", "t")[2] == b"ttl", "reads that renew a TTL go on too"
        assert it.ask("GET", "/readyz")[0] == 503 and it.ask("GET", "/healthz")[0] == 200
    assert it.server.process.poll() is None
    it.disk["full"] = 0
    assert it.ask("POST", "a", b"two", Producer_Seq="1", **producer)[0] == 200, "the refused one was not counted"
    assert it.ask("GET", "/readyz")[0] == 200
    assert it.ask("GET", "a")[2] == b"one-two"
    it.server.kill()
    with serve.start("--data", it.data) as server:
        assert ask(server, "GET", "a")[2] == b"one-two"


def test_streams_expire_and_the_server_lives_while_the_disk_is_full(faulty):
    it = faulty()
    assert it.ask("PUT", "t", b"x", Stream_TTL="1")[0] == 201
    it.disk["full"] = 2
    time.sleep(3.2)
    assert it.ask("GET", "t")[0] == 404
    assert it.ask("GET", "t")[0] == 404
    assert it.server.process.poll() is None
    it.disk["full"] = 0
    assert it.ask("PUT", "t", b"new")[0] == 201


def test_a_read_error_is_told_with_the_file_and_the_remedy(faulty):
    it = faulty()
    assert it.ask("PUT", "a", b"one")[0] == 201
    for _ in range(8):
        assert it.ask("POST", "a", b"x" * 4_000_000)[0] == 204
    it.disk["fail_read"] = 1
    try:
        status, _, body = it.ask("GET", "a?max-bytes=100000")
        assert status == 503 or len(body) < 100_000
    except (http.client.HTTPException, OSError):
        pass  # cut off: not a byte that was not read
    assert it.server.wait(60) == 1
    assert "streams.db" in it.server.output and "ds check" in it.server.output


def damage(data, content: bytes) -> None:
    """Change some of these bytes in the file, as worn-out flash does."""
    file = data / "streams.db"
    found = bytearray(file.read_bytes())
    at = found.index(content) + len(content) // 2
    found[at] ^= 0x10
    file.write_bytes(found)


def test_rotten_bytes_are_never_served(tmp_path):
    with serve.start("--data", tmp_path) as server:
        ask(server, "PUT", "a", b"precious" * 20)
        ask(server, "PUT", "b", b"fine")
    damage(tmp_path, b"precious" * 20)
    server = serve.start("--data", tmp_path)
    try:
        assert ask(server, "GET", "b")[2] == b"fine"
        status, _, body = ask(server, "GET", "a")
        assert status == 500 and b"STREAM_DAMAGED" in body and b"precious" not in body
        assert "streams.db" in server.output and "damaged" in server.output and "backup" in server.output
        assert ask(server, "GET", "b")[2] == b"fine" and ask(server, "POST", "b", b"!")[0] == 204
    finally:
        server.kill()
    done = subprocess.run([*serve.command(), "check", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1 and "position 0 is damaged" in done.stderr and "backup" in done.stderr


@pytest.mark.parametrize("page", [1, 2, 3, 4, 5, 7, 9, 12])
def test_a_corrupted_page_is_noticed_and_named(tmp_path, page):
    data = tmp_path / "data"
    with serve.start("--data", data) as server:
        for n in range(60):
            assert ask(server, "PUT", f"s{n}", b"%d " % n * 300, Producer_Id="p")[0] in (201, 400)
    file = data / "streams.db"
    content = bytearray(file.read_bytes())
    content[(page - 1) * 4096 : page * 4096] = bytes(range(256)) * 16
    file.write_bytes(content)
    done = subprocess.run([*serve.command(), "check", str(data)], capture_output=True, text=True)
    assert done.returncode in (1, 2) and "streams.db" in done.stderr or "damaged" in done.stderr
    try:
        server = serve.start("--data", data, timeout=60)
    except RuntimeError as error:
        assert "streams.db" in str(error), "it does not start, and says why"
        return
    try:
        for n in range(60):
            try:
                status, _, body = ask(server, "GET", f"s{n}")
            except (http.client.HTTPException, OSError):
                break
            assert status != 200 or body == b"%d " % n * 300, "garbage was served"
    finally:
        server.kill()


def test_a_row_without_its_bytes_is_damage(tmp_path):
    with serve.start("--data", tmp_path) as server:
        ask(server, "PUT", "a", b"x" * 50_000)
    db = sqlite3.connect(tmp_path / "streams.db", isolation_level=None)
    db.execute("DELETE FROM blobs")
    db.close()
    server = serve.start("--data", tmp_path)
    try:
        assert ask(server, "GET", "a")[0] == 500
        assert ask(server, "PUT", "b", b"x")[0] == 201
        assert server.stop() == 0 and "damaged" in server.output
    finally:
        server.kill()


def test_low_room_refuses_what_grows_and_nothing_else(tmp_path):
    with serve.start("--data", tmp_path, "--min-free", "1K") as server:
        assert ask(server, "PUT", "a", b"one")[0] == 201
        assert ask(server, "PUT", "b", b"two")[0] == 201
    free = shutil.disk_usage(tmp_path).free
    with serve.start("--data", tmp_path, "--min-free", str(free + (1 << 33))) as server:
        assert ask(server, "POST", "a", b"more")[0] == 507
        assert ask(server, "PUT", "c", b"new")[0] == 507
        assert ask(server, "GET", "a")[2] == b"one"
        assert ask(server, "POST", "a", Stream_Closed="true")[0] == 204
        assert ask(server, "DELETE", "b")[0] == 204
        assert "--min-free" in server.output


def test_backup_of_a_busy_server_is_one_consistent_state(tmp_path):
    data, copy = tmp_path / "data", tmp_path / "copy"
    with serve.start("--data", data) as server:
        ask(server, "PUT", "a", b"0,")
        ask(server, "PUT", "b", b"0,")
        stop = threading.Event()
        busy = threading.Event()

        def write():
            n = 1
            while not stop.is_set():
                if n == 4:
                    busy.set()
                # First a, then b: no state has more in b than in a.
                ask(server, "POST", "a", b"%d," % n)
                ask(server, "POST", "b", b"%d," % n)
                n += 1

        thread = threading.Thread(target=write)
        thread.start()
        try:
            assert busy.wait(60)
            done = subprocess.run([*serve.command(), "backup", str(data), str(copy)], capture_output=True, text=True)
            live = subprocess.run([*serve.command(), "check", str(data)], capture_output=True, text=True)
        finally:
            stop.set()
            thread.join()
        assert done.returncode == 0 and "all well" in done.stdout, done.stderr
        assert live.returncode == 0 and "all well" in live.stdout, live.stderr
        again = subprocess.run([*serve.command(), "backup", str(data), str(copy)], capture_output=True, text=True)
        assert again.returncode == 2 and "new directory" in again.stderr
    with serve.start("--data", copy) as server:
        a, b = ask(server, "GET", "a")[2], ask(server, "GET", "b")[2]
        assert a.startswith(b) and len(b) > 4
        assert ask(server, "POST", "a", b"on")[0] == 204


def test_check_says_what_is_no_data_directory(tmp_path):
    done = subprocess.run([*serve.command(), "check", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2 and "is not there" in done.stderr
    sqlite3.connect(tmp_path / "streams.db").execute("CREATE TABLE x (y)").connection.close()
    done = subprocess.run([*serve.command(), "check", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2 and "not a stream store" in done.stderr
    assert sys.executable


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DELETE FROM appends WHERE stream = 1 AND position = 3", "missing"),
        ("DELETE FROM appends WHERE stream = 1 AND position = 6", "tail"),
        ("DELETE FROM appends WHERE stream = 2", "missing"),
        ("UPDATE streams SET tail = tail + 1 WHERE id = 1", "tail"),
        ("UPDATE streams SET tail = 'x' WHERE id = 1", "understood"),
        ("UPDATE streams SET forks = 0", "forks"),
        ("DELETE FROM streams WHERE id = 1", "source"),
        ("UPDATE meta SET value = 1 WHERE name = 'newest'", "newest"),
        ("INSERT INTO producers (stream, id, epoch, seq) VALUES (77, 'p', 0, 0)", "producers"),
        ("INSERT INTO appends VALUES (77, 0, 0, 0, x'00', NULL)", "left behind"),
        ("UPDATE producing SET count = 7", "it counts 7 producers and has 1"),
        ("DELETE FROM producing", "it counts 0 producers and has 1"),
        ("DELETE FROM blobs", "blob"),
        ("UPDATE appends SET blob = NULL WHERE stream = 4", "left|blob"),
        ("UPDATE appends SET data = x'616263' WHERE stream = 1 AND position = 3", "damaged"),
    ],
)
def test_check_finds_each_broken_promise(tmp_path, statement, says):
    with serve.start("--data", tmp_path) as server:
        ask(server, "PUT", "a", b"one")
        ask(server, "POST", "a", b"two")
        ask(server, "POST", "a", b"six", Producer_Id="p", Producer_Epoch="0", Producer_Seq="0")
        ask(server, "PUT", "b", b"xyz")
        ask(server, "PUT", "f", Stream_Forked_From="/v1/stream/a")
        ask(server, "PUT", "large", b"x" * 5000)
    db = sqlite3.connect(tmp_path / "streams.db", isolation_level=None)
    db.execute(statement)
    db.close()
    done = subprocess.run([*serve.command(), "check", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1 and re.search(says, done.stderr), done.stderr
