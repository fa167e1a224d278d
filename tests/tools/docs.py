"""Builds the API reference from docstrings, with pdoc: `make docs`, or

    python -m tests.tools.docs [--output build/docs]

What is in it is what is public: the names in `__all__` of each package and room. A warning of pdoc's (an annotation
that means nothing, a name that is not there) is an error.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
import types
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CORE = ("ds_core.wire", "ds_core.server", "ds_core.server.subscriptions", "ds_core.client")
GATEWAY = ("http", "reads", "live", "access", "ops", "outbound", "store", "store.sqlite", "cli")
PAGES = (
    *("ds_core", "ds_core.server.subscriptions"),
    *("ds_trio_server", *(f"ds_trio_server.{room}" for room in GATEWAY)),
    *("ds_micro", "ds_client"),
)


def public(name: str) -> dict[str, object]:
    """What a package or room has in `__all__`, by name; a module of its own is imported."""
    room = importlib.import_module(name)
    found: dict[str, object] = {}
    for each in room.__all__:
        try:
            found[each] = getattr(room, each)
        except AttributeError:
            found[each] = importlib.import_module(f"{name}.{each}")
        if inspect.ismodule(found[each]):
            describe(found[each])
        elif isinstance(found[each], type) and not found[each].__doc__:
            for made in ("errors", "refusals"):
                describe(importlib.import_module(f"ds_core.client.{made}"))
    return found


def describe(module: types.ModuleType) -> None:
    """Give a class that is made by a call, as errors are for a device's sake, the comment above it as its docstring."""
    lines = Path(str(module.__file__)).read_text().splitlines()
    for number, line in enumerate(lines):
        made = vars(module).get(line.partition(" = ")[0])
        if isinstance(made, type) and " = " in line and not made.__doc__:
            first = number
            while first and lines[first - 1].startswith("# "):
                first -= 1
            made.__doc__ = " ".join(each.removeprefix("# ") for each in lines[first:number]) or None


def build(output: Path) -> None:
    """Write the reference into a folder. Raises what pdoc warns of."""
    import pdoc
    import pdoc.doc_pyi
    import pdoc.render

    # The stubs are for type checkers: some of what they say (that an iteration is generic) is not so when it runs.
    pdoc.doc_pyi.find_stub_file = lambda name: None

    for name in (*PAGES, *CORE):
        room = importlib.import_module(name)
        if hasattr(room, "__all__"):
            # pdoc looks into the module's dict, where what is loaded late is not before somebody asks.
            vars(room).update(public(name))
    pdoc.render.configure(docformat="markdown", show_source=False, footer_text="durable-streams-edge")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdoc.pdoc(*PAGES, output_directory=output)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.tools.docs", description="Builds the API reference.")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "docs")
    output = parser.parse_args().output
    build(output)
    print(f"the API reference is in {output / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
