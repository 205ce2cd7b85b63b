"""Known defects: each test asserts what is right and is expected to fail until it is repaired.

The mark is strict: a test that passes fails the suite, until its mark is removed.
"""

import os
import subprocess
import sys

import pytest


@pytest.fixture
def python():
    """Runs code in a process of its own, so that a crash does not end the tests."""

    def run(code, timeout=120):
        quiet = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
        return subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **quiet},
        )

    return run
