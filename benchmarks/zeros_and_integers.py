"""Zeros and integers of 4 bits together, without labels and without training.

    python benchmarks/zeros_and_integers.py --network=resnet8 --cifar=CIFAR10.npz
    python benchmarks/zeros_and_integers.py --network=efficientnet [--sparsity=0.5] [--zeros=obs]

The networks and data of ptq4.py. The model is pruned with the calibration images, then converted
with `rounding="second_order"`, which keeps zeros. For each file prints the accuracy with the paired
difference to the float32 file, its bytes (minified) and its bytes after gzip:

- "none": no zeros;
- "obs": --sparsity zeros by `criterion="obs"`, `scope="output"`;
- "2:4", "1x4": as many zeros as 2 of 4, or in blocks of 4, by magnitude, `reconstruct=True`.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import ptq4
import record
from absl import app, flags, logging

import tfnas
from tfnas.measure.accuracy import correct
from tfnas.table import table

SPARSITY = flags.DEFINE_float("sparsity", 0.5, "share of zeros")
ZEROS = flags.DEFINE_list("zeros", ["none", "obs", "2:4", "1x4"], "ways of pruning")


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    model, calibration, x, y = ptq4.problem(0)
    baseline = tfnas.to_tflite(model)
    original = correct(y, baseline.predict(x, threads=2))
    cells = [f"{original.mean():.4f}", "", f"{baseline.size:,}", f"{baseline.gzip_size:,}", ""]
    rows = [["none", "float32", *cells]]
    for way in ZEROS.value:
        began = time.monotonic()
        pruned = zeros(model, way, calibration)
        pruning = time.monotonic() - began
        for mode in ptq4.FORMATS.value:
            began = time.monotonic()
            file = tfnas.to_tflite(pruned, mode, calibration, rounding="second_order").minified()
            seconds = pruning + time.monotonic() - began
            right = correct(y, file.predict(x, threads=2))
            difference = record.points(right, original)
            sizes = [f"{file.size:,}", f"{file.gzip_size:,}", f"{seconds:.0f}"]
            rows.append([way, mode, f"{right.mean():.4f}", difference, *sizes])
            print("  ".join(rows[-1]), flush=True)
    print("\n$ python", " ".join(sys.argv))
    headers = ["zeros", "file", "accuracy", "points to float32 [95%]", "bytes", "gzip", "s"]
    print(table(headers, rows))
    notes = [f"{ptq4.NETWORK.value}: {len(y)} images measure, {ptq4.CALIBRATE.value} calibrate."]
    record.write("zeros_and_integers", record.table_rows(headers, rows), seed=0, notes=notes)


def zeros(model: Any, way: str, calibration: np.ndarray) -> Any:
    """The model with zeros."""
    if way == "none":
        return model
    if way == "obs":
        options: dict[str, Any] = {"criterion": "obs", "scope": "output"}
    else:
        options = {"granularity": way, "reconstruct": True, "exclude": "first"}  # of 3 inputs
    return tfnas.prune(model, SPARSITY.value, data=calibration, **options)[0]


if __name__ == "__main__":
    app.run(main)
