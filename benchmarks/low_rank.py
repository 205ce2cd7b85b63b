"""Accuracy against MACs of low-rank factorization, without training, on two trained networks.

    python benchmarks/low_rank.py [--models=resnet8,efficientnet] [--targets=0.9,0.8,0.7,0.6,0.5]

MLPerf Tiny's ResNet8 on CIFAR-10's test images, and EfficientNet-Lite0 on a sample of ImageNet.
Some images calibrate (of CIFAR-10 training images), labels serve for the measurement alone.
The ways, each by `tfnas.factorize(model, target_macs=...)`:

- SVD of the kernels: Dense and 1 x 1 as two layers, k x k as k x 1 and 1 x k;
- the same, data-aware: the output's error on the calibration images is kept small;
- Tucker-2 for k x k, SVD for the rest, without and with data;
- best: spatial or Tucker-2 layer by layer, with data.

Prints for each way and target the MACs, the float32 `.tflite` file's accuracy as it is and with
BatchNormalization measured anew on the calibration images ("+BN"), the latter's paired
difference to the original network, and the file's time as a ratio to the original's, all
files interleaved.
"""

from __future__ import annotations

import pathlib
import sys
import time
import warnings
from typing import Any

import keras
import numpy as np
import record
from absl import app, flags, logging
from imagenet import load_images

import tfnas
from tfnas.low_rank.factorize import factorize
from tfnas.measure.accuracy import correct
from tfnas.table import table

_SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
MODELS = flags.DEFINE_list("models", ["resnet8", "efficientnet"], "which networks")
RESNET8 = flags.DEFINE_string(
    "resnet8", str(_SHARED / "mlperf_tiny/pretrainedResnet.h5"), "the trained ResNet8"
)
CIFAR = flags.DEFINE_string("cifar10", "~/.cache/tfnas/cifar10.npz", "CIFAR-10 as an .npz file")
EFFICIENTNET = flags.DEFINE_string(
    "efficientnet", str(_SHARED / "efficientnet_lite0_imagenet.keras"), "the EfficientNet-Lite0"
)
IMAGENET = flags.DEFINE_string(
    "imagenet", str(_SHARED / "imagenet_sample_1000_224_jpg.zip"), "its images"
)
TARGETS = flags.DEFINE_list("targets", ["0.9", "0.8", "0.7", "0.6", "0.5"], "shares of the MACs")
WAYS = flags.DEFINE_list("ways", [], "some of the ways; none: all")
CALIBRATION = flags.DEFINE_integer("calibration", 200, "images that calibrate")
IMAGES = flags.DEFINE_integer("images", None, "images that measure; none: all others")
ROUNDS = flags.DEFINE_integer("rounds", 20, "rounds of the time's measurement; 0: none")
THREADS = flags.DEFINE_integer("threads", 1, "threads of the interpreter for accuracy")
SEED = flags.DEFINE_integer("seed", 0, "seed of the split")

# way -> (methods, whether data weighs)
_WAYS = {
    "svd": (("svd", "spatial"), False),
    "data-aware svd": (("svd", "spatial"), True),
    "tucker": (("svd", "tucker"), False),
    "data-aware tucker": (("svd", "tucker"), True),
    "best": (("svd", "spatial", "tucker"), True),
}
_HEADERS = [
    *("way", "target", "MACs", "accuracy", "+BN", "points of +BN to the original [95%]"),
    *("time", "layers"),
]


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    # ResNet8's file says that its inputs are a list of one; Keras warns of a bare array.
    warnings.filterwarnings("ignore", "The structure of `inputs` doesn't match")
    began = time.monotonic()
    loaders = {"resnet8": resnet8, "efficientnet": efficientnet}
    tables = {name: compare(name, *loaders[name]()) for name in MODELS.value}
    print("\n$ python", " ".join(sys.argv))
    for name, (summary, rows) in tables.items():
        print(f"\n{name}: {summary}")
        print(table(_HEADERS, rows))
    print(f"\n{time.monotonic() - began:.0f} s in all")
    found = {
        f"{name}: {summary}": record.table_rows(_HEADERS, rows)
        for name, (summary, rows) in tables.items()
    }
    record.write("low_rank", found, seed=SEED.value)


def compare(
    name: str, model: Any, calibration: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[str, list[list[str]]]:
    """What is compared in a line, and the rows of its table."""
    baseline = tfnas.to_tflite(model)
    before = correct(y, baseline.predict(x, threads=THREADS.value))
    macs = tfnas.profile(model).macs
    rows, files = [], [baseline]
    for way in WAYS.value or _WAYS:
        methods, weighs = _WAYS[way]
        for target in map(float, TARGETS.value):
            data = calibration if weighs else None
            try:
                smaller, report = factorize(model, target_macs=target, data=data, methods=methods)
            except ValueError as error:
                print(f"{name}, {way}, {target}: {error}", flush=True)
                continue
            plain = correct(y, tfnas.to_tflite(smaller).predict(x, threads=THREADS.value))
            files.append(tfnas.to_tflite(tfnas.recalibrate_batchnorm(smaller, calibration)))
            right = correct(y, files[-1].predict(x, threads=THREADS.value))
            rows.append(
                [
                    *(way, f"{target:g}", f"{report.macs[1] / macs:.3f}", f"{plain.mean():.4f}"),
                    *(f"{right.mean():.4f}", record.points(right, before)),
                    *("", str(len(report.layers))),
                ]
            )
            print("  ".join([name, *rows[-1]]), flush=True)
    if ROUNDS.value:
        times = tfnas.benchmark(files, rounds=ROUNDS.value)
        for row, found in zip(rows, times[1:], strict=True):
            row[6] = f"{found.ratio / times[0].ratio:.3f}x"
    summary = f"{macs:,} MACs, {len(y)} images, accuracy of the original {before.mean():.4f}"
    return summary, rows


def resnet8() -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """The network, images that calibrate, and those that measure with their labels."""
    model = keras.saving.load_model(RESNET8.value, compile=False)
    with np.load(pathlib.Path(CIFAR.value).expanduser()) as file:
        train, x, y = (file[key] for key in ("x_train", "x_test", "y_test"))
    order = np.random.default_rng(SEED.value).permutation(len(train))[: CALIBRATION.value]
    x, y = x[: IMAGES.value], y.reshape(-1)[: IMAGES.value]
    return model, train[order].astype(np.float32), x.astype(np.float32), y


def efficientnet() -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """As :func:`resnet8`."""
    model = keras.saving.load_model(EFFICIENTNET.value, compile=False)
    x, labels = load_images(pathlib.Path(IMAGENET.value))
    order = np.random.default_rng(SEED.value).permutation(len(x))
    split = CALIBRATION.value
    rest = order[split:] if IMAGES.value is None else order[split : split + IMAGES.value]
    return model, x[order[:split]], x[rest], labels[rest]


if __name__ == "__main__":
    app.run(main)
