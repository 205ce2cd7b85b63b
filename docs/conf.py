"""The documentation site: `make docs` writes build/docs/index.html. Warnings are errors there."""

import ast
import pathlib
import re
import sys
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

from message_table import message_tables  # noqa: E402
from reference_groups import GROUPS, Group  # noqa: E402

_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?!https?:)(?P<target>[^)\s]+)\)")
_PAGE = re.compile(r"\]\(([\w/]+)\.md\)")
_MODULES = {name: name for name in ("data", "legacy", "schedules")} | {"metrics": "tasks.metrics"}


def _names() -> list[str]:
    """The public names, as the stub of tfnas lists them; nothing is imported for that."""
    stub = ast.parse((ROOT / "tfnas" / "__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return sorted({alias.name for node in imports for alias in node.names})


project = "tfnas"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
root_doc = "index"
exclude_patterns = ["README.md"]  # index.md includes it
html_theme = "furo"
html_title = "tfnas"
html_show_copyright = False
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
autosummary_generate = False
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "none"  # docstrings say types and shapes in words
autodoc_preserve_defaults = True
napoleon_google_docstring = True
suppress_warnings = ["myst.header"]  # decisions and records begin as they like


def _reference() -> str:
    """What docs/reference.md ends with: tables of the public names by group, and all docstrings."""
    names = _names()
    described = [_described(name) for name in sorted(names, key=lambda name: name in _MODULES)]
    tables = [_table(group) for group in GROUPS]
    return "\n".join(["", *tables, "## All names", "", *_rst(*described)])


def _table(group: Group) -> str:
    """A group's heading, its purpose, and what each of its names does."""
    rows = [".. autosummary::", "   :nosignatures:", "", *(f"   {name}" for name in group.names)]
    return "\n".join([f"## {group.title}", "", group.purpose, "", *_rst(*rows)])


def _rst(*lines: str) -> list[str]:
    return ["```{eval-rst}", ".. currentmodule:: tfnas", "", *lines, "", "```", ""]


def _described(name: str) -> str:
    """The directive that shows a name's docstring: a class, a function or a module."""
    if name in _MODULES:
        return f".. automodule:: tfnas.{_MODULES[name]}\n"
    return f".. auto{'class' if name[0].isupper() else 'function'}:: tfnas.{name}\n"


def _toctrees() -> str:
    """The site's navigation: the sections of docs/README.md with the pages that they list."""
    text = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    sections = [section.partition("\n") for section in re.split(r"^## ", text, flags=re.M)]
    captions = [("Begin", ["start"])]
    captions += [(title, _PAGE.findall(body)) for title, _, body in sections[1:]]
    return "\n".join(_toctree(title, pages) for title, pages in captions)


def _toctree(caption: str, pages: list[str]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", *pages, "```", ""])


def _site_source(app: Any, docname: str, source: list[str]) -> None:
    """Completes pages for the site; links to files that are no pages of it become their text.

    README.md is the site's index.
    """
    if docname == "reference":
        source[0] += _reference()
    if docname == "messages":
        source[0] += message_tables()
    if docname == "index":
        source[0] += "\n" + _toctrees()
    if docname == "decisions/README":
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n[0-9]*\n```\n"
    here, pages = pathlib.Path(app.env.doc2path(docname)).parent, pathlib.Path(app.srcdir).resolve()

    def replaced(match: re.Match[str]) -> str:
        path = match["target"].partition("#")[0]
        target = (here / path).resolve()
        is_page = target.is_relative_to(pages) and target.is_file()
        if target == pages / "README.md":
            return match[0].replace("README.md", "index.md")
        return match[0] if not path or is_page else match["text"]

    source[0] = _LINK.sub(replaced, source[0])


def setup(app: Any) -> None:
    """Connects what changes a page before it is read."""
    app.connect("source-read", _site_source)
