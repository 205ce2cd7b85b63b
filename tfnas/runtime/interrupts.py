"""Ctrl-C is noticed at once, also while native code keeps the main thread busy.

Python raises KeyboardInterrupt between two instructions of the main thread; a conversion or a long
training step may take seconds until then. The signal itself is seen by another thread. And where
the main thread happens to be in a finalizer, Python prints the KeyboardInterrupt and goes on: so
long work asks :meth:`Interrupts.check` now and then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any


class Interrupts:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.pressed = False

    def check(self) -> None:
        """Raises KeyboardInterrupt if Ctrl-C was pressed."""
        if self.pressed:
            raise KeyboardInterrupt


@contextlib.contextmanager
def announced_interrupts(announce: Callable[[], None]) -> Iterator[Interrupts]:
    """Calls a function when Ctrl-C is pressed first, before KeyboardInterrupt is raised.

    Outside of the main thread nothing is announced, as signals do not arrive there.

    Args:
        announce: Called once, in another thread.
    """
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(
        target=_watch, args=(reader, announce, before, interrupts), daemon=True
    )
    watcher.start()
    unraisable, sys.unraisablehook = sys.unraisablehook, _without_interrupts(sys.unraisablehook)
    try:
        yield interrupts
    finally:
        sys.unraisablehook = unraisable
        signal.set_wakeup_fd(before)
        writer.close()  # ends the watcher
        watcher.join()
        reader.close()


def _without_interrupts(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A hook that prints no traceback of an interrupt in a finalizer, which `check` raises."""
    return lambda found: None if found.exc_type is KeyboardInterrupt else hook(found)


def _watch(
    reader: socket.socket, announce: Callable[[], None], before: int, interrupts: Interrupts
) -> None:
    while signals := reader.recv(64):
        if before >= 0:  # who watched before hears of it too
            with contextlib.suppress(OSError):
                os.write(before, signals)
        if signal.SIGINT in signals and not interrupts.pressed:
            interrupts.pressed = True
            announce()
