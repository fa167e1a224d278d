"""What shells do to processes: pipes that close, signals, kills in the middle, and a terminal that watches."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pty
import random
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.tools import serve

from .conftest import Shell, lines

# What is in no file that a command keeps.
NO_RECORDS = (b"old\n", b"{}", b"[]", b"5", b"", b"\xff\xfe", b"[" * 100_000)


def until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def counting(first: int, end: int) -> bytes:
    return b"".join(b"%d\n" % n for n in range(first, end))


def tailing(ds: Shell, out: Path, *words: object) -> subprocess.Popen[bytes]:
    with open(out, "ab") as file:
        return ds.start("tail", *words, stdout=file)


# Pipes


def test_a_slow_pipe_is_live(ds: Shell, name: str) -> None:
    ds("create", name)
    for options in ((), ("--producer", "p")):
        process = ds.start("append", name, *options)
        assert process.stdin
        for n in (1, 2):
            process.stdin.write(b"%d\n" % n)
            process.stdin.flush()
            until(lambda n=n: ds("read", name).stdout.endswith(b"%d\n" % n), "the record in the stream")  # type: ignore[misc]
        process.stdin.close()
        assert process.wait(60) == 0
    assert ds("read", name).stdout == b"1\n2\n1\n2\n"


def test_a_fast_pipe_is_batched(ds: Shell, name: str) -> None:
    ds("create", name, "--json")
    began = time.monotonic()
    ds("append", name, "--producer", "p", "--batch", "64K", input=counting(0, 100_000))
    assert ds("read", name).stdout == counting(0, 100_000)
    # Not a benchmark: one request for each record would take minutes.
    assert time.monotonic() - began < 60


def test_a_reader_that_leaves_ends_it_silently(ds: Shell, name: str) -> None:
    ds("create", name)
    ds("append", name, input=counting(0, 100_000))
    for command in (("read", name), ("tail", name, "--offset", "-1")):
        process = ds.start(*command)
        assert process.stdout and process.stderr
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.wait(60) == -signal.SIGPIPE
        assert process.stderr.read() == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_an_output_without_room_is_an_error(ds: Shell, name: str, tmp_path: Path) -> None:
    ds("create", name)
    ds("append", name, input=counting(0, 10))
    with open("/dev/full", "wb") as full:
        process = ds.start("read", name, "--cursor", tmp_path / "cursor", stdout=full)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"No space left" in errors and errors.count(b"\n") == 1
    assert ds("read", name, "--cursor", tmp_path / "cursor").stdout == counting(0, 10)


def test_bad_input_says_where_after_appending_what_is_before(ds: Shell, name: str, tmp_path: Path) -> None:
    ds("create", name, "--json")
    file = tmp_path / "records"
    file.write_bytes(b"1\n2\n{oops\n4\n")
    done = ds("append", name, "--file", file, status=1)
    assert f"{file}: line 3: ".encode() in done.stderr and b"appended 2 records" in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert ds("read", name).stdout == b"1\n2\n"
    assert b"nothing-here" in ds("append", name, "--file", tmp_path / "nothing-here", status=1).stderr
    ds("create", name + "-cbor")
    done = ds("append", name + "-cbor", "--raw", input=b"\x01\x82\x02", status=1)
    assert b"within the CBOR item begun at byte 1" in done.stderr
    assert ds("read", name + "-cbor").stdout == b"1\n"


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_tail_and_the_cursor_is_exact(ds: Shell, name: str, tmp_path: Path, number: int) -> None:
    ds("create", name)
    out, cursor = tmp_path / "out", tmp_path / "cursor"
    for first in (0, 100, 200):
        process = tailing(ds, out, name, "--cursor", cursor)
        ds("append", name, input=counting(first, first + 100))
        until(lambda n=first + 50: len(lines(out)) >= n, "items printed")  # type: ignore[misc]
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 128 + number
        assert errors == b""
    ds("close", name)
    with open(out, "ab") as file:
        assert ds.start("tail", name, "--cursor", cursor, stdout=file).wait(60) == 0
    assert out.read_bytes() == counting(0, 300)


def test_ctrl_c_while_appending_says_how_far_it_came(ds: Shell, name: str) -> None:
    ds("create", name)
    process = ds.start("append", name)
    assert process.stdin and process.stderr
    process.stdin.write(b"1\n2\n")
    process.stdin.flush()
    until(lambda: ds("read", name).stdout == b"1\n2\n", "the records in the stream")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert process.stderr.read() == b"ds append: interrupted; appended 2 records\n"


# Tails


def waiting(server: serve.Server) -> int:
    """How many readers wait at a tail."""
    with urlopen(server.origin + "/metrics", timeout=60) as answer:
        found = re.search(rb"^ds_live_readers (\d+)", answer.read(), re.MULTILINE)
    assert found
    return int(found[1])


def test_tail_begins_now_or_where_it_is_told(ds: Shell, name: str, tmp_path: Path) -> None:
    outs = [tmp_path / "now", tmp_path / "start", tmp_path / "sse"]
    with serve.start("--memory") as server:
        ds.url = server.url
        ds("create", name)
        ds("append", name, "1")
        tails = [tailing(ds, outs[0], name), tailing(ds, outs[1], name, "--offset", "-1")]
        tails.append(tailing(ds, outs[2], name, "--live", "sse", "--offset", "-1"))
        until(lambda: lines(outs[1]) and lines(outs[2]), "the first item")
        until(lambda: waiting(server) == 3, "all at the tail")  # the first has nothing to print yet
        ds("append", name, "2")
        ds("close", name)
        assert [process.wait(60) for process in tails] == [0, 0, 0]
    assert [out.read_bytes() for out in outs] == [b"2\n", b"1\n2\n", b"1\n2\n"]


def test_a_tail_survives_its_server(ds: Shell, name: str, tmp_path: Path) -> None:
    server = serve.start("--data", tmp_path / "data")
    ds.url = server.url
    ds("create", name)
    out = tmp_path / "out"
    process = tailing(ds, out, name, "--offset", "-1")
    for n in range(3):
        ds("append", name, str(n))
        until(lambda n=n: len(lines(out)) == n + 1, "the item")  # type: ignore[misc]
        server.kill()
        server = serve.start("--data", tmp_path / "data", port=server.port)
    with server:
        ds("close", name)
        assert process.wait(60) == 0
    assert out.read_bytes() == b"0\n1\n2\n"


def test_a_cursor_of_a_stream_that_is_gone_says_what_helps(ds: Shell, name: str, tmp_path: Path) -> None:
    cursor = tmp_path / "cursor"
    ds("create", name)
    ds("append", name, "1")
    ds("read", name, "--cursor", cursor)
    ds("delete", name)
    ds("create", name)
    for command in ("read", "tail"):
        text = ds(command, name, "--cursor", cursor, status=1).stderr.decode()
        assert "410" in text and f"without {cursor} it would begin at the start" in text and text.count("\n") == 1
    cursor.unlink()
    assert ds("read", name, "--cursor", cursor).stdout == b""


def test_read_with_a_cursor_prints_what_is_new(ds: Shell, name: str, tmp_path: Path) -> None:
    cursor = tmp_path / "cursor"
    ds("create", name)
    for first in (0, 10):
        ds("append", name, input=counting(first, first + 10))
        assert ds("read", name, "--cursor", cursor).stdout == counting(first, first + 10)
    assert ds("read", name, "--cursor", cursor).stdout == b""
    ds("create", name + "-other")
    assert b"is a cursor for stream" in ds("read", name + "-other", "--cursor", cursor, status=2).stderr
    assert b"is a cursor for unit" in ds("read", name, "--raw", "--cursor", cursor, status=2).stderr
    for old in NO_RECORDS:
        cursor.write_bytes(old)
        assert b"is not a cursor of" in ds("read", name, "--cursor", cursor, status=2).stderr
        assert cursor.read_bytes() == old


def test_a_killed_tail_goes_on_without_loss(ds: Shell, name: str, tmp_path: Path) -> None:
    """After SIGKILL nothing is lost; what was printed since the cursor was last saved may come again."""
    ds("create", name)
    ds("append", name, input=counting(0, 50_000))
    out, cursor = tmp_path / "out", tmp_path / "cursor"
    chance = random.Random(3)
    for _ in range(6):
        process = tailing(ds, out, name, "--cursor", cursor)
        time.sleep(0.2 + chance.random() / 2)
        process.kill()
        process.wait()
        # A kill may cut a line in two.
        whole = b"".join(line + b"\n" for line in lines(out))
        out.write_bytes(whole)
    ds("close", name)
    with open(out, "ab") as file:
        assert ds.start("tail", name, "--cursor", cursor, stdout=file).wait(60) == 0
    seen = [int(line) for line in lines(out)]
    assert sorted(set(seen)) == list(range(50_000))
    again = [n for n, after in itertools.pairwise(seen) if after != n + 1]
    assert len(again) <= 6, "each kill may repeat once"


# Exactly once


def appended(process: subprocess.Popen[bytes], state: Path, units: int) -> None:
    """Wait until a state file says that so much is acknowledged."""

    def enough() -> bool:
        assert process.poll() is None, process.communicate()
        return state.exists() and json.loads(state.read_text())["done"] >= units

    until(enough, "progress in the state file")


@pytest.mark.parametrize("form", ["cbor", "raw"])
def test_a_killed_append_goes_on_exactly_once(ds: Shell, name: str, tmp_path: Path, form: str) -> None:
    file, keep = tmp_path / "records", tmp_path / "state"
    raw = form == "raw"
    file.write_bytes(counting(0, 6_000))
    ds("create", name, *(["--text"] if raw else []))
    words = ["append", name, "--file", file, "--producer", "p", "--producer-state", keep, "--batch", "100"]
    chance = random.Random(5)
    total = len(file.read_bytes()) if raw else 6_000
    for part in range(8):
        process = ds.start(*words, *(["--raw"] if raw else []))
        appended(process, keep, total * part // 9 + chance.randint(1, total // 9))
        time.sleep(chance.random() / 200)
        process.kill()
        process.wait()
    ds(*words, *(["--raw"] if raw else []))
    assert ds("read", name).stdout == file.read_bytes()
    # A file that has grown.
    with open(file, "ab") as more:
        more.write(b"6000\n6001\n")
    ds(*words, *(["--raw"] if raw else []))
    assert ds("read", name).stdout == counting(0, 6_002)
    # Another file.
    file.write_bytes(b"0\n2\n" + counting(2, 6_002))
    assert b"does not begin with" in ds(*words, *(["--raw"] if raw else []), status=2).stderr
    file.write_bytes(b"0\n")
    assert b"does not begin with" in ds(*words, *(["--raw"] if raw else []), status=2).stderr
    other = ("append", name, "1", "--producer", "q", "--producer-state", keep)
    assert b"is a state file for producer p" in ds(*other, status=2).stderr
    for old in NO_RECORDS:
        keep.write_bytes(old)
        assert b"not a state file" in ds(*words, status=2).stderr


def test_an_append_goes_on_over_kills_of_its_server(ds: Shell, name: str, tmp_path: Path) -> None:
    server = serve.start("--data", tmp_path / "data")
    ds.url = server.url
    ds("create", name)
    process = ds.start("append", name, "--producer", "p", "--batch", "1K", "--cbor")
    chance = random.Random(7)
    assert process.stdin
    for part in range(5):
        process.stdin.write(counting(part * 10_000, (part + 1) * 10_000))
        process.stdin.flush()
        time.sleep(chance.random() / 10)
        server.kill()
        server = serve.start("--data", tmp_path / "data", port=server.port)
    process.stdin.close()
    assert process.wait(60) == 0, process.stderr and process.stderr.read()
    assert ds("read", name).stdout == counting(0, 50_000)
    assert server.stop() == 0


def test_a_server_that_stays_away_ends_an_append(ds: Shell, name: str, tmp_path: Path) -> None:
    keep = tmp_path / "state"
    words = ("append", name, "--cbor", "--producer", "p", "--producer-state", keep, "--retry-for", "1")
    server = serve.start("--data", tmp_path / "data")
    ds.url = server.url
    ds("create", name)
    ds(*words, input=b"1\n")
    server.kill()
    done = ds(*words, input=b"1\n2\n", status=1)
    assert done.stderr.count(b"\n") == 1 and b"no answer" in done.stderr and b"after 1 of an earlier run" in done.stderr
    with serve.start("--data", tmp_path / "data", port=server.port):
        ds(*words, input=b"1\n2\n")
        assert ds("read", name).stdout == b"1\n2\n"


def test_a_batch_that_is_too_large_can_be_cut_smaller(ds: Shell, name: str, tmp_path: Path) -> None:
    words = ("append", name, "--producer", "p", "--producer-state", tmp_path / "state")
    with serve.start("--memory", "--max-body", "1K") as server:
        ds.url = server.url
        ds("create", name)
        done = ds(*words, input=counting(0, 1000), status=1)
        assert b"413" in done.stderr and b"--batch" in done.stderr and done.stderr.count(b"\n") == 1
        ds(*words, "--batch", "1K", input=counting(0, 1000))
        assert ds("read", name).stdout == counting(0, 1000)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_append_ended_by_a_signal_goes_on_exactly_once(ds: Shell, name: str, tmp_path: Path, number: int) -> None:
    file = tmp_path / "records"
    file.write_bytes(counting(0, 6_000))
    ds("create", name)
    keep = tmp_path / "state"
    words = ("append", name, "--file", file, "--producer", "p", "--producer-state", keep, "--batch", "100")
    chance = random.Random(number)
    for part in range(8):
        process = ds.start(*words)
        appended(process, keep, 6_000 * part // 9 + chance.randint(1, 600))
        for _ in range(chance.randint(1, 3)):
            process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        # A second signal does not wait for the first one's end.
        assert process.returncode in (128 + number, -number, 0), errors
    ds(*words)
    assert ds("read", name).stdout == file.read_bytes()


def test_two_runs_of_one_producer_both_append(ds: Shell, name: str) -> None:
    """Without a state file each run is a new epoch: nothing of the second is taken for a repetition."""
    ds("create", name)
    for _ in range(3):
        ds("append", name, "1", "2", "--producer", "p")
    assert ds("read", name).stdout == b"1\n2\n" * 3


def test_without_a_producer_a_broken_request_is_not_repeated(ds: Shell, name: str) -> None:
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as listener:
        got = []

        def answer() -> None:
            with listener.accept()[0] as peer:
                got.append(peer.recv(65536))

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        done = ds(
            "append", name, "1", "2", "--cbor", "--url", f"http://127.0.0.1:{listener.getsockname()[1]}", status=1
        )
        thread.join(5)
    assert len(got) == 1 and got[0].startswith(b"POST ")
    assert b"the next 2 may or may not have been" in done.stderr and done.stderr.count(b"\n") == 1


def test_results_that_nobody_can_get(ds: Shell, name: str, tmp_path: Path) -> None:
    access = tmp_path / "access.json"
    ds("token", "new", "--access", access, "--name", "a", "--read", "**")
    ds("create", name)
    for words in (("read", name), ("head", name), ("token", "list", "--access", str(access))):
        with open("/dev/full", "wb") as full:
            process = ds.start(*words, stdout=full)
            errors = process.communicate(timeout=60)[1]
            # (Nothing was written of an empty stream.)
            expected = (1, 1) if words[0] != "read" else (0, 0)
            assert (process.returncode, errors.count(b"\n")) == expected, errors
        argv = " ".join(map(shlex.quote, [*serve.command(), *words]))
        done = subprocess.run(["sh", "-c", argv + " >&-"], capture_output=True, env=ds.environment(), timeout=60)
        assert done.returncode == 1 and b"standard output is closed" in done.stderr and done.stderr.count(b"\n") == 1


def test_standard_input_that_is_closed_is_said_to_be(ds: Shell, name: str) -> None:
    def closed(*words: str, how: str = "<&-") -> subprocess.CompletedProcess[bytes]:
        argv = " ".join(map(shlex.quote, [*serve.command(), *words]))
        return subprocess.run(["sh", "-c", f"{argv} {how}"], capture_output=True, env=ds.environment(), timeout=60)

    ds("create", name)
    for options in ((), ("--producer", "p"), ("--content-type", "text/plain")):
        for how in ("<&-", "<&- 2>&1"):
            done = closed("append", name, *options, how=how)
            assert done.returncode == 1 and b"standard input is closed" in done.stderr + done.stdout
    assert ds("read", name).stdout == b""
    ds("append", name, "5")
    done = closed("read", name)
    assert (done.returncode, done.stdout.strip()) == (0, b"5")


# A terminal


def on_a_terminal(ds: Shell, *words: object) -> tuple[int, bytes, bytes]:
    """Status, what a terminal was shown, and standard error."""
    ours, theirs = pty.openpty()
    process = ds.start(*words, stdout=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed
        while part := os.read(ours, 65536):
            shown += part
    errors = process.communicate(timeout=60)[1]
    os.close(ours)
    return process.returncode, shown.replace(b"\r\n", b"\n"), errors


def test_a_terminal_is_not_made_to_act(ds: Shell, name: str) -> None:
    ds("create", name, "--text")
    hostile = "tab\tgrün €\n\x1b]0;title\x07\x9b31m\x00\r\b.\n".encode() + b"\xff\n"
    ds("append", name, "--raw", input=hostile)
    status, shown, _ = on_a_terminal(ds, "read", name)
    assert (status, shown.decode().replace("     ", "\t")) == (0, "tab\tgrün €\n?]0;title??31m???.\n\ufffd\n")
    assert ds("read", name).stdout == hostile  # a pipe gets every byte
    for content_type in ("application/octet-stream", "image/png", "application/cbor-seq"):
        other = f"{name}-{content_type.replace('/', '-')}"
        ds("create", other, "--content-type", content_type)
        status, shown, errors = on_a_terminal(ds, "read", other, "--raw")
        assert (status, shown) == (2, b"") and errors.count(b"\n") == 1 and content_type.encode() in errors


def test_progress_is_shown_on_a_terminal_and_wiped(ds: Shell, name: str) -> None:
    ds("create", name, "--text")
    ours, theirs = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    process = ds.start("append", name, "--batch", "64", stderr=theirs)
    os.close(theirs)
    assert process.stdin
    records = 0
    shown = b""
    while b"/s" not in shown:
        assert records < 40_000, "progress on the terminal within a minute"
        process.stdin.write(counting(0, 100))
        process.stdin.flush()
        records += 100
        if select.select([ours], [], [], 0.15)[0]:
            shown += os.read(ours, 4096)
    process.stdin.close()
    assert process.wait(60) == 0
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert b" records  " in shown and b"KB/s" in shown or b"B/s" in shown
    assert shown.endswith(b"appended %d records\r\n" % records)
    assert sys.platform != "linux" or b"\r" + b" " * 20 in shown
