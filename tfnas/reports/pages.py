"""Renders reports to Markdown and to self-contained HTML, by the templates in `templates/`.

Both escape every value: HTML by Jinja2's autoescape, Markdown by :func:`markdown_text`, which the
environment applies to whatever a template prints. So no name of a layer, a class or a data set can
become markup. Control characters become visible in both.
"""

from __future__ import annotations

import base64
import functools
import io
import pathlib
import re

import jinja2
import numpy as np

from tfnas.reports.content import Report
from tfnas.runtime.files import write_atomically
from tfnas.table import markdown_line, one_line, printable

MARKDOWN, HTML = "report.md", "report.html"
_CODE = re.compile(r"`([^`|\n]+)`")  # in sentences


class MarkdownMarkup(str):
    """Text that is Markdown already: it is not escaped again."""


def write_report(directory: pathlib.Path, report: Report) -> None:
    """Writes the pictures of a report, report.md, and last report.html.

    Each file is replaced whole: where report.html is of this report, all of it is there.

    Args:
        directory: The folder.
        report: What the report says.
    """
    for picture in report.pictures():
        write_atomically(directory / picture.name, picture.png)
    write_atomically(directory / MARKDOWN, as_markdown(report))
    write_atomically(directory / HTML, as_html(report))


def as_markdown(report: Report) -> str:
    """Returns a report as GitHub's Markdown; its pictures are files beside it."""
    return _environments()[0].get_template("report.md.j2").render(report=report)


def as_html(report: Report) -> str:
    """Returns a report as one HTML page without network: script, style and pictures are in it."""
    return _environments()[1].get_template("report.html.j2").render(report=report)


def markdown_text(value: object) -> str:
    r"""Returns plain text as Markdown that shows just that text, in one line.

    Example:
        >>> print(markdown_text("<b>|x of prune_channels, [0.1, 0.2]"))
        \<b>\|x of prune_channels, [0.1, 0.2]

    Args:
        value: The text, or what is printed as text. :class:`MarkdownMarkup` stays as it is.
    """
    if isinstance(value, MarkdownMarkup):
        return value
    return markdown_line(value)


def markdown_sentences(value: object) -> MarkdownMarkup:
    """Returns sentences as Markdown; what stands between backticks is code, as in docstrings.

    Example:
        >>> print(markdown_sentences("`tfnas bench` measures *this*"))
        `tfnas bench` measures \\*this\\*

    Args:
        value: The sentences.
    """
    parts = sentence_parts(value)
    shown = (markdown_code(p) if i % 2 else markdown_text(p) for i, p in enumerate(parts))
    return MarkdownMarkup("".join(shown))


def sentence_parts(value: object) -> list[str]:
    """Returns sentences as parts that alternate: text, code between backticks, text, and so on.

    Example:
        >>> sentence_parts("`tfnas bench` measures it.")
        ['', 'tfnas bench', ' measures it.']

    Args:
        value: The sentences.
    """
    return _CODE.split(str(value))


def markdown_code(value: object) -> MarkdownMarkup:
    """Returns plain text as Markdown's code, between more backticks than the text has in a row.

    Args:
        value: The text, or what is printed as text.
    """
    line = one_line(value)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    pad = " " if "`" in line else ""
    return MarkdownMarkup(f"{fence}{pad}{line}{pad}{fence}")


def _page_text(value: object) -> object:
    """What a page prints, before it is escaped; markup of a template stays as it is."""
    return value if hasattr(value, "__html__") else printable(str(value))


def data_uri(png: bytes) -> str:
    """Returns a PNG file as an address that holds the file itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def png_of(image: np.ndarray) -> bytes:
    """Returns an image as a PNG file.

    Args:
        image: Pixels from 0 to 255, (height, width, channels) with 1 or 3 channels.
    """
    from PIL import Image

    pixels = np.clip(np.asarray(image), 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., :3]).save(out, "PNG")
    return out.getvalue()


@functools.cache
def _environments() -> tuple[jinja2.Environment, jinja2.Environment]:
    """The environments of Markdown and of HTML."""
    # Autoescape is HTML's; `finalize` sees each value that a template prints.
    markdown = _environment(autoescape=False)
    markdown.finalize = markdown_text
    markdown.filters.update(code=markdown_code, sentences=markdown_sentences)
    page = _environment(autoescape=True)
    page.finalize = _page_text
    page.filters.update(data_uri=data_uri, parts=sentence_parts)
    return markdown, page


def _environment(autoescape: bool) -> jinja2.Environment:
    return jinja2.Environment(
        autoescape=autoescape,
        loader=jinja2.PackageLoader("tfnas.reports"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
