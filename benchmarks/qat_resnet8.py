"""MLPerf Tiny's ResNet8 on CIFAR-10 as integer files: post-training, and trained for it.

    python benchmarks/qat_resnet8.py [--seeds=3] [--epochs=5] [--modes=int8,int8x4]

Starts from the reference's trained weights. Training sees flipped and shifted images; its
targets are the labels mixed with what the float model says to the same image (--distill).
The weights of the last step are exported, with BatchNormalization measured anew on training
images as they are (weights that jump between two steps of 4 bits leave its moving averages
behind: Nagel et al., "Overcoming Oscillations in Quantization-Aware Training", ICML 2022).
The test images are looked at once, at the end.

With --validation=5000 that many training images are held out and measured on instead of the
test images, to compare recipes. The float model has seen them: accuracies are too high, and a
recipe that strays from it looks worse than it is. The mode "float32" trains the float model
in the same way, to separate the effect of more training from that of rounding:
--modes=float32,int8,int8x4 --rates=1e-4,1e-4,5e-4.

Prints accuracy on all images of the float32 file, of int8 after training, and of each mode
and seed of quantization-aware training, with the paired difference to the float32 file, the
share of images whose class changed, and the target.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import Any

import keras
import numpy as np
import record
import resnet8
from absl import app, flags, logging

import tfnas
from tfnas.measure.accuracy import correct
from tfnas.table import table

SEEDS = flags.DEFINE_integer("seeds", 3, "number of seeds")
MODES = flags.DEFINE_list("modes", ["int8", "int8x4"], "what is trained for")
EPOCHS = flags.DEFINE_integer("epochs", 5, "epochs of training")
CALIBRATION = flags.DEFINE_integer("calibration", 500, "images that set the first ranges")
RATES = flags.DEFINE_list("rates", ["1e-4", "5e-4"], "Adam's rate at its start, of each mode")
DISTILL = flags.DEFINE_float("distill", 0.5, "share of the float model in the targets, 0 to 1")
BATCH = flags.DEFINE_integer("batch", 128, "images a step")
SHIFT = flags.DEFINE_integer("shift", 4, "pixels an image is moved by at most")
RANGES = flags.DEFINE_string("ranges", "moving_average", "how training finds ranges")
RECALIBRATE = flags.DEFINE_integer(
    "recalibrate", 2000, "training images that BatchNormalization is measured on at the end"
)
TARGETS = {"int8": 0.872, "int8x4": 0.862, "PTQ int8": 0.870}


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    began = time.monotonic()
    teacher = resnet8.load_model()
    x, y, held, held_labels = resnet8.load_images()
    calibration = x[: CALIBRATION.value].astype(np.float32)
    baseline = tfnas.to_tflite(teacher)
    original = baseline.predict(held)
    rows = [row("float32", baseline, original, original, held_labels)]
    file = tfnas.to_tflite(teacher, "int8", calibration)
    rows.append(row("PTQ int8", file, file.predict(held), original, held_labels))
    for mode, rate in zip(MODES.value, map(float, RATES.value), strict=True):
        if mode != "float32":
            file = tfnas.to_tflite(start_of(mode, teacher, calibration), mode)
            rows.append(row(f"{mode}, untrained", file, file.predict(held), original, held_labels))
        for seed in range(SEEDS.value):
            start = time.monotonic()
            keras.utils.set_random_seed(seed)
            model = start_of(mode, teacher, calibration)
            train(model, teacher, rate, x, y, seed)
            file = tfnas.to_tflite(model, mode)
            name = f"{mode}, seed {seed}, {time.monotonic() - start:.0f} s"
            found = file.predict(held)
            rows.append(row(name, file, found, original, held_labels, TARGETS.get(mode)))
    print("\n$ python", " ".join(sys.argv))
    headers = ["file", "accuracy", "points to float [95%]", "changed", "bytes", "gzip", "target"]
    print(table(headers, rows))
    notes = [f"{len(held)} images."]
    record.write("qat_resnet8", record.table_rows(headers, rows), seed=0, notes=notes)
    print(f"{len(held)} images, {time.monotonic() - began:.0f} s in all")


def start_of(mode: str, teacher: Any, calibration: np.ndarray) -> Any:
    """The model that training starts from."""
    if mode == "float32":
        model = keras.models.clone_model(teacher)
        model.set_weights(teacher.get_weights())
        return model
    spec = dataclasses.replace(tfnas.QuantSpec.of(mode), ranges=RANGES.value)
    return tfnas.quantize_aware(teacher, spec, data=calibration)


def train(model: Any, teacher: Any, rate: float, x: np.ndarray, y: np.ndarray, seed: int) -> None:
    """Quantization-aware training, in place."""
    recipe = {"batch": BATCH.value, "shift": SHIFT.value, "distill": DISTILL.value}
    resnet8.train(model, teacher, rate, x, y, seed, EPOCHS.value, **recipe)
    if RECALIBRATE.value:
        tfnas.recalibrate_batchnorm(model, x[: RECALIBRATE.value].astype(np.float32))


def row(
    name: str,
    file: tfnas.Artifact,
    found: np.ndarray,
    original: np.ndarray,
    labels: np.ndarray,
    target: float | None = None,
) -> list[str]:
    """A line of the table."""
    right, before = correct(labels, found), correct(labels, original)
    changed = (found.argmax(1) != original.argmax(1)).mean()
    target = target or TARGETS.get(name)
    cells = [
        name,
        f"{right.mean():.4f}",
        record.points(right, before),
        f"{changed:.2%}",
        f"{file.size:,}",
        f"{file.gzip_size:,}",
        f">= {target}" if target else "",
    ]
    print("  ".join(cells), flush=True)
    return cells


if __name__ == "__main__":
    app.run(main)
