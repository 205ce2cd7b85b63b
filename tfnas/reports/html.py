"""Parts of a self-contained HTML page: no script, no font, no network."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #ffffff; --soft: #f2f4f6;
  --line: #c9ced4; --blue: #0072B2; --orange: #D55E00; --green: #009E73; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #16181b; --soft: #22262b;
  --line: #454c54; --blue: #56B4E9; --orange: #E69F00; --green: #2bc79a; } }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.15rem; margin-top: 2rem; }
img { max-width: 100%; height: auto; } figure { margin: 0; }
.beside { display: flex; flex-wrap: wrap; gap: .5rem; }
.beside figure { flex: 1 1 22rem; min-width: 0; }
.wide { overflow-x: auto; background: linear-gradient(to right, var(--paper) 30%, transparent) left,
  linear-gradient(to left, var(--paper) 30%, transparent) right,
  linear-gradient(to right, #0006, transparent) left, linear-gradient(to left, #0006, transparent)
  right; background-size: 2rem 100%, 2rem 100%, .6rem 100%, .6rem 100%;
  background-repeat: no-repeat; background-attachment: local, local, scroll, scroll; }
p, ul { max-width: 62rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 6rem; }
table { margin-bottom: 1rem; }
.text { text-align: left !important; white-space: normal; min-width: 14rem; }
tr.chosen td { background: var(--soft); font-weight: 600; }
.bar { display: inline-block; height: .7em; background: var(--blue); border-radius: 2px; }
.good { border-left: .3rem solid var(--green); } .bad { border-left: .3rem solid var(--orange); }
.good, .bad { background: var(--soft); padding: .6rem .9rem; margin: .8rem 0; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; }
.tiles figure { width: 7rem; font-size: .8rem; } .tiles img { width: 7rem;
  image-rendering: pixelated; border: 1px solid var(--line); }
pre { background: var(--soft); padding: .8rem; overflow-x: auto; font-size: .85rem; }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """Returns a complete page.

    Args:
        title: Title of the page, plain text.
        parts: Pieces of HTML, one after another.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{text(title)}</h1>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def text(value: Any) -> str:
    """Returns plain text as HTML."""
    return html.escape(str(value))


def section(title: str, *parts: str) -> str:
    """Returns a heading and the parts below it."""
    return "\n".join([f"<h2>{text(title)}</h2>", *parts])


def note(value: str, good: bool) -> str:
    """Returns a framed sentence; the words carry the meaning, the color repeats it."""
    return f'<p class="{"good" if good else "bad"}">{text(value)}</p>'


def listing(lines: Sequence[str]) -> str:
    """Returns a list of sentences."""
    return "<ul>" + "".join(f"<li>{text(line)}</li>" for line in lines) + "</ul>" if lines else ""


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[Any]],
    chosen: int | None = None,
    bars: Sequence[int] = (),
    prose: Sequence[int] = (),
) -> str:
    """Returns a table.

    Args:
        headers: Titles of the columns.
        rows: Cells; numbers, or None for an empty cell, in the columns of `bars`.
        chosen: Index of the highlighted row.
        bars: Indices of columns of numbers that are drawn as bars too.
        prose: Indices of columns of running text.
    """
    most = {c: max((float(row[c] or 0) for row in rows), default=0.0) or 1.0 for c in bars}

    def cell(value: Any, column: int) -> str:
        if column in most and value is None:
            return "<td></td>"
        if column in most:
            width = 6 * float(value) / most[column]
            bar = f'<span class="bar" style="width:{width:.2f}rem"></span>'
            shown = f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
            return f"<td>{shown} {bar}</td>"
        return f"<td{' class=text' if column in prose else ''}>{text(value)}</td>"

    lines = [
        f"<tr{' class=chosen' if number == chosen else ''}>"
        + "".join(cell(value, column) for column, value in enumerate(row))
        + "</tr>"
        for number, row in enumerate(rows)
    ]
    head = "".join(
        f"<th{' class=text' if column in prose else ''}>{text(title)}</th>"
        for column, title in enumerate(headers)
    )
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def picture(png: bytes, description: str) -> str:
    """Returns a picture with a text alternative.

    Args:
        png: The picture, a PNG file.
        description: What it shows.
    """
    return f'<figure><img alt="{text(description)}" src="{_uri(png)}"></figure>'


def beside(figures: Iterable[str]) -> str:
    """Returns figures side by side where the screen is wide enough."""
    return f'<div class="beside">{"".join(figures)}</div>'


def tiles(images: Sequence[np.ndarray], captions: Sequence[str]) -> str:
    """Returns small images side by side.

    Args:
        images: Each (height, width, 1 or 3), pixels from 0 to 255.
        captions: A line of text for each image.
    """
    figures = [
        f'<figure><img alt="{text(caption)}" src="{_uri(png(image))}">'
        f"<figcaption>{text(caption)}</figcaption></figure>"
        for image, caption in zip(images, captions, strict=True)
    ]
    return f'<div class="tiles">{"".join(figures)}</div>'


def png(image: np.ndarray) -> bytes:
    """Returns an image as a PNG file.

    Args:
        image: Pixels from 0 to 255, (height, width, 1 or 3).
    """
    from PIL import Image

    pixels = np.clip(np.asarray(image), 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., :3]).save(out, "PNG")
    return out.getvalue()


def _uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()
