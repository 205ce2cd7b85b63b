"""The helper process: warm, restarted after a crash, gone with its parent, blind for the caller."""

import functools
import logging
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time

import hostile_calls
import pytest

from tfnas.runtime import crash_report, helper_process
from tfnas.runtime.child_process import ChildProcess
from tfnas.runtime.helper_process import (
    HelperDied,
    call,
    is_isolated,
    isolated,
    isolated_by_default,
)
from tfnas.runtime.worker import HEADER, RETURNED

PATHS = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def test_who_chooses_last_counts_but_for_defaults():
    assert not is_isolated()
    with isolated_by_default():
        assert is_isolated()
        with isolated(False):
            assert not is_isolated()
            with isolated_by_default():  # a job does not overrule its caller
                assert not is_isolated()
        assert is_isolated()
    with isolated(), isolated_by_default():
        assert is_isolated()
    assert not is_isolated()


def test_one_process_serves_all_calls_of_all_threads():
    pids = [call(os.getpid)]
    threads = [threading.Thread(target=lambda: pids.append(call(os.getpid))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 5
    assert len(set(pids)) == 1
    assert pids[0] != os.getpid()


def test_a_call_whose_process_somebody_kills_is_tried_once_more(tmp_path, monkeypatch):
    for module in (helper_process, crash_report):
        monkeypatch.setattr(module, "memory_kills", lambda: 3)
    flag = str(tmp_path / "killed")
    assert call(hostile_calls.die_once, flag) == "alive"


@pytest.mark.slow  # tests/tflite/test_isolated.py has a call that kills each process
def test_a_call_that_kills_each_process_is_not_tried_for_ever(tmp_path, monkeypatch):
    for module in (helper_process, crash_report):
        monkeypatch.setattr(module, "memory_kills", lambda: 3)
    with pytest.raises(HelperDied, match=r"^ended by signal 9 \(SIGKILL\)$"):
        call(os.kill, 0, 9)  # its own group, each time
    counts = iter(range(9))
    for module in (helper_process, crash_report):
        monkeypatch.setattr(module, "memory_kills", lambda: next(counts))
    with pytest.raises(HelperDied, match=r"^ended by signal 9 \(SIGKILL\)$"):
        call(hostile_calls.die_once, str(tmp_path / "of memory"))


def test_a_crash_is_an_error_and_the_next_call_starts_another_process():
    before = call(os.getpid)
    with pytest.raises(HelperDied, match=r"^ended by signal 6 \(SIGABRT\)$") as caught:
        call(os.abort)
    assert "Fatal Python error: Aborted" in caught.value.output
    assert call(os.getpid) != before
    with pytest.raises(HelperDied, match=r"^did not end within 0\.5 s$"):
        call(time.sleep, 100, timeout=0.5)
    with pytest.raises(ZeroDivisionError):  # an error of the call is not one of the process
        call(divmod, 1, 0)


def test_native_output_is_logged(caplog, capfd):
    with caplog.at_level(logging.DEBUG, helper_process.__name__):
        call(os.write, 1, b"to stdout\n")
        call(os.write, 2, b"to stderr\n")
        call(functools.partial(print, "by Python", flush=True))
    assert caplog.messages == ["to stdout", "to stderr", "by Python"]
    assert capfd.readouterr() == ("", "")


def test_no_accelerator_is_taken():
    assert call(os.getenv, "CUDA_VISIBLE_DEVICES") == "-1"


def test_an_interrupt_ends_the_call(monkeypatch):
    before = call(os.getpid)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(helper_process.ChildProcess, "call", interrupt)
        with pytest.raises(KeyboardInterrupt):
            call(time.sleep, 100)
    assert call(os.getpid) != before


SCRIPT = """
import os, pathlib, sys, time
pathlib.Path("imported").touch()  # once: by the script itself
from tfnas.runtime.helper_process import call

if __name__ == "__main__":
    pathlib.Path("imported").unlink()
    print(call(os.getpid), call(os.getcwd), flush=True)
    if os.fork() == 0:
        print(call(os.getpid), flush=True)  # one of its own, which ends with it
        os._exit(0)
    os.wait()
    sys.stdin.read()
"""


def ended(pid):
    try:
        return "State:\tZ" in pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


@pytest.mark.parametrize("signal", [None, 9, 15])
def test_it_imports_nothing_of_the_caller_and_ends_with_it(tmp_path, signal):
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    for name in ("cloudpickle", "struct", "socket", "numpy", "usercustomize"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w')\n")
    # The script's own folder comes first in its path: only what it imports itself may run.
    code = "import sys; sys.path.remove(''); sys.path.append(''); import runpy; "
    code += "runpy.run_path('script.py', run_name='__main__')"
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=PATHS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        pid, folder = parent.stdout.readline().split()
        of_child = int(parent.stdout.readline())
        assert folder == "/"
        assert of_child != int(pid)
        assert not ended(pid)
        if signal is None:
            parent.communicate()
        else:
            parent.send_signal(signal)
            parent.wait()
        end = time.monotonic() + 60
        while not (ended(pid) and ended(of_child)) and time.monotonic() < end:
            time.sleep(0.05)
        assert ended(pid)
        assert ended(of_child)
    finally:
        parent.kill()
        parent.wait()
        parent.stdin.close()
        parent.stdout.close()
    assert not (tmp_path / "imported").exists()
    assert not (tmp_path / "ran").exists()


class Late(Exception):
    """What a signal handler of the user's raises."""


@pytest.mark.parametrize("kind", [TimeoutError, Late])
def test_an_exception_of_a_signal_handler_ends_the_call_and_not_the_next_one(kind):
    def handler(number, frame):
        raise kind("enough")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        call(os.getpid)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(kind, match="enough"):
            call(time.sleep, 600)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert call(max, 1, 2) == 2


def test_half_an_answer_is_not_taken_for_the_next_one(monkeypatch):
    read = ChildProcess._read

    def cut(self, count, deadline):
        found = read(self, count, deadline)
        if count == HEADER.size and HEADER.unpack(found)[1] == RETURNED:
            raise Late
        return found

    monkeypatch.setattr(ChildProcess, "_read", cut)
    with pytest.raises(Late):
        call(max, 1, 2)
    monkeypatch.undo()
    assert call(max, 3, 4) == 4
