"""The documentation site: `make docs` writes build/docs/index.html. Warnings are errors there."""

import ast
import pathlib
import re
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?!https?:)(?P<target>[^)\s]+)\)")


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
napoleon_google_docstring = True
suppress_warnings = ["myst.header"]  # decisions and records begin as they like


def _reference() -> str:
    """The table of all public names, which docs/reference.md ends with on the site."""
    head = ["", "```{eval-rst}", ".. currentmodule:: tfnas", "", ".. autosummary::"]
    lines = [*head, "   :nosignatures:", "", *(f"   {name}" for name in _names()), "```", ""]
    return "\n".join(lines)


def _site_source(app: Any, docname: str, source: list[str]) -> None:
    """Completes the reference; links to files that are no pages of the site become their text."""
    if docname == "reference":
        source[0] += _reference()
    here, pages = pathlib.Path(app.env.doc2path(docname)).parent, pathlib.Path(app.srcdir).resolve()

    def replaced(match: re.Match[str]) -> str:
        path = match["target"].partition("#")[0]
        target = (here / path).resolve()
        is_page = target.is_relative_to(pages) and target.is_file()
        return match[0] if not path or is_page else match["text"]

    source[0] = _LINK.sub(replaced, source[0])


def setup(app: Any) -> None:
    """Connects what changes a page before it is read."""
    app.connect("source-read", _site_source)
