"""The tables of all messages, which docs/messages.md ends with on the site; read from the source.

Nothing is imported: a message is the first argument of a `raise`, its reason what the docstring of
the function around it says under `Raises`.
"""

from __future__ import annotations

import ast
import dataclasses
import itertools
import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[1]
_RAISES = re.compile(r"^Raises:\n(?P<body>(?:    .*\n?|\n)*)", re.MULTILINE)
_ENTRY = re.compile(r"^    (?P<error>[\w.]+): (?P<when>.*\n?(?:        .*\n?)*)", re.MULTILINE)
_ROLE = re.compile(r":\w+:`~?([^`]+)`")
_CODE = re.compile(r"(`[^`]*`)")
_MARKED = re.compile(r"([\\*_<>\[\]$|])")
_Scope = tuple[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, ...]


@dataclasses.dataclass(frozen=True)
class Message:
    """A message of an error.

    Args:
        text: The message; "..." stands for what differs.
        package: The package of `tfnas` that raises it.
        function: The function that raises it, with its class and module.
        does: What that function does, the first line of its docstring; empty: it has none.
        when: When it raises such an error; empty: its docstring does not say.
    """

    text: str
    package: str
    function: str
    does: str
    when: str


def messages() -> list[Message]:
    """Returns all messages of the source, each once a function, by package."""
    found: dict[tuple[str, str], Message] = {}
    for path in sorted((ROOT / "tfnas").rglob("*.py")):
        module = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for message in _of_node(ast.parse(path.read_text(encoding="utf-8")), module, ()):
            found.setdefault((message.text, message.function), message)
    return list(found.values())


def message_tables() -> str:
    """Returns the tables in Markdown, a section for each package."""
    by_package: dict[str, list[Message]] = {}
    for message in messages():
        by_package.setdefault(message.package, []).append(message)
    return "\n".join(_section(name, rows) for name, rows in sorted(by_package.items()))


def _of_node(node: ast.AST, module: str, scope: _Scope) -> Iterator[Message]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _of_node(child, module, (*scope, child))
            continue
        text = _text(child)
        if text:
            yield _message(text, child, module, scope)
        yield from _of_node(child, module, scope)


def _text(node: ast.AST) -> str:
    """The message that a statement raises; empty where it raises none, or one made elsewhere."""
    if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args):
        return ""
    parts = _parts(node.exc.args[0])
    texts = [str(part.value) if isinstance(part, ast.Constant) else "..." for part in parts]
    text = " ".join("".join(texts).split())
    return text if re.search(r"[a-z]{3}", text) else ""


def _parts(text: ast.expr) -> list[ast.expr]:
    """The parts of a text that is joined from constants and values."""
    if isinstance(text, ast.BinOp) and isinstance(text.op, ast.Add):
        return [*_parts(text.left), *_parts(text.right)]
    return list(text.values) if isinstance(text, ast.JoinedStr) else [text]


def _message(text: str, node: ast.AST, module: str, scope: _Scope) -> Message:
    assert isinstance(node, ast.Raise)
    assert isinstance(node.exc, ast.Call)
    error = ast.unparse(node.exc.func).rpartition(".")[2]
    documented = [doc for each in reversed(scope) if (doc := ast.get_docstring(each))]
    return Message(
        text,
        module.split(".")[1].replace("__init__", "tfnas"),
        ".".join([module, *(each.name for each in scope)]),
        documented[0].partition("\n")[0] if documented else "",
        next((when for doc in documented if (when := _when(doc, error))), ""),
    )


def _when(docstring: str, error: str) -> str:
    """What a docstring says of an error under `Raises`."""
    section = _RAISES.search(docstring)
    entries = _ENTRY.findall(section["body"]) if section else []
    return " ".join(" ".join(when.split()) for name, when in entries if name == error)


def _section(package: str, rows: list[Message]) -> str:
    head = [
        "",
        f"## {package}",
        "",
        "| message | raised by | what that does |",
        "| --- | --- | --- |",
    ]
    return "\n".join([*head, *map(_row, rows), ""])


def _row(message: Message) -> str:
    when = message.when and f"*Raised:* {_as_text(message.when)}"
    why = " ".join(filter(None, (_as_text(message.does), when)))
    name = message.function.removeprefix("tfnas.").removeprefix(f"{message.package}.")
    return f"| {_as_code(message.text)} | `{name}` | {why} |"


def _as_code(text: str) -> str:
    fence = "``" if "`" in text else "`"
    space = " " if fence == "``" else ""
    return f"{fence}{space}{text}{space}{fence}".replace("|", "\\|")


def _as_text(text: str) -> str:
    """A docstring's words as Markdown: what is in backticks stays code."""
    text = _ROLE.sub(r"`\1`", text).replace("``", "`")
    parts = _CODE.split(text)
    return "".join(
        part.replace("|", "\\|") if code else _MARKED.sub(r"\\\1", part)
        for part, code in zip(parts, itertools.cycle((False, True)), strict=False)
    )
