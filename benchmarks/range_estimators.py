"""CPU seconds to find the ranges of activations by calibration data, and the error of rounding.

    python benchmarks/range_estimators.py [--images=64] [--network=resnet8] [--ranges=mse]

ResNet8 on CIFAR-10 and EfficientNet-Lite0 on ImageNet, in the formats of int8, nothing trained.
"images" calibrate, as many others give the squared error of the quantized model's outputs,
relative to their variance. "CPU s" is of `tfnas.calibrate`, which runs the model once. Writes
benchmarks/results/range_estimators.json.
"""

from __future__ import annotations

import pathlib
import time
from typing import Any

import keras
import numpy as np
import record
from absl import app, flags

import tfnas
from tfnas.quantization.spec import RANGES
from tfnas.table import table

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
DATA = flags.DEFINE_string("shared", str(SHARED), "folder of models and ImageNet's images")
CIFAR = flags.DEFINE_string("cifar", "~/.cache/tfnas/cifar10.npz", "CIFAR-10 as an .npz file")
IMAGES = flags.DEFINE_integer(
    "images", 64, "images that calibrate ResNet8; a quarter for the other"
)
PERCENTILE = flags.DEFINE_float("percentile", 99.99, "for the ranges of that name")
FOUND = [each for each in RANGES if each != "learned"]  # which begins as a moving average
CHOSEN = flags.DEFINE_multi_enum("ranges", FOUND, FOUND, "ways to find ranges")
NETWORKS = flags.DEFINE_multi_enum(
    "network", ["resnet8", "efficientnet"], ["resnet8", "efficientnet"], "networks"
)
SEED = flags.DEFINE_integer("seed", 0, "seed of the choice of images", 0)


def network(name: str) -> tuple[Any, np.ndarray]:
    """A trained model and images in random order."""
    folder = pathlib.Path(DATA.value)
    if name == "resnet8":
        model = keras.saving.load_model(folder / "mlperf_tiny/pretrainedResnet.h5", compile=False)
        with np.load(pathlib.Path(CIFAR.value).expanduser()) as file:
            images, count = file["x_test"].astype(np.float32), IMAGES.value
    else:
        from imagenet import load_images

        path = folder / "efficientnet_lite0_imagenet.keras"
        model, count = keras.saving.load_model(path, compile=False), max(1, IMAGES.value // 4)
        images, _ = load_images(folder / "imagenet_sample_1000_224_jpg.zip")
    order = np.random.default_rng(SEED.value).permutation(len(images))[: 2 * count]
    return model, images[order]


def measured(
    model: Any, ranges: str, images: np.ndarray, others: np.ndarray
) -> tuple[float, float]:
    """CPU seconds of a calibration, and the relative squared error of the outputs."""
    spec = tfnas.QuantSpec(ranges=ranges, percentile=PERCENTILE.value)
    quantized = tfnas.quantize_aware(model, spec)
    tfnas.calibrate(tfnas.quantize_aware(model, spec), images[:1])  # what is loaded once
    began = time.process_time()
    tfnas.calibrate(quantized, images)
    spent = time.process_time() - began
    expected = model.predict(others, verbose=0)
    error = np.square(quantized.predict(others, verbose=0) - expected).mean() / expected.var()
    return spent, float(error)


def main(argv: list[str]) -> None:
    rows = []
    for name in NETWORKS.value:
        model, images = network(name)
        half = len(images) // 2
        for ranges in CHOSEN.value:
            spent, error = measured(model, ranges, images[:half], images[half:])
            rows.append(
                {
                    "network": name,
                    "images": half,
                    "ranges": ranges,
                    "CPU s": f"{spent:.1f}",
                    "error": f"{error:.4f}",
                }
            )
            print(rows[-1], flush=True)
    print(table(list(rows[0]), [list(row.values()) for row in rows]))
    record.write("range_estimators", rows, seed=SEED.value, notes=[f"{PERCENTILE.value}%."])


if __name__ == "__main__":
    app.run(main)
