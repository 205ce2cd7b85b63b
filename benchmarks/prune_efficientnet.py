"""EfficientNet-Lite0 with zeros, no labels and no training, on a sample of ImageNet.

    python benchmarks/prune_efficientnet.py [--sparsities=0.3,0.4,0.5,0.6,0.7]

256 images calibrate, the others measure; labels serve for the measurement alone. Zeros are
counted over all kernels, depthwise and Dense included. Prints the accuracy of the Keras model

- pruned by magnitude, the same share of every kernel ("one shot");
- the same with BatchNormalization measured anew ("recalibrated");
- pruned by optimal brain surgeon with shares by output error and the kept weights fitted,
  `tfnas.prune(..., criterion="obs")` ("fitted");

with the paired difference to the unpruned model, and the float32 `.tflite` file's accuracy
at the sparsity of --convert.
"""

from __future__ import annotations

import pathlib
import sys
import time
from typing import Any

import keras
import numpy as np
import record
from absl import app, flags
from imagenet import load_images

import tfnas
from tfnas.measure.accuracy import correct
from tfnas.pruning.allocation import distribute, measure_curves
from tfnas.pruning.prunable_kernels import find_kernels
from tfnas.table import table

_SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
DATA = flags.DEFINE_string("data", str(_SHARED), "folder of the model and the images")
SPARSITIES = flags.DEFINE_list("sparsities", ["0.3", "0.4", "0.5", "0.6", "0.7"], "shares of zeros")
CONVERT = flags.DEFINE_float("convert", 0.5, "the sparsity that is converted; 0: none")
IMAGES = flags.DEFINE_integer("images", 256, "calibration images")
COPIES = flags.DEFINE_integer("copies", 1, "calibration: each image, and copies - 1 changed ones")
SEED = flags.DEFINE_integer("seed", 0, "seed of the split")


def main(argv: list[str]) -> None:
    began = time.monotonic()
    folder = pathlib.Path(DATA.value)
    model = keras.saving.load_model(folder / "efficientnet_lite0_imagenet.keras", compile=False)
    x, labels = load_images(folder / "imagenet_sample_1000_224_jpg.zip")
    order = np.random.default_rng(SEED.value).permutation(len(x))
    chosen, rest = order[: IMAGES.value], order[IMAGES.value :]
    held, y = x[rest], labels[rest]
    calibration = tfnas.data.augmented(x[chosen], COPIES.value, seed=SEED.value)
    original = correct(y, predicted(model, held))
    print(f"float: {original.mean():.4f} of {len(y)} images", flush=True)
    kernels, _ = find_kernels(model)
    curves = measure_curves(model, kernels, calibration)
    print(f"curves measured: {time.monotonic() - began:.0f} s", flush=True)
    rows = []
    for sparsity in map(float, SPARSITIES.value):
        pruned, report = tfnas.prune(model, sparsity)
        rows.append(row(pruned, report, "one shot", held, y, original))
        tfnas.recalibrate_batchnorm(pruned, calibration)
        rows.append(row(pruned, report, "recalibrated", held, y, original))
        start = time.monotonic()
        ratios = distribute(curves, sparsity, sum(kernel.size for kernel in kernels))
        pruned, report = tfnas.prune(model, criterion="obs", scope=ratios, data=calibration)
        name = f"fitted, {time.monotonic() - start:.0f} s"
        rows.append(row(pruned, report, name, held, y, original))
        if sparsity == CONVERT.value:
            file = tfnas.to_tflite(pruned)
            print(f"{sparsity:.0%} as .tflite: {tfnas.evaluate(file, held, y)}", flush=True)
            print(report)
    print("\n$ python", " ".join(sys.argv))
    headers = ["zeros", "way", "accuracy", "points to float [95%]"]
    print(table(headers, rows))
    notes = [
        f"Float: {original.mean():.4f} of {len(y)} images; {IMAGES.value} images calibrate, "
        f"{COPIES.value} copies of each."
    ]
    record.write(
        "prune_efficientnet", record.table_rows(headers, rows), seed=SEED.value, notes=notes
    )
    print(f"{time.monotonic() - began:.0f} s in all")


def row(
    pruned: Any, report: Any, name: str, x: np.ndarray, y: np.ndarray, original: np.ndarray
) -> list[str]:
    """A line of the table."""
    right = correct(y, predicted(pruned, x))
    cells = [f"{report.sparsity:.2%}", name, f"{right.mean():.4f}"]
    print("  ".join(cells), flush=True)
    return [*cells, record.points(right, original)]


def predicted(model: Any, x: np.ndarray) -> np.ndarray:
    return model.predict(x, batch_size=64, verbose=0)


if __name__ == "__main__":
    app.run(main)
