"""The device's files have no annotations, so that a board pays for none; their shapes are in stubs beside them.

The stubs agree with the modules (stubtest, of mypy), a program is checked against them, and no board gets them.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ds_core.client.refusals import StreamError
from ds_micro import operations, trouble
from tests.tools import ci

ROOT = Path(__file__).resolve().parent.parent
MICRO = ROOT / "micro" / "ds_micro"

# What is right passes, and each wrong line is found: a comment without an error on its line is an error, too.
PROGRAM = """
import asyncio
from collections.abc import Coroutine
from typing import assert_type

import ds_micro
from ds_micro import Closed, Cursor, Outbox, Stream, StreamError, aio

s = Stream("http://h/v1/stream/a", token=lambda: "secret", timeout=2.5, ca="ca.der")
offset = s.create(ttl=60, values=[{"t": 21.5}]).offset
assert_type(offset, str | None)
s.append({"t": 21.5}, 3, close=True)
s.append(b"as it is", raw=True)
s.fork("/v1/stream/b", offset=offset, sub_offset=2)
s.append("no bytes", raw=True)  # type: ignore[call-overload]
s.create(ttl="60")  # type: ignore[arg-type]
s.appendd(1)  # type: ignore[attr-defined]
Stream("http://h/v1/stream/a", timeout="1")  # type: ignore[arg-type]

cursor = Cursor("/cursor").load()
for piece in s.read(cursor, raw=True, live="sse"):
    assert_type(piece, bytes)
    cursor.save()
for item in s.read("now", marks=True):
    if item is ds_micro.MARK:
        break
s.read(live="often")  # type: ignore[call-overload]

box = Outbox("/outbox", s, producer="p", when_full="refuse")
try:
    assert_type(box.append({"t": 1}), bool)
    assert_type(box.flush(10) + box.records + box.dropped + box.discard(), int)
    assert_type(box.close_stream(), bool)
except Closed as exc:
    assert_type(exc.code, str)
except ds_micro.Disconnected:
    pass
except StreamError as exc:
    assert_type(exc.retry, bool)
Outbox("/outbox", s, producer="p", when_full="explode")  # type: ignore[arg-type]


async def main() -> None:
    s = aio.Stream("http://h/v1/stream/a")
    (await s.create()).status.bit_length()
    s.head().status  # type: ignore[attr-defined]
    box = aio.Outbox(None, s, producer="p")
    assert_type(await box.flush(), int)
    async for item in s.read(live="long-poll", raw=True):
        assert_type(item, bytes)
    assert_type(await box.close_stream(), bool)


asyncio.run(main())
"""


def run(*argv: str) -> str:
    """What a module of mypy's says, nothing where it has nothing to say."""
    try:
        __import__("mypy")
    except ImportError:
        ci.missing("stubs are checked by mypy: pip install '.[test]'")
    environment = {**os.environ, "MYPYPATH": str(ROOT / "micro")}
    argv = (sys.executable, "-m", *argv)
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_stubs_agree_with_the_modules() -> None:
    options = ("--mypy-config-file", "pyproject.toml", "--allowlist", "micro/stubs-allowed.txt")
    assert run("mypy.stubtest", "ds_micro", *options) == ""


@pytest.mark.timeout(300)
def test_a_program_is_checked(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    assert run("mypy", "--strict", str(program)) == ""


def test_what_is_found_when_it_is_first_called_is_as_the_stubs_say() -> None:
    """stubtest can't see these, for there is nothing to see before they are called (`micro/stubs-allowed.txt`)."""
    options = shape(operations.creation) - {("headers", inspect.Parameter.empty), ("fork", False)}
    options -= {("others", inspect.Parameter.empty)}
    for file in ("__init__.pyi", "aio.pyi"):
        methods = stubbed(file, "Stream")
        for name in operations.OPERATIONS:
            found = shape(operations.operation(name))
            if name == "fork":
                found = found - {("options", inspect.Parameter.empty)} | options
            found -= {("stream", inspect.Parameter.empty)}
            # Of overloads, the last has what is not told apart by a default.
            given = {("raw", False) if pair[0] == "raw" else pair for pair in methods[name]}
            assert given == found, (file, name)
        creating = {pair for pair in options if pair[0] in ("values", "ttl", "expires_at", "closed")}
        assert methods["create"] == creating, file
    methods = stubbed("outbox.pyi", "Outbox")
    assert methods["close_stream"] == shape(trouble.method(None, "close_stream")) == {("timeout", 30)}
    assert methods["close"] == shape(trouble.method(None, "close")) == set()
    assert methods["discard"] == shape(trouble.method(None, "discard")) == set()
    assert {"records", "dropped"} <= set(methods)


def shape(function: object) -> set[tuple[str, object]]:
    """The parameters of a function as (name, default)."""
    assert callable(function)
    parameters = inspect.signature(function).parameters.values()
    return {(each.name, each.default) for each in parameters if each.name != "stream"}


def stubbed(file: str, name: str) -> dict[str, set[tuple[str, object]]]:
    """The methods of a class in a stub, each as `shape` gives it."""
    found = {}
    (body,) = [node.body for node in ast.parse((MICRO / file).read_text()).body if getattr(node, "name", "") == name]
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            spec = node.args
            values = [None] * (len(spec.args) - len(spec.defaults)) + spec.defaults + spec.kw_defaults
            pairs = zip([*spec.args, *spec.kwonlyargs], values, strict=True)
            found[node.name] = {
                (each.arg, inspect.Parameter.empty if value is None else ast.literal_eval(value))
                for each, value in pairs
                if each.arg != "self"
            } | ({(spec.vararg.arg, inspect.Parameter.empty)} if spec.vararg else set())
    return found


def test_errors_are_the_classes_that_the_stubs_say() -> None:
    import ds_micro

    tree = ast.parse((MICRO / "__init__.pyi").read_text())
    errors = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name != "Stream"]
    for node in errors:
        (base,) = [each.id for each in node.bases if isinstance(each, ast.Name)]
        assert getattr(ds_micro, node.name).__mro__[1].__name__ == base, node.name
    there = {
        name for name, value in vars(sys.modules["ds_core.client.refusals"]).items()
        if isinstance(value, type) and issubclass(value, StreamError)
    }  # fmt: skip
    assert {node.name for node in errors} | {"StreamError"} == there


def test_every_module_has_a_stub_and_the_package_says_so() -> None:
    assert {path.stem for path in MICRO.glob("*.py")} == {path.stem for path in MICRO.glob("*.pyi")}
    assert (MICRO / "py.typed").is_file()
    # The wheel has all that is in a package's folder; nothing may be left out of it, or of the source's archive.
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert "micro/ds_micro" in build["targets"]["wheel"]["packages"]
    assert "/micro" in build["targets"]["sdist"]["include"]
    assert not [key for where in (build, *build["targets"].values()) for key in where if "exclude" in key]
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", *map(str, MICRO.glob("*.py*"))],
        cwd=ROOT, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert ignored.stdout == ""


def test_no_board_gets_a_stub(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "micro/build.py", "--output", str(tmp_path / "micro")],
        cwd=ROOT, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    names = [path.name for path in (tmp_path / "micro").rglob("*") if path.is_file()]
    names += [name for pair in json.loads((ROOT / "package.json").read_text())["urls"] for name in pair]
    assert len(names) > 40 and not [name for name in names if name.endswith((".pyi", "py.typed"))]
    assert ".pyi" not in (ROOT / "micro" / "manifest.py").read_text()
