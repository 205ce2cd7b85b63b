"""The `tfnas` command line: dispatch to commands, help, and errors of one line.

Exit codes: 0 success; 1 failure while the command ran; 2 wrong usage: a command, flag, value, path
or data that it does not take; 3 success but no file keeps the budget, or the file is not verified
or not taken whole; 130 interrupted.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Sequence

from absl import flags

from tfnas.cli import terminal
from tfnas.cli.command_table import Command, command_groups, command_of, commands, flags_of
from tfnas.cli.flag_forms import with_underscores
from tfnas.cli.help_text import command_help, overview
from tfnas.cli.usage_errors import usage_error
from tfnas.runtime.argument_rules import near
from tfnas.runtime.failed_work import FailedWork
from tfnas.runtime.helper_process import isolated_by_default
from tfnas.table import printable

_DATA = {
    "train_data": "--data",
    "validation_data": "the validation part of --data",
    "test_data": "the test part of --data",
}
_ARGUMENT = re.compile(rf"(?<![\w/.'\"])(?:{'|'.join(_DATA)})(?![\w/.'\"])")  # not of a path
_LAYERS = re.compile(r"QuantSpec\([^{}]*layers=\{([^{}]+)\}\)")
_MESSAGES = ("--quiet", "--verbose")  # flags that may stand before the command too
_PIPE_CLOSED = 141  # as of a program that the signal of a closed pipe ends


def run() -> None:
    """Entry point of the console script."""
    terminal.print_any_text()
    try:
        code = main(sys.argv[1:])
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader has read enough, as in `tfnas profile model.keras | head`
        terminal.forget_stdout()
        code = _PIPE_CLOSED
    except OSError as error:  # a full disk below stdout
        terminal.forget_stdout()
        code = _fail("tfnas", f"the output can't be written: {error}", 1)
    sys.exit(code)


def main(argv: Sequence[str]) -> int:
    """Runs one command.

    Args:
        argv: The command line without the program's name.

    Returns:
        The exit code.
    """
    while argv and argv[0] in _MESSAGES:
        argv = [*argv[1:], argv[0]]
    if not argv or argv[0] in ("help", "-h", "--help", "--helpfull"):
        groups = command_groups().items()
        print(overview({title: {n: command_of(n) for n in names} for title, names in groups}))
        return 0 if argv else 2
    if argv[0] in ("--version", "version"):
        import tfnas

        print(f"tfnas {tfnas.__version__}")
        return 0
    name = argv[0].replace("_", "-")
    if name not in commands():
        known = ", ".join(commands())
        hint = near(name, commands())
        return _fail("tfnas", f"no such command {argv[0]!r}: one of {known}{hint}", 2)
    command = command_of(name)
    if any(arg in ("-h", "--help", "-help", "--helpfull") for arg in argv[1:]):
        print(command_help(name, command, flags_of(command)))
        return 0
    return _run_command(name, command, argv[1:])


def _run_command(name: str, command: Command, argv: Sequence[str]) -> int:
    values = flags_of(command)
    try:
        positional = values(["tfnas", *with_underscores(argv, values)])[1:]
    except flags.Error as error:
        return _misused(name, usage_error(error, values))
    wrong = _wrong_count(command.POSITIONAL, positional)
    if values["quiet"].value and values["verbose"].value:
        wrong = "--quiet and --verbose exclude each other"
    if wrong:
        return _misused(name, wrong)
    try:
        with terminal.messages(values):
            command.check(positional, values)  # before TensorFlow is loaded
            return _run_checked(command, positional, values)
    except KeyboardInterrupt:
        hint = ": the same command resumes" if getattr(command, "RESUMES", False) else ""
        return _fail(f"tfnas {name}", f"interrupted{hint}", 130)
    except BrokenPipeError:
        if terminal.stdout_is_closed():
            raise
        return _fail(f"tfnas {name}", "a pipe to another process was closed", 1)
    except Exception as error:  # any error is reported in one line
        if os.environ.get("TFNAS_DEBUG"):
            raise
        text = _with_flags(" ".join(str(error).split()), values, argv) or type(error).__name__
        text = text if len(text) < 600 else f"{text[:600]}..."
        if not _is_said_by_tfnas(error):
            text = f"{type(error).__name__}: {text} (TFNAS_DEBUG=1 shows the traceback)"
        return _fail(f"tfnas {name}", text, 2 if _is_of_an_argument(error) else 1)


def _is_of_an_argument(error: Exception) -> bool:
    """Whether something that the user passed is wrong: what tfnas raises a ValueError for."""
    is_value = isinstance(error, ValueError) and not isinstance(error, FailedWork)
    return is_value and _is_raised_by_tfnas(error)


def _is_said_by_tfnas(error: Exception) -> bool:
    """Whether a message needs no traceback: one of tfnas, of the system or of a missing package."""
    if isinstance(error, ValueError) and not isinstance(error, FailedWork):
        return _is_raised_by_tfnas(error)
    return isinstance(error, FailedWork | RuntimeError | OSError | ImportError)


def _is_raised_by_tfnas(error: Exception) -> bool:
    """Whether tfnas found the error, not a library or a user's own code inside its work."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    module = frames[-1].f_globals.get("__name__", "") if frames else ""
    return str(module).partition(".")[0] == "tfnas"


def _run_checked(command: Command, positional: list[str], values: flags.FlagValues) -> int:
    with isolated_by_default():
        if "deterministic" in values and values["deterministic"].value:
            from tfnas.runtime.randomness import make_operations_deterministic

            make_operations_deterministic()
        code: int = command.main(positional, values)
        return code


def _wrong_count(pattern: str, positional: Sequence[str]) -> str:
    """Returns what is wrong with the number of arguments that are no flags, or ""."""
    too_many = "..." not in pattern and len(positional) > 1
    if bool(positional) == bool(pattern) and not (pattern and too_many):
        return ""
    expected = f"expected {pattern}" if pattern else "takes no arguments besides flags"
    return f"{expected}, got {positional}"


def _misused(name: str, text: str) -> int:
    return _fail(f"tfnas {name}", f"{text} (see tfnas {name} --help)", 2)


def _with_flags(text: str, values: flags.FlagValues, argv: Sequence[str] = ()) -> str:
    """Returns an error with flags for the arguments of Python: for its first word, and for data."""
    if "data" in values:
        text = _ARGUMENT.sub(lambda found: _DATA[found[0]], text)
    if "layers" in values:
        text = _LAYERS.sub(lambda found: f"--layers={_pairs(found[1])}", text)
    name, space, rest = text.partition(" ")
    if name == "dataset" and any(each.split("=")[0].lstrip("-") == "data" for each in argv):
        name = "data"  # two names of one flag: the one that was given
    name = "limit" if name == "limits" else name
    return f"--{name}{space}{rest}" if name in values else text


def _pairs(layers: str) -> str:
    """The formats of layers as a flag has them, from those of a dictionary in Python."""
    return layers.replace(": ", "=").replace(", ", ",").replace('"', "")


def _fail(who: str, text: str, code: int) -> int:
    print(f"{who}: error: {printable(text)}", file=sys.stderr)
    return code
