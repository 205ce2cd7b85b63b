"""Why a process ended in the middle of some work: what it leaves behind, read by a later process.

A process that is interrupted (Ctrl-C, SIGTERM, a kill from outside, a lost machine) leaves nothing
that speaks against its work: it can be tried again. One that ends by itself is another matter:

- A segmentation fault or an abort is written by :mod:`faulthandler` to the report.
- The kernel counts the processes that it ends for lack of memory. The report has the count at its
  begin; where it has grown since, on a machine that still runs, memory had run out.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import pathlib
import threading
from collections.abc import Iterator

_BOOT = pathlib.Path("/proc/sys/kernel/random/boot_id")
_COUNTS = pathlib.Path("/proc/vmstat")
_FATAL = "Fatal Python error: "
_in_use = threading.Lock()  # faulthandler writes to one file


@contextlib.contextmanager
def crash_reported(path: pathlib.Path) -> Iterator[None]:
    """Keeps a report of a crash within the context; without a crash it is removed.

    Crashes within such a context in another thread, or within another one, are not reported.

    Args:
        path: The file of the report, in an existing folder.
    """
    if not _in_use.acquire(blocking=False):
        yield
        return
    was_enabled = faulthandler.is_enabled()
    try:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # a full disk costs the report, not the work
                file = stack.enter_context(path.open("w"))
                file.write(json.dumps(_machine()) + "\n")
                file.flush()
                faulthandler.enable(file, all_threads=False)
            yield
    finally:
        faulthandler.disable()
        if was_enabled:
            with contextlib.suppress(RuntimeError, ValueError, io.UnsupportedOperation):
                faulthandler.enable()
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        _in_use.release()


def crash_reason(path: pathlib.Path) -> str | None:
    """Returns why a process ended by itself; None: nothing says that it did.

    Args:
        path: The file of the report, which need not exist.
    """
    first, rest = _read(path)
    for line in rest.splitlines():
        if line.startswith(_FATAL):
            return line.removeprefix(_FATAL).strip().lower()
    if knows_of_memory(path) and _machine()["oom_kills"] != first["oom_kills"]:
        return "out of memory"
    return None


def knows_of_memory(path: pathlib.Path) -> bool:
    """Returns whether a report would say if memory had run out.

    Args:
        path: The file of the report, which need not exist.
    """
    first, _ = _read(path)
    return isinstance(first.get("oom_kills"), int) and first.get("boot") == _machine().get("boot")


def memory_kills() -> int | None:
    """Returns how many processes this machine has ended for lack of memory; None: it is unknown.

    Example:
        >>> before = memory_kills()
        >>> memory_kills() == before  # nothing happened since
        True
    """
    found = _machine().get("oom_kills")
    return found if isinstance(found, int) else None


def memory_may_have_run_out(before: int | None) -> bool:
    """Returns whether this machine has ended a process for lack of memory since, or may have.

    Example:
        >>> memory_may_have_run_out(None)
        True

    Args:
        before: What :func:`memory_kills` returned before.
    """
    return before is None or memory_kills() != before


def _read(path: pathlib.Path) -> tuple[dict[str, object], str]:
    try:
        first, _, rest = path.read_text("utf-8", "replace").partition("\n")
        found = json.loads(first)
    except (OSError, ValueError, RecursionError):
        return {}, ""
    return (found if isinstance(found, dict) else {}), rest


def _machine() -> dict[str, str | int]:
    """The run of the machine, and the processes that it ended for lack of memory since."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = dict(line.split() for line in _COUNTS.read_text().splitlines())
        return {"boot": _BOOT.read_text().strip(), "oom_kills": int(lines["oom_kill"])}
    return {}
