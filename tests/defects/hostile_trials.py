"""Trials that fork and die. Worker processes import them, so nothing heavy is imported here."""

import fcntl
import os
import pathlib
import signal
import time

LONG = 120  # seconds


def wait_until(condition, limit):
    """Whether a condition comes true within so many seconds."""
    end = time.monotonic() + limit
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return met


def die_with_a_child(pids):
    """Forks a process that lives on, and is killed as if memory had run out."""
    child = os.fork()
    if not child:
        time.sleep(LONG)
        os._exit(0)
    pathlib.Path(pids).write_text(f"{child}\n")
    os.kill(os.getpid(), signal.SIGKILL)


def live_on(lock, pids):
    """Holds a lock in two processes, until both have ended."""
    with open(lock, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        os.fork()
        with open(pids, "a") as stream:
            stream.write(f"{os.getpid()}\n")
        time.sleep(LONG)


def answer_twice(next_runs):
    """Forks, so that the call returns in two processes, the second during the next call."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # whoever answers in vain dies in silence
    if os.fork():
        wait_until(pathlib.Path(next_runs).exists, 2)
    return "first"


def answer_once(next_runs):
    """Answers a second after the call before has answered again."""
    pathlib.Path(next_runs).touch()
    time.sleep(1)
    return "second"
