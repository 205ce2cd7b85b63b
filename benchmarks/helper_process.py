"""Seconds of `tfnas.to_tflite` with the converter in the helper process, beside those without.

    python benchmarks/helper_process.py [--conversions=20]

Conversions of three networks in three modes take turns with and without `tfnas.isolated()`, in one
process and in an order that alternates; the files are compared byte by byte. The helper process
starts in the first call, which is a row of its own. CPU time is that of both processes. Writes
benchmarks/results/helper_process.json.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from typing import Any

import record
from absl import app, flags

CONVERSIONS = flags.DEFINE_integer("conversions", 20, "conversions of each side that count", 1)
SEED = flags.DEFINE_integer("seed", 0, "seed of weights and calibration data", 0)
MODES = ("float32", "dynamic", "int8")


def networks() -> dict[str, Any]:
    """Name -> a network with random weights."""
    import keras
    import numpy as np

    import tfnas

    small = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    space = tfnas.MobileNetV2Space((32, 32, 3), 10, "microcontroller")
    searched = space.build(space.sample(np.random.default_rng(SEED.value)))
    mobilenet = keras.applications.MobileNetV2((96, 96, 3), 0.35, weights=None, classes=10)
    return {"two layers": small, "a member of the space": searched, "MobileNetV2 0.35": mobilenet}


def cpu_seconds() -> float:
    """CPU time of this process and of the helper process."""
    from tfnas.runtime import helper_process

    return sum(sum(times[:2]) for times in (os.times(), helper_process.call(os.times)))


def converted(model: Any, mode: str, isolated: bool) -> tuple[dict[str, float], bytes]:
    """Returns what a conversion took, by the clock and of the processor, and its file."""
    import numpy as np

    import tfnas

    shape = (20, *model.input_shape[1:])
    data = np.random.default_rng(SEED.value).random(shape).astype("float32")
    cpu, clock = cpu_seconds(), time.perf_counter()
    with tfnas.isolated(isolated):
        file = tfnas.to_tflite(model, mode, data if mode == "int8" else None)
    clock = time.perf_counter() - clock
    return {"clock": clock, "cpu": cpu_seconds() - cpu}, file.content


def spread(values: list[float], digits: int) -> str:
    """Returns "median [least, most]"."""
    middle = statistics.median(values)
    return f"{middle:.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def started(model: Any) -> float:
    """Returns the seconds of the first call, in which the helper process starts."""
    import tfnas

    tfnas.to_tflite(model)  # TensorFlow starts here
    begin = time.perf_counter()
    with tfnas.isolated():
        tfnas.to_tflite(model)
    return time.perf_counter() - begin


def main(argv: list[str]) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    from tfnas.table import table

    keras.utils.set_random_seed(SEED.value)
    models = networks()
    start = started(models["two layers"])
    kinds = list(itertools.product(models, MODES))
    for (name, mode), isolated in itertools.product(kinds, (True, False)):
        converted(models[name], mode, isolated)  # not counted
    pairs, same = [], 0
    for number, (name, mode) in zip(range(CONVERSIONS.value), itertools.cycle(kinds), strict=False):
        sides = {}
        for isolated in (True, False) if number % 2 else (False, True):
            sides[isolated] = converted(models[name], mode, isolated)
        (apart, file), (here, other) = sides[True], sides[False]
        same += file == other
        pairs.append({"network": name, "mode": mode, "isolated": apart, "without": here})
        print(name, mode, f"{apart['clock']:.3f} s, without {here['clock']:.3f} s", flush=True)
    rows = []
    for kind, label in (("clock", "seconds"), ("cpu", "CPU seconds of both processes")):
        values = {side: [pair[side][kind] for pair in pairs] for side in ("isolated", "without")}
        apart, here = sum(values["isolated"]), sum(values["without"])
        ratios = [a / b for a, b in zip(values["isolated"], values["without"], strict=True)]
        rows.append(
            {
                "a conversion": label,
                "isolated [least, most]": spread(values["isolated"], 3),
                "without [least, most]": spread(values["without"], 3),
                "ratio of a pair [least, most]": spread(ratios, 2),
                f"all {len(pairs)}": f"{apart:.2f} : {here:.2f}",
            }
        )
    command = (
        f"python benchmarks/helper_process.py --conversions={CONVERSIONS.value} --seed={SEED.value}"
    )
    print(f"\n$ {command}\n\n{table(list(rows[0]), [list(row.values()) for row in rows], right=4)}")
    notes = [
        f"{same} of {len(pairs)} files were the same byte by byte.",
        f"The first isolated conversion took {start:.1f} s: the helper process starts in it.",
    ]
    print("\n" + "\n".join(notes))
    record.write("helper_process", rows, seed=SEED.value, command=command, notes=notes, pairs=pairs)


if __name__ == "__main__":
    app.run(main)
