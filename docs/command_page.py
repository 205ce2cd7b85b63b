"""Makes docs/commands.md from the flags of the commands.

    python docs/command_page.py [--check]

With --check nothing is written; the exit code is 1 where the page is not what the flags make.
Loads no TensorFlow.
"""

from __future__ import annotations

import pathlib
import sys

from tfnas.cli.command_table import command_groups, command_of, flags_of
from tfnas.cli.flag_forms import described, written
from tfnas.cli.flag_groups import grouped
from tfnas.cli.help_text import usage

PAGE = pathlib.Path(__file__).resolve().with_name("commands.md")
HEAD = r"""# Commands

Made by `make docs` from the flags; `tfnas COMMAND --help` shows the same in the terminal.

- `--max_bytes` and `--max-bytes` are one flag. A switch such as `--[no]sparse` is written
  `--sparse`, or `--nosparse`.
- Bytes may have a unit: `--max_bytes=100KB`, `--max_ram_bytes=64KiB`.
- A wrong path or value is told before TensorFlow is loaded. The exit codes of all commands:

  | code | meaning |
  | ---: | --- |
  | 0 | success |
  | 1 | failure while the command ran: a training that diverges, a full disk, a missing extra |
  | 2 | wrong usage: a command, flag, value, path or data that it does not take |
  | 3 | no file keeps the budget (`compress`), or it is not verified, or not taken whole (`lint`) |
  | 130 | interrupted by Ctrl-C |
  | 141 | the reader of the output was gone, as in `tfnas ... \| head` |

- `--quiet` prints the result alone. `--verbose` prints the reasons too, and what TensorFlow and its
  converter write.
- An error is one line. `TFNAS_DEBUG=1` in the environment shows where it was raised.
- Shells complete commands and flags: `source <(tfnas completion bash)`, also for zsh and fish.
"""


def page() -> str:
    """Returns the text of docs/commands.md."""
    groups = command_groups()
    parts = [HEAD, "| command | what it does |\n| --- | --- |"]
    for names in groups.values():
        parts += [f"| [{name}](#{name}) | {command_of(name).SUMMARY} |" for name in names]
    sections = [section(name) for names in groups.values() for name in names]
    return "\n".join(parts) + "\n\n" + "\n".join(sections)


def section(name: str) -> str:
    """Returns the part of a command.

    Args:
        name: Its name.
    """
    command = command_of(name)
    values = flags_of(command)
    summary = f"{command.SUMMARY[:1].upper()}{command.SUMMARY[1:]}."
    lines = [
        f"## {name}",
        "",
        summary,
        "",
        f"`{usage(name, command, values).removeprefix('usage: ')}`",
        "",
    ]
    for text, line in command.EXAMPLES:
        lines += [f"{text[:1].upper()}{text[1:]}:", "", f"    {line}", ""]
    for title, found in grouped(values).items():
        lines += [f"| {title} | |", "| --- | --- |"]
        lines += [f"| `{_cell(written(flag))}` | {_cell(described(flag))} |" for flag in found]
        lines += [""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*=", "\\*=")


def main() -> None:
    """Writes the page, or checks it."""
    expected = page()
    if sys.argv[1:] == ["--check"]:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != expected:
            sys.exit("docs/commands.md is not what the flags make: run python docs/command_page.py")
        return
    PAGE.write_text(expected, encoding="utf-8")


if __name__ == "__main__":
    main()
