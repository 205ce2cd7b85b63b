"""A package's source code: its modules, its public names, and which module imports which.

`tests/test_house.py` holds the rules of tfnas to it, `tests/structure.py` prints numbers of it.
Nothing is imported: all is read from syntax trees, so older versions of the code can be read too.
"""

import ast
import functools
import pathlib
from collections.abc import Iterator

Import = tuple[str, str]  # importer, imported: dotted names inside the package

# From the ground up: a module imports from its own floor and from those before it, wherever in
# the file the import stands (in a function or under TYPE_CHECKING too).
FLOORS = (
    (
        *("runtime", "table", "schedules", "optimizers", "data", "search_space", "optional"),
        *("settings_fields", "keras_private", "drawing"),
    ),
    ("graph",),
    ("pruning", "clustering", "low_rank", "distillation", "legacy"),
    ("quantization",),
    ("tflite", "loading"),
    ("measure",),
    ("targets",),
    ("tasks",),
    ("compression",),
    ("nas",),
    ("reports",),
    ("jobs",),
    ("cli",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
TECHNIQUES = {"pruning", "clustering", "low_rank", "distillation", "legacy"}  # strangers


@functools.cache
def syntax_tree(path: pathlib.Path) -> ast.Module:
    """A file's syntax tree, which takes a process of tests a second for all of a package."""
    return ast.parse(path.read_text("utf-8"))


class PackageSource:
    """The modules of a package by their dotted names inside it; "" is the package itself.

    Args:
        folder: The package's folder, which has the package's name.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.name = folder.name
        self.modules = {self._module_name(path): path for path in sorted(folder.rglob("*.py"))}

    def _module_name(self, path: pathlib.Path) -> str:
        parts = path.relative_to(self.folder).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @functools.cached_property
    def trees(self) -> dict[str, ast.Module]:
        """Module -> its syntax tree."""
        return {name: syntax_tree(path) for name, path in self.modules.items()}

    @functools.cached_property
    def public_names(self) -> dict[str, str]:
        """Exported name -> module, from the stub or else from imports under TYPE_CHECKING."""
        stub = self.folder / "__init__.pyi"
        tree = ast.parse(stub.read_text("utf-8")) if stub.is_file() else self.trees.get("")
        found = {}
        for node in ast.walk(tree or ast.Module([], [])):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == self.name:
                module = str(node.module).partition(".")[2]
                for alias in node.names:
                    inner = f"{module}.{alias.name}" if module else alias.name
                    found[alias.name] = inner if inner in self.modules else module or alias.name
        return found

    def imported_modules(self, tree: ast.AST, importer: str) -> Iterator[str]:
        """Yields the module of the package behind each import, wherever it stands.

        Args:
            tree: Code.
            importer: The module that the code is of.
        """
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    here = [self.name, *importer.split(".")]
                    above = here[: len(here) - node.level]
                    base = ".".join([*above, *([base] if base else [])])
                names = [f"{base}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                package, *parts = name.split(".")
                if package != self.name or not parts or parts[0].startswith("__"):
                    continue
                if len(parts) == 1:
                    parts = self.public_names.get(parts[0], parts[0]).split(".")
                while len(parts) > 1 and ".".join(parts) not in self.modules:
                    parts.pop()
                yield ".".join(parts)

    @functools.cached_property
    def imports(self) -> frozenset[Import]:
        """Every import inside the package, but for those of its public names and its entry."""
        return frozenset(
            (importer, imported)
            for importer, tree in self.trees.items()
            if importer not in ("", "__main__")
            for imported in self.imported_modules(tree, importer)
        )

    def shared_module_names(self) -> set[str]:
        """Returns the names that two modules have, whatever their packages."""
        stems = [path.stem for path in self.modules.values() if not path.stem.startswith("__")]
        return {name for name in stems if stems.count(name) > 1}

    def shared_class_names(self) -> set[str]:
        """Returns the names that public classes of two modules have."""
        names = [
            node.name
            for tree in self.trees.values()
            for node in tree.body
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        ]
        return {name for name in names if names.count(name) > 1}


def room_of(module: str) -> str:
    """Returns the top folder, or the top module, that a module is in."""
    return module.partition(".")[0]


def points_up(importer: str, imported: str) -> bool:
    """Tells whether an import breaks the order of the floors."""
    here, there = room_of(importer), room_of(imported)
    if there not in FLOOR or FLOOR[there] > FLOOR[here]:
        return True
    return here != there and {here, there} <= TECHNIQUES


def modules_in_cycles(imports: set[Import]) -> set[Import]:
    """Returns what is left after modules that import nothing, or nobody imports, are taken off."""
    left = set(imports)
    while True:
        importers = {importer for importer, _ in left}
        imported = {module for _, module in left}
        kept = {(a, b) for a, b in left if a in imported and b in importers and a != b}
        if kept == left:
            return left
        left = kept


def cycles(imports: set[Import]) -> list[set[str]]:
    """Returns the groups of modules that import each other, directly or through others."""
    left = modules_in_cycles(imports)
    imported_by: dict[str, set[str]] = {}
    for importer, imported in left:
        imported_by.setdefault(importer, set()).add(imported)

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for module in imported_by.get(waiting.pop(), set()) - seen:
                seen.add(module)
                waiting.append(module)
        return seen

    reach = {module: reached(module) for module in imported_by}
    groups: list[set[str]] = []
    for module, there in sorted(reach.items()):
        if module in there and not any(module in group for group in groups):
            groups.append({other for other in there if module in reach[other]})
    return groups
