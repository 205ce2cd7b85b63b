"""What a process leaves that ended by itself, and what one leaves that was ended."""

import faulthandler
import os
import subprocess
import sys

import pytest

from tfnas.runtime import crash_report
from tfnas.runtime.crash_report import crash_reason, crash_reported, knows_of_memory

PROGRAM = """
import ctypes, os, pathlib, signal, sys
from tfnas.runtime.crash_report import crash_reported
with crash_reported(pathlib.Path(sys.argv[1])):
    {}
"""


def run(path, code):
    paths = os.pathsep.join(each for each in sys.path if each)
    program = [sys.executable, "-c", PROGRAM.format(code), str(path)]
    return subprocess.run(
        program, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, timeout=120
    )


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("ctypes.string_at(0)", "segmentation fault"),
        ("os.abort()", "aborted"),
        ("os.kill(os.getpid(), signal.SIGKILL)", None),
        ("os.kill(os.getpid(), signal.SIGTERM)", None),
        ("os.kill(os.getpid(), signal.SIGINT)", None),
        ("raise SystemExit(3)", None),
    ],
)
def test_a_crash_leaves_its_reason_and_an_interruption_none(tmp_path, code, reason):
    path = tmp_path / "crash.txt"
    assert run(path, code).returncode != 0
    assert crash_reason(path) == reason


def test_memory_that_ran_out_is_seen_by_the_count_of_the_kernel(tmp_path, monkeypatch):
    path, machine = tmp_path / "crash.txt", {"boot": "a", "oom_kills": 3}
    monkeypatch.setattr(crash_report, "_machine", lambda: dict(machine))
    kept = tmp_path / "kept.txt"
    with crash_reported(path):
        kept.write_bytes(path.read_bytes())
    assert (crash_reason(kept), knows_of_memory(kept)) == (None, True)
    machine["oom_kills"] = 4
    assert crash_reason(kept) == "out of memory"
    machine["boot"] = "b"  # the machine was lost
    assert (crash_reason(kept), knows_of_memory(kept)) == (None, False)
    machine.clear()  # a system without these counts
    assert (crash_reason(kept), knows_of_memory(kept)) == (None, False)


def test_without_a_crash_nothing_is_left(tmp_path):
    enabled, path = faulthandler.is_enabled(), tmp_path / "crash.txt"

    def interrupted():
        with crash_reported(path), crash_reported(tmp_path / "inner.txt"):
            assert path.exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    assert faulthandler.is_enabled() == enabled
    with crash_reported(tmp_path / "no folder" / "crash.txt"):
        pass
    for text in ("", "[1]\n", "[" * 100_000, '{"oom_kills": "x"}\n', "\0"):
        path.write_text(text)
        assert crash_reason(path) is None
    path.write_bytes(b"\xff\nFatal Python error: Aborted\n")
    assert crash_reason(path) is None
