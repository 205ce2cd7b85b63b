"""Calls for child processes, which import this module: nothing heavy is imported here."""

import os
import pathlib
import signal
import subprocess
import sys
import time

from tfnas.runtime.worker import HEADER, RETURNED

LONG = 120  # seconds


def own_descriptor():
    """The descriptor of the connection: the only socket of a child process."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                return int(name)
        except OSError:  # that of the listing itself
            continue
    raise LookupError("no socket")


def answer_half():
    """Writes the header of an answer, and never what it announces."""
    os.write(own_descriptor(), HEADER.pack(1, RETURNED, 100) + b"half")
    time.sleep(LONG)


def die_once(flag):
    """Kills its process, unless it has done so before."""
    path = pathlib.Path(flag)
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def answer_for(number):
    """Writes an answer of another call before its own."""
    os.write(own_descriptor(), HEADER.pack(number, RETURNED, 4) + b"junk")
    return "own"


def start_a_process(pids):
    """Starts a process and does not wait for it, but writes its id to a file."""
    child = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({LONG})"])
    pathlib.Path(pids).write_text(f"{child.pid}")
    time.sleep(LONG)


def start_a_daemon(pids):
    """Starts a process in a session of its own whose parent ends at once, and writes its id."""
    program = (
        "import os, pathlib, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        f"    pathlib.Path({pids!r}).write_text(str(os.getpid()))\n"
        f"    time.sleep({LONG})\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    while not (path := pathlib.Path(pids)).exists() or not path.read_text():
        time.sleep(0.01)


def die_with_a_daemon(pids):
    """Starts such a process, and crashes."""
    start_a_daemon(pids)
    os.abort()


def wait_with_a_daemon(pids):
    """Starts such a process, and never returns."""
    start_a_daemon(pids)
    time.sleep(LONG)


def fork_and_raise():
    """Raises in the process that it forks, and returns in its own."""
    child = os.fork()
    if not child:
        raise SystemExit("of another process")
    return os.waitpid(child, 0)[1]


def paths():
    """What the process imports from, and where it is."""
    return sys.path, os.getcwd()
