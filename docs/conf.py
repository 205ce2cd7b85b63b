"""The documentation site: `make docs` writes build/docs/index.html. Warnings are errors there."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[1]


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


def _write_reference(app) -> None:
    """Writes the page of all public names, which git ignores."""
    lines = [
        "# API reference",
        "",
        "Every public name, with its first line. `help(tfnas.NAME)` shows",
    ]
    lines += ["arguments, results, errors, references and an example that runs.", ""]
    lines += [
        "```{eval-rst}",
        ".. currentmodule:: tfnas",
        "",
        ".. autosummary::",
        "   :nosignatures:",
        "",
    ]
    lines += [f"   {name}" for name in _names()] + ["```", ""]
    (pathlib.Path(app.srcdir) / "reference.md").write_text("\n".join(lines), encoding="utf-8")


def _site_links(app, docname, source) -> None:
    """Links to files of the repository that are no pages of the site become their names."""
    import re

    def replaced(match) -> str:
        text, target = match["text"], match["target"].partition("#")[0]
        page = (pathlib.Path(app.env.doc2path(docname)).parent / target).resolve()
        inside = page.is_relative_to(pathlib.Path(app.srcdir).resolve())
        return match[0] if not target or (inside and page.exists()) else text

    link = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?!https?:)(?P<target>[^)\s]+)\)")
    source[0] = link.sub(replaced, source[0])


def setup(app) -> None:
    """Connects the two functions above."""
    app.connect("builder-inited", _write_reference)
    app.connect("source-read", _site_links)
