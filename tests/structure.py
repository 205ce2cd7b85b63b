"""Prints how a package is built: `python tests/structure.py [PACKAGE_FOLDER]`; tfnas by default.

Sizes, imports, shared names, types and docstrings of public functions, repeated code. Run it on
two versions to see what a change of the structure did.
"""

import ast
import collections
import dataclasses
import math
import pathlib
import re
import statistics
import sys
from collections.abc import Iterable, Iterator

from package_source import PackageSource, cycles, points_up, room_of

TFNAS = pathlib.Path(__file__).parent.parent / "tfnas"
LONG_MODULE = 400  # lines
RUN = 6  # lines of code
Function = ast.FunctionDef | ast.AsyncFunctionDef

# Folders and modules of the layout before the floors -> the room that their code is in now.
FORMER_ROOMS = {
    "architecture": "search_space",
    "bench": "measure",
    "bench.adb": "targets",
    "bench.device": "targets",
    "bench.latency_files": "tflite",
    "bench.latency_operators": "tflite",
    "bench.micro": "targets",
    "bench.vela": "targets",
    "calibration": "graph",
    "compression": "search_space",
    "divergence": "graph",
    "export": "tflite",
    "factorization": "low_rank",
    "files": "runtime",
    "hull": "graph",
    "kernels": "graph",
    "kmeans": "clustering",
    "macs": "graph",
    "measurement": "measure",
    "muon": "optimizers",
    "order": "graph",
    "pipeline": "compression",
    "pipeline.search": "nas",
    "report": "reports",
    "rewrite": "graph",
    "spaces": "search_space",
    "tuners": "nas",
    "tuners.compressing": "compression",
    "tuners.lock": "runtime",
    "tuners.processes": "runtime",
    "tuners.worker": "runtime",
    "visit": "graph",
}
SECTIONS = ("Args", "shapes", "Returns", "Raises", "Example", "References")
_DIMENSION = "batch|height|width|channels|classes|examples|features|units|steps|inputs|outputs"
_SHAPE = re.compile(rf"\((?=[^()]*\b(?:{_DIMENSION})\b)[\w.*]+(?:, [\w.* ]+)+,?\)|\(batch,")


@dataclasses.dataclass(frozen=True)
class PublicThing:
    """A public function, class or method, and its class where it is a method."""

    module: str
    name: str
    node: Function | ast.ClassDef
    owner: ast.ClassDef | None = None

    @property
    def docstring(self) -> str:
        return ast.get_docstring(self.node) or ""


def public_things(source: PackageSource) -> Iterator[PublicThing]:
    """Yields public functions and classes of all modules, and the methods of these classes.

    `__init__` and `__call__` count as public methods: their arguments are a user's.
    """
    for module, tree in source.trees.items():
        for node in tree.body:
            if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
                continue
            yield PublicThing(module, node.name, node)
            if isinstance(node, Function):
                continue
            for method in node.body:
                if isinstance(method, Function) and (
                    not method.name.startswith("_") or method.name in ("__init__", "__call__")
                ):
                    yield PublicThing(module, f"{node.name}.{method.name}", method, node)


def functions(tree: ast.AST) -> list[Function]:
    """Returns all functions of a module, methods and nested ones too."""
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def arguments(function: Function) -> list[ast.arg]:
    """Returns the parameters of a function without self and cls."""
    a = function.args
    found = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
    return [one for one in found if one.arg not in ("self", "cls")]


def is_bare_any(annotation: ast.expr) -> bool:
    """Tells whether an annotation says nothing: Any, or a union with it."""
    if isinstance(annotation, ast.BinOp):
        return is_bare_any(annotation.left) or is_bare_any(annotation.right)
    return ast.unparse(annotation) in ("Any", "typing.Any")


def bare_any(things: Iterable[PublicThing]) -> tuple[int, int]:
    """Returns how many annotated parameters of public functions are Any, and of how many."""
    annotations = [
        one.annotation
        for thing in things
        if isinstance(thing.node, Function)
        for one in arguments(thing.node)
        if one.annotation is not None
    ]
    return sum(map(is_bare_any, annotations)), len(annotations)


def exported_things(source: PackageSource) -> list[PublicThing]:
    """Returns the exported functions and classes, with the methods of these classes."""
    return [
        thing
        for thing in public_things(source)
        if source.public_names.get(thing.name.split(".")[0]) == thing.module
    ]


def documented(things: Iterable[PublicThing]) -> dict[str, tuple[int, int]]:
    """Returns, for each part of a docstring, how many have it, of how many that could.

    Args counts where there are parameters, Returns where a value is annotated, Raises where the
    function itself raises; shapes, Example and References count in all docstrings. A first line
    that says "Returns ..." is a Returns.
    """
    counts = {name: [0, 0] for name in ("a docstring", *SECTIONS)}

    def count(part: str, has: bool) -> None:
        counts[part][0] += has
        counts[part][1] += 1

    for thing in things:
        text, node = thing.docstring, thing.node
        if thing.name.endswith("__init__"):
            continue  # its class tells
        count("a docstring", bool(text))
        if isinstance(node, Function):
            if arguments(node):
                count("Args", "Args:" in text)
            if node.returns is not None and ast.unparse(node.returns) != "None":
                count("Returns", bool(re.search(r"\b(Returns|Yields)\b", text)))
            if any(isinstance(inner, ast.Raise) and inner.exc for inner in ast.walk(node)):
                count("Raises", "Raises:" in text)
        count("shapes", bool(_SHAPE.search(text)))
        count("Example", "Example" in text)
        count("References", "References:" in text or "Reference:" in text)
    return {name: (has, of) for name, (has, of) in counts.items()}


def code_lines(path: pathlib.Path, tree: ast.Module) -> list[tuple[int, str]]:
    """Returns (number, stripped line) of code: no blanks, comments, docstrings, imports."""
    left_out: set[int] = set()
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.Import | ast.ImportFrom) or is_text:
            left_out.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    text = path.read_text("utf-8").splitlines()
    lines = ((number, " ".join(line.split())) for number, line in enumerate(text, 1))
    return [(n, line) for n, line in lines if line and line[0] != "#" and n not in left_out]


def repeated_runs(source: PackageSource) -> list[list[tuple[str, int]]]:
    """Returns runs of six or more equal lines of code: (module, first line) of each occurrence.

    Indentation is ignored. A longer run counts once, by its first six lines.
    """
    places: dict[tuple[str, ...], list[tuple[str, int]]] = collections.defaultdict(list)
    numbers = {}
    for module, path in source.modules.items():
        lines = code_lines(path, source.trees[module])
        numbers[module] = [number for number, _ in lines]
        for start in range(len(lines) - RUN + 1):
            places[tuple(line for _, line in lines[start : start + RUN])].append((module, start))
    repeated = {tuple(where) for where in places.values() if len(where) > 1}
    firsts = [
        where
        for where in repeated
        if tuple((module, start - 1) for module, start in where) not in repeated
    ]
    return sorted([(module, numbers[module][start]) for module, start in w] for w in firsts)


def upward_imports(source: PackageSource) -> set[tuple[str, str]]:
    """Returns the imports inside a package that break the order of the floors.

    Modules of the former layout count as being where their code is now.
    """
    former = FORMER_ROOMS if "pipeline" in map(room_of, source.modules) else {}

    def now(module: str) -> str:
        return former.get(module) or former.get(room_of(module)) or module

    return {(a, b) for a, b in source.imports if points_up(now(a), now(b))}


def quantities(numbers: list[int]) -> str:
    """Returns median, 90th percentile and maximum as text."""
    if not numbers:
        return "none"
    ninth = sorted(numbers)[math.ceil(0.9 * len(numbers)) - 1]
    return f"median {statistics.median(numbers):g}, 90% {ninth}, maximum {max(numbers)}"


def share(counted: tuple[int, int]) -> str:
    """Returns a count of a total as text."""
    has, of = counted
    return f"{has} of {of} ({has / of:.1%})" if of else "0 of 0"


def report(source: PackageSource) -> list[str]:
    """Returns the numbers of a package as lines of text."""
    length = {name: len(p.read_text("utf-8").splitlines()) for name, p in source.modules.items()}
    folders: dict[str, list[int]] = collections.defaultdict(list)
    for name, path in source.modules.items():
        folders[path.parent.relative_to(source.folder).as_posix()].append(length[name])
    lines = [f"{'package':<36}{'files':>7}{'lines':>9}"]
    lines += [f"{name:<36}{len(n):>7}{sum(n):>9,}" for name, n in sorted(folders.items())]
    lines += [f"{'all':<36}{len(length):>7}{sum(length.values()):>9,}", ""]

    found = [node for tree in source.trees.values() for node in functions(tree)]
    sizes = [(node.end_lineno or node.lineno) - node.lineno + 1 for node in found]
    taken = [len(arguments(node)) for node in found]
    long = {name: n for name, n in length.items() if n > LONG_MODULE}
    groups, up = cycles(set(source.imports)), upward_imports(source)
    modules, classes = source.shared_module_names(), source.shared_class_names()
    runs = repeated_runs(source)
    lines += [
        f"functions: {len(found):,}",
        f"lines of a function: {quantities(sizes)}; over 60: {sum(n > 60 for n in sizes)}",
        f"parameters of a function: {quantities(taken)}",
        f"modules over {LONG_MODULE} lines: {len(long)}{_named(long)}",
        f"import cycles: {len(groups)}" + "".join(f"\n  {', '.join(sorted(g))}" for g in groups),
        f"upward imports: {len(up)}" + "".join(f"\n  {a} -> {b}" for a, b in sorted(up)),
        f"names of two modules: {len(modules)}{_named(modules)}",
        f"names of two public classes: {len(classes)}{_named(classes)}",
        f"repeated runs of {RUN} or more lines of code: {len(runs)}, in "
        f"{sum(map(len, runs))} places",
        *("  " + ", ".join(f"{module}:{line}" for module, line in run) for run in runs),
        "",
    ]
    everything, api = list(public_things(source)), exported_things(source)
    lines += [
        f"bare Any, parameters of all public functions: {share(bare_any(everything))}",
        f"bare Any, parameters of the exported names: {share(bare_any(api))}",
        "",
        f"{'docstrings have':<18}{'all public':>24}{'exported names':>24}",
    ]
    both = documented(everything), documented(api)
    lines += [f"{name:<18}{share(both[0][name]):>24}{share(both[1][name]):>24}" for name in both[0]]
    return lines


def _named(names: Iterable[str]) -> str:
    listed = ", ".join(sorted(names))
    return f" ({listed})" if listed else ""


def main(argv: list[str]) -> int:
    """Prints the numbers of a package."""
    folder = pathlib.Path(argv[0] if argv else TFNAS).resolve()
    if not (folder / "__init__.py").is_file():
        print(f"structure: error: {folder} is no package: it has no __init__.py", file=sys.stderr)
        return 2
    print("\n".join(report(PackageSource(folder))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
