"""`tfnas.compress` on a keras.applications MobileNetV2 fine-tuned on Fashion-MNIST.

    python benchmarks/compress_mobilenet.py [--weights=imagenet] [--directory=FOLDER]

First trains the model as its user would (or takes the one of an earlier run): MobileNetV2 0.35
on images of 32 x 32 x 3, made within the model from gray ones of 28 x 28. --weights=imagenet
starts where keras.applications does, which downloads; without, it starts at random. Then one
call, for --max_macs of its multiply-accumulates, at most 1 point less. Prints what that prints.
"""

from __future__ import annotations

import pathlib
import sys
import time
from typing import Any

import keras
import record
from absl import app, flags, logging
from keras import layers

import tfnas
from tfnas.cli.console import PlainProgress
from tfnas.data.data_split import DataSplit

WEIGHTS = flags.DEFINE_string("weights", None, "imagenet, a file, or none: at random")
EPOCHS = flags.DEFINE_integer("epochs", 12, "epochs of the model's own training")
EXAMPLES = flags.DEFINE_integer("examples", None, "training images; none: all 60,000")
MAX_MACS = flags.DEFINE_float("max_macs", 0.5, "multiply-accumulates that may stay, a share")
EFFORT = flags.DEFINE_string("effort", "normal", "quick, normal or thorough")
STEP_EPOCHS = flags.DEFINE_integer("step_epochs", None, "epochs of a step; none: by the effort")
DIRECTORY = flags.DEFINE_string("directory", "runs/compress_mobilenet", "folder of the job")
SIZE = 32


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    began = time.monotonic()
    split = tfnas.data.load("fashion_mnist").limited(EXAMPLES.value)
    path = pathlib.Path(DIRECTORY.value).with_suffix(".keras")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        finetuned(split).save(path)
    print(f"the model: {path}, {time.monotonic() - began:.0f} s")
    result = tfnas.compress(
        tfnas.load_model(path),
        split,
        {"max_drop": 1.0, "max_macs": MAX_MACS.value},
        effort=EFFORT.value,
        directory=DIRECTORY.value,
        epochs=STEP_EPOCHS.value,
        augment=("flip", "shift"),
        progress=PlainProgress(),
    )
    print(f"\n{result}\n\n$ python", " ".join(sys.argv))
    notes = [f"{(time.monotonic() - began) / 60:.0f} minutes in all."]
    print(*notes)
    record.write("compress_mobilenet", record.file_rows(result), seed=0, notes=notes)


def finetuned(split: DataSplit) -> Any:
    """MobileNetV2 with a new head, trained on gray images of 0 to 255."""
    keras.utils.set_random_seed(0)
    base = keras.applications.MobileNetV2(
        (SIZE, SIZE, 3), alpha=0.35, include_top=False, weights=WEIGHTS.value, pooling="avg"
    )
    image = keras.Input(split.input_shape)
    x = layers.Rescaling(1 / 127.5, -1.0)(image)
    x = layers.ZeroPadding2D((SIZE - split.input_shape[0]) // 2)(x)
    x = base(layers.Concatenate()([x, x, x]))
    model = keras.Model(image, layers.Dense(split.num_classes)(x))
    batch = 64
    steps = EPOCHS.value * -(-len(split.x_train) // batch)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    part = split.x_val, split.y_val
    model.fit(split.x_train, split.y_train, batch, EPOCHS.value, verbose=2, validation_data=part)
    return model


if __name__ == "__main__":
    app.run(main)
