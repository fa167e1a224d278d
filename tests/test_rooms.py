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
    "ds_core.server.subscriptions": ("ds_core.wire", "ds_core.server"),
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
    "ds_trio_server.outbound": ("ds_core", *LEAVES),
    "ds_trio_server.cli": ("ds_core", "ds_trio_server", "ds_micro"),
    "ds_micro": ("ds_core.wire", "ds_core.client"),
    "ds_client": ("ds_core.wire", "ds_core.client", "ds_micro"),
}
# Rooms that an open door to the room around them does not lead into, but for these.
ONLY_FOR = {
    "ds_trio_server.cli": (),
    "ds_trio_server.store.sqlite": ("ds_trio_server", "ds_trio_server.cli", "ds_trio_server.store.engines"),
}
# Circles that save a device memory: the second module of a pair holds what is rare, and is imported inside of the
# function of the first that needs it; it needs the first one's names in turn. (To take these names out into a module of
# their own costs each device some hundred bytes, and the 16 KB that all of them load have no room for that.)
LAZY_CIRCLES = (
    {"ds_core.wire.http1", "ds_core.wire.chunked"},
    {"ds_core.wire.cbor", "ds_core.wire.cbor_values"},
    {"ds_core.client.errors", "ds_core.client.refusals"},
    {"ds_core.client.reader", "ds_core.client.events"},
    {"ds_core.client.writer", "ds_core.client.verdicts"},
    {"ds_micro.flash", "ds_micro.recovery"},
)
OURS = ("ds_core", "ds_trio_server", "ds_micro", "ds_client", "tests")
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
SOURCES = {"ds_core": ROOT, "ds_trio_server": ROOT, "ds_micro": ROOT / "micro", "ds_client": ROOT / "micro"}
WITH_README = (
    *("ds_core", "ds_core/wire", "ds_core/server", "ds_core/server/subscriptions", "ds_core/client"),
    *("ds_trio_server", "micro", "micro/ds_client", "tests", "hardware-notes"),
    *(f"ds_trio_server/{room}" for room in ("http", "reads", "live", "access", "ops", "outbound")),
    *(f"ds_trio_server/{room}" for room in ("store", "store/sqlite", "cli")),
)


def sources() -> Iterator[tuple[str, Path]]:
    """Every module of ours as (dotted name, file)."""
    for package, where in SOURCES.items():
        for path in sorted((where / package).rglob("*.py")):
            parts = path.relative_to(where).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


COMPUTED = "<computed>"
IMPORTERS = ("__import__", "import_module")


def imports(name: str, path: Path, source: str | None = None) -> Iterator[tuple[int, str]]:
    """Every import in a module as (line, absolute dotted name), at any depth; COMPUTED for one that can't be read."""
    tree = ast.parse(path.read_text() if source is None else source, str(path))
    plain = set()  # what imports by a name that can be read here
    never = not_run(tree)
    for node in ast.walk(tree):
        for _, target in bindings(node, name, path):
            if node not in never:
                yield node.lineno, target
        if isinstance(node, ast.Call) and spoken(node.func) in IMPORTERS and node.args:
            if isinstance(node.args[0], ast.Constant):
                plain.add(node.func)
                yield node.lineno, str(node.args[0].value)
    for node in ast.walk(tree):
        # One that is called otherwise, or is given another name to be called by, may import anything.
        handed_on = isinstance(node, (ast.Name, ast.Attribute)) and spoken(node) in IMPORTERS and node not in plain
        spelt = isinstance(node, ast.Constant) and node.value in IMPORTERS
        renamed = isinstance(node, ast.alias) and node.name in IMPORTERS and node.asname
        run = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec")
        if handed_on or spelt or renamed or run:
            yield node.lineno, COMPUTED


def not_run(tree: ast.Module) -> set[ast.AST]:
    """What a module of the core takes of `typing` for those alone who check its types: it says that nobody does here,
    once, before it asks, and nowhere else."""
    said = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "TYPE_CHECKING"]
    stores = [node for node in said if isinstance(node.ctx, ast.Store)]
    false = [
        node for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and node.value.value is False
        and node.targets == stores
    ]  # fmt: skip
    found: set[ast.AST] = set()
    for node in tree.body:
        if len(false) == 1 and isinstance(node, ast.If) and node.test in said:
            found |= {each for each in node.body if isinstance(each, ast.ImportFrom) and each.module == "typing"}
    return found


def spoken(node: ast.AST) -> str:
    """The last name of an expression that is one."""
    return str(getattr(node, "id", getattr(node, "attr", "")))


def bindings(node: ast.AST, name: str, path: Path) -> Iterator[tuple[str, str]]:
    """What a statement of a module imports, as (name here, absolute dotted name)."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.asname or alias.name, alias.name
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = (name if path.name == "__init__.py" else name.rpartition(".")[0]).split(".")
            parts = parts[: len(parts) - node.level + 1]
            base = ".".join([*parts, *([base] if base else [])])
        # `from package import submodule` imports the submodule.
        for alias in node.names:
            yield alias.asname or alias.name, f"{base}.{alias.name}"


class Program:
    """Modules as they are written: what each imports, and where a name that is passed on comes from."""

    def __init__(self, modules: dict[str, Path], made_up: dict[str, str] | None = None) -> None:
        """`made_up`: sources by module, in place of files."""
        self.modules = modules
        self._sources = made_up or {name: path.read_text() for name, path in modules.items()}
        self._trees = {name: ast.parse(text) for name, text in self._sources.items()}
        self._bound = {
            name: dict(each for node in ast.walk(tree) for each in bindings(node, name, modules[name]))
            for name, tree in self._trees.items()
        }
        # What a module gives out under names that can't be read: all that its `__getattr__` imports.
        self._late = {
            name: {
                target
                for function in tree.body
                if isinstance(function, ast.FunctionDef) and function.name == "__getattr__"
                for node in ast.walk(function)
                for _, target in bindings(node, name, modules[name])
            }
            for name, tree in self._trees.items()
        }

    def imports(self, name: str) -> Iterator[tuple[int, str]]:
        return imports(name, self.modules[name], self._sources[name])

    def module(self, target: str) -> str:
        """The module of ours that has this name, or of which it is one; nothing when there is none."""
        while target and target not in self.modules:
            target = target.rpartition(".")[0]
        return target

    def behind(self, target: str, known: tuple[str, ...] = ()) -> set[str]:
        """Where `package.name` comes from, if `package` imports it itself or does when it is asked for it."""
        home = self.module(target)
        rest = target[len(home) + 1 :].split(".")[0] if home else ""
        if not rest or target in known:
            return set()
        own = self._bound[home].get(rest)
        if own is None and any(is_made(node, rest) for node in self._trees[home].body):
            return set()
        found = {own} if own else self._late[home]
        return found.union(*(self.behind(each, (*known, target)) for each in found))

    def taken(self, name: str) -> Iterator[tuple[int, str]]:
        """As `imports`, and the modules that are reached through another: `other.module`, from either end."""
        for line, target in self.imports(name):
            yield line, target
            yield from ((line, each) for each in self.behind(target) if self.is_module(each))
        for node in ast.walk(self._trees[name]):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                through = self._bound[name].get(node.value.id, "")
                if through in self.modules:
                    for each in self.behind(f"{through}.{node.attr}"):
                        if self.is_module(each):
                            yield node.lineno, each

    def is_module(self, target: str) -> bool:
        return target in self.modules or target.split(".")[0] not in OURS and target in sys.stdlib_module_names

    def graph(self) -> dict[str, set[str]]:
        """Which modules each needs, what it takes of a package's page of names included."""
        graph: dict[str, set[str]] = {}
        for name in self.modules:
            graph[name] = set()
            for _, target in self.imports(name):
                for each in (target, *self.behind(target)):
                    found = self.module(each)
                    # A package's own page of names imports its modules; that a module imports its package is no news.
                    if found and found != name and not name.startswith(found + "."):
                        graph[name].add(found)
        return graph


def is_made(node: ast.stmt, name: str) -> bool:
    """Whether a statement of a module makes the name there."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return node.name == name
    made = [each for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)]
    return name in [each.id for each in made]


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
    if top == "sqlite3" and room != "ds_trio_server.store.sqlite":
        return f"{name} imports {target}: all SQL is in ds_trio_server/store/sqlite"
    if name.split(".")[0] == "ds_core" and top not in CORE_MAY_USE:
        return f"{name} imports {target}: the core may use only {', '.join(sorted(CORE_MAY_USE))}"
    if name.split(".")[0] in ("ds_trio_server", "ds_client") and top not in sys.stdlib_module_names | DEPENDENCIES:
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
    found = circles(Program(dict(sources())).graph())
    assert [each for each in found if each not in LAZY_CIRCLES] == []
    assert len(found) == len(LAZY_CIRCLES), "a circle is gone: take it off the list"


def test_modules_of_the_gateway_are_read_in_one_sitting() -> None:
    """A module with more lines than any had when the gateway got its rooms holds more than one idea: split it by idea,
    not by size."""
    rooms = ("ds_trio_server", "ds_client")
    lengths = {
        name: len(path.read_text().splitlines()) for name, path in sources() if name.split(".")[0] in rooms
    }
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]


def made_up(**texts: str) -> Program:
    """A program of these modules; a name that ends with `_` is a package's, and `__` in it is a dot."""
    names = {name: name.rstrip("_").replace("__", ".") for name in texts}
    files = {names[name]: Path("__init__.py" if name[-1] == "_" else "module.py") for name in texts}
    return Program(files, {names[name]: text for name, text in texts.items()})


LAZY_PAGE = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from .engine import Engine
def __getattr__(name):
    from . import engine, other
    return getattr(engine, name)
"""


def test_a_circle_through_a_page_of_names_is_found() -> None:
    """A name that a package gives out, at once or when it is asked for it, is the module's that it comes from."""
    for page in (LAZY_PAGE, LAZY_PAGE.replace("if TYPE_CHECKING:\n    from .engine import Engine", ""),
                 "from .engine import Engine"):  # fmt: skip
        for taken in ("from . import Engine", "from ..room import Engine", "def f():\n from . import Engine as E"):
            program = made_up(ours_="", ours__room_=page, ours__room__engine="from . import base",
                              ours__room__base=taken, ours__room__other="")  # fmt: skip
            assert circles(program.graph()) == [{"ours.room.engine", "ours.room.base"}], (page, taken)
    program = made_up(ours_="", ours__room_=LAZY_PAGE + "\nLIMIT = 1", ours__room__engine="from . import base",
                      ours__room__base="from . import LIMIT", ours__room__other="")  # fmt: skip
    assert circles(program.graph()) == [], "what the page makes itself is nobody else's"


def test_a_module_that_another_passes_on_is_seen() -> None:
    """An open door leads to what stands behind it, not to whatever that has open doors to."""
    inside = "ds_trio_server.store.sqlite.schema"
    for text in (
        "from ..store.base import schema",
        "from ..store.base import schema as it",
        "from ..store import base\nbase.schema.VERSION",
        "import ds_trio_server.store.base as base\nbase.schema",
        "def f():\n from ..store.base import twice",
    ):
        program = made_up(
            ds_trio_server_="", ds_trio_server__store_="", ds_trio_server__store__sqlite_="",
            ds_trio_server__store__sqlite__schema="VERSION = 1",
            ds_trio_server__store__base="from .sqlite import schema\nfrom .sqlite import schema as twice\nimport os",
            ds_trio_server__live_="", ds_trio_server__live__fanout=text,
        )  # fmt: skip
        found = {target for _, target in program.taken("ds_trio_server.live.fanout")}
        assert inside in found and fault("ds_trio_server.live.fanout", inside), text
    texts = {"ds_core__wire__a": "import time", "ds_core__wire__b": "from .a import time"}
    program = made_up(ds_core_="", ds_core__wire_="", **texts)
    assert "time" in {target for _, target in program.taken("ds_core.wire.b")}


@pytest.mark.parametrize(
    "text",
    [
        "from importlib import import_module as load\nload('time')",
        "import importlib\nload = importlib.import_module\nload('time')",
        "load = __import__\nload('time')",
        "import builtins\ngetattr(builtins, '__import__')('time')",
        "import importlib\ngetattr(importlib, 'import_module')('time')",
        "map(__import__, ['time'])",
        "__import__('ti' + 'me')",
        "import importlib as i\ni.import_module(name)",
        "exec('import time')",
        "eval('time')",
    ],
)
def test_an_import_that_cannot_be_read_is_seen(text: str) -> None:
    assert COMPUTED in [target for _, target in imports("ds_core.wire.a", Path("a.py"), text)]
    assert fault("ds_core.wire.a", COMPUTED) and fault("ds_trio_server.app", COMPUTED)


def test_imports_go_through_the_doors() -> None:
    program = Program(dict(sources()))
    assert program.modules, "no sources found"
    faults = [
        f"{path.relative_to(ROOT)}:{line}: {why}"
        for name, path in program.modules.items()
        for line, target in program.taken(name)
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
    block = "if TYPE_CHECKING:\n from typing import TypeVar\n from time import time"
    for before, seen in (("TYPE_CHECKING = False\n", False), ("TYPE_CHECKING = True\n", True), ("", True),
                         ("TYPE_CHECKING = False\nTYPE_CHECKING = True\n", True)):  # fmt: skip
        taken = found("ds_core.wire.sse", "sse.py", before + block)
        assert taken == ["typing.TypeVar"] * seen + ["time.time"], before

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
        ("ds_trio_server.cli.maintenance", "sqlite3"),
        ("ds_trio_server.store.retention", "sqlite3.Connection"),
        ("ds_micro.flash", "sqlite3"),
        ("ds_trio_server.streams", "ds_trio_server.cli.main"),
        ("ds_micro.client", "ds_core.server.offsets"),
        ("ds_micro.client", "ds_trio_server"),
        ("ds_micro.stream", "ds_client.pool"),
        ("ds_client.pool", "ds_trio_server"),
        ("ds_client.pool", "ds_core.server.offsets"),
        ("ds_client.on_asyncio", "anyio"),
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
        ("ds_trio_server.store.sqlite.engine", "sqlite3"),
        ("ds_trio_server.app", "trio"),
        ("ds_trio_server.cli", "ds_micro"),
        ("ds_trio_server.cli.tail", "ds_trio_server.cli.common"),
        ("ds_trio_server.cli.main", "ds_trio_server.app"),
        ("ds_trio_server.__main__", "ds_trio_server.cli.main"),
        ("ds_micro.client", "ds_micro.outbox"),
        ("ds_client.lines", "ds_micro.stream"),
        ("ds_client.on_trio", "trio"),
        ("ds_micro.client", "socket"),
    ):
        assert fault(name, target) is None, (name, target)


def _folders(package: str) -> set[str]:
    """Every folder of a package that has modules, as a module's name."""
    found = {path.parent.relative_to(ROOT) for path in (ROOT / package).rglob("*.py")}
    return {".".join(folder.parts) for folder in found}


@pytest.mark.parametrize("package", ["ds_core", "ds_trio_server"])
def test_a_new_folder_is_a_room_with_doors_and_a_page(package: str) -> None:
    """Without doors of its own it would have those of the room around it, which opens to everything."""
    missing = _folders(package) - set(DOORS)
    assert not missing, f"give {', '.join(missing)} a line in DOORS: what of ours it may import"
    pages = {folder.replace(".", "/") for folder in _folders(package)} - set(WITH_README)
    assert not pages, f"give {', '.join(pages)} a page, and a line in WITH_README"


@pytest.mark.parametrize("room", [room for room in WITH_README if (ROOT / room).is_dir()])
def test_each_room_says_what_lives_there(room: str) -> None:
    readme = ROOT / room / "README.md"
    assert readme.is_file(), f"{room}/README.md: what lives here, what it may import, where to start reading"
    assert readme.read_text().startswith("# ")
