"""The texts of `tfnas --help` and `tfnas COMMAND --help`."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Mapping
from types import ModuleType, SimpleNamespace

from absl import flags

from tfnas.cli.flag_forms import described, is_required, written
from tfnas.cli.flag_groups import grouped

Command = ModuleType | SimpleNamespace
_NARROWEST, _WIDEST_NAME = 40, 28


def terminal_width() -> int:
    """Returns the number of columns of the terminal; 80 where there is none."""
    return max(shutil.get_terminal_size().columns, _NARROWEST)


def overview(groups: Mapping[str, Mapping[str, Command]], width: int | None = None) -> str:
    """Returns the help of `tfnas`.

    Args:
        groups: Heading -> name -> command.
        width: Number of columns; None: those of the terminal.
    """
    width = width or terminal_width()
    names = [name for commands in groups.values() for name in commands]
    lines = ["Compress and search Keras models, measured on the .tflite file itself.", ""]
    lines += ["usage: tfnas COMMAND [--flag=value ...]"]
    for title, commands in groups.items():
        rows = [(name, command.SUMMARY) for name, command in commands.items()]
        lines += ["", *_wrapped(f"{title}:", width), *_rows(rows, max(map(len, names)), width)]
    last = (
        "tfnas COMMAND --help lists the flags of a command; --max-bytes and --max_bytes are one. "
        "tfnas --version prints the version."
    )
    return "\n".join([*_wrapped(lines[0], width), *lines[1:], "", *_wrapped(last, width)])


def command_help(
    name: str, command: Command, values: flags.FlagValues, width: int | None = None
) -> str:
    """Returns the help of a command.

    Args:
        name: Its name.
        command: The command.
        values: Its flags.
        width: Number of columns; None: those of the terminal.
    """
    width = width or terminal_width()
    lines = [*_wrapped(command.SUMMARY, width), "", *_wrapped(usage(name, command, values), width)]
    for title, found in grouped(values).items():
        rows = [(written(flag), described(flag)) for flag in found]
        column = max(len(each) for each, _ in rows)
        column = min(column, _WIDEST_NAME)
        lines += ["", *_wrapped(f"{title}:", width), *_rows(rows, column, width)]
    return "\n".join([*lines, "", "Examples:", *_examples(command.EXAMPLES, width)])


def usage(name: str, command: Command, values: flags.FlagValues) -> str:
    """Returns the line of a command's usage, with the flags that it needs.

    Args:
        name: Its name.
        command: The command.
        values: Its flags.
    """
    needed = [written(values[each]) for each in values if is_required(values[each])]
    parts = ("usage: tfnas", name, command.POSITIONAL, *needed, "[flags]")
    return " ".join(part for part in parts if part)


def _rows(rows: Iterable[tuple[str, str]], column: int, width: int) -> list[str]:
    """Names and texts in two columns; a long name, or a narrow terminal, has the text below."""
    indent = column + 4 if width - column >= 36 else 6
    lines: list[str] = []
    for name, text in rows:
        wrapped = _wrapped(text, width, " " * indent)
        if len(name) + 4 <= indent:
            wrapped[0] = f"  {name}".ljust(indent) + wrapped[0].lstrip()
        else:
            lines.append(f"  {name}")
        lines += wrapped
    return lines


def _examples(examples: Iterable[tuple[str, str]], width: int) -> list[str]:
    """Command lines that can be copied: a line that goes on ends with a backslash."""
    lines: list[str] = []
    for text, line in examples:
        lines += _wrapped(f"# {text}", width, "  ", "  # ")
        wrapped = _wrapped(line, width - 2, "  ", "      ")
        lines += [f"{each} \\" for each in wrapped[:-1]] + wrapped[-1:]
    return lines


def _wrapped(text: str, width: int, first: str = "", later: str | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=first if later is None else later,
        break_long_words=False,
        break_on_hyphens=False,
    )
