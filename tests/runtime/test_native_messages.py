"""Messages of native code stay out of the terminal; all else stays in."""

import logging
import os
import shutil
import subprocess
import sys

import pytest

from tfnas.runtime.native_messages import native_messages_hidden

pytestmark = pytest.mark.skipif(
    shutil.which("grep") is None or not hasattr(os, "posix_spawn"), reason="needs grep"
)
HIDDEN = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795982208.437621    1397 devices.cc:67] Number of eligible GPUs",
    "W0000 00:00:1795982208.371868    1397 tf_tfl_flatbuffer_helpers.cc:364] Ignored output_format",
    "E0000 00:00:1795982206.364852    1397 cuda_platform.cc:52] failed call to cuInit",
    "2026-11-29 19:57:00.123456: W tensorflow/core/x.cc:1] a warning",
    "To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow",
    "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.",
    "fully_quantize: 0, inference_type: 6, input_inference_type: INT8",
]
SHOWN = [
    "F0000 00:00:1795982208.371868    1397 status.cc:1] Check failed: why it crashed",
    "Fatal Python error: Aborted",
    "a line of the user's own, as I0000 is",
    "INFO: a job began",
    "bytes \udcff of no encoding",
]


def write(lines):
    for line in lines:
        os.write(2, f"{line}\n".encode(errors="surrogateescape"))


def test_messages_are_hidden_and_other_lines_are_not(capfd):
    before = os.fstat(2).st_ino
    with native_messages_hidden():
        with native_messages_hidden():  # as where a conversion runs a file
            write(HIDDEN)
            write(SHOWN)
        write(HIDDEN)
    assert os.fstat(2).st_ino == before
    write(HIDDEN[:1])
    shown = capfd.readouterr().err.splitlines()
    assert [each.encode(errors="replace") for each in shown[:-1]] == [
        each.encode(errors="surrogateescape").decode(errors="replace").encode(errors="replace")
        for each in SHOWN
    ]
    assert shown[-1] == HIDDEN[0]


def test_nothing_is_hidden_where_all_is_logged(capfd):
    log = logging.getLogger("tfnas")
    level = log.level
    log.setLevel(logging.DEBUG)
    try:
        with native_messages_hidden():
            write(HIDDEN)
    finally:
        log.setLevel(level)
    assert capfd.readouterr().err.splitlines() == HIDDEN


def test_without_grep_all_is_shown(capfd, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with native_messages_hidden():
        write(HIDDEN)
    assert capfd.readouterr().err.splitlines() == HIDDEN


CRASH = """
import os
from tfnas.runtime.native_messages import native_messages_hidden
with native_messages_hidden():
    os.write(2, b"I0000 00:00:1.0 1 a.cc:1] hidden\\nF0000 00:00:1.0 1 a.cc:1] the reason\\n")
    os.write(2, b"x" * 200_000 + b"\\n")  # more than a pipe holds
    {end}
"""


@pytest.mark.parametrize(("end", "code"), [("os.abort()", -6), ("os._exit(3)", 3)])
def test_the_last_words_of_a_crash_are_shown(end, code):
    argv = [sys.executable, "-c", CRASH.format(end=end)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stderr.splitlines()[:2] == ["F0000 00:00:1.0 1 a.cc:1] the reason", "x" * 200_000]
    assert "hidden" not in done.stderr


CLOSED = """
import os
from tfnas.runtime.native_messages import native_messages_hidden
os.close(2)
with native_messages_hidden():
    print("ran")
"""


def test_a_process_without_stderr_runs_too():
    done = subprocess.run(
        [sys.executable, "-c", CLOSED], capture_output=True, text=True, check=True
    )
    assert done.stdout == "ran\n"


def test_a_forked_process_has_its_own_stderr(capfd):
    with native_messages_hidden():
        process = os.fork()
        if not process:
            write(HIDDEN[:1])
            os._exit(0)
        os.waitpid(process, 0)
    assert capfd.readouterr().err.splitlines() == HIDDEN[:1]
