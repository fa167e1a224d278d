"""The doors between the rooms: who may import whom. Read from the source, so no function can hide an import.

ds_core runs unchanged on MicroPython, so besides its own rooms it may import only what every MicroPython port
has and what does no I/O: no clock, no randomness, no threads, no sockets, no typing.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The gateway's leaves: each may be imported by every room, and imports none.
_LEAVES = ("addresses", "clock", "config", "globs", "parsers", "seldom", "stats", "units")
LEAVES = tuple(f"ds_trio_server.{leaf}" for leaf in _LEAVES)
EXCHANGE = "ds_trio_server.http.exchange"
STORE = "ds_trio_server.store.base"

# Room (the longest matching module prefix counts) -> what of ours it may import besides itself.
DOORS: dict[str, tuple[str, ...]] = {
    "ds_core": (),
    "ds_core.wire": (),
    "ds_core.server": ("ds_core.wire",),
    "ds_core.client": ("ds_core.wire",),
    # app, streams and server put the rooms together; no room knows them but the command line.
    "ds_trio_server": ("ds_core", "ds_trio_server"),
    **dict.fromkeys(LEAVES, ("ds_core", *LEAVES)),
    "ds_trio_server.http": ("ds_core", *LEAVES),
    "ds_trio_server.access": ("ds_core", *LEAVES),
    "ds_trio_server.store": ("ds_core", *LEAVES),
    "ds_trio_server.store.engines": ("ds_core", "ds_trio_server.store", *LEAVES),
    "ds_trio_server.store.sqlite": ("ds_core", "ds_trio_server.store", *LEAVES),
    "ds_trio_server.reads": ("ds_core", EXCHANGE, STORE, *LEAVES),
    "ds_trio_server.live": ("ds_core", EXCHANGE, STORE, "ds_trio_server.reads", *LEAVES),
    "ds_trio_server.ops": ("ds_core", EXCHANGE, STORE, "ds_trio_server.access", *LEAVES),
    "ds_trio_server.cli": ("ds_core", "ds_trio_server", "ds_micro"),
    "ds_micro": ("ds_core.wire", "ds_core.client"),
}
# Rooms that an open door to the room around them does not lead into, but for these.
ONLY_FOR = {
    "ds_trio_server.cli": (),
    "ds_trio_server.store.sqlite": ("ds_trio_server", "ds_trio_server.cli", "ds_trio_server.store.engines"),
}
# Circles that save a device memory: the second module of a pair holds what is rare, and is imported inside of the
# function of the first that needs it; it needs the first one's names in turn.
LAZY_CIRCLES = (
    {"ds_core.wire.http1", "ds_core.wire.chunked"},
    {"ds_core.wire.cbor", "ds_core.wire.cbor_values"},
    {"ds_core.client.errors", "ds_core.client.refusals"},
    {"ds_core.client.reader", "ds_core.client.events"},
    {"ds_core.client.writer", "ds_core.client.verdicts"},
    {"ds_micro.flash", "ds_micro.recovery"},
)
OURS = ("ds_core", "ds_trio_server", "ds_micro", "tests")
CORE_MAY_USE = {
    *("array", "binascii", "collections", "errno", "gc", "hashlib", "io", "json", "math", "micropython"),
    *("re", "struct", "sys"),
}
MOST_LINES = 429
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What the gateway may import of others: what it needs and, by extras, may need. The other extras are for our tools.
DEPENDENCIES = {
    re.match(r"[\w-]+", needed)[0].replace("-", "_")
    for needed in (
        *PROJECT["dependencies"],
        *(each for extra, needs in PROJECT["optional-dependencies"].items()
          if extra not in ("test", "docs", "lint") for each in needs),
    )
}  # fmt: skip
SOURCES = {"ds_core": ROOT, "ds_trio_server": ROOT, "ds_micro": ROOT / "micro"}
WITH_README = (
    *("ds_core", "ds_core/wire", "ds_core/server", "ds_core/client"),
    *("ds_trio_server", "micro", "tests", "hardware-notes"),
    *(f"ds_trio_server/{room}" for room in ("http", "reads", "live", "access", "ops", "store", "store/sqlite", "cli")),
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
    # `python -m ds_trio_server` is the command line, too.
    if parts[:2] == ["ds_trio_server", "__main__"]:
        return "ds_trio_server.cli"
    return max((room for room in DOORS if within(name, room)), key=len)


def fault(name: str, target: str) -> str | None:
    """Why module `name` may not import `target`, or None."""
    room = room_of(name)
    top = target.split(".")[0]
    if top in OURS:
        if name == "ds_core":
            return f"ds_core/__init__.py imports {target}: it may import nothing, rooms are imported by name"
        if room != "ds_core" and room_of(target) == room:
            return None
        opens = any(within(target, door) for door in DOORS[room])
        if opens and room in ONLY_FOR.get(room_of(target), (room,)):
            return None
        return f"{name} imports {target}: {room} may import {', '.join(DOORS[room]) or 'nothing'} of ours"
    if name.split(".")[0] == "ds_core" and top not in CORE_MAY_USE:
        return f"{name} imports {target}: the core may use only {', '.join(sorted(CORE_MAY_USE))}"
    if name.split(".")[0] == "ds_trio_server" and top not in sys.stdlib_module_names | DEPENDENCIES:
        return f"{name} imports {target}: not in the standard library and not a declared dependency"
    return None


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The sets of modules that import each other, directly or by way of others (strongly connected components)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: list[set[str]] = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        path.append(module)
        for other in graph.get(module, ()):
            if other not in number:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in path:
                lowest[module] = min(lowest[module], number[other])
        if lowest[module] == number[module]:
            at = path.index(module)
            found.append(set(path[at:]))
            del path[at:]

    for module in graph:
        if module not in number:
            visit(module)
    return [each for each in found if len(each) > 1]


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = dict(sources())
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        graph[name] = set()
        for _, target in imports(name, path):
            while target and target not in modules:
                target = target.rpartition(".")[0]
            # A package's own page of names imports its modules; that a module imports its package is no news.
            if target and target != name and not name.startswith(target + "."):
                graph[name].add(target)
    found = circles(graph)
    assert [each for each in found if each not in LAZY_CIRCLES] == []
    assert len(found) == len(LAZY_CIRCLES), "a circle is gone: take it off the list"


def test_modules_of_the_gateway_are_read_in_one_sitting() -> None:
    """A module with more lines than any had when the gateway got its rooms holds more than one idea: split it by idea,
    not by size."""
    lengths = {name: len(path.read_text().splitlines()) for name, path in sources() if within(name, "ds_trio_server")}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]


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
        ("ds_trio_server.http.connection", "ds_trio_server.app"),
        ("ds_trio_server.http.connection", "ds_trio_server.store.base"),
        ("ds_trio_server.live.fanout", "ds_trio_server.http.connection"),
        ("ds_trio_server.reads.catchup", "ds_trio_server.store.sqlite.engine"),
        ("ds_trio_server.store.memory", "ds_trio_server.store.sqlite.schema"),
        ("ds_trio_server.store.sqlite.engine", "ds_trio_server.reads.reading"),
        ("ds_trio_server.access.policy", "ds_trio_server.http.exchange"),
        ("ds_trio_server.stats", "ds_trio_server.store.base"),
        ("ds_trio_server.streams", "ds_trio_server.cli.main"),
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
        ("ds_trio_server.app", "ds_trio_server.live.fanout"),
        ("ds_trio_server.live.subscribers", "ds_trio_server.reads.reading"),
        ("ds_trio_server.store.sqlite.engine", "ds_trio_server.store.base"),
        ("ds_trio_server.store.sqlite.engine", "ds_trio_server.clock"),
        ("ds_trio_server.app", "trio"),
        ("ds_trio_server.cli", "ds_micro"),
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
