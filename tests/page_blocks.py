"""Runs the Python blocks of a page, in order, and compares or stores what they print.

    python tests/page_blocks.py [--write] PAGE...

A block of ```text that directly follows a block of ```python is what the block prints. With --write
it is replaced by what the block prints now. Blocks of a page share their names and an empty folder.
A block of ```py is a fragment and is not run.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import pathlib
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[1]
_BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)
_WORD = re.compile(r"(?<![\w.])[A-Za-z_]{2,}\w*")


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code with its place in the page, and the output that the page shows or None."""

    code: str
    output: str | None
    line: int
    span: tuple[int, int]


def blocks_of(text: str) -> list[Block]:
    """Returns the Python blocks of a page, each with the output that follows it."""
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        found.append(Block(match["code"], match["output"], line, match.span("output")))
    return found


def run(page: pathlib.Path) -> Iterator[tuple[Block, str]]:
    """Yields each block of a page with what it printed; the current folder is the page's."""
    import keras

    keras.utils.clear_session()  # layers are numbered as in a new program
    names = {"__name__": page.stem}
    for block in blocks_of(page.read_text(encoding="utf-8")):
        printed = io.StringIO()
        source = "\n" * (block.line - 1) + block.code  # an error names the page's line
        with contextlib.redirect_stdout(printed):
            exec(compile(source, str(page), "exec"), names)
        yield block, "".join(line.rstrip() + "\n" for line in printed.getvalue().splitlines())


def beginning(output: str) -> list[str]:
    """Returns the words of an output's first line, such as the header of a table.

    What follows depends on a training, on measured times and on how a processor rounds.
    """
    lines = [line for line in output.splitlines() if line.strip()]
    return _WORD.findall(lines[0]) if lines else []


def written(page: pathlib.Path) -> str:
    """Returns the text of a page with the outputs that its blocks print now."""
    text, parts, start = page.read_text(encoding="utf-8"), [], 0
    for block, printed in run(page):
        if block.output is not None:
            parts += [text[start : block.span[0]], printed]
            start = block.span[1]
    return "".join([*parts, text[start:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="store what the blocks print")
    parser.add_argument("pages", nargs="+", type=lambda name: pathlib.Path(name).resolve())
    arguments = parser.parse_args()
    failed = []
    for page in arguments.pages:
        try:
            with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
                text = written(page)
        except Exception:  # the other pages run
            traceback.print_exc()
            failed.append(page.name)
            continue
        if arguments.write:
            page.write_text(text, encoding="utf-8")
        print(page.name, "stored" if arguments.write else "ran", file=sys.stderr, flush=True)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
