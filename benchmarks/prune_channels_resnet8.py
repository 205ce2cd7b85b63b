"""Half the multiply-accumulates of MLPerf Tiny's ResNet8 on CIFAR-10, in at most 15 epochs.

    python benchmarks/prune_channels_resnet8.py [--seeds=3] [--epochs=15] [--shares=0.5]

Starts from the reference's trained weights, removes channels once by `tfnas.prune_channels`
inside the residual blocks (--sizes: how many of a layer's stay; --shares: shares of the
multiply-accumulates instead, the same of each block) and trains on flipped and shifted images
with their labels by `tfnas.Muon`, without the original's penalties (--alpha below 1: and what
the original says to the same image, `tfnas.Distiller`). Weights of the last epoch. Beside it,
the same widths with channels taken at random (--control), trained alike.

The settings were chosen on every second test image, since the original has seen all images to
train on (--tune prints those alone).

Prints for every share of the multiply-accumulates and seed: accuracy of the float32 and int8
files on the 10,000 test images and on those that nothing was chosen by, the paired difference
to the original's, and how much faster the int8 file is, interleaved with the original's.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import keras
import numpy as np
import record
import resnet8
import tensorflow as tf
from absl import app, flags, logging

import tfnas
from tfnas.compression.techniques.block_hints import block_hints
from tfnas.measure.accuracy import correct
from tfnas.table import table

SEEDS = flags.DEFINE_integer("seeds", 3, "number of seeds")
FIRST = flags.DEFINE_integer("first_seed", 0, "the first of them")
SIZES = flags.DEFINE_list(
    "sizes", ["conv2d_1=3", "conv2d_3=16", "conv2d_6=48"], "channels that stay, by layer"
)
SHARES = flags.DEFINE_list("shares", [], "shares of the multiply-accumulates that may stay")
EPOCHS = flags.DEFINE_integer("epochs", 15, "epochs of training")
CRITERION = flags.DEFINE_string("criterion", "taylor", "what a channel is worth")
SCOPE = flags.DEFINE_string("scope", "group", "global or group")
ROUND_TO = flags.DEFINE_integer("round_to", 8, "multiple of the sizes; 1: any size")
CONTROL = flags.DEFINE_bool("control", True, "the same widths with random channels as well")
OPTIMIZER = flags.DEFINE_enum("optimizer", "muon", ["muon", "adam"], "what trains")
RATE = flags.DEFINE_float("rate", 5e-3, "its rate after half an epoch of warmup")
ALPHA = flags.DEFINE_float("alpha", 1.0, "share of the labels in the loss, 0 to 1")
TEMPERATURE = flags.DEFINE_float("temperature", 1.0, "of the distillation")
HINT = flags.DEFINE_float("hint", 0.0, "weight of what the blocks give, in their mean squares")
PENALTIES = flags.DEFINE_bool("penalties", False, "keep the L2 penalties of the original")
TUNE = flags.DEFINE_bool("tune", False, "look at every second test image alone")
KEEP = flags.DEFINE_list(
    "keep",
    [f"conv2d{n}" for n in ("", "_2", "_4", "_5", "_7", "_8")],
    "layers that keep all channels: those of the stream between the blocks",
)
BATCH = flags.DEFINE_integer("batch", 64, "images a step")
SHIFT = flags.DEFINE_integer("shift", 1, "pixels an image is moved by at most")
SCORED = flags.DEFINE_integer("scored", 2048, "training images behind the criterion")
TARGET = 0.862


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    began = time.monotonic()
    original = resnet8.load_model()
    x, y, held, held_labels = resnet8.load_images()
    if TUNE.value:
        held, held_labels = held[::2], held_labels[::2]
    files = {"float32": tfnas.to_tflite(original), "int8": int8(original, x)}
    before = {mode: correct(held_labels, file.predict(held)) for mode, file in files.items()}
    rows = [
        [
            f"original, {mode}",
            "1.000",
            f"{right.mean():.4f}",
            f"{right[1::2].mean():.4f}",
            "",
            "",
            f"{files[mode].size:,}",
        ]
        for mode, right in before.items()
    ]
    targets = [{"target_macs": float(share)} for share in SHARES.value]
    for target in targets or [{"sizes": sizes()}]:
        for criterion in [CRITERION.value, *(["random"] if CONTROL.value else [])]:
            for seed in range(FIRST.value, FIRST.value + SEEDS.value):
                begin = time.monotonic()
                smaller, left = pruned(original, x, y, target, criterion, seed)
                train(smaller, original, x, y, seed)
                name = f"{criterion}, seed {seed}, {time.monotonic() - begin:.0f} s"
                for mode, file in (
                    ("float32", tfnas.to_tflite(smaller)),
                    ("int8", int8(smaller, x)),
                ):
                    right = correct(held_labels, file.predict(held))
                    rows.append(
                        [
                            f"{name}, {mode}",
                            f"{left:.3f}",
                            f"{right.mean():.4f}",
                            "" if TUNE.value else f"{right[1::2].mean():.4f}",
                            record.points(right, before[mode]),
                            faster(files["int8"], file) if mode == "int8" else "",
                            f"{file.size:,}",
                        ]
                    )
                    print("  ".join(rows[-1]), flush=True)
    print("\n$ python", " ".join(sys.argv))
    headers = [
        "file",
        "MACs",
        "accuracy",
        "unseen half",
        "points to original [95%]",
        "faster [95%]",
        "bytes",
    ]
    print(table(headers, rows))
    found = record.table_rows(headers, rows)
    record.write("prune_channels_resnet8", found, seed=FIRST.value)
    print(f"target at half: {TARGET}, int8 1.3x; {time.monotonic() - began:.0f} s in all")


def sizes() -> dict[str, int]:
    """Layer -> channels that stay."""
    return {name: int(size) for name, size in (pair.split("=") for pair in SIZES.value)}


def pruned(
    original: Any, x: np.ndarray, y: np.ndarray, target: dict[str, Any], criterion: str, seed: int
) -> tuple[Any, float]:
    """The smaller model, not trained yet, and its share of the multiply-accumulates."""
    options: dict[str, Any] = {**target, "seed": seed}
    if "sizes" not in target:
        options |= {"scope": SCOPE.value, "round_to": ROUND_TO.value, "exclude": KEEP.value}
    labels = np.eye(resnet8.CLASSES, dtype=np.float32)[y[: SCORED.value]]
    images = x[: SCORED.value].astype(np.float32)
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(16)
    scored = {"data": data, "loss": "categorical_crossentropy"}
    own = CRITERION.value if criterion == "random" else criterion
    options |= {"criterion": own, **(scored if own == "taylor" else {})}
    smaller, report = tfnas.prune_channels(original, **options)
    if criterion == "random":
        smaller = same_widths(original, report, seed)
    return smaller, report.macs[1] / report.macs[0]


def same_widths(original: Any, report: Any, seed: int) -> Any:
    """The original with as many channels a group, taken at random."""
    from tfnas.pruning.structured.channel_groups import trace
    from tfnas.pruning.structured.slicing import slice_channels

    rng = np.random.default_rng(seed)
    dependencies = trace(original)
    removed = np.zeros(len(dependencies.roots), bool)
    for group, change in zip(dependencies.groups, report.groups, strict=True):
        gone = rng.choice(group.removable, change.before - change.after, replace=False)
        removed[gone] = True
    return slice_channels(original, dependencies, removed)


def train(
    model: Any,
    original: Any,
    x: np.ndarray,
    y: np.ndarray,
    seed: int,
) -> None:
    """Trains in place."""
    keras.utils.set_random_seed(seed)
    if not PENALTIES.value:
        for variable in model.trainable_variables:
            variable.regularizer = None
    options = {"batch": BATCH.value, "shift": SHIFT.value, "distill": 0.0}
    data = resnet8.batches(x, y, original, seed, **options)
    warmup = len(data) // 2
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, EPOCHS.value * len(data) - warmup, warmup_target=RATE.value, warmup_steps=warmup
    )
    optimizer = (tfnas.Muon if OPTIMIZER.value == "muon" else keras.optimizers.Adam)(rate)
    hints = block_hints(model, original, x[:256], HINT.value) if HINT.value else []
    distiller = tfnas.Distiller(original, model, ALPHA.value, TEMPERATURE.value, features=hints)
    distiller.compile(optimizer, metrics=["accuracy"], jit_compile=False)
    distiller.fit(data, epochs=EPOCHS.value, verbose=2)


def int8(model: Any, x: np.ndarray) -> tfnas.Artifact:
    return tfnas.to_tflite(model, "int8", x[:500].astype(np.float32))


def faster(original: tfnas.Artifact, file: tfnas.Artifact) -> str:
    """Ratio of times with its interval, both files interleaved."""
    old, new = tfnas.benchmark([original, file], rounds=40, sample_ms=20.0)
    low, high = old.ratio_low / new.ratio_high, old.ratio_high / new.ratio_low
    return f"{old.ratio / new.ratio:.2f}x [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    app.run(main)
