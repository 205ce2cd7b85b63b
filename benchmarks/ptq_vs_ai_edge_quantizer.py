"""Post-training modes of tfnas beside ai-edge-quantizer's recipes, on one float model.

    python benchmarks/ptq_vs_ai_edge_quantizer.py [--model=PATH --dataset=NAME] [--rounds=50]

By default MLPerf Tiny's ResNet8 on CIFAR-10. Ours start from the Keras model, the other's
from the float32 `.tflite` file of it; both see the same calibration images. Prints for each
file accuracy on all test images with the paired difference to the float32 file, bytes, and
the time of an inference as a ratio to the float32 file's, from interleaved rounds, with the
95% interval of the median. A recipe that is refused gets a line with the reason.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import record
from absl import app, flags, logging

import tfnas
from tfnas.measure.accuracy import correct
from tfnas.table import table

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODEL = flags.DEFINE_string(
    "model", str(ROOT.parent / "shared/data/mlperf_tiny/pretrainedResnet.h5"), "a Keras model"
)
DATASET = flags.DEFINE_string("dataset", "~/.cache/tfnas/cifar10.npz", "as for tfnas.data.load")
SCALE = flags.DEFINE_float("scale", 1.0, "the model's inputs are pixels (0 to 255) times this")
CALIBRATION = flags.DEFINE_integer("calibration", 200, "training images that calibrate")
EXAMPLES = flags.DEFINE_integer("examples", 10000, "test images, the first ones")
ROUNDS = flags.DEFINE_integer("rounds", 50, "interleaved rounds of the latency")
MODES = flags.DEFINE_list(
    "modes",
    [
        *("float32", "float16", "dynamic", "int4", "weights8", "weights4"),
        *("int8", "int8+correct", "int8x4", "int8x4+correct", "int16x8"),
    ],
    "modes of tfnas; +correct: QuantSpec(correct=True)",
)
RECIPES = flags.DEFINE_list(
    "recipes",
    [
        *("dynamic_wi8_afp32", "dynamic_wi4_afp32", "weight_only_wi8_afp32"),
        *("weight_only_wi4_afp32", "static_wi8_ai8", "static_wi8_ai16"),
    ],
    "recipes of ai-edge-quantizer",
)


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    began = time.monotonic()
    model = keras.saving.load_model(MODEL.value, compile=False)
    data = tfnas.data.load(DATASET.value)
    calibration = prepared(data.x_train[: CALIBRATION.value])
    x, y = prepared(data.x_test[: EXAMPLES.value]), data.y_test[: EXAMPLES.value]
    baseline = tfnas.to_tflite(model)
    files = {m: attempt(tfnas.to_tflite, model, spec_of(m), calibration) for m in MODES.value}
    files |= {name: attempt(by_recipe, baseline, name, calibration) for name in RECIPES.value}
    outputs = {name: attempt(predicted, file, x) for name, file in files.items()}
    failed = {name: found for name, found in outputs.items() if isinstance(found, str)}
    original = correct(y, baseline.predict(x))
    runs = [name for name in files if name not in failed]
    times = tfnas.benchmark([files[name] for name in runs], rounds=ROUNDS.value, reference=baseline)
    speed = dict(zip(runs, times, strict=True))
    rows = []
    for name in files:
        who = "tfnas" if name in MODES.value else "ai-edge-quantizer"
        if name in failed:
            rows.append([who, name, failed[name]])
            continue
        right = correct(y, outputs[name])
        rows.append([who, name, *cells(files[name], right, original, speed[name])])
    print("\n$ python", " ".join(sys.argv))
    headers = ["by", "mode", "accuracy", "points to float32 [95%]", "bytes", "gzip"]
    headers += ["inputs", "ms", "time to float32 [95%]"]
    measured = [row for row in rows if row[1] not in failed]
    print(table(headers, measured))
    for who, name, reason in (row for row in rows if row[1] in failed):
        print(f"{who} {name}: {reason}")
    print(f"{len(y)} images, {time.monotonic() - began:.0f} s in all")
    notes = [f"{len(y)} images.", *(f"{name}: {reason}" for name, reason in failed.items())]
    record.write("ptq_vs_ai_edge_quantizer", record.table_rows(headers, measured), notes=notes)


def prepared(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.float32) * np.float32(SCALE.value)


def spec_of(mode: str) -> tfnas.QuantSpec:
    name, _, correct_bias = mode.partition("+")
    return dataclasses.replace(tfnas.QuantSpec.of(name), correct=bool(correct_bias))


def attempt(function: Any, *arguments: Any) -> Any:
    """What the function returns, or why it did not as one line."""
    try:
        return function(*arguments)
    except Exception as error:  # whatever a library raises becomes a line of the table
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def by_recipe(baseline: tfnas.Artifact, name: str, calibration: np.ndarray) -> tfnas.Artifact:
    """The file that ai-edge-quantizer makes of the float32 file."""
    from ai_edge_quantizer import quantizer, recipe

    input_name = baseline.inputs[0].name
    examples = [{input_name: calibration[i : i + 1]} for i in range(len(calibration))]
    with quiet():
        engine = quantizer.Quantizer(baseline.content, getattr(recipe, name)())
        ranges = None
        if engine.need_calibration:
            ranges = engine.calibrate({"serving_default": examples}, num_threads=1)
        return tfnas.Artifact(bytes(engine.quantize(ranges).quantized_model), name)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps a library's progress bars and warnings from the terminal."""
    sink = io.StringIO()
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        yield


def predicted(file: tfnas.Artifact | str, x: np.ndarray) -> np.ndarray:
    if isinstance(file, str):
        raise RuntimeError(file)
    return file.predict(x)


def cells(file: tfnas.Artifact, right: np.ndarray, before: np.ndarray, time: Any) -> list[str]:
    """What is known about a file."""
    return [
        f"{right.mean():.4f}",
        record.points(right, before),
        f"{file.size:,}",
        f"{file.gzip_size:,}",
        file.inputs[0].dtype,
        f"{time.median_ms:.3f}",
        f"{time.ratio:.3f} [{time.ratio_low:.3f}, {time.ratio_high:.3f}]",
    ]


if __name__ == "__main__":
    app.run(main)
