"""ResNet56 for CIFAR-10 at Torch-Pruning's two reductions, beside what it publishes.

    python benchmarks/channels_resnet56.py [--rounds=12] [--score=l2]

Torch-Pruning's table (reproduce/readme.md of its repository) gives accuracies of a ResNet56
trained for 200 epochs, pruned to 1/2.11 and 1/2.55 of its multiply-accumulates and trained for
100 more. Its weights are not shipped here and 300 epochs of a network of 127 million
multiply-accumulates take days on two cores, so accuracies can't be compared; what the
rewriting reaches can: this builds the same network with random weights, removes channels for
both reductions, and prints how near the target it comes, the groups, the parameters, and how
much faster the files are. `prune_channels_resnet8.py` has what accuracy we measure at 1/2.14.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import keras
import numpy as np
import record
from absl import app, flags
from keras import layers

import tfnas
from tfnas.table import table

ROUNDS = flags.DEFINE_integer("rounds", 12, "interleaved rounds of the measurement")
SCORE = flags.DEFINE_string("score", "l2", "what a channel is worth: l1, l2, bn or random")
REDUCTIONS = (2.11, 2.55)
# Method, accuracy before and after, reduction of the multiply-accumulates, as published.
PUBLISHED = (
    ("Group-L1", 93.53, 92.93, "2.12x"),
    ("Group-BN", 93.53, 93.29, "2.12x"),
    ("Group-GReg", 93.53, 93.55, "2.12x"),
    ("DepGraph without sparse learning", 93.53, 93.46, "2.11x"),
    ("DepGraph", 93.53, 93.77, "2.13x"),
    ("DepGraph without sparse learning", 93.53, 93.36, "2.51x"),
    ("DepGraph", 93.53, 93.64, "2.57x"),
)


def main(argv: list[str]) -> None:
    keras.utils.set_random_seed(0)
    model = resnet56()
    images = np.random.default_rng(0).uniform(0, 1, (64, 32, 32, 3)).astype("float32")
    before = tfnas.profile(model)
    rows = []
    for reduction in REDUCTIONS:
        begin = time.monotonic()
        smaller, report = tfnas.prune_channels(
            model, target_macs=1 / reduction, criterion=SCORE.value
        )
        seconds = time.monotonic() - begin
        after = tfnas.profile(smaller)
        rows.append(
            [
                f"{reduction}x",
                f"{before.macs / after.macs:.3f}x",
                f"{before.parameters / 1e3:.0f} k",
                f"{after.parameters / before.parameters:.3f}",
                str(len(report.groups)),
                str(len(report.locked)),
                f"{seconds:.1f}",
                faster(model, smaller, "float32", images),
                faster(model, smaller, "int8", images),
            ]
        )
    print("\n$ python", " ".join(sys.argv))
    print(f"ResNet56, {before.macs / 1e6:.1f} M multiply-accumulates")
    headers = ["target", "MACs reduced", "parameters", "after", "groups", "untouched", "s"]
    headers += ["float32 faster", "int8 faster"]
    print(table(headers, rows))
    record.write("channels_resnet56", record.table_rows(headers, rows), seed=0)
    print("\nPublished by Torch-Pruning, not run here (100 epochs after pruning):")
    published = [
        [name, f"{old:.2f}", f"{new:.2f}", f"{new - old:+.2f}", reduced]
        for name, old, new, reduced in PUBLISHED
    ]
    print(table(["method", "before", "after", "points", "MACs reduced"], published))


def resnet56() -> Any:
    """He et al. 2016, section 4.2, with convolutions in the shortcuts that change the size."""
    inputs = keras.Input((32, 32, 3))
    x = normalized(inputs, 16, 3, 1)
    for width in (16, 32, 64):
        for block in range(9):
            strides = 2 if width > 16 and block == 0 else 1
            shortcut = x if strides == 1 else normalized(x, width, 1, strides, relu=False)
            y = normalized(x, width, 3, strides)
            x = layers.ReLU()(layers.Add()([normalized(y, width, 3, 1, relu=False), shortcut]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def normalized(x: Any, width: int, size: int, strides: int, relu: bool = True) -> Any:
    x = layers.Conv2D(width, size, strides, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    return layers.ReLU()(x) if relu else x


def faster(model: Any, smaller: Any, mode: Any, images: np.ndarray) -> str:
    """Ratio of times with its interval, both files interleaved."""
    data = images if mode == "int8" else None
    files = [tfnas.to_tflite(m, mode, data) for m in (model, smaller)]
    old, new = tfnas.benchmark(files, rounds=ROUNDS.value)
    low, high = old.ratio_low / new.ratio_high, old.ratio_high / new.ratio_low
    return f"{old.ratio / new.ratio:.2f}x [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    app.run(main)
