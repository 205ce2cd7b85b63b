"""One call on MLPerf Tiny's ResNet8, beside the reference's own int8 file.

    python benchmarks/compress_resnet8.py [--effort=normal] [--directory=runs/compress_resnet8]

From the reference's float weights and CIFAR-10, `tfnas.compress` looks for an int8 file of at
most half the bytes and half the multiply-accumulates of `pretrainedResnet_quant.tflite`, at
most 1 point below its accuracy. Prints every file of the Pareto set and the reference on the
10,000 test images (half of which the call chose by; the other half is beside it), with bytes
and time as ratios to the reference file, interleaved, and how long the call took; draws them.
"""

from __future__ import annotations

import os
import pathlib
import sys
import time

import numpy as np
import record
import resnet8
from absl import app, flags, logging

import tfnas
from tfnas.cli.console import PlainProgress
from tfnas.drawing.figures import png
from tfnas.drawing.pareto_figure import pareto_figure
from tfnas.drawing.pareto_plot import ParetoLabels, ParetoPlot, Row
from tfnas.measure.accuracy import correct, paired_difference
from tfnas.runtime.files import write_atomically
from tfnas.table import table

EFFORT = flags.DEFINE_string("effort", "normal", "quick, normal or thorough")
DIRECTORY = flags.DEFINE_string("directory", "runs/compress_resnet8", "folder of the job")
SEED = flags.DEFINE_integer("seed", 0, "seed of the job")
STEP_EPOCHS = flags.DEFINE_integer("step_epochs", None, "epochs of a step; none: by the effort")
REFERENCE = flags.DEFINE_string(
    "reference", None, "the reference's int8 file; default: beside the model"
)


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    path = REFERENCE.value or pathlib.Path(resnet8.MODEL.value).with_name(
        "pretrainedResnet_quant.tflite"
    )
    reference = tfnas.Artifact.load(path)
    began = time.monotonic()
    split = tfnas.data.load(pathlib.Path(resnet8.DATA.value).expanduser())
    budget = {"max_drop": 1.22, "max_bytes": reference.size // 2, "max_macs": 0.5}
    result = tfnas.compress(
        resnet8.load_model(),
        split.limited(resnet8.EXAMPLES.value),
        budget,
        effort=EFFORT.value,
        directory=DIRECTORY.value,
        epochs=STEP_EPOCHS.value,
        batch_size=128,  # faster than 64: docs/decisions/0015-muon-after-cuts.md
        learning_rate=3e-3,
        augment=("flip", "shift"),
        seed=SEED.value,
        progress=PlainProgress(),
    )
    minutes = (time.monotonic() - began) / 60
    processor = _processor_minutes()
    print(f"\n{result}\n\n$ python", " ".join(sys.argv))
    # The reference takes pixels shifted to int8 by itself; `predict` does as its scale says.
    x, y = split.x_test.astype(np.float32), split.y_test
    last = np.isin(np.arange(len(y)), _last_half(split))
    files = [("reference, int8", reference), *((str(c.recipe), c.file) for c in result.front)]
    times = tfnas.benchmark([file for _, file in files], rounds=40, sample_ms=20.0)
    right = [correct(y, file.predict(x)) for _, file in files]
    rows, differences = [], []
    for (name, file), time_, found in zip(files, times, right, strict=True):
        value, low, high = (100 * v for v in paired_difference(found, right[0]))
        differences.append((high - low) / 200)
        rows.append(
            [
                name,
                f"{found.mean():.4f}",
                f"{found[last].mean():.4f}",
                f"{value:+.2f} [{low:+.2f}, {high:+.2f}]",
                f"{file.size:,}",
                f"{file.size / reference.size:.3f}",
                f"{times[0].ratio / time_.ratio:.2f}x",
            ]
        )
    headers = ["file", "accuracy", "last half", "points to the reference [95%]", "bytes"]
    headers += ["share", "faster"]
    print(table(headers, rows))
    taken = f"{minutes:.1f} minutes, {processor:.0f} of the processor's cores together"
    notes = [f"`compress` took {taken}."]
    tables = record.table_rows(headers, rows)
    record.write("compress_resnet8", tables, seed=SEED.value, notes=notes)
    places = [
        (float(found.mean()), time_.ratio / times[0].ratio, file.size)
        for (_, file), time_, found in zip(files, times, right, strict=True)
    ]
    picture = _picture(places, differences, result.front.index(result.best))
    print("drawn in", write_atomically(result.directory / "beside_reference.png", picture))
    print(f"the call took {taken}")


def _processor_minutes() -> float:
    """What this process and those that it started took of the processor, in minutes of a core."""
    times = os.times()
    return (times.user + times.system + times.children_user + times.children_system) / 60


def _picture(places: list[Row], errors: list[float], best: int) -> bytes:
    """The files over time and bytes; the reference, which is the first, beside them."""
    accuracy, _, size = places[0]
    plot = ParetoPlot(
        places[1:],
        range(len(places) - 1),
        best,
        "ResNet8 compressed, beside MLPerf Tiny's own int8 file",
        ParetoLabels(part="10,000 test images", beside="that file"),
        over=("latency", "bytes"),
        others={"MLPerf Tiny's int8 file": places[0]},
        errors=errors[1:],
        limits={"quality": accuracy - 0.01, "bytes": size // 2},
    )
    return png(pareto_figure(plot))


def _last_half(split: tfnas.data.DataSplit) -> np.ndarray:
    """Places of the test images that nothing was chosen by."""
    marked = tfnas.data.DataSplit(
        split.name,
        split.x_train,
        split.y_train,
        split.x_val,
        split.y_val,
        np.arange(len(split.y_test)).reshape(-1, 1, 1, 1),
        split.y_test,
        split.class_names,
    )
    return marked.for_given_model().x_test.reshape(-1)


if __name__ == "__main__":
    app.run(main)
