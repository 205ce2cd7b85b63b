"""EfficientNet-Lite0 as float and integer files, without training, on a sample of ImageNet.

    python benchmarks/ptq_imagenet.py [--calibration=200] [--counts=20,50,100] [--percentiles=99.99]

Some images calibrate, the others measure; labels serve for the measurement alone. Prints
accuracy of each `.tflite` file with the paired difference to the float32 file, the share of
images whose class changed, bytes and seconds of conversion:

- float32, and int8 and int16x8 as the converter calibrates them;
- int8 with fewer calibration images (--counts), to separate a setting's effect from chance;
- with ranges of our own roundings, `tfnas.quantize_aware(model, data=...)` untrained: the
  least and largest values of all, and percentiles of each batch;
- the same where what rounding moves is moved back in BatchNormalization ("corrected",
  `tfnas.correct_bias`).

What can't be converted gets a line with the reason.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import record
from absl import app, flags, logging
from imagenet import load_images

import tfnas
from tfnas.measure.accuracy import correct
from tfnas.table import table

_SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
DATA = flags.DEFINE_string("data", str(_SHARED), "folder of the model and the images")
CALIBRATION = flags.DEFINE_integer("calibration", 200, "images that calibrate")
IMAGES = flags.DEFINE_integer("images", 1000, "images in all, calibration included")
COUNTS = flags.DEFINE_list("counts", ["20", "50", "100"], "fewer calibration images, for int8")
PERCENTILES = flags.DEFINE_list("percentiles", ["99.99"], "for our own roundings")
MODES = flags.DEFINE_list("modes", ["int8", "int16x8"], "modes that the converter calibrates")
SEED = flags.DEFINE_integer("seed", 0, "seed of the split")
THREADS = flags.DEFINE_integer("threads", 1, "threads of the interpreter")
TARGETS = {"int8": "loss <= 0.5", "int16x8": "loss <= 0.2"}


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    began = time.monotonic()
    folder = pathlib.Path(DATA.value)
    model = keras.saving.load_model(folder / "efficientnet_lite0_imagenet.keras", compile=False)
    x, labels = load_images(folder / "imagenet_sample_1000_224_jpg.zip")
    order = np.random.default_rng(SEED.value).permutation(len(x))[: IMAGES.value]
    calibration, rest = x[order[: CALIBRATION.value]], order[CALIBRATION.value :]
    held, y = x[rest], labels[rest]
    baseline = tfnas.to_tflite(model)
    original = baseline.predict(held, threads=THREADS.value)
    rows = [row("float32", baseline, original, original, y, 0.0)]
    refused = []
    for name, make in ways(model, calibration).items():
        start = time.monotonic()
        try:
            file = make()
        except tfnas.ConversionError as error:
            refused.append(f"{name}: {error}")
            print(refused[-1], flush=True)
            continue
        spent = time.monotonic() - start
        found = file.predict(held, threads=THREADS.value)
        rows.append(row(name, file, found, original, y, spent))
    print("\n$ python", " ".join(sys.argv))
    headers = ["file", "accuracy", "points to float32 [95%]", "changed", "bytes", "s", "target"]
    print(table(headers, rows))
    notes = [f"{len(y)} images.", *(f"{line}." for line in refused)]
    record.write("ptq_imagenet", record.table_rows(headers, rows), seed=SEED.value, notes=notes)
    print(*refused, sep="\n", end="\n" if refused else "")
    print(f"{len(y)} images, {time.monotonic() - began:.0f} s in all")


def ways(model: Any, calibration: np.ndarray) -> dict[str, Callable[[], tfnas.Artifact]]:
    """What makes each file, by the name of its line."""
    found: dict[str, Callable[[], tfnas.Artifact]] = {}
    for mode in MODES.value:
        found[mode] = lambda mode=mode: tfnas.to_tflite(model, mode, calibration)
    for count in map(int, COUNTS.value):
        found[f"int8, {count} images"] = lambda count=count: tfnas.to_tflite(
            model, "int8", calibration[:count]
        )
    specs = {f"{mode}, own ranges": tfnas.QuantSpec.of(mode) for mode in MODES.value}
    for share in map(float, PERCENTILES.value):
        specs[f"int8, own ranges, {share}%"] = tfnas.QuantSpec(
            ranges="percentile", percentile=share
        )
    for name, spec in specs.items():
        found[name] = lambda spec=spec: tfnas.to_tflite(
            tfnas.quantize_aware(model, spec, data=calibration), spec
        )
    for mode in MODES.value:
        spec = dataclasses.replace(tfnas.QuantSpec.of(mode), correct=True)
        found[f"{mode}, corrected"] = lambda spec=spec: tfnas.to_tflite(model, spec, calibration)
    return found


def row(
    name: str,
    file: tfnas.Artifact,
    found: np.ndarray,
    original: np.ndarray,
    labels: np.ndarray,
    seconds: float,
) -> list[str]:
    """A line of the table."""
    right, before = correct(labels, found), correct(labels, original)
    cells = [
        name,
        f"{right.mean():.4f}",
        record.points(right, before),
        f"{(found.argmax(1) != original.argmax(1)).mean():.2%}",
        f"{file.size:,}",
        f"{seconds:.0f}",
        TARGETS.get(name.split(",")[0], ""),
    ]
    print("  ".join(cells), flush=True)
    return cells


if __name__ == "__main__":
    app.run(main)
