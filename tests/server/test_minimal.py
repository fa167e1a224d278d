"""What is loaded is what is turned on: the modules of a server without options, and of each command of the shell."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ds_trio_server.cli.main import FAMILIES
from ds_trio_server.store.engines import DEFAULT, ENGINES
from tests.test_rooms import within
from tests.tools import serve

# Runs `ds` with the words behind it; told to stop, or done, it writes what was loaded by then.
WRAPPED = """
import json, sys
from ds_trio_server.cli.main import main
file = sys.argv.pop(1)
sys.argv[0] = "ds"
try:
    status = main()
finally:
    with open(file, "w") as out:
        json.dump(sorted(sys.modules), out)
sys.exit(status)
"""

# What the base install has, and what these need. ssl is trio's (trio/_ssl.py imports it), whoever uses TLS.
THIRD_PARTY = {"h11", "trio", "cbor2", "msgspec", "attr", "outcome", "sniffio", "sortedcontainers", "idna", "_cbor2"}
THIRD_PARTY |= {"attrs", "typing_extensions"}  # trio's other name of attr; msgspec's, where something else brought it
NEVER = {"prometheus_client", "asyncio", "http.client", "urllib.request", "multiprocessing"}


def loaded(file: Path) -> set[str]:
    return set(json.loads(file.read_text()))


def of_a_server(tmp_path: Path, *options: object) -> set[str]:
    """The modules of a server that has answered a create, an append, and reads, a live one included."""
    file = tmp_path / "modules.json"
    argv = [sys.executable, "-c", WRAPPED, str(file), "serve", "--port", "0", *map(str, options)]
    environment = serve.environment({"DS_DATA": str(tmp_path / "data")} if "--memory" not in options else None)
    with serve.Server(argv, environment, 60) as server:
        connection = http.client.HTTPConnection(server.host, server.port, timeout=20)
        kind = {"Content-Type": "application/cbor-seq"}
        for method, query, body in (
            ("PUT", "", b""), ("POST", "", b"\x01"), ("GET", "", None), ("GET", "?offset=-1&live=long-poll", None),
        ):  # fmt: skip
            connection.request(method, "/v1/stream/a" + query, body, kind)
            answer = connection.getresponse()
            answer.read()
            assert answer.status in (200, 201, 204, 401)
        connection.close()
        assert server.stop() == 0, server.output
    return loaded(file)


def ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.split(".")[0] in ("ds_core", "ds_trio_server", "ds_micro")}


def foreign(modules: set[str]) -> set[str]:
    """Top-level packages that are neither ours nor the standard library's (nor the installer's hooks)."""
    tops = {name.split(".")[0] for name in modules}
    known = sys.stdlib_module_names | {"ds_core", "ds_trio_server", "__main__", "__mp_main__"}
    return {name for name in tops - known if not name.startswith(("__editable__", "_virtualenv", "_distutils"))}


ROOMS = "ds_trio_server."
# Every module that there is.
THERE = {
    ".".join(path.relative_to(serve.ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (serve.ROOT / "ds_trio_server").rglob("*.py")
}
UNUSED = {
    "access.file", "access.policy", "access.links", "cli.client_options", "cli.client_stream", "cli.append",
    "cli.input", "cli.output", "cli.saved", "cli.notation", "http.tls", "store.sqlite.maintenance",
    "store.sqlite.copying", "store.sqlite.salvaging", "outbound", "outbound.client", "outbound.rules",
}  # fmt: skip
# Commands have a module for each family, engines a module or a room for each.
UNUSED |= {f"cli.{family}" for family in FAMILIES if family != "serve"}
ELSEWHERE = [f"{ROOMS}store.{engine}" for engine in ENGINES if engine != DEFAULT]
UNUSED |= {name.removeprefix(ROOMS) for name in THERE if any(within(name, engine) for engine in ELSEWHERE)}


def test_a_server_without_options_loads_what_it_uses(tmp_path: Path) -> None:
    modules = of_a_server(tmp_path)
    assert {"trio", "h11", "cbor2"} <= foreign(modules) <= THIRD_PARTY
    assert not NEVER & modules
    assert not {ROOMS + name for name in UNUSED} & modules
    assert not {name for name in ours(modules) if name.startswith(("ds_micro", "ds_core.client"))}
    # Every module of the server's own rooms is one that it uses: whoever adds one says here who pays for it.
    assert THERE - modules - {ROOMS + name for name in UNUSED} == {"ds_trio_server.__main__"}


@pytest.mark.parametrize(
    ("options", "more"),
    [(["--memory"], {"store.memory"}), (["--access"], {"access.file", "access.policy", "access.links"})],
)
def test_what_is_turned_on_is_loaded_besides(tmp_path: Path, options: list[str], more: set[str]) -> None:
    if options == ["--access"]:
        options = ["--access", str(tmp_path / "access.json")]
        made = [*serve.command(), "token", "new", *options, "--name", "a", "--read", "**"]
        subprocess.run(made, check=True, capture_output=True, timeout=30, env=serve.environment())
    modules = of_a_server(tmp_path, *options)
    assert {ROOMS + name for name in UNUSED} & modules == {ROOMS + name for name in more}
    if "--memory" in options:
        assert ROOMS + "store.sqlite.engine" not in modules


def of_a_command(tmp_path: Path, *words: str) -> set[str]:
    file = tmp_path / "modules.json"
    argv = [sys.executable, "-c", WRAPPED, str(file), *words]
    subprocess.run(argv, capture_output=True, timeout=30, env=serve.environment(), check=False)
    return loaded(file)


@pytest.mark.parametrize("words", [("append", "--help"), ("read", "x", "--url", "http://127.0.0.1:1"), ("--version",)])
def test_a_client_command_loads_no_server(tmp_path: Path, words: tuple[str, ...]) -> None:
    modules = of_a_command(tmp_path, *words)
    assert foreign(modules) - {"ds_micro"} == set()
    assert not {"trio", "sqlite3", "logging", "asyncio", "dataclasses"} & modules
    assert {name for name in ours(modules) if name.startswith(ROOMS)} <= {
        ROOMS + name for name in ("cli", "cli.main", "cli.parser", "cli.stdio", "cli.client", "cli.client_options",
                                  "cli.client_stream", "cli.append", "cli.input", "cli.notation", "cli.output",
                                  "cli.saved", "units")
    }  # fmt: skip


def test_token_commands_load_no_server(tmp_path: Path) -> None:
    modules = of_a_command(tmp_path, "token", "list", "--access", str(tmp_path / "none"))
    assert foreign(modules) == set() and ROOMS + "server" not in modules and "sqlite3" not in modules


def test_importing_the_package_loads_none_of_it(tmp_path: Path) -> None:
    text = "import sys, ds_trio_server, ds_trio_server.access; print(*sys.modules)"
    argv = [sys.executable, "-c", text]
    done = subprocess.run(argv, capture_output=True, text=True, env=serve.environment(), timeout=30)
    assert not {"trio", "ssl", "sqlite3", ROOMS + "server", ROOMS + "access.file"} & set(done.stdout.split())


def test_the_module_is_the_command() -> None:
    for words in (["--version"], ["serve", "--help"], ["serve", "--port", "x"]):
        both = [
            subprocess.run([*argv, *words], capture_output=True, text=True, timeout=30, env=serve.environment())
            for argv in (serve.command(), [sys.executable, "-m", "ds_trio_server"])
        ]
        assert both[0].stdout == both[1].stdout and both[0].stderr == both[1].stderr
        assert both[0].returncode == both[1].returncode == (2 if "x" in words else 0)
    assert "ds serve" in both[1].stderr and "__main__" not in both[1].stderr and os.linesep in both[1].stderr
