"""What a device meets in the field: every wrong answer is told in words, loses nothing and ends in time."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from ds_core.client.writer import FENCED
from ds_micro import Outbox, Stream, flash
from ds_micro.closing import close
from ds_micro.flash import FlashStore
from ds_micro.operations import quote
from ds_micro.recovery import discard
from tests.micro.listening import Listening
from tests.micro.test_suite import ROOT, interpreter, run
from tests.tools import serve

HERE = Path(__file__).resolve().parent


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers as the path says, /STATUS/BODY; BODY: `empty`, `html`, `json`, `echo` (Authorization), or an offset."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, kind = self.path.partition("?")[0].split("/")[1:3]
        error = {"error": {"code": "SOME_CODE", "message": "some message"}}
        page = b"<html><title>Welcome</title>" + b"x" * 5000
        echo = str(self.headers.get("Authorization")).encode()
        offset = {"next": "5", "blank": "a b", "ampersand": "5&offset=-1"}.get(kind)
        body = {"html": page, "json": json.dumps(error).encode(), "echo": echo}.get(kind, b"")
        self.send_response(int(status))
        if offset:
            self.send_header("Stream-Next-Offset", offset)
        if status[0] == "3":
            self.send_header("Location", "https://elsewhere.example/s")
        if status in ("429", "503"):
            self.send_header("Retry-After", "1")
        if status != "204":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status != "204":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

    def log_message(self, *_: object) -> None:
        pass


class Quiet(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that has read enough hangs up."""


@pytest.fixture(scope="module")
def scripted() -> Iterator[str]:
    with Quiet(("127.0.0.1", 0), Scripted) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("build", ["cpython", 64, 32])
def test_wrong_answers(build: int | str, scripted: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        run([*interpreter(build), HERE / "wrong_answers.py", ROOT, scripted, tmp_path, url])


class MixedUp(Listening):
    """A stream behind a proxy that first answers every second batch wrongly, as `mode` says."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.data = b""
        self.closed_by: tuple[object, ...] = ()
        self.state: dict[str, tuple[int, int]] = {}
        self.seen: set[tuple[str, int, int]] = set()
        super().__init__()

    def serve(self, conn: socket.socket) -> None:
        before = self.answer(200, 5, 0)
        with conn, contextlib.suppress(OSError, ValueError):
            file = conn.makefile("rb")
            while line := file.readline():
                headers = {}
                while (field := file.readline().strip()) != b"":
                    name, _, value = field.partition(b":")
                    headers[name.lower().decode()] = value.strip().decode()
                body = file.read(int(headers.get("content-length", "0")))
                if "producer-id" not in headers:
                    conn.sendall(
                        b"HTTP/1.1 200 OK\r\nStream-Next-Offset: 1\r\nProducer-Epoch: 5\r\nProducer-Seq: 0\r\n"
                        b"Content-Length: 0\r\n\r\n"
                    )
                    continue
                epoch, seq = int(headers["producer-epoch"]), int(headers["producer-seq"])
                batch = headers["producer-id"], epoch, seq
                first = batch not in self.seen
                self.seen.add(batch)
                wrongly = "stream-closed" in headers if self.mode == "close" else seq % 2 == 1
                if not (first and wrongly):
                    before = self.post(line, headers, epoch, seq, body)
                    conn.sendall(before)
                elif self.mode == "twice":
                    time.sleep(0.02)
                    conn.sendall(before)  # again, and late
                    time.sleep(0.02)
                    conn.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
                else:
                    wrong = {
                        "before": before,
                        "plain": before,
                        "duplicate": self.answer(204, epoch, seq - 1),
                        "epoch": self.answer(200, epoch + 5, seq),
                        "accepted": self.answer(202, epoch, seq),
                        "gap": self.answer(
                            409, None, None, f"Producer-Expected-Seq: {seq + 1}", f"Producer-Received-Seq: {seq}"
                        ),
                        "fenced": self.answer(403, epoch, None),
                        "close": self.answer(204, epoch, seq - 1, "Stream-Closed: true"),
                    }
                    conn.sendall(wrong[self.mode])

    def post(self, line: bytes, headers: dict[str, str], epoch: int, seq: int, body: bytes) -> bytes:
        name = headers["producer-id"]
        known = self.state.get(name, (-1, -1))
        closes = ["Stream-Closed: true"] if "stream-closed" in headers else []
        if self.closed_by:
            return self.answer(204, epoch, seq, *closes) if self.closed_by == (name, epoch, seq) else self.answer(409)
        if known[0] == epoch and seq <= known[1]:
            return self.answer(204, epoch, known[1])
        expected = known[1] + 1 if known[0] == epoch else 0
        if seq != expected:
            return self.answer(409, None, None, f"Producer-Expected-Seq: {expected}", f"Producer-Received-Seq: {seq}")
        self.state[name] = epoch, seq
        self.data += body
        if closes:
            self.closed_by = name, epoch, seq
        return self.answer(204 if closes else 200, epoch, seq, *closes)

    def answer(self, status: int, epoch: int | None = None, seq: int | None = None, *more: str) -> bytes:
        lines = [f"HTTP/1.1 {status} X", "Stream-Next-Offset: 1", *more]
        lines += [f"Producer-Epoch: {epoch}"] if epoch is not None else []
        lines += [f"Producer-Seq: {seq}"] if seq is not None else []
        lines += ["Content-Length: 0"] if status != 204 else []
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


@pytest.mark.parametrize("build", ["cpython", 64, 32])
@pytest.mark.parametrize(
    "mode", ["twice", "before", "plain", "duplicate", "epoch", "accepted", "gap", "fenced", "close"]
)
def test_an_answer_to_another_request_acknowledges_nothing(build: int | str, mode: str, tmp_path: Path) -> None:
    server = MixedUp(mode)
    with server.listener:
        url = server.url + "/s"
        out = run([*interpreter(build), HERE / "mixed_up.py", ROOT, url, tmp_path, mode])
    sent = [number for number in (*range(6), *range(50, 56), *range(100, 106)) if mode != "close" or number > 99]
    assert [int(word) for word in server.data.split(b",")[:-1]] == sent  # all of it, once, in order
    assert bool(server.closed_by) == (mode == "close")
    if mode != "twice":
        assert "another request" in out, out


@pytest.mark.parametrize("build", ["cpython", 64, 32])
@pytest.mark.parametrize("bits", [30, 31, 62])
def test_ticks_that_go_round(build: int | str, bits: int, tmp_path: Path) -> None:
    with serve.start("--memory") as server:
        run([*interpreter(build), HERE / "clock.py", ROOT, server.url + "/clock", tmp_path, 1 << bits])


def test_a_segment_that_could_not_be_begun_never_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FlashStore(str(tmp_path), 7, "text/plain", False, 4096, 256, 2, "drop-oldest", 1)
    for record in (b"a", b"b"):
        assert store.append(record)
    opened = FlashStore._open

    def full(self: FlashStore, number: int, mode: str = "rb"):
        if mode == "wb":
            raise OSError(28, "no space")
        return opened(self, number, mode)

    for _ in range(3):
        monkeypatch.setattr(FlashStore, "_open", full)
        with pytest.raises(OSError, match="no space"):
            store.append(b"c")
        with pytest.raises(OSError, match="no space"):
            store.batch(0)
        with pytest.raises(OSError, match="no space"):
            discard(store)
        assert (store.records, store.dropped) == (2, 0)
    monkeypatch.setattr(FlashStore, "_open", opened)
    assert store.append(b"c")
    batch = store.batch(0)
    assert (batch.epoch, batch.seq, batch.count) == (7, 0, 2)
    batch.done()
    assert store.batch(0).seq == 1


def test_files_of_others_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    for name in ("notes.out", ".out", "cursor", "00000001.out.new"):
        (tmp_path / name).write_bytes(b"ours")
    for _ in range(2):
        store = FlashStore(str(tmp_path), 7, "text/plain", False, 4096, 256, 0, "drop-oldest", 1)
        assert store.append(b"a")
        close(store)
    assert store.records == 2
    assert sum(path.read_bytes() == b"ours" for path in tmp_path.iterdir()) == 4


def test_another_process_is_told_that_the_folder_is_in_use(tmp_path: Path) -> None:
    program = "import sys; from ds_micro import Outbox, Stream; Outbox(sys.argv[1], Stream('http://x/y'), 'p')"
    argv = [sys.executable, "-c", program, str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'micro'}"}
    store = FlashStore(str(tmp_path), 7, "text/plain", False, 4096, 256, 0, "refuse", 1)
    assert store.append(b"a")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=env)
    assert "RuntimeError: another process has the outbox in " + str(tmp_path) in done.stderr
    assert store.append(b"b")
    close(store)
    assert subprocess.run(argv, timeout=60, env=env).returncode == 0
    assert store.append(b"c") and store.records == 3


def test_closing_lets_go_of_the_folder_if_it_is_still_ours(tmp_path: Path) -> None:
    program = "import sys; from ds_micro import Outbox, Stream; Outbox(sys.argv[1], Stream('http://x/y'), 'p')"
    argv = [sys.executable, "-c", program, str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'micro'}"}

    def another() -> bool:
        return subprocess.run(argv, capture_output=True, timeout=60, env=env).returncode == 0

    s = Stream("http://127.0.0.1:1/s", timeout=1)
    box = Outbox(str(tmp_path), s, "p")
    box.append(1)
    box.close()
    assert another()
    box = Outbox(str(tmp_path), s, "p")
    box.close()  # nothing was appended since it was opened
    assert another()
    box = Outbox(str(tmp_path), s, "p")
    assert box.records == 1 and box.flush(0.1) == 1 and not another()
    box.close()
    box.close()
    assert another()
    for appends in (False, True):
        old = Outbox(str(tmp_path), s, "p")
        if appends:
            old.append(2)
        new = Outbox(str(tmp_path), s, "p")
        old.close()
        assert not another()  # it is the new one's
        assert new.append(3)
        new.close()
        assert another()


def test_an_error_in_closing_a_file_is_over_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = FlashStore._open
    errors = [0]

    class Failing:
        """A file whose close() fails, and closes it."""

        def __init__(self, file: IO[bytes]) -> None:
            self.file = file

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

        def close(self) -> None:
            failing = not self.file.closed and errors[0]
            self.file.close()
            if failing:
                errors[0] -= 1
                raise OSError(5, "I/O error")

    def open_it(self: FlashStore, number: int, mode: str = "rb"):
        return Failing(opened(self, number, mode)) if mode == "r+b" else opened(self, number, mode)

    monkeypatch.setattr(FlashStore, "_open", open_it)
    for every in (1, 3):
        store = FlashStore(str(tmp_path / str(every)), 7, "text/plain", False, 4096, 256, 2, "refuse", every)
        assert store.append(b"a") and store.append(b"b")
        errors[0] = 1
        with pytest.raises(OSError, match="I/O error"):
            store.append(b"c") if every == 1 else close(store)  # which begin a new segment
        errors[0] = 0
        assert store.append(b"c") and store.append(b"d") and store.records == 4
        errors[0] = 1
        with pytest.raises(OSError, match="I/O error"):
            close(store)
        close(store)
        assert store.append(b"e") and store.records == 5
        for seq, count in enumerate((2, 2, 1)):
            batch = store.batch(0)
            assert (batch.seq, batch.count) == (seq if store._epoch == 7 else batch.seq, count)
            batch.done()
        assert store.records == 0


def test_after_a_failed_sync_the_newest_file_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FlashStore(str(tmp_path), 7, "text/plain", False, 4096, 256, 2, "refuse", 1)
    for record in (b"a", b"b", b"c"):
        assert store.append(record)
    sync = flash.sync

    def failing(file: IO[bytes] | None, folder: str | None = None) -> None:
        if folder:
            raise OSError(5, "I/O error")
        sync(file, folder)

    assert store.batch(0).seq == 0
    before = store._file
    monkeypatch.setattr(flash, "sync", failing)
    with pytest.raises(OSError, match="I/O error"):
        store.done()
    monkeypatch.setattr(flash, "sync", sync)
    assert store.append(b"d") and store._file is not before
    assert store.batch(0).seq == 1 and store.records == 2
    close(store)


def test_a_new_folders_name_is_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.stat(fd).st_ino), fsync(fd)))
    store = FlashStore(str(tmp_path / "box"), 7, "text/plain", False, 4096, 256, 2, "refuse", 1)
    close(store)
    assert {tmp_path.stat().st_ino, (tmp_path / "box").stat().st_ino} <= set(synced)


def test_no_epoch_is_begun_that_no_server_takes(tmp_path: Path) -> None:
    last = 2**53 - 1
    for path in (None, str(tmp_path)):
        for epoch in (2**52, last - 1, last):
            box = Outbox(path, Stream("http://127.0.0.1:1/s"), "p")
            for _ in range(3):
                box.append(1)
                batch = box.writer.request()
                assert box.writer.answer(batch, 403, {"producer-epoch": str(epoch)}) == FENCED
                assert box.discard() == 1
            assert box.store._epoch < 2**52
            box.close()


def test_what_is_quoted_is_ascii() -> None:
    assert quote("\xb2\u00e9 1a-._~/") == "%C2%B2%C3%A9%201a-._~%2F"


@pytest.mark.parametrize("build", ["cpython", 64, 32])
def test_ipv6(build: int | str, tmp_path: Path) -> None:
    try:
        server = serve.start("--memory", "--host", "::1")
    except Exception as exc:  # no IPv6 here
        pytest.skip(str(exc))
    with server:
        url = f"http://[::1]:{server.port}/v1/stream/v6"
        program = [*interpreter(build), HERE / "suite.py", ROOT, url, tmp_path, "edge"]
        done = subprocess.run(list(map(str, program)), capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_fork_of_a_process_has_not_the_outbox_of_its_parent(tmp_path: Path) -> None:
    """What both send has the same numbers; and it is a program of its own, as forking one with threads is not safe."""
    program = """if 1:
        import os, sys
        from ds_micro import Outbox, Stream
        box = Outbox(sys.argv[1], Stream('http://x/y'), 'p')
        box.append(1)
        if not os.fork():
            try:
                box.append(2)
            except RuntimeError as error:
                print(error, flush=True)
            os._exit(0)
        os.wait()
        print(box.append(3), box.records)
        box.close()
        print(Outbox(sys.argv[1], Stream('http://x/y'), 'p').records)
    """
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'micro'}"}
    argv = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=env)
    assert done.stdout.splitlines() == [f"another process has the outbox in {tmp_path}", "True 2", "2"], done.stderr
