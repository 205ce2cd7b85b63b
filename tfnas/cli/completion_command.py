"""`tfnas completion`."""

from __future__ import annotations

from absl import flags

from tfnas.cli.command_table import command_of, commands, flags_of
from tfnas.cli.completion_scripts import SHELLS, CompletedCommand, script
from tfnas.runtime.argument_rules import check_choice

SUMMARY = "print a script that completes commands and flags in bash, zsh or fish"
POSITIONAL = "|".join(SHELLS)
EXAMPLES = (
    ("bash, for each new shell", "tfnas completion bash >> ~/.bashrc"),
    ("zsh", "tfnas completion zsh > ~/.zfunc/_tfnas"),
    ("fish", "tfnas completion fish > ~/.config/fish/completions/tfnas.fish"),
)


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares no flags."""
    return values


def check(positional: list[str], values: flags.FlagValues) -> None:
    """Raises ValueError where the shell is unknown."""
    check_choice("shell", positional[0], SHELLS)


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    print(script(positional[0], [_completed(name) for name in commands()]))
    return 0


def _completed(name: str) -> CompletedCommand:
    command = command_of(name)
    values = flags_of(command)
    words = tuple(SHELLS) if name == "completion" else ()
    return CompletedCommand(name, command.SUMMARY, [values[each] for each in values], words)
