"""The processes below a process, as Linux tells them."""

import os
import pathlib
import time


def parents():
    """Process id -> that of its parent, without those that have ended."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                text = pathlib.Path("/proc", name, "stat").read_text()
            except OSError:  # it has just ended
                continue
            state, parent = text.rpartition(")")[2].split()[:2]
            if state not in "ZX":
                found[int(name)] = int(parent)
    return found


def descendants(pid):
    """The processes that a process has started, and those that they have started."""
    of, found = parents(), [pid]
    for each in found:
        found += [child for child, parent in of.items() if parent == each]
    return found[1:]


def outlived(pids, seconds=10):
    """Those of some processes that still run after some time."""
    deadline = time.monotonic() + seconds
    while (left := set(pids) & set(parents())) and time.monotonic() < deadline:
        time.sleep(0.01)
    return sorted(left)
