"""The doors between the rooms: who may import whom. Read from the source, so no function can hide an import.

ds_core runs unchanged on MicroPython, so besides its own rooms it may import only what every MicroPython port
has and what does no I/O: no clock, no randomness, no threads, no sockets, no typing.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Room (the longest matching module prefix counts) -> what of ours it may import besides itself.
DOORS = {
    "ds_core": (),
    "ds_core.wire": (),
    "ds_core.server": ("ds_core.wire",),
    "ds_core.client": ("ds_core.wire",),
    "ds_trio_server": ("ds_core",),
    "ds_trio_server.cli.serve": ("ds_core", "ds_trio_server", "ds_micro"),
    "ds_micro": ("ds_core.wire", "ds_core.client"),
}
OURS = ("ds_core", "ds_trio_server", "ds_micro", "tests")
CORE_MAY_USE = {
    *("array", "binascii", "collections", "errno", "gc", "hashlib", "io", "json", "math", "micropython"),
    *("re", "struct", "sys"),
}
DEPENDENCIES = {"cbor2", "h11", "msgspec", "prometheus_client", "trio"}
SOURCES = {"ds_core": ROOT, "ds_trio_server": ROOT, "ds_micro": ROOT / "micro"}
WITH_README = (
    *("ds_core", "ds_core/wire", "ds_core/server", "ds_core/client"),
    *("ds_trio_server", "micro", "tests", "hardware-notes"),
)


def sources() -> Iterator[tuple[str, Path]]:
    """Every module of ours as (dotted name, file)."""
    for package, where in SOURCES.items():
        for path in sorted((where / package).rglob("*.py")):
            parts = path.relative_to(where).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(name: str, path: Path, source: str | None = None) -> Iterator[tuple[int, str]]:
    """Every import in a module as (line, absolute dotted name), at any depth."""
    tree = ast.parse(path.read_text() if source is None else source, str(path))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                parts = parts[: len(parts) - node.level + 1]
                base = ".".join([*parts, *([base] if base else [])])
            # `from package import submodule` imports the submodule.
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"
        elif isinstance(node, ast.Call):
            function = node.func
            called = getattr(function, "id", getattr(function, "attr", ""))
            if called in ("__import__", "import_module"):
                argument = node.args[0] if node.args else None
                if isinstance(argument, ast.Constant):
                    yield node.lineno, str(argument.value)
                else:
                    yield node.lineno, "<computed>"


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


def room_of(name: str) -> str:
    parts = name.split(".")
    # `cli`, `cli_client`, a package `cli` and `python -m ds_trio_server` are all the command line.
    if parts[0] == "ds_trio_server" and len(parts) > 1 and parts[1].startswith(("cli", "__main__")):
        return "ds_trio_server.cli.serve"
    return max((room for room in DOORS if within(name, room)), key=len)


def fault(name: str, target: str) -> str | None:
    """Why module `name` may not import `target`, or None."""
    room = room_of(name)
    top = target.split(".")[0]
    if top in OURS:
        if room == "ds_core" and name == "ds_core":
            return f"ds_core/__init__.py imports {target}: it may import nothing, rooms are imported by name"
        if room != "ds_core" and within(target, room) and room_of(target) == room:
            return None
        if any(within(target, door) for door in DOORS[room]) and room_of(target) != "ds_trio_server.cli.serve":
            return None
        if room == room_of(target) == "ds_trio_server.cli.serve":
            return None
        return f"{name} imports {target}: {room} may import {', '.join(DOORS[room]) or 'nothing'} of ours"
    if name.split(".")[0] == "ds_core" and top not in CORE_MAY_USE:
        return f"{name} imports {target}: the core may use only {', '.join(sorted(CORE_MAY_USE))}"
    if name.split(".")[0] == "ds_trio_server" and top not in sys.stdlib_module_names | DEPENDENCIES:
        return f"{name} imports {target}: not in the standard library and not a declared dependency"
    return None


def test_imports_go_through_the_doors() -> None:
    modules = list(sources())
    assert modules, "no sources found"
    faults = [
        f"{path.relative_to(ROOT)}:{line}: {why}"
        for name, path in modules
        for line, target in imports(name, path)
        if (why := fault(name, target))
    ]
    assert not faults, "\n" + "\n".join(faults)


def test_the_door_check_sees_every_form_of_import() -> None:
    def found(name: str, file: str, source: str) -> list[str]:
        return [target for _, target in imports(name, Path(file), source)]

    assert found("ds_core.wire.sse", "sse.py", "from . import http1") == ["ds_core.wire.http1"]
    assert found("ds_core.wire", "__init__.py", "from .http1 import a, b") == [
        "ds_core.wire.http1.a",
        "ds_core.wire.http1.b",
    ]
    assert found("ds_core.wire.sse", "sse.py", "def f():\n from ..server import x") == ["ds_core.server.x"]
    assert found("ds_core.wire.sse", "sse.py", "__import__('time')") == ["time"]

    for name, target in (
        ("ds_core.wire.sse", "ds_core.server.stream"),
        ("ds_core.wire.sse", "time"),
        ("ds_core.client.reader", "ds_core.server"),
        ("ds_core.server.stream", "ds_core.client.writer"),
        ("ds_core.server.stream", "ds_trio_server"),
        ("ds_core.server.stream", "cbor2"),
        ("ds_core.server.stream", "typing.Any"),
        ("ds_trio_server.app", "ds_micro"),
        ("ds_trio_server.store.sqlite.engine", "ds_trio_server.cli.main"),
        ("ds_trio_server.app", "requests"),
        ("ds_micro.client", "ds_core.server.offsets"),
        ("ds_micro.client", "ds_trio_server"),
        ("ds_core", "ds_core.wire"),
    ):
        assert fault(name, target), (name, target)
    for name, target in (
        ("ds_core.server.stream", "ds_core.wire.names"),
        ("ds_core.server.stream", "ds_core.server.offsets"),
        ("ds_core.client.reader", "ds_core.wire"),
        ("ds_trio_server.app", "ds_core.server"),
        ("ds_trio_server.app", "trio"),
        ("ds_trio_server.cli.serve", "ds_micro"),
        ("ds_trio_server.cli.tail", "ds_trio_server.cli.common"),
        ("ds_trio_server.cli.main", "ds_trio_server.app"),
        ("ds_trio_server.__main__", "ds_trio_server.cli.main"),
        ("ds_micro.client", "ds_micro.outbox"),
        ("ds_micro.client", "socket"),
    ):
        assert fault(name, target) is None, (name, target)


@pytest.mark.parametrize("room", [room for room in WITH_README if (ROOT / room).is_dir()])
def test_each_room_says_what_lives_there(room: str) -> None:
    readme = ROOT / room / "README.md"
    assert readme.is_file(), f"{room}/README.md: what lives here, what it may import, where to start reading"
    assert readme.read_text().startswith("# ")


@pytest.mark.parametrize("name", [name for name, path in sources() if path.name == "__init__.py"])
def test_public_names_exist(name: str) -> None:
    module = importlib.import_module(name)
    names = list(getattr(module, "__all__", []))
    assert len(names) == len(set(names)), f"{name}.__all__ repeats a name"
    absent = [public for public in names if not hasattr(module, public)]
    assert not absent, f"{name}.__all__ names what does not exist: {absent}"
