"""Programs that end with the process that has started them."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tfnas.runtime.guardian import ending_with_this_process, is_supported

_STARTS = """
import subprocess, sys, time
from tfnas.runtime.guardian import ending_with_this_process
code = "import time; print(1, flush=True); time.sleep(60)"
command = ending_with_this_process([sys.executable, "-c", code])
with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as program:
    program.stdout.readline()
    print(program.pid, flush=True)
    time.sleep(60)
"""


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not is_supported(), reason="the kernel ends no program with another")
def test_a_program_ends_with_a_process_that_was_killed():
    with subprocess.Popen([sys.executable, "-c", _STARTS], stdout=subprocess.PIPE) as above:
        pid = int(above.stdout.readline())
        assert is_running(pid)
        os.kill(above.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(pid)


def test_the_program_has_its_arguments_and_its_exit_code():
    code = "import sys; print(sys.argv[1:]); sys.exit(3)"
    command = ending_with_this_process([sys.executable, "-c", code, "a b", "--c=d"])
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (3, "['a b', '--c=d']")
