"""Shortens, in what goes into a .mpy, the names that no user of the device's client writes.

Every different name is stored once in each .mpy that has it, and in RAM once it is imported. Docstrings, comments and
local variables cost nothing there. Shortened are:

* private names (`_name`) and those of INTERNAL: the same in all files that share one, so that the letters serve again
  in each file for names of its own;
* parameters that nobody passes by name: those of private functions, and of others the ones without a default. They are
  called like something that the file has anyway;
* modules of the same package, in `from package.module import`.

Numbers that such a name stands for (`_MAX = 5`, `DONE, AGAIN = range(2)`) are written where they are used.

Tracebacks show the short names of methods. The sources, which can be frozen or copied instead, are as they are.
"""

import ast
from collections import Counter
from collections.abc import Iterable, Iterator
from keyword import iskeyword
from string import ascii_letters

OURS = ("ds_core", "ds_micro")
# Names that the rooms use among themselves.
INTERNAL = {
    name
    for line in (
        "BadMessage Truncated ResponseParser request_head HEAD END MORE received space begin keep_alive busy view",
        "ChunkedDecoder decoder Backoff first most failures delay reset length Writer request answer broken",
        "claim claims",
        "DONE DUPLICATE AGAIN REFUSED FENCED Reader CATCH_UP LIVE OVER query state kind_of says arrange check",
        "number verdict bad_record",
        "kind error_for failure Flows Items random ask ordered creation FlashStore MemoryStore ready batch done need",
        "Net Socket Wrapper wrap lookup look_up stale recv sync now ticks_ms sleep_ms within alone LONGEST",
        "operation bearer bad_stream bad_outbox pause undo method come recover look scan short keep saved framed",
        "full refused closing OWNERS TROUBLE no_room guarded absent let_go calm soothe prove segments",
    )
    for name in line.split()
}
# Parameters that have no default, and that users may pass by name all the same.
BY_NAME = {"url", "path", "stream", "producer", "source"}
# Names that belong to somebody else.
FOREIGN = {"_io_queue"}
# Names that every MicroPython has a number for: in a .mpy they cost two bytes at most, a letter three.
NUMBERED = [
    name
    for line in (
        "ArithmeticError AssertionError AttributeError BaseException EOFError Ellipsis Exception",
        "GeneratorExit ImportError IndentationError IndexError KeyError KeyboardInterrupt LookupError",
        "MemoryError NameError NoneType NotImplementedError OSError OverflowError RuntimeError StopIteration",
        "SyntaxError SystemExit TypeError ValueError ZeroDivisionError abs all any append args bool builtins",
        "bytearray bytecode bytes callable chr classmethod clear close const copy count dict dir divmod end",
        "endswith eval exec extend find format from_bytes get getattr globals hasattr hash id index insert",
        "int isalpha isdigit isinstance islower isspace issubclass isupper items iter join key keys len list",
        "little locals lower lstrip main map micropython next object open ord pop popitem pow print range",
        "read readinto readline remove replace repr reverse rfind rindex round rsplit rstrip self send sep",
        "set setattr setdefault sort sorted split start startswith staticmethod step stop str strip sum super",
        "throw to_bytes tuple type update upper value values write zip",
    )
    for name in line.split()
]
# Files whose classes extend those of other files, and so must not use the same letters for something of their own.
EXTENDING = {"ds_micro/aio.py"}


def shorten(texts: dict[str, str], counted: Iterable[str] = ()) -> dict[str, str]:
    """The sources, file -> text, of everything that is built together. What the files that are `counted` share gets the
    cheapest names.
    """
    trees = {file: ast.parse(text) for file, text in texts.items()}
    for tree in trees.values():
        tree.body = [node for node in tree.body if not _is_version(node)]
        _leave_out_checks(tree)
    _write_numbers(trees)
    used = {file: _names(tree) for file, tree in trees.items()}
    kept = {file: {name for name in names if not _shortened(name)} for file, names in used.items()}
    # What is somebody's attribute may be asked of anything; a builtin's name matters only where it is used.
    attributes = {name for tree in trees.values() for name in _attributes(tree) if not _shortened(name)}

    inherited = {name for file in EXTENDING & used.keys() for name in used[file]}
    files = Counter(name for names in used.values() for name in sorted(names) if _shortened(name))
    shared = [name for name, count in files.most_common() if count > 1 or name in inherited]
    counted = set(counted)
    shared.sort(key=lambda name: -sum(name in names for file, names in used.items() if file in counted))
    common: dict[str, str] = {}
    for name in shared:
        there = [kept[file] for file, names in used.items() if name in names or name in inherited]
        common[name] = next(_letters(attributes.union(*there, common.values())))
    for file, tree in trees.items():
        short = {name: common[name] for name in shared if name in used[file] | inherited}
        letters = _letters(attributes | kept[file] | {*short.values()})
        for name in sorted(used[file]):
            if _shortened(name) and name not in short:
                short[name] = next(letters)
        _rename(tree, short)
        _import_from_here(tree, file)

    calls = {call for tree in trees.values() for call in _calls(tree)}
    for tree in trees.values():
        _rename_parameters(tree, calls)
    return {file: ast.unparse(tree) + "\n" for file, tree in trees.items()}


def _leave_out_checks(tree: ast.Module) -> None:
    """Take out the statements under `if __debug__`, which -O3 leaves out: their names are nobody's."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            rest = [each for each in body if not _is_check(each)]
            node.body = rest if rest or isinstance(node, ast.Module) else [ast.Pass()]  # type: ignore[attr-defined]


def _is_check(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and getattr(node.test, "id", "") == "__debug__"


def _is_version(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__version__"


def _shortened(name: str) -> bool:
    private = len(name) > 1 and name[0] == "_" != name[1]
    return (private or name in INTERNAL) and name not in FOREIGN


def _write_numbers(trees: dict[str, ast.Module]) -> None:
    """Replace names of numbers by the numbers, and leave out where they were named and imported."""
    found: dict[str, dict[str, int]] = {}  # module -> name -> number
    for file, tree in trees.items():
        module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        found[module] = {}
        for node in list(tree.body):
            if isinstance(node, ast.Assign) and (numbers := _numbers(node)):
                found[module].update(numbers)
                tree.body.remove(node)
    for file, tree in trees.items():
        module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        numbers = dict(found[module])
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in found:
                there = found[node.module]
                imported = [name for name in node.names if name.name in there]
                numbers.update({name.asname or name.name: there[name.name] for name in imported})
                node.names = [name for name in node.names if name.name not in there]
        _Numbers(numbers).visit(tree)


def _numbers(node: ast.Assign) -> dict[str, int]:
    """Name -> number, of an assignment at the top of a module to names that are shortened; empty of any other."""
    target, value = node.targets[0], node.value
    targets = target.elts if isinstance(target, ast.Tuple) else [target]
    names = [name.id for name in targets if isinstance(name, ast.Name)]
    if isinstance(value, ast.Constant) and type(value.value) is int:
        numbers = [value.value]
    elif isinstance(value, ast.Call) and getattr(value.func, "id", "") == "range":
        numbers = list(range(*(ast.literal_eval(argument) for argument in value.args)))
    else:
        return {}
    return dict(zip(names, numbers, strict=True)) if all(map(_shortened, names)) else {}


class _Numbers(ast.NodeTransformer):
    def __init__(self, numbers: dict[str, int]) -> None:
        self.numbers = numbers

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom | None:
        return node if node.names else None  # nothing but numbers came from there

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in self.numbers:
            return node
        assert isinstance(node.ctx, ast.Load), f"{node.id} is a number, and something else as well"
        return ast.copy_location(ast.Constant(self.numbers[node.id]), node)


def _letters(taken: set[str]) -> Iterator[str]:
    """Short names, the cheapest first."""
    yield from (name for name in NUMBERED if name not in taken)
    for first in ("", *ascii_letters):
        for last in ascii_letters:
            if first + last not in taken and not iskeyword(first + last):
                yield first + last


def _fields(node: ast.AST) -> Iterator[tuple[str, str]]:
    """(field, name) of each name in this node itself."""
    for field in ("id", "attr", "arg", "name", "asname"):
        name = getattr(node, field, None)
        if isinstance(name, str):
            yield field, name


def _names(tree: ast.AST) -> set[str]:
    return {name for node in ast.walk(tree) for _, name in _fields(node)}


def _attributes(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value  # what is asked for by its name


def _rename(tree: ast.AST, short: dict[str, str]) -> None:
    foreign: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] not in OURS:
            foreign.update(id(imported) for imported in node.names)
        if isinstance(node, ast.alias) and id(node) in foreign:
            # Its name there stays; what it is called here is ours.
            node.asname = short.get(node.asname or node.name, node.asname)
            continue
        for field, name in _fields(node):
            if name in short:
                setattr(node, field, short[name])


def _import_from_here(tree: ast.AST, file: str) -> None:
    """Name modules of the same package from there: `from ds_core.client.errors` is `from .errors`."""
    package = file.rpartition("/")[0].replace("/", ".")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and ((node.module or "") + ".").startswith(package + "."):
            node.module = (node.module or "")[len(package) + 1 :] or None
            node.level = 1


def _calls(tree: ast.AST) -> Iterator[tuple[str, str | None]]:
    """(what is called, a parameter passed by name), with None for any parameter."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                yield getattr(node.func, "attr", "") or getattr(node.func, "id", ""), keyword.arg
        elif isinstance(node, ast.ClassDef):
            for base in node.bases:
                yield getattr(base, "id", ""), None  # called by the names of those that extend it


def _rename_parameters(tree: ast.AST, calls: set[tuple[str, str | None]]) -> None:
    free = sorted(name for name in _names(tree) if len(name) < 3 and name.isidentifier() and not iskeyword(name))
    passed = BY_NAME | {name for _, name in calls}
    classes = {id(part): node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for part in node.body}
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        called = classes.get(id(function), "") if function.name == "__init__" else function.name
        every = [parameter.arg for parameter in function.args.posonlyargs + function.args.args]
        if len(called) < 3 and (called, None) not in calls:
            found = [name for name in every if (called, name) not in calls]
        else:
            found = [name for name in every[: len(every) - len(function.args.defaults)] if name not in passed]
        variables = [node for node in ast.walk(function) if isinstance(node, ast.Name | ast.arg)]
        taken = {name for node in variables for _, name in _fields(node)}
        letters = (name for name in [*free, *_letters({*free, *taken})] if name not in taken)
        short = {name: next(letters) for name in found if name != "self"}
        for node in variables:
            for field, name in _fields(node):
                setattr(node, field, short.get(name, name))
