"""The commands of `tfnas`: their groups, their modules and their flags."""

from __future__ import annotations

import importlib
from types import ModuleType, SimpleNamespace

from absl import flags

from tfnas.cli import technique_command
from tfnas.cli.common import define_loading, define_messages

Command = ModuleType | SimpleNamespace


def command_groups() -> dict[str, tuple[str, ...]]:
    """Returns heading -> names of commands, in the order of the help."""
    return {
        "From a model or a data set to a folder with a report": ("compress", "search"),
        "One technique": technique_command.command_names(),
        "Files": ("export", "verify", "lint", "patches"),
        "Measurements": ("evaluate", "bench", "profile"),
        "The command itself": ("completion",),
    }


def commands() -> tuple[str, ...]:
    """Returns the names of all commands, in the order of the help."""
    return tuple(name for names in command_groups().values() for name in names)


def command_of(name: str) -> Command:
    """Returns a command: a module, or an object with what a module of a command has.

    That is SUMMARY, POSITIONAL, EXAMPLES (what an example shows -> its command line, in pairs),
    `define(values)`, which declares the flags, `check(positional, values)`, which raises what is
    wrong without loading TensorFlow, and `main(positional, values)`, which returns the exit code.

    Args:
        name: One of :func:`commands`.
    """
    if name in technique_command.command_names():
        return technique_command.command_of(name)
    return importlib.import_module(f"tfnas.cli.{name.replace('-', '_')}_command")


def flags_of(command: Command) -> flags.FlagValues:
    """Returns the flags of a command; those that load a Keras model have two more.

    Args:
        command: The command.
    """
    values: flags.FlagValues = command.define(flags.FlagValues())
    common = {"flag_values": values, "module_name": command.__name__}
    if ".keras" in command.POSITIONAL:
        define_loading(common)
    define_messages(common)
    return values
