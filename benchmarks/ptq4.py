"""Four bits without training: rounding by second moments beside rounding to nearest.

    python benchmarks/ptq4.py --network=efficientnet [--calibrate=256] [--draws=3]
    python benchmarks/ptq4.py --network=resnet8 --cifar=CIFAR10.npz

EfficientNet-Lite0 on a sample of ImageNet (some images calibrate, the others measure) or MLPerf
Tiny's ResNet8 on CIFAR-10 (training images calibrate, the 10,000 test images measure). No labels
and no training but for the measurement. For each draw of calibration images, and for each way,
prints the accuracy of the `.tflite` file with the paired difference to the float32 file, the share
of its answers that differ, the divergence of its probabilities (in thousandths of a nat; it tells
files apart whose answers are nearly the same), bytes (minified), and the seconds of the whole
conversion:

- int8 and int8x4 with weights rounded to nearest, and with biases corrected;
- the same with `rounding="second_order"`;
- ai-edge-quantizer's recipes with scales by least and largest weight, OCTAV and MSE for
  convolutions and fully connected layers, and its GPTQ for fully connected layers (it refuses
  others) with OCTAV for the rest;
- int8x4 with other shares of the weights at 8 bits (--shares), the curve between 4 and 8 bits.

With --copies=1,3 each way has a row with the calibration images as they are, and one with two more
copies of each, mirrored at random and moved (`tfnas.data.augmented`).
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
from tfnas.graph.divergence import divergence
from tfnas.measure.accuracy import correct
from tfnas.table import table

_SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
FOLDER = flags.DEFINE_string("shared", str(_SHARED), "folder of the models and the images")
NETWORK = flags.DEFINE_enum("network", "resnet8", ["efficientnet", "resnet8"], "the model")
CIFAR = flags.DEFINE_string("cifar", "~/.cache/tfnas/cifar10.npz", "CIFAR-10, for resnet8")
CALIBRATE = flags.DEFINE_integer("calibrate", 256, "images that calibrate")
MEASURE = flags.DEFINE_integer("measure", 10_000, "images that measure, at most")
DRAWS = flags.DEFINE_integer("draws", 1, "draws of calibration images")
FIRST = flags.DEFINE_integer("first_draw", 0, "number of the first one, its seed")
FORMATS = flags.DEFINE_list("formats", ["int8", "int8x4"], "number formats")
WAYS = flags.DEFINE_list(
    "ways",
    ["nearest", "corrected", "second_order", "min_max", "OCTAV", "MSE", "GPTQ"],
    "ways of rounding; those after second_order are ai-edge-quantizer's",
)
SHARES = flags.DEFINE_list("shares", [], "shares of the weights at 8 bits, for the first draw")
COPIES = flags.DEFINE_list("copies", ["1"], "augmented calibration: copies of each image")
THREADS = 2  # threads of the interpreter


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    rows: list[list[str]] = []
    layers: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for draw in range(FIRST.value, FIRST.value + DRAWS.value):
        model, calibration, x, y = problem(draw)
        baseline = tfnas.to_tflite(model)
        expected = np.asarray(baseline.predict(x, threads=THREADS))
        original = correct(y, expected)
        cells = [f"{original.mean():.4f}", "", "", "", f"{baseline.size:,}", ""]
        rows.append([str(draw), "float32", *cells])
        makers: dict[str, Callable[[], tfnas.Artifact]] = {}
        for copies in map(int, COPIES.value):
            more = tfnas.data.augmented(calibration, copies, seed=draw)
            suffix = "" if copies == 1 else f", {copies} copies"
            makers |= {f"{name}{suffix}": make for name, make in ways(model, more).items()}
        makers |= recipes(baseline, calibration)
        makers |= {} if draw else curve(model, calibration)
        for name, make in makers.items():
            began = time.monotonic()
            try:
                file = make().minified()
            except (ValueError, tfnas.ConversionError) as error:
                failed[name] = str(error)
                continue
            seconds = time.monotonic() - began
            found = np.asarray(file.predict(x, threads=THREADS))
            size = [f"{file.size:,}", f"{seconds:.0f}"]
            rows.append([str(draw), name, *compared(y, expected, found), *size])
            print("  ".join(rows[-1]), flush=True)
            layers[f"{name}, draw {draw}"] = file.origin.get("rounding", [])
    print("\n$ python", " ".join(sys.argv))
    headers = ["draw", "file", "accuracy", "points to float32 [95%]", "changed", "mnat"]
    headers += ["bytes", "s"]
    print(table(headers, rows))
    notes = [f"{NETWORK.value}: {len(y)} images measure, {CALIBRATE.value} calibrate."]
    notes += [f"{name}: {reason}" for name, reason in failed.items()]
    tables = record.table_rows(headers, rows)
    record.write("ptq4", tables, seed=0, notes=notes, layers=layers)


def compared(y: np.ndarray, expected: np.ndarray, found: np.ndarray) -> list[str]:
    """Accuracy, paired difference, share of changed answers, and divergence, as cells.

    Args:
        y: The right classes.
        expected: Outputs of the float32 file.
        found: Those of another file.
    """
    right = correct(y, found)
    changed = float((expected.argmax(1) != found.argmax(1)).mean())
    nats = divergence([expected], [found])
    difference = record.points(right, correct(y, expected))
    return [f"{right.mean():.4f}", difference, f"{changed:.2%}", f"{1000 * nats:.2f}"]


def ways(model: Any, calibration: np.ndarray) -> dict[str, Callable[[], tfnas.Artifact]]:
    """What makes each file, by the name of its row."""
    found: dict[str, Callable[[], tfnas.Artifact]] = {}
    for mode in FORMATS.value:
        spec = tfnas.QuantSpec.of(mode)
        specs = {
            "nearest": spec,
            "corrected": dataclasses.replace(spec, correct=True),
            "second_order": dataclasses.replace(spec, rounding="second_order"),
        }
        for way in (name for name in WAYS.value if name in specs):
            found[f"{mode}, {way}"] = lambda s=specs[way]: tfnas.to_tflite(model, s, calibration)
    return found


def curve(model: Any, calibration: np.ndarray) -> dict[str, Callable[[], tfnas.Artifact]]:
    """What makes the files between 4 and 8 bits, by the name of the row."""
    found: dict[str, Callable[[], tfnas.Artifact]] = {}
    for text in SHARES.value:
        spec = tfnas.QuantSpec("int4", "int8", rounding="second_order", eight_bit_share=float(text))
        name = f"int8x4, second_order, {float(text):.0%} at 8 bits"
        found[name] = lambda s=spec: tfnas.to_tflite(model, s, calibration)
    return found


def recipes(
    baseline: tfnas.Artifact, calibration: np.ndarray
) -> dict[str, Callable[[], tfnas.Artifact]]:
    """What makes ai-edge-quantizer's files, by the name of the row."""
    from ai_edge_quantizer import qtyping, recipe_manager

    names = qtyping.TFLOperationName
    found: dict[str, Callable[[], tfnas.Artifact]] = {}
    for mode, bits in (("int8", 8), ("int8x4", 4)):
        for way in (w for w in WAYS.value if w in _ALGORITHMS and mode in FORMATS.value):
            manager = recipe_manager.RecipeManager()
            manager.add_static_config(".*", names.ALL_SUPPORTED, 8, 8)
            for operation in (names.CONV_2D, names.FULLY_CONNECTED):
                dense = operation == names.FULLY_CONNECTED
                key = _ALGORITHMS["OCTAV" if way == "GPTQ" and not dense else way]
                manager.add_static_config(".*", operation, 8, bits, algorithm_key=key)
            steps = manager.get_quantization_recipe()
            found[f"{mode}, ai-edge-quantizer's {way}"] = lambda s=steps: tfnas.apply_recipe(
                baseline, s, calibration
            )
    return found


_ALGORITHMS = {
    "min_max": "min_max_uniform_quantize",
    "OCTAV": "OCTAV",
    "MSE": "MSE",
    "GPTQ": "GPTQ",
}


def problem(draw: int) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """The model, calibration images, and images and labels that measure."""
    rng, folder = np.random.default_rng(draw), pathlib.Path(FOLDER.value)
    if NETWORK.value == "efficientnet":
        path = folder / "efficientnet_lite0_imagenet.keras"
        x, labels = load_images(folder / "imagenet_sample_1000_224_jpg.zip")
        order = rng.permutation(len(x))
        rest = order[CALIBRATE.value :][: MEASURE.value]
        calibration, x, y = x[order[: CALIBRATE.value]], x[rest], labels[rest]
    else:
        path = folder / "mlperf_tiny" / "pretrainedResnet.h5"
        with np.load(pathlib.Path(CIFAR.value).expanduser()) as file:
            order = rng.permutation(len(file["x_train"]))[: CALIBRATE.value]
            calibration = file["x_train"][order].astype(np.float32)
            x, y = file["x_test"][: MEASURE.value].astype(np.float32), file["y_test"].reshape(-1)
        y = y[: MEASURE.value]
    return keras.saving.load_model(path, compile=False), calibration, x, y


if __name__ == "__main__":
    app.run(main)
