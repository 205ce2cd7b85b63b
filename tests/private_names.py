"""Finds where a module uses private names of other libraries, in its syntax tree."""

import ast
import re
from collections.abc import Iterator, Mapping

_SELF = ("self", "cls")
_BY_NAME = ("getattr", "setattr", "hasattr", "delattr", "__setattr__", "attrgetter", "methodcaller")
_INSIDE = re.compile(
    r"(keras|tf_keras|keras_tuner)\.src\b|(tf|tensorflow|tensorflow_model_optimization)\.python\b"
    r"|(?!__)([\w.]+\.)?_(?!_)\w+"
)


def is_private(name: object) -> bool:
    """Whether it is a name with one leading underscore."""
    return isinstance(name, str) and bool(re.fullmatch(r"_(?!_)\w+", name))


def defined_names(tree: ast.AST) -> set[str]:
    """Returns the private names that a module defines: functions, classes, attributes of self."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.Attribute) and _is_self(node.value):
            found |= {node.attr} if isinstance(node.ctx, ast.Store) else set()
    return {name for name in found if is_private(name)}


def private_uses(tree: ast.AST, own: set[str], ours: set[str]) -> Iterator[str]:
    """Yields the private names of other libraries that a module uses.

    Args:
        tree: The module.
        own: Private names that it defines: these may be read of any object.
        ours: Private names that any module of the package defines: these may be read of `self`.
    """
    for node in ast.walk(tree):
        for value, name in _attributes(node):
            inherits = value is not None and _is_self(value)
            if is_private(name) and name not in (ours if inherits else own):
                yield name
        yield from _inner_modules(node)


def package_uses(trees: Mapping[str, ast.AST]) -> set[tuple[str, str]]:
    """Returns (module, private name of another library) of a package.

    Args:
        trees: Module -> its syntax tree.
    """
    own = {module: defined_names(tree) for module, tree in trees.items()}
    ours = set().union(*own.values())
    return {
        (module, name)
        for module, tree in trees.items()
        for name in private_uses(tree, own[module], ours)
    }


def _is_self(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in _SELF


def _attributes(node: ast.AST) -> Iterator[tuple[ast.AST | None, str]]:
    """Yields (object, name of its attribute), as written or as a string."""
    if isinstance(node, ast.Attribute):
        yield node.value, node.attr
    elif isinstance(node, ast.Call):
        called = getattr(node.func, "attr", getattr(node.func, "id", None))
        if called in _BY_NAME:
            names = [a.value for a in node.args[:2] if isinstance(a, ast.Constant)]
            yield from ((node.args[0], name) for name in names if isinstance(name, str))
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        text = ast.unparse(node.value)
        if text.startswith("vars(") or text.endswith(".__dict__"):
            yield None, str(node.slice.value)


def _inner_modules(node: ast.AST) -> Iterator[str]:
    """Yields the inner modules of libraries that are imported, or named in a string."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and not node.level and node.module != "__future__":
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    elif isinstance(node, ast.Attribute):
        text = ast.unparse(node)
        names = [text] if node.attr in ("src", "python") else []
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        names = [node.value] if re.fullmatch(r"[\w.]+", node.value) and "." in node.value else []
        names = [name for name in names if re.search(r"\.(src|python)\b", name)]
    yield from (name for name in names if not name.startswith("tfnas.") and _INSIDE.match(name))
