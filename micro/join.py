"""Joins modules that are always loaded together into one, for what goes into a .mpy.

Every module has its own table of names in a .mpy, and its own dictionary in RAM; a module that another one imports in
any case costs both for nothing. `HOMES` says where its text goes. What it defines can then be imported from there, and
files that imported it are changed to do so. The sources, which can be frozen or copied instead, are as they are.

A name that two joined modules define gets that of its module added in one of them. What is imported from
ds_micro.cpython on CPython alone is left out, for a device has no such file.
"""

import ast

# module -> the file that it becomes a part of, in the order in which they need each other
HOMES = {
    "ds_core.wire.http1": "ds_micro/__init__.py",
    "ds_core.wire.kinds": "ds_micro/__init__.py",
    "ds_core.client.errors": "ds_micro/__init__.py",
    "ds_core.client.backoff": "ds_micro/__init__.py",
    "ds_core.client.reader": "ds_micro/__init__.py",
    "ds_micro.net": "ds_micro/__init__.py",
    "ds_micro.stream": "ds_micro/__init__.py",
    "ds_core.client.writer": "ds_micro/outbox.py",
}


def join(texts: dict[str, str]) -> dict[str, str]:
    """The sources, file -> text, of everything that is built together, without the files of what was joined."""
    trees = {module_of(file): ast.parse(text) for file, text in texts.items()}
    files = {module_of(file): file for file in texts}
    for tree in trees.values():
        _Device().visit(tree)
    renamed = _collisions(trees)  # module -> name -> its new one
    for module, tree in trees.items():
        _rename(tree, renamed.get(module, {}))
        home = HOMES.get(module, files[module])
        _Imports(home, renamed).visit(tree)
    for module, home in reversed(HOMES.items()):
        target = trees[module_of(home)]
        # Its module's __getattr__ would be asked for what the home has not; that has one of its own.
        body = [node for node in trees.pop(module).body if getattr(node, "name", "") != "__getattr__"]
        target.body[1:1] = body[1:] if ast.get_docstring(ast.Module(body, [])) else body
    return {files[module]: ast.unparse(ast.fix_missing_locations(tree)) + "\n" for module, tree in trees.items()}


def module_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _defined(tree: ast.Module) -> set[str]:
    """What a module defines at its top, and does not only import."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node in _outside(tree):
            found.add(node.id)
    found.update(node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef))
    return found


def _outside(tree: ast.Module) -> set[ast.AST]:
    """The nodes that are within no function and no class."""
    inside: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inside.update(set(ast.walk(node)) - {node})
    return set(ast.walk(tree)) - inside


def _collisions(trees: dict[str, ast.Module]) -> dict[str, dict[str, str]]:
    taken: dict[str, set[str]] = {}
    renamed: dict[str, dict[str, str]] = {}
    for module, home in HOMES.items():
        names = _defined(trees[module]) - {"__getattr__"}
        there = taken.setdefault(home, _defined(trees[module_of(home)]))
        short = module.rpartition(".")[2]
        renamed[module] = {name: f"_{short}_{name}" for name in names & there}
        there |= names
    return renamed


def _rename(tree: ast.Module, names: dict[str, str]) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = names.get(node.id, node.id)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node in tree.body:
            node.name = names.get(node.name, node.name)
        elif isinstance(node, ast.arg):
            assert node.arg not in names, f"{node.arg} is a parameter as well"


class _Device(ast.NodeTransformer):
    """Takes the branch of a device where the other one imports ds_micro.cpython."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        return node.orelse if _for_cpython(node.body) else self.generic_visit(node)

    def visit_Try(self, node: ast.Try) -> ast.AST | list[ast.stmt]:
        if node.handlers and (_for_cpython(node.handlers[0].body) or _never(node.handlers[0])):
            return node.body
        return self.generic_visit(node)


def _never(handler: ast.ExceptHandler) -> bool:
    """Whether this is of what MicroPython's struct never raises."""
    return getattr(handler.type, "id", "") == "OverflowError"


def _for_cpython(body: list[ast.stmt]) -> bool:
    return any(isinstance(node, ast.ImportFrom) and node.module == "ds_micro.cpython" for node in body)


class _Imports(ast.NodeTransformer):
    """Imports of what was joined, in a file that ends up in `home`."""

    def __init__(self, home: str, renamed: dict[str, dict[str, str]]) -> None:
        self.home = home
        self.renamed = renamed
        self.names: dict[str, str] = {}

    def visit_Module(self, node: ast.Module) -> ast.Module:
        self.generic_visit(node)
        for name in ast.walk(node):
            if isinstance(name, ast.Name):
                name.id = self.names.get(name.id, name.id)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        module = node.module or ""
        if module not in HOMES:
            return node
        renamed = self.renamed[module]
        if HOMES[module] == self.home:
            # They are here: under their own names.
            for alias in node.names:
                name = renamed.get(alias.name, alias.name)
                if (alias.asname or alias.name) != name:
                    self.names[alias.asname or alias.name] = name
            return None
        for alias in node.names:
            if alias.name in renamed:
                alias.asname = alias.asname or alias.name
                alias.name = renamed[alias.name]
        node.module = module_of(HOMES[module])
        return node
