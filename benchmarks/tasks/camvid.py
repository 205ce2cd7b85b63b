"""What is at each pixel of a street? (CamVid) A small U-Net, 11 classes and void.

367 training, 101 validation and 233 test images of 160x120. Void, class 11, has no loss and does
not count. The pipeline mirrors training images at random, with their labels, and changes their
light. The data may be used for tests alone (CC BY-NC 4.0): results hold numbers, no pictures and
no weights.

Quality: mean IoU of the 11 classes over all test pixels. The trained model reaches 0.381, and
0.510 on the validation part, whose light is nearer to that of the training part.
"""

from __future__ import annotations

import io
import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from .training import fit

EPOCHS = 30
METRIC, HIGHER_IS_BETTER = "mean_iou", True
LIMIT = {"max_drop": 2.0}
HEIGHT, WIDTH, CLASSES, VOID = 120, 160, 11, 11
BATCH = 8


def data(folder: str | pathlib.Path) -> tuple[tf.data.Dataset, tf.data.Dataset, tf.data.Dataset]:
    """Returns datasets of batches of (images, labels): (batch, 120, 160, 3) and (batch, 120, 160).

    Images are from 0 to 255. The training part comes in another order, changed anew, each time.

    Args:
        folder: Folder of `camvid_160x120_train.npz`, `..._val.npz` and `..._test.npz`.
    """
    train, *others = (_dataset(pathlib.Path(folder), part) for part in ("train", "val", "test"))
    train = train.cache().shuffle(512).map(_augmented).batch(BATCH).prefetch(2)
    return train, *(each.batch(BATCH).cache() for each in others)


def _dataset(folder: pathlib.Path, part: str) -> tf.data.Dataset:
    """Returns a dataset of decoded images and their labels."""
    from PIL import Image

    with np.load(folder / f"camvid_160x120_{part}.npz") as file:
        jpeg, sizes, labels = (file[k] for k in ("jpeg", "sizes", "labels"))
    files = np.split(jpeg, np.cumsum(sizes)[:-1])
    images = np.stack([np.asarray(Image.open(io.BytesIO(each.tobytes()))) for each in files])
    data = tf.data.Dataset.from_tensor_slices((images, labels))
    return data.map(lambda x, y: (tf.cast(x, tf.float32), tf.cast(y, tf.int32)))


def _augmented(x: Any, y: Any) -> tuple[Any, Any]:
    """Mirrors an image and its labels, one time in two, and changes the light and its color."""
    if tf.random.uniform(()) < 0.5:
        x, y = x[:, ::-1], y[:, ::-1]
    light = tf.random.uniform((3,), 0.7, 1.3)
    return tf.clip_by_value(x * light, 0.0, 255.0), y


def model() -> keras.Model:
    """Returns a U-Net that begins and ends at half of the size; outputs are logits."""
    image = keras.Input((HEIGHT, WIDTH, 3), name="image")
    x = layers.Rescaling(1 / 127.5, -1.0)(image)
    x = fine = _block(x, 24, strides=2)
    x = coarse = _block(_block(x, 48, strides=2), 48)
    for filters in (64, 64, 64):
        x = _block(x, filters, strides=2 if x is coarse else 1)
    for skip, filters in ((coarse, 48), (fine, 24)):
        x = layers.Concatenate()([layers.UpSampling2D()(x), skip])
        x = _block(x, filters)
    x = layers.Conv2D(CLASSES, 1)(x)
    network = keras.Model(image, layers.UpSampling2D(2, interpolation="bilinear", name="logits")(x))
    network.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=VOID),
        metrics=[
            keras.metrics.MeanIoU(CLASSES, sparse_y_pred=False, ignore_class=VOID, name="mean_iou")
        ],
    )
    return network


def _block(x: Any, filters: int, strides: int = 1) -> Any:
    x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))


def train(network: keras.Model, parts: tuple, epochs: int = EPOCHS) -> keras.callbacks.History:
    """Trains the network.

    Args:
        network: The result of `model`.
        parts: The result of `data`.
        epochs: Passes over the training images.
    """
    return fit(network, parts[0], parts[1], epochs)


def quality(y: np.ndarray, outputs: np.ndarray) -> float:
    """Returns the mean IoU over the classes that occur.

    Args:
        y: Labels, (images, height, width).
        outputs: Logits, (images, height, width, 11).
    """
    seen = y != VOID
    pairs = CLASSES * y[seen].astype(np.int64) + outputs.argmax(-1)[seen]
    counts = np.bincount(pairs, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    both, either = np.diag(counts), counts.sum(0) + counts.sum(1) - np.diag(counts)
    return float(np.mean(both[either > 0] / either[either > 0]))
