"""On Linux: a small process above a child process, which ends all that the child has started.

A process that a call has started with `setsid` is in no process group of ours, and when its parent
dies it belongs to process 1: nobody would find it. The guardian is a "subreaper": such orphans
become its children. It forks from the child process before anything is imported, runs no code of
calls, and waits. When the child or the process above ends, or on SIGTERM, it kills what is below
it, and ends as the child has ended.

Elsewhere there is no guardian; then a call's process group is killed, and no more.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

_SET_SUBREAPER, _GET_SUBREAPER, _SET_DEATH_SIGNAL = 36, 37, 1  # of <linux/prctl.h>
_BEGIN = f"""
import ctypes, os, signal, sys
arguments = [signal.SIGKILL, 0, 0, 0]
ctypes.CDLL(None).prctl({_SET_DEATH_SIGNAL}, *map(ctypes.c_ulong, arguments))
if os.getppid() != int(sys.argv[1]):  # it ended before
    sys.exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""
_SWEEP_SECONDS = 5.0  # then something can't be killed, as a process of another user


def is_supported() -> bool:
    """Returns whether child processes have a guardian on this system.

    Example:
        >>> is_supported() == (sys.platform == "linux")  # with glibc or musl
        True
    """
    return sys.platform == "linux" and _prctl(_GET_SUBREAPER, None)


def ending_with_this_process(command: Sequence[str]) -> list[str]:
    """Returns a command line whose program is killed when this process ends, however it ends.

    For programs that start no session of their own below them. The program ends already with the
    thread that started it: a thread that lives as long as the program is needed must do so.
    Elsewhere than on Linux it is the command line as it was.

    Example:
        >>> ending_with_this_process(["chromium", "page.html"])[-2:]
        ['chromium', 'page.html']

    Args:
        command: The program, found in the PATH, and its arguments.
    """
    if not is_supported() or not sys.executable:  # there is none in an embedded Python
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _BEGIN, str(os.getpid()), *command]


def guard(connection: int, life: int) -> None:
    """Forks: returns in the child process; this process becomes its guardian, and never returns.

    Args:
        connection: Descriptor of the child's connection, which the guardian closes.
        life: Descriptor of a pipe whose other end only the process above has.
    """
    if not is_supported():
        return
    _prctl(_SET_SUBREAPER, 1)
    own_id = os.getpid()
    child = os.fork()
    if child == 0:
        os.setsid()  # else it would be in the guardian's group
        _prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != own_id:  # the guardian died before
            raise SystemExit(1)
        return
    os.close(connection)
    _end_as(_watch(child, life))


def _watch(child: int, life: int) -> int:
    """Waits for the end of the child or of the process above, then kills; returns its status."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    stopped = []
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    waiting = select.poll()
    waiting.register(life, select.POLLIN)
    waiting.register(reader, select.POLLIN)
    ended: dict[int, int] = {}
    while not stopped:
        ended.update(_reaped())
        if child in ended:
            break
        found = waiting.poll()
        if any(descriptor == life for descriptor, _ in found):
            break
        os.read(reader, 512)
    ended.update(_killed_all())
    return ended.get(child, -signal.SIGKILL)


def _reaped() -> dict[int, int]:
    """Process id -> exit status of the children that have ended."""
    found: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            found[pid] = os.waitstatus_to_exitcode(status)
    return found


def _killed_all() -> dict[int, int]:
    """Kills what is below this process, until nothing is; returns how its children ended."""
    found: dict[int, int] = {}
    deadline = time.monotonic() + _SWEEP_SECONDS
    while time.monotonic() < deadline:
        below = _descendants(os.getpid())
        for pid in below:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        found.update(_reaped())
        if not below:
            break
        time.sleep(0.002)  # what they had started becomes ours
    return found


def _descendants(pid: int) -> list[int]:
    """The processes below a process, with those that have ended and wait to be reaped."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            parent = int(file.read().rpartition(b")")[2].split()[1])  # a name may have ")"
            children.setdefault(parent, []).append(int(name))
    found = [pid]
    for each in found:
        found += children.get(each, ())
    return found[1:]


def _end_as(status: int) -> NoReturn:
    """Ends this process with a status; a negative one is that of a signal."""
    if status < 0:
        faulthandler.disable()  # it would report the child's signal a second time
        _no_core_file()
        with contextlib.suppress(OSError, ValueError):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    raise SystemExit(status if status >= 0 else 1)


def _no_core_file() -> None:
    import resource

    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _prctl(option: int, value: int | None) -> bool:
    """Calls Linux' prctl; None: for its answer. Returns whether it worked."""
    try:
        import ctypes

        argument = ctypes.byref(ctypes.c_int()) if value is None else ctypes.c_ulong(value)
        unused = (ctypes.c_ulong(0),) * 3
        return bool(ctypes.CDLL(None).prctl(option, argument, *unused) == 0)
    except (ImportError, OSError, AttributeError):
        return False
