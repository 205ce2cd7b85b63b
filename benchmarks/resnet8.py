"""MLPerf Tiny's ResNet8 on CIFAR-10: what its benchmarks share.

The images (held-out training images instead of the test's where recipes are compared), and
training on flipped and shifted ones whose targets are the labels mixed with what the
original model says to the same image.
"""

from __future__ import annotations

import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import flags

from tfnas.data.augmentation import flip, untuned
from tfnas.data.augmentation import shift as moved

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODEL = flags.DEFINE_string(
    "model", str(ROOT.parent / "shared/data/mlperf_tiny/pretrainedResnet.h5"), "the trained model"
)
DATA = flags.DEFINE_string("data", "~/.cache/tfnas/cifar10.npz", "CIFAR-10 as an .npz file")
EXAMPLES = flags.DEFINE_integer("examples", 50000, "training images")
VALIDATION = flags.DEFINE_integer("validation", 0, "training images to measure on; 0: the test's")
CLASSES = 10


def load_model() -> Any:
    """The trained model; it takes images from 0 to 255."""
    return keras.saving.load_model(MODEL.value, compile=False)


def load_images() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images and labels to train on, and to measure on as floats."""
    with np.load(pathlib.Path(DATA.value).expanduser()) as file:
        x, y, x_test, y_test = (file[k] for k in ("x_train", "y_train", "x_test", "y_test"))
    if VALIDATION.value:
        x_test, y_test = x[-VALIDATION.value :], y[-VALIDATION.value :]
        x, y = x[: -VALIDATION.value], y[: -VALIDATION.value]
    x, y = x[: EXAMPLES.value], y[: EXAMPLES.value].reshape(-1)
    return x, y, x_test.astype(np.float32), y_test.reshape(-1)


def batches(
    x: np.ndarray,
    y: np.ndarray,
    teacher: Any,
    seed: int,
    *,
    batch: int,
    shift: int,
    distill: float,
) -> tf.data.Dataset:
    """Flipped and shifted images; labels mixed with the original model's output.

    Args:
        x: Images.
        y: Labels.
        teacher: The original model.
        seed: Seed of the order.
        batch: Images a step.
        shift: Pixels an image is moved by at most.
        distill: Share of the original model in the targets, 0 to 1.
    """

    def augment(images: Any, labels: Any) -> tuple[Any, Any]:
        images = flip(moved(tf.cast(images, tf.float32), shift))
        targets = tf.one_hot(labels, CLASSES)
        if distill:
            targets = (1 - distill) * targets + distill * teacher(images, training=False)
        return images, targets

    data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=seed)
    return untuned(data.batch(batch, drop_remainder=True).map(augment, 2).prefetch(2))


def train(
    model: Any,
    teacher: Any,
    rate: float,
    x: np.ndarray,
    y: np.ndarray,
    seed: int,
    epochs: int,
    *,
    batch: int = 128,
    shift: int = 4,
    distill: float = 0.5,
) -> None:
    """Trains a model on :func:`batches`, in place; the rate falls by a cosine.

    Args:
        model: The model.
        teacher: As for :func:`batches`.
        rate: Adam's rate at its start.
        x: Images.
        y: Labels.
        seed: As for :func:`batches`.
        epochs: Number of epochs.
        batch: As for :func:`batches`.
        shift: As for :func:`batches`.
        distill: As for :func:`batches`.
    """
    schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * (len(x) // batch))
    model.compile(keras.optimizers.Adam(schedule), "categorical_crossentropy", jit_compile=False)
    data = batches(x, y, teacher, seed, batch=batch, shift=shift, distill=distill)
    model.fit(data, epochs=epochs, verbose=2)
