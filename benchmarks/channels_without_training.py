"""Fewer channels without labels and without training: the cut, new statistics, layers fitted again.

    python benchmarks/channels_without_training.py --network=efficientnet [--macs=0.9,0.8,0.7]
    python benchmarks/channels_without_training.py --network=resnet8 --cifar=CIFAR10.npz

EfficientNet-Lite0 on a sample of ImageNet (some images calibrate, the others measure) or MLPerf
Tiny's ResNet8 on CIFAR-10 (training images calibrate, the 10,000 test images measure), as in
ptq4.py. Channels go inside the residual blocks, to a share of the multiply-accumulates. For each
share prints the accuracy of the Keras model with the paired difference to the whole one, and the
seconds that it took:

- "cut": channels of the smallest norm, `tfnas.prune_channels(..., scope="saving")`;
- "recalibrated": the same with BatchNormalization measured anew;
- "fitted": the same channels, `reconstruct=True`;
- "obs": channels by `criterion="obs"`, `reconstruct=True`.

Labels serve for the measurement alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import ptq4
import record
from absl import app, flags, logging

import tfnas
from tfnas.compression.techniques.channel_sizes import shared_layers
from tfnas.measure.accuracy import correct
from tfnas.table import table

MACS = flags.DEFINE_list("macs", ["0.9", "0.8", "0.7"], "shares of the multiply-accumulates")
ONLY = flags.DEFINE_list("only", ["cut", "recalibrated", "fitted", "obs"], "rows")


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    model, calibration, x, y = ptq4.problem(0)
    original = correct(y, predicted(model, x))
    rows = [["1.000", "whole", f"{original.mean():.4f}", "", ""]]
    print("  ".join(rows[0]), flush=True)
    for share in map(float, MACS.value):
        for name, make in ways(model, share, calibration).items():
            began = time.monotonic()
            smaller, report = make()
            seconds = time.monotonic() - began
            right = correct(y, predicted(smaller, x))
            difference = record.points(right, original)
            macs = f"{report.macs[1] / report.macs[0]:.3f}"
            rows.append([macs, name, f"{right.mean():.4f}", difference, f"{seconds:.0f}"])
            print("  ".join(rows[-1]), flush=True)
    print("\n$ python", " ".join(sys.argv))
    headers = ["MACs", "way", "accuracy", "points to whole [95%]", "s"]
    print(table(headers, rows))
    notes = [f"{ptq4.NETWORK.value}: {len(y)} images measure, {ptq4.CALIBRATE.value} calibrate."]
    found = record.table_rows(headers, rows)
    record.write("channels_without_training", found, seed=0, notes=notes)


def ways(model: Any, share: float, calibration: np.ndarray) -> dict[str, Callable[[], Any]]:
    """What makes each smaller model, by the name of its row."""
    by_norm = {"target_macs": share, "scope": "saving", "exclude": shared_layers(model)}
    by_error = {**by_norm, "scope": "global", "criterion": "obs"}
    fitted = {"reconstruct": True, "data": calibration}

    def recalibrated() -> Any:
        smaller, report = tfnas.prune_channels(model, **by_norm)
        return tfnas.recalibrate_batchnorm(smaller, calibration), report

    found = {
        "cut": lambda: tfnas.prune_channels(model, **by_norm),
        "recalibrated": recalibrated,
        "fitted": lambda: tfnas.prune_channels(model, **by_norm, **fitted),
        "obs": lambda: tfnas.prune_channels(model, **by_error, **fitted),
    }
    return {name: make for name, make in found.items() if name in ONLY.value}


def predicted(model: Any, x: np.ndarray) -> np.ndarray:
    return np.asarray(model.predict(x, batch_size=64, verbose=0))


if __name__ == "__main__":
    app.run(main)
