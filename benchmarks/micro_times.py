"""Times of files in TFLite Micro on this computer, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import tfnas

# Seconds of CPU of an inference, the median of rounds in which the files take turns.
_TIMES = """
import json, pathlib, sys, time
import numpy as np
from tflite_micro import runtime
files = [runtime.Interpreter.from_bytes(pathlib.Path(p).read_bytes(), arena_size=1 << 20)
         for p in sys.argv[1:]]
times = [[] for _ in files]
for _ in range(21):
    for file, found in zip(files, times):
        details = file.get_input_details(0)
        file.set_input(np.zeros(details["shape"], details["dtype"]), 0)
        began = time.process_time()
        file.invoke()
        found.append(time.process_time() - began)
print(json.dumps([float(np.median(each)) for each in times]))
"""


def micro_seconds(files: Sequence[tfnas.Artifact]) -> list[float]:
    """Returns the CPU seconds of an inference of each file.

    Args:
        files: Files for a fixed batch, which take turns.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{place}.tflite" for place in range(len(files))]
        for path, file in zip(paths, files, strict=True):
            file.save(path)
        command = [sys.executable, "-c", _TIMES, *paths]
        done = subprocess.run(command, check=True, capture_output=True)
    return [float(seconds) for seconds in json.loads(done.stdout)]
