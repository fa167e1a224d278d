"""What a device meets in the field: every wrong answer is told in words, loses nothing and ends in time."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds_micro.flash import FlashStore
from tests.micro.test_suite import ROOT, interpreter, run
from tests.tools import serve

HERE = Path(__file__).resolve().parent


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers as the path says: /STATUS/BODY, BODY `empty`, `html`, `json`, or `echo`: the Authorization it got."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, kind = self.path.partition("?")[0].split("/")[1:3]
        error = {"error": {"code": "SOME_CODE", "message": "some message"}}
        page = b"<html><title>Welcome</title>" + b"x" * 5000
        echo = str(self.headers.get("Authorization")).encode()
        body = {"empty": b"", "html": page, "json": json.dumps(error).encode(), "echo": echo}[kind]
        self.send_response(int(status))
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
            store.discard()
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
        store.close()
    assert store.records == 2
    assert sum(path.read_bytes() == b"ours" for path in tmp_path.iterdir()) == 4


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
