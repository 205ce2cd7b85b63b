"""Child processes: their answers, their deaths, what they import."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time

import cloudpickle
import hostile_calls
import pytest

from tfnas.runtime.child_process import ChildProcess, ProcessDied, TookTooLong, import_paths
from tfnas.runtime.worker_processes import TrialProcesses

AMPLE = 120  # seconds: for a process to start, or to end, on a busy machine


@pytest.fixture
def child(tmp_path):
    """A process whose current folder is the test's."""
    process = ChildProcess(import_paths(current_folder=False), str(tmp_path))
    yield process
    process.close()


def run(child, function, *args, timeout=None):
    return child.call(cloudpickle.dumps((function, args, {})), timeout)


def ends(pid):
    """Whether a process ends within the time; a zombie that nobody waits for has ended."""
    status = pathlib.Path(f"/proc/{pid}/status")
    end = time.monotonic() + AMPLE
    while time.monotonic() < end:
        try:
            if "State:\tZ" in status.read_text():
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def wait_for_text(path):
    """The text of a file that another process writes; "" if it never does."""
    end = time.monotonic() + AMPLE
    while time.monotonic() < end and not (path.exists() and path.read_text()):
        time.sleep(0.02)
    return path.read_text() if path.exists() else ""


def test_results_and_errors_come_back(child):
    assert run(child, divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        run(child, divmod, 1, 0)
    big = bytes(3_000_000)
    assert run(child, len, big) == len(big)
    assert run(child, bytes, 3_000_000) == big


def test_a_half_written_answer_ends_at_the_timeout(child):
    with pytest.raises(TookTooLong):
        run(child, hostile_calls.answer_half, timeout=0.5)
    assert not child.alive()


def test_an_answer_of_another_call_is_dropped(child):
    assert run(child, hostile_calls.answer_for, 0) == "own"
    assert run(child, hostile_calls.answer_for, 1) == "own"


def test_what_a_forked_process_raises_is_not_the_answer(child):
    assert run(child, hostile_calls.fork_and_raise) == signal.SIGKILL
    assert run(child, abs, -1) == 1


def test_how_a_process_ended_is_said(child):
    with pytest.raises(ProcessDied, match=r"ended by signal 6 \(SIGABRT\)"):
        run(child, os.abort)
    with pytest.raises(ProcessDied):  # it stays dead
        run(child, abs, -1)


def test_a_status_is_said(child):
    with pytest.raises(ProcessDied, match="ended with status 7"):
        run(child, os._exit, 7)


def test_processes_of_a_call_end_with_its_timeout(child, tmp_path):
    pids = tmp_path / "pids"
    with pytest.raises(TookTooLong):
        run(child, hostile_calls.start_a_process, str(pids), timeout=3)
    assert ends(int(pids.read_text()))


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="there is no guardian elsewhere")


@LINUX
def test_daemons_of_a_call_end_when_it_crashes(child, tmp_path):
    pids = tmp_path / "pids"
    with pytest.raises(ProcessDied, match=r"ended by signal 6 \(SIGABRT\)"):
        run(child, hostile_calls.die_with_a_daemon, str(pids))
    assert ends(int(pids.read_text()))


@LINUX
def test_daemons_of_a_call_end_when_the_process_is_killed(child, tmp_path):
    pids = tmp_path / "pids"
    killer = threading.Thread(target=lambda: wait_for_text(pids) and child.kill())
    killer.start()
    with pytest.raises(ProcessDied, match="SIGKILL"):
        run(child, hostile_calls.wait_with_a_daemon, str(pids))
    killer.join()
    assert ends(int(pids.read_text()))


@LINUX
def test_daemons_of_a_call_end_when_the_process_is_closed(child, tmp_path):
    pids = tmp_path / "pids"
    run(child, hostile_calls.start_a_daemon, str(pids))
    assert run(child, os.getpid) != child.process.pid  # it lives on, and is no guardian
    child.close()
    assert ends(int(pids.read_text()))


DAEMON = textwrap.dedent(
    """
    import sys
    import cloudpickle, hostile_calls
    from tfnas.runtime.child_process import ChildProcess, import_paths
    child = ChildProcess(import_paths(current_folder=False), "/")
    child.call(cloudpickle.dumps((hostile_calls.wait_with_a_daemon, sys.argv[1:], {})))
    """
)


@LINUX
@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_daemons_of_a_call_end_with_the_process_above(kill, tmp_path):
    pids = tmp_path / "pids"
    parent = subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(pids)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    text = wait_for_text(pids)
    parent.send_signal(kill)
    parent.wait()
    assert ends(int(text))


def test_the_time_of_imports_does_not_count(tmp_path, monkeypatch):
    (tmp_path / "slow_module.py").write_text("import time\ntime.sleep(4)\ndef f(): return 'done'\n")
    monkeypatch.syspath_prepend(tmp_path)
    child = ChildProcess(import_paths(current_folder=False), str(tmp_path))
    try:
        call = b"(cslow_module\nf\n(t}t."  # (slow_module.f, (), {}), which is not imported here
        assert child.call(call, timeout=3) == "done"
    finally:
        child.close()


def test_files_of_the_current_folder_take_no_librarys_place(tmp_path, monkeypatch):
    for name in ("cloudpickle", "struct", "json", "tfnas", "sitecustomize", "importlib"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (tmp_path / "own_module.py").write_text("def f(): return 'own'\n")
    monkeypatch.chdir(tmp_path)
    with TrialProcesses() as executor:
        found, folder = executor.submit(hostile_calls.paths).result(AMPLE)
    assert (folder, str(tmp_path) in found, "" in found) == (str(tmp_path), False, False)
    monkeypatch.setattr(sys, "path", ["", *sys.path])  # as in a notebook
    with TrialProcesses() as executor:
        found, _ = executor.submit(hostile_calls.paths).result(AMPLE)
        assert found.index(str(tmp_path)) == len(found) - 1
    assert str(tmp_path) not in import_paths(current_folder=False)
    assert not (tmp_path / "ran").exists()


FORKS = textwrap.dedent(
    """
    import os, signal, sys, time
    from tfnas.runtime.child_process import ChildProcess, import_paths
    child = ChildProcess(import_paths(current_folder=False), "/")
    if not os.fork():
        time.sleep(100)
        os._exit(0)
    print(child.process.pid, flush=True)
    time.sleep(100)
    """
)


def test_a_forked_process_keeps_no_child_of_its_parent_alive():
    parent = subprocess.Popen(
        [sys.executable, "-c", FORKS],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        pid = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        assert ends(pid)
    finally:
        os.killpg(parent.pid, 9)
        parent.stdout.close()
        parent.wait()


def test_threads_and_descriptors_do_not_pile_up(tmp_path):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    before, threads = descriptors(), threading.active_count()
    for _ in range(3):
        child = ChildProcess(import_paths(current_folder=False), str(tmp_path))
        with pytest.raises(ProcessDied):
            run(child, os.abort)
        child.close()
        child.close()  # does nothing
    assert (descriptors(), threading.active_count()) == (before, threads)
