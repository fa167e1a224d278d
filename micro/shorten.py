"""Shortens, in what goes into a .mpy, the names that no user of the device's client writes.

Every different name is stored once in each .mpy that has it, and in RAM once it is imported. Docstrings, comments and
local variables cost nothing there. Shortened are:

* private names (`_name`) and those of INTERNAL: the same in all files that share one, so that the letters serve again
  in each file for names of its own;
* parameters that nobody passes by name: of any function, when they have no default, and of private ones. They are called
  like something that the file has anyway.

Tracebacks show the short names of methods. The sources, which can be frozen or copied instead, are as they are.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from keyword import iskeyword
from string import ascii_letters

# Names that the rooms use among themselves.
INTERNAL = set(
    """
    BadMessage Truncated ResponseParser request_head HEAD END MORE received space begin pending keep_alive busy view
    ChunkedDecoder
    Backoff failures Writer DONE DUPLICATE AGAIN REFUSED FENCED request answer broken claim
    Reader CATCH_UP LIVE OVER kind_of query state
    kind error_for NEED_DATA need
    Net Flows Items random FlashStore MemoryStore Wrapper ready batch
    """.split()
)
# Parameters that have no default, and that users may pass by name all the same.
BY_NAME = {"url", "path", "stream", "producer", "source"}
# Names that belong to somebody else.
FOREIGN = {"_io_queue"}
# Files whose classes extend those of other files, and so must not use the same letters for something of their own.
EXTENDING = {"ds_micro/__init__.py", "ds_micro/aio.py"}


def _shortened(name: str) -> bool:
    private = len(name) > 1 and name[0] == "_" != name[1]
    return (private or name in INTERNAL) and name not in FOREIGN


def _fields(node: ast.AST) -> Iterator[tuple[str, str]]:
    """(field, name) of each name in this node itself."""
    for field in ("id", "attr", "arg", "name", "asname"):
        name = getattr(node, field, None)
        if isinstance(name, str):
            yield field, name


def _short(taken: set[str]) -> Iterator[str]:
    """Short names, the shortest first."""
    for first in ("", *ascii_letters):
        for last in ascii_letters:
            if first + last not in taken and not iskeyword(first + last):
                yield first + last


def shorten(texts: dict[str, str]) -> dict[str, str]:
    """The sources, file -> text, of everything that is built together."""
    trees = {name: ast.parse(text) for name, text in texts.items()}
    used = {name: _all_names(tree) for name, tree in trees.items()}
    kept = {word for words in used.values() for word in words if not _shortened(word)}
    inherited = {word for name in EXTENDING & used.keys() for word in used[name]}
    files = Counter(word for words in used.values() for word in sorted(words) if _shortened(word))
    shared = [word for word, count in files.most_common() if count > 1 or word in inherited]
    letters = _short(kept)
    common = {word: next(letters) for word in shared}
    for name, tree in trees.items():
        short = {word: common[word] for word in shared if word in used[name] | inherited}
        letters = _short(kept | {*short.values()})
        for word in sorted(used[name]):
            if _shortened(word) and word not in short:
                short[word] = next(letters)
        _rename(tree, short)
    by_name = BY_NAME | {node.arg for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    for tree in trees.values():
        _rename_parameters(tree, by_name)
    return {name: ast.unparse(tree) + "\n" for name, tree in trees.items()}


def _all_names(tree: ast.AST) -> set[str]:
    return {name for node in ast.walk(tree) for _, name in _fields(node)}


def _rename(tree: ast.AST, short: dict[str, str], attributes: bool = True) -> None:
    for node in ast.walk(tree):
        for field, name in _fields(node):
            if name in short and (attributes or isinstance(node, ast.Name | ast.arg)):
                setattr(node, field, short[name])


def _rename_parameters(tree: ast.AST, by_name: set[str | None]) -> None:
    free = sorted(name for name in _all_names(tree) if len(name) < 3 and name.isidentifier() and not iskeyword(name))
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        private = len(function.name) < 3
        every = function.args.posonlyargs + function.args.args
        positional = every if private else every[: len(every) - len(function.args.defaults)]
        inner = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
        inner |= {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
        letters = (word for word in [*free, *_short({*free})] if word not in inner)
        _rename(function, {arg.arg: next(letters) for arg in positional if arg.arg not in by_name | {"self"}}, False)
