"""Where are which cells? (BCCD) A single-shot detector with a `train_step` of its own.

364 photographs with 4,888 boxes of red cells, white cells and platelets, here 160x120 pixels; 255
train, 36 validate, 73 test. Each cell of a 20x15 grid says how likely the center of a cell of each
class lies in it, and the box around that center. Targets are boxes, padded to 30 an image; the
model's own `train_step` turns them into its grid. Training images are mirrored at random.

Quality: mean average precision at IoU 0.5 over the three classes, of the test images. The trained
model reaches 0.839.
"""

from __future__ import annotations

import io
import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from .boxes import MOST, SIZE, decode, mean_average_precision
from .training import fit

EPOCHS = 60
METRIC, HIGHER_IS_BETTER = "map50", True
LIMIT = {"max_drop": 3.0}
OUTPUTS = ("scores", "boxes")
HEIGHT, WIDTH, CLASSES = 120, 160, 3
ROWS, COLUMNS = 15, 20  # of the grid
BATCH = 16


@keras.saving.register_keras_serializable("tfnas_benchmarks")
class Detector(keras.Model):
    """A functional model of images whose loss is of boxes.

    It takes targets of shape (batch, boxes, 5): class, x0, y0, x1, y1 as fractions of the image;
    class -1 is padding. Outputs are {"boxes": (batch, rows, columns, 4), "scores": (batch, rows,
    columns, classes)}: place of the center in the grid's cell and logarithms of width and height
    (1 is a tenth of the image); logits.
    """

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(inputs, outputs, name=name, **kwargs)
        self.mean_loss = keras.metrics.Mean(name="loss")

    @property
    def metrics(self) -> list[keras.Metric]:
        """What `fit` resets before each epoch."""
        return [self.mean_loss]

    def train_step(self, data: Any) -> dict[str, Any]:
        """Makes one step from a batch of (images, padded boxes)."""
        x, y = data[:2]
        with tf.GradientTape() as tape:
            loss = detection_loss(y, self(x, training=True))
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return self._logs(loss)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Returns the loss of a batch of (images, padded boxes)."""
        x, y = data[:2]
        return self._logs(detection_loss(y, self(x, training=False)))

    def _logs(self, loss: tf.Tensor) -> dict[str, Any]:
        self.mean_loss.update_state(loss)
        return {"loss": self.mean_loss.result()}


def detection_loss(y: tf.Tensor, outputs: dict[str, tf.Tensor]) -> tf.Tensor:
    """Returns the focal loss of the scores plus the absolute error of the boxes, per cell found.

    Args:
        y: Boxes, (batch, boxes, 5).
        outputs: The detector's outputs.
    """
    y = tf.cast(y, tf.float32)
    real = tf.cast(y[..., 0] >= 0, tf.float32)
    size = y[..., 3:5] - y[..., 1:3]
    center = (y[..., 1:3] + y[..., 3:5]) / 2 * (COLUMNS, ROWS)  # in cells of the grid
    cell = tf.floor(center)
    row = tf.range(ROWS, dtype=tf.float32)[:, None]
    column = tf.range(COLUMNS, dtype=tf.float32)[None, :]
    across = column - cell[..., 0, None, None]  # (batch, boxes, rows, columns) with `down`
    down = row - cell[..., 1, None, None]
    spread = 0.15 * tf.maximum(size * (COLUMNS, ROWS), 1.0)[..., None, None]
    near = tf.square(across / spread[:, :, 0]) + tf.square(down / spread[:, :, 1])
    near = tf.exp(-near / 2) * real[..., None, None]
    kinds = tf.one_hot(tf.cast(y[..., 0], tf.int32), CLASSES)
    heat = tf.reduce_max(near[..., None] * kinds[:, :, None, None, :], axis=1)
    found = tf.cast(heat >= 1.0, tf.float32)
    # Cells near a center are wrong by less (CornerNet).
    p = tf.clip_by_value(tf.sigmoid(outputs["scores"]), 1e-4, 1 - 1e-4)
    positive = -found * tf.square(1 - p) * tf.math.log(p)
    negative = -(1 - found) * (1 - heat) ** 4 * tf.square(p) * tf.math.log(1 - p)
    at = tf.cast((across == 0) & (down == 0), tf.float32) * real[..., None, None]
    owner = tf.argmax(at, axis=1)  # the first box of a cell
    place = tf.concat([center - cell, tf.math.log(tf.maximum(size, 1e-3) / SIZE)], axis=-1)
    target = tf.gather(place, owner, axis=1, batch_dims=1)  # (batch, rows, columns, 4)
    taken = tf.reduce_max(at, axis=1)[..., None]
    error = tf.abs(outputs["boxes"] - target) * taken
    count = tf.reduce_sum(taken) + 1.0
    return (tf.reduce_sum(positive + negative) + tf.reduce_sum(error)) / count


def data(folder: str | pathlib.Path) -> tuple[tf.data.Dataset, tuple, tuple]:
    """Returns a dataset of training batches, and arrays of the other parts: (images, boxes).

    Images are (images, 120, 160, 3) from 0 to 255, boxes (images, 30, 5) as the detector takes
    them.

    Args:
        folder: Folder of `blood_cells_detection.npz`.
    """
    from PIL import Image

    with np.load(pathlib.Path(folder) / "blood_cells_detection.npz") as file:
        jpeg, sizes, boxes = (file[k] for k in ("jpeg", "sizes", "boxes"))
    files = np.split(jpeg, np.cumsum(sizes)[:-1])
    images = (Image.open(io.BytesIO(each.tobytes())).convert("RGB") for each in files)
    size = (WIDTH, HEIGHT)
    x = np.stack([np.asarray(each.resize(size, Image.Resampling.BOX)) for each in images])
    x = x.astype(np.float32)
    y = np.full((len(x), MOST, 5), -1.0, np.float32)
    for image in range(len(x)):
        own = boxes[boxes[:, 0] == image, 1:]
        y[image, : len(own)] = own
    order = np.random.default_rng(0).permutation(len(x))
    test, validation, train = np.split(order, (73, 109))
    batches = tf.data.Dataset.from_tensor_slices((x[train], y[train]))
    batches = batches.shuffle(len(train)).map(_mirrored).batch(BATCH).prefetch(2)
    return batches, (x[validation], y[validation]), (x[test], y[test])


def _mirrored(x: Any, y: Any) -> tuple[Any, Any]:
    """Mirrors an image and its boxes at random, from side to side and upside down."""
    kind, x0, y0, x1, y1 = tf.unstack(y, axis=-1)
    if tf.random.uniform(()) < 0.5:
        x, x0, x1 = x[:, ::-1], 1 - x1, 1 - x0
    if tf.random.uniform(()) < 0.5:
        x, y0, y1 = x[::-1], 1 - y1, 1 - y0
    return x, tf.stack([kind, x0, y0, x1, y1], axis=-1)


def model() -> Detector:
    """Returns the detector: convolutions down to the grid, and a head for each output."""
    image = keras.Input((HEIGHT, WIDTH, 3), name="image")
    x = layers.Rescaling(1 / 127.5, -1.0)(image)
    for filters, strides in ((16, 2), (32, 2), (32, 1), (64, 2), (64, 1), (64, 1), (64, 1)):
        x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    rare = keras.initializers.Constant(-3.0)  # most cells of the grid hold no center
    outputs = {
        "scores": layers.Conv2D(CLASSES, 1, bias_initializer=rare, name="scores")(x),
        "boxes": layers.Conv2D(4, 1, name="boxes")(x),
    }
    network = Detector(image, outputs)
    network.compile(keras.optimizers.Adam(3e-3))
    return network


def train(network: keras.Model, parts: tuple, epochs: int = EPOCHS) -> keras.callbacks.History:
    """Trains the detector.

    Args:
        network: The result of `model`.
        parts: The result of `data`.
        epochs: Passes over the training images.
    """
    return fit(network, parts[0], parts[1], epochs)


def quality(y: np.ndarray, outputs: dict[str, np.ndarray]) -> float:
    """Returns the mean average precision at IoU 0.5.

    Args:
        y: Boxes, (images, 30, 5).
        outputs: Outputs of the detector.
    """
    return mean_average_precision(y, decode(outputs), CLASSES)
