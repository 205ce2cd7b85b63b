"""Half the multiply-accumulates of one small member of every keras.applications family.

    python benchmarks/channels_keras_applications.py [--families=MobileNetV2,...]

Random weights, inputs of --size pixels, 10 classes. Each model loses channels by
`tfnas.prune_channels(model, target_macs=0.5)`; the smaller one must build, predict finite
numbers of the right shape and convert. Prints MACs and parameters before and after, the
measured speed-up of the float32 file (both files interleaved; the interval is that of the
median over the rounds), and the groups that keep all channels, with their reasons.
"""

from __future__ import annotations

import collections
import sys
import time
from typing import Any

import keras
import numpy as np
import record
from absl import app, flags

import tfnas
from tfnas.table import table

FAMILIES = (
    *("MobileNet", "MobileNetV2", "MobileNetV3Small", "ResNet50", "ResNet50V2", "EfficientNetB0"),
    *("EfficientNetV2B0", "DenseNet121", "VGG16", "Xception", "InceptionV3", "NASNetMobile"),
    *("ConvNeXtTiny", "InceptionResNetV2"),
)
CHOSEN = flags.DEFINE_list("families", list(FAMILIES), "models of keras.applications")
SIZE = flags.DEFINE_integer("size", 96, "height and width of the images")
SHARE = flags.DEFINE_float("share", 0.5, "share of the multiply-accumulates that may stay")
ROUNDS = flags.DEFINE_integer("rounds", 12, "interleaved rounds of the measurement")


def main(argv: list[str]) -> None:
    rows, notes = [], []
    for name in CHOSEN.value:
        keras.backend.clear_session()
        keras.utils.set_random_seed(0)
        shape = (SIZE.value, SIZE.value, 3)
        model = getattr(keras.applications, name)(weights=None, input_shape=shape, classes=10)
        row, reasons = halved(name, model)
        rows.append(row)
        notes += reasons
        print(table(HEADERS, [row]), flush=True)
    print("\n$ python", " ".join(sys.argv))
    print(table(HEADERS, rows))
    print("\n".join(notes))
    found = record.table_rows(HEADERS, rows)
    record.write("channels_keras_applications", found, seed=0, notes=notes)


HEADERS = [
    *("model", "MACs", "MACs after", "parameters", "parameters after", "faster", "s"),
    *("groups", "untouched"),
]


def halved(name: str, model: Any) -> tuple[list[str], list[str]]:
    """A line of the table, and why groups keep all channels."""
    before = tfnas.profile(model)
    begin = time.monotonic()
    smaller, report = tfnas.prune_channels(model, target_macs=SHARE.value)
    seconds = time.monotonic() - begin
    after = tfnas.profile(smaller)
    x = np.random.default_rng(0).uniform(0, 255, (2, *model.input_shape[1:])).astype("float32")
    outputs = smaller.predict(x, verbose=0)
    assert outputs.shape == (2, 10), outputs.shape
    assert np.isfinite(outputs).all()
    assert after.macs <= SHARE.value * before.macs
    old, new = tfnas.benchmark(
        [tfnas.to_tflite(model), tfnas.to_tflite(smaller)], rounds=ROUNDS.value
    )
    reasons = collections.Counter(change.reason for change in report.locked)
    row = [
        name,
        f"{before.macs / 1e6:.1f} M",
        f"{after.macs / before.macs:.3f}",
        f"{before.parameters / 1e6:.2f} M",
        f"{after.parameters / before.parameters:.3f}",
        f"{old.ratio / new.ratio:.2f}x",
        f"{seconds:.1f}",
        str(len(report.groups)),
        str(len(report.locked)),
    ]
    return row, [f"{name}: {count} untouched: {reason}" for reason, count in reasons.items()]


if __name__ == "__main__":
    app.run(main)
