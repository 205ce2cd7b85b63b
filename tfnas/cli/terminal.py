"""What a command writes to the terminal, and what it keeps out of it."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

from absl import flags


def print_any_text() -> None:
    """Lets stdout and stderr print what their encoding lacks, such as a name that is not UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not where a descriptor is closed
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def quiet_native_stderr() -> Iterator[None]:
    """Hides messages that TensorFlow's native code writes to stderr.

    Python's own stderr still works, and a crash of native code still prints a traceback.
    """
    try:
        native = sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):  # stderr is no file, as in tests
        yield
        return
    python_stderr = sys.stderr
    with (
        os.fdopen(os.dup(native), "w", buffering=1, errors="backslashreplace") as terminal,
        tempfile.TemporaryFile() as sink,
    ):
        sys.stderr.flush()
        faulthandler.enable(file=terminal)
        os.dup2(sink.fileno(), native)
        sys.stderr = terminal
        try:
            yield
        finally:
            sys.stderr = python_stderr
            faulthandler.disable()
            os.dup2(terminal.fileno(), native)


@contextlib.contextmanager
def messages(values: flags.FlagValues) -> Iterator[None]:
    """Prints what tfnas logs to stderr: warnings, with --verbose all, with --quiet errors alone.

    Args:
        values: The flags of the command.
    """
    quiet, verbose = values["quiet"].value, values["verbose"].value
    log = logging.getLogger("tfnas")
    level, propagate = log.level, log.propagate
    with contextlib.ExitStack() as stack:
        if not verbose:
            stack.enter_context(quiet_native_stderr())
        if quiet:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_OneLine())
        log.addHandler(handler)
        log.propagate = False  # a library that gives the root a handler would print each line again
        log.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.WARNING)
        try:
            yield
        finally:
            log.removeHandler(handler)
            log.setLevel(level)
            log.propagate = propagate


class _OneLine(logging.Formatter):
    """The form of the command's own errors."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line of a record."""
        return f"tfnas: {record.levelname.lower()}: {record.getMessage()}"


def stdout_is_closed() -> bool:
    """Returns whether the reader of stdout has closed it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return True
    return False


def forget_stdout() -> None:
    """Sends what is left in the buffer of stdout nowhere, so that Python ends quietly."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
