"""Seconds of `tfnas.to_tflite` beside those of TensorFlow's own way to a Keras model's file.

    python benchmarks/conversion.py [--rounds=8]

For three networks and three modes, the way through a SavedModel of constants and the way of
`TFLiteConverter.from_keras_model` (all variables in a checkpoint) take turns in one process.
Everything else is the same code; both files are compared operator by operator, weight by weight.
CPU time says what a conversion costs where other jobs run beside. Writes
benchmarks/results/conversion.json.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import record
from absl import app, flags

ROUNDS = flags.DEFINE_integer("rounds", 8, "conversions of each kind that count", 1)
SEED = flags.DEFINE_integer("seed", 0, "seed of weights and calibration data", 0)
MODES = ("float32", "dynamic", "int8")


def networks() -> dict[str, Any]:
    """Name -> a network with random weights."""
    import keras
    import numpy as np

    import tfnas

    layers = keras.layers
    small = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    space = tfnas.MobileNetV2Space((32, 32, 3), 10, "microcontroller")
    searched = space.build(space.sample(np.random.default_rng(SEED.value)))
    mobilenet = keras.applications.MobileNetV2((96, 96, 3), 0.35, weights=None, classes=10)
    return {"two layers": small, "a member of the space": searched, "MobileNetV2 0.35": mobilenet}


@contextlib.contextmanager
def as_tensorflow_does() -> Iterator[None]:
    """Has `to_tflite` convert by `TFLiteConverter.from_keras_model`."""
    written = "tfnas.tflite.tensorflow_converter.written_for_converter"
    with mock.patch(written, return_value=None):
        yield


def seconds(convert: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Returns what a conversion took, by the clock and of the processor, and its file."""
    clock, cpu = time.perf_counter(), time.process_time()
    file = convert()
    return {"clock": time.perf_counter() - clock, "cpu": time.process_time() - cpu}, file


def contents(artifact: Any) -> list[str]:
    """Operators with weights, types, shapes and scales; not names, nor the order."""
    return sorted(
        str((op.name, [(t.dtype, t.shape, t.scales, t.zero_points, t.constant) for t in ends]))
        for op in artifact.graph.operators
        for ends in [(*op.inputs, *op.outputs)]
    )


def compared(name: str, model: Any, mode: str) -> dict[str, Any]:
    """Returns a row: medians of both ways, and the ratio of each round."""
    import numpy as np

    import tfnas

    shape = (20, *model.input_shape[1:])
    data = np.random.default_rng(SEED.value).random(shape).astype("float32")

    def convert() -> Any:
        return tfnas.to_tflite(model, mode, data if mode == "int8" else None)

    rounds = []
    for number in range(ROUNDS.value + 1):
        ours, file = seconds(convert)
        with as_tensorflow_does():
            theirs, other = seconds(convert)
        if number:  # the first one starts the converter
            rounds.append((ours, theirs))
    ratios = [ours["cpu"] / theirs["cpu"] for ours, theirs in rounds]
    medians = {
        f"{side}_{kind}_s": statistics.median(each[place][kind] for each in rounds)
        for place, side in enumerate(("tfnas", "from_keras_model"))
        for kind in ("clock", "cpu")
    }
    return {
        "network": name,
        "mode": mode,
        **medians,
        "cpu_ratio": statistics.median(ratios),
        "cpu_ratio_least": min(ratios),
        "cpu_ratio_most": max(ratios),
        "same_operators_and_weights": contents(file) == contents(other),
    }


def main(argv: list[str]) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    from tfnas.table import table

    keras.utils.set_random_seed(SEED.value)
    rows = []
    for name, model in networks().items():
        for mode in MODES:
            rows.append(compared(name, model, mode))
            print(rows[-1], flush=True)
    command = f"python benchmarks/conversion.py --rounds={ROUNDS.value} --seed={SEED.value}"
    cells = [
        [
            *(row["network"], row["mode"]),
            f"{row['tfnas_cpu_s']:.2f}",
            f"{row['from_keras_model_cpu_s']:.2f}",
            "{cpu_ratio:.2f} [{cpu_ratio_least:.2f}, {cpu_ratio_most:.2f}]".format(**row),
            "yes" if row["same_operators_and_weights"] else "no",
        ]
        for row in rows
    ]
    head = ["network", "mode", "CPU s", "from_keras_model", "ratio [least, most]", "same file"]
    print(f"\n$ {command}\n\n{table(head, cells, right=3)}")
    record.write("conversion", rows, seed=SEED.value, command=command)


if __name__ == "__main__":
    app.run(main)
