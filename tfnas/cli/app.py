"""The `tfnas` command line: dispatch to commands, help, and errors of one line.

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 success but no file keeps the budget, or the file
is not verified or not taken whole, 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

from absl import flags

from tfnas.cli import console, technique_command
from tfnas.cli.common import define_loading
from tfnas.runtime.argument_rules import near
from tfnas.runtime.helper_process import isolated_by_default
from tfnas.table import printable

_DATA = {
    "train_data": "--data",
    "validation_data": "the validation part of --data",
    "test_data": "the test part of --data",
}
_ARGUMENT = re.compile(rf"(?<![\w/.'\"])(?:{'|'.join(_DATA)})(?![\w/.'\"])")  # not of a path
_FIRST, _LAST = ("compress", "search"), ("export", "verify", "lint", "patches", "bench", "profile")


def commands() -> tuple[str, ...]:
    """Returns the names of all commands, in the order of the help."""
    return (*_FIRST, *technique_command.command_names(), *_LAST)


def run() -> None:
    """Entry point of the console script."""
    console.print_any_text()
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Runs one command.

    Args:
        argv: The command line without the program's name.

    Returns:
        The exit code.
    """
    if not argv or argv[0] in ("help", "-h", "--help", "--helpfull"):
        print(_overview())
        return 0 if argv else 2
    if argv[0] in ("--version", "version"):
        import tfnas

        print(f"tfnas {tfnas.__version__}")
        return 0
    if argv[0] not in commands():
        known = ", ".join(commands())
        hint = near(argv[0], commands())
        return _fail("tfnas", f"no such command {argv[0]!r}: one of {known}{hint}", 2)
    command = _command_module(argv[0])
    if any(arg in ("-h", "--help", "-help", "--helpfull") for arg in argv[1:]):
        print(_help(argv[0], command))
        return 0
    return _run_command(argv[0], command, argv)


def _command_module(name: str) -> ModuleType | SimpleNamespace:
    if name in technique_command.command_names():
        return technique_command.command_of(name)
    return importlib.import_module(f"tfnas.cli.{name.replace('-', '_')}_command")


def flags_of(command: ModuleType | SimpleNamespace) -> flags.FlagValues:
    """Returns the flags of a command; those that load a Keras model have two more.

    Args:
        command: The command.
    """
    values: flags.FlagValues = command.define(flags.FlagValues())
    if ".keras" in command.POSITIONAL:
        define_loading({"flag_values": values, "module_name": command.__name__})
    return values


def _run_command(name: str, command: ModuleType | SimpleNamespace, argv: Sequence[str]) -> int:
    values = flags_of(command)
    try:
        positional = values(["tfnas", *argv[1:]])[1:]
    except flags.Error as error:
        text = "; ".join(str(error).splitlines())
        return _fail(f"tfnas {name}", f"{text} (see tfnas {name} --help)", 2)
    pattern = command.POSITIONAL
    too_many = "..." not in pattern and len(positional) > 1
    if bool(positional) != bool(pattern) or (pattern and too_many):
        expected = f"expected {pattern}" if pattern else "takes no arguments besides flags"
        return _fail(f"tfnas {name}", f"{expected}, got {positional} (see tfnas {name} --help)", 2)
    try:
        with console.quiet_native_stderr(), isolated_by_default():
            if "deterministic" in values and values["deterministic"].value:
                from tfnas.runtime.randomness import make_operations_deterministic

                make_operations_deterministic()
            return command.main(positional, values)
    except KeyboardInterrupt:
        hint = ": the same command resumes" if getattr(command, "RESUMES", False) else ""
        return _fail(f"tfnas {name}", f"interrupted{hint}", 130)
    except Exception as error:  # any error is reported in one line
        if os.environ.get("TFNAS_DEBUG"):
            raise
        text = _with_flags(" ".join(str(error).split()), values, argv) or type(error).__name__
        if not isinstance(error, ValueError | RuntimeError | OSError | ImportError):
            text = f"{type(error).__name__}: {text} (TFNAS_DEBUG=1 shows the traceback)"
        return _fail(f"tfnas {name}", text if len(text) < 600 else f"{text[:600]}...", 1)


def _with_flags(text: str, values: flags.FlagValues, argv: Sequence[str] = ()) -> str:
    """Returns an error with flags for the arguments of Python: for its first word, and for data."""
    if "data" in values:
        text = _ARGUMENT.sub(lambda found: _DATA[found[0]], text)
    name, space, rest = text.partition(" ")
    if name == "dataset" and any(each.split("=")[0].lstrip("-") == "data" for each in argv):
        name = "data"  # two names of one flag: the one that was given
    return f"--{name}{space}{rest}" if name in values else text


def _fail(who: str, text: str, code: int) -> int:
    print(f"{who}: error: {printable(text)}", file=sys.stderr)
    return code


def _overview() -> str:
    modules = {name: _command_module(name) for name in commands()}
    width = max(map(len, modules)) + 2
    lines = [f"  {name:<{width}}{module.SUMMARY}" for name, module in modules.items()]
    return "\n".join(
        [
            "Compress and search Keras models, measured on the .tflite file itself.",
            "",
            "usage: tfnas COMMAND [--flag=value ...]",
            "",
            *lines,
            "",
            "tfnas COMMAND --help lists its flags; tfnas --version prints the version.",
        ]
    )


def _default(flag: flags.Flag[Any]) -> str:
    """Returns the default of a flag as its help shows it, or that the flag is required."""
    if any("other than None" in validator.message for validator in flag.validators):
        return " (required)"
    value = ",".join(map(str, flag.default)) if isinstance(flag.default, list) else flag.default
    return "" if value in (None, "") else f" [{value}]"


def _help(name: str, command: ModuleType | SimpleNamespace) -> str:
    values = flags_of(command)
    rows = []
    for flag in values.get_flags_for_module(command.__name__) or []:
        shown = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}=..."
        rows.append((shown, f"{flag.help}{_default(flag)}"))
    width = max(len(shown) for shown, _ in rows)
    usage = " ".join(part for part in ("usage: tfnas", name, command.POSITIONAL, "[flags]") if part)
    return "\n".join(
        [
            command.SUMMARY,
            "",
            usage,
            "",
            *(f"  {s:<{width}}  {text}" for s, text in rows),
            "",
            command.EXAMPLE,
        ]
    )
