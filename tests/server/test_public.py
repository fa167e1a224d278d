"""A server in somebody's program, by the names that can be imported; tests/test_public.py has all of these names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio

import ds_core
import ds_trio_server
from ds_trio_server import Config, MemoryStore, Server, SQLiteStore, listen, serve, url_of
from tests.server.site import Client

ROOT = Path(ds_trio_server.__file__).parent


@pytest.mark.parametrize("where", ["memory", "disk"])
async def test_a_server_in_somebody_s_program(where: str, tmp_path: Path) -> None:
    store = MemoryStore() if where == "memory" else SQLiteStore(tmp_path / "data")
    listeners = listen("127.0.0.1", 0)
    url = url_of(listeners[0])
    servers: list[Server] = []
    async with trio.open_nursery() as nursery:
        started = trio.Event()

        def begun(server: Server) -> None:
            servers.append(server)
            started.set()

        nursery.start_soon(serve, store, Config(long_poll_timeout=5), listeners, begun)
        await started.wait()
        port = int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)/v1/stream", url)[1])  # type: ignore[index]
        client = Client(await trio.open_tcp_stream("127.0.0.1", port))
        assert (await client.ask("PUT", "/v1/stream/a", b"x", content_type="text/plain")).status == 201
        client.close()
        servers[0].stop()


def test_types_are_for_everybody() -> None:
    assert (ROOT / "py.typed").is_file() and (Path(ds_core.__file__).parent / "py.typed").is_file()


def test_there_is_one_version() -> None:
    assert ds_trio_server.__version__ == ds_core.__version__
    project = (ROOT.parent / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in project and not re.search(r"^version = ", project, re.MULTILINE)
