"""Two tasks that are no image classes, to show that the engine knows nothing of these."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tfnas.data.examples import ArrayParts, Examples
from tfnas.tasks.assessment import Metric
from tfnas.tasks.task import Task


def parts_of(name, x, y):
    """Returns 60% of the examples for training, 20% for validation, 20% for the test."""
    examples, count = Examples(x, y), len(Examples(x, y))
    first, second = int(0.6 * count), int(0.8 * count)
    parts = (
        examples.rows(part) for part in (slice(first), slice(first, second), slice(second, None))
    )
    return ArrayParts(name, *parts)


class TwoTargets(Task):
    """A table; two regressions, whose absolute errors are added."""

    metric = Metric("absolute error", higher_is_better=False, unit="units")

    def check(self, model, data):
        if len(model.outputs) != 2:
            raise ValueError(f"model must have two outputs, got {len(model.outputs)}")

    def loss(self, model):
        return ["mse", "mse"]

    def example_values(self, y, predictions):
        return sum(abs(true - guess[:, 0]) for true, guess in zip(y, predictions, strict=True))


def table():
    """Rows of six numbers, and two smooth functions of them."""
    x = np.random.default_rng(0).normal(size=(400, 6)).astype("float32")
    return parts_of("table", x, (np.tanh(x[:, 0] - x[:, 1]), 0.5 * x[:, 2] * x[:, 3]))


def two_heads():
    """A trained network of a shared trunk and two heads."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    trunk = layers.Dense(32, "relu", name="trunk")(inputs)
    trunk = layers.Dense(32, "relu", name="middle")(trunk)
    heads = [layers.Dense(1, name=name)(trunk) for name in ("zeta", "alpha")]
    model = keras.Model(inputs, heads)
    model.compile(keras.optimizers.Adam(0.01), ["mse", "mse"], jit_compile=False)
    data = table().train
    model.fit(data.x, data.y, epochs=15, batch_size=32, verbose=0)
    return model


class _Detecting(keras.Model):
    """Trains a detector by a step of its own: the box counts where there is an object."""

    def __init__(self, detector):
        super().__init__()
        self.detector = detector

    def call(self, images, training=None):
        return self.detector(images, training=training)

    def train_step(self, data):
        images, (boxes, classes) = data
        with tf.GradientTape() as tape:
            outputs = self.detector(images, training=True)
            loss = detection_loss((boxes, classes), outputs)
        gradients = tape.gradient(loss, [v.value for v in self.detector.trainable_variables])
        self.optimizer.apply(gradients, self.detector.trainable_variables)
        return {"loss": loss}


def detection_loss(y, outputs):
    """The squared error of the box, and the cross-entropy of its class."""
    boxes, classes = y
    right = keras.losses.sparse_categorical_crossentropy(classes, outputs[:, 4:], from_logits=True)
    off = tf.reduce_sum(tf.square(boxes - outputs[:, :4]), axis=-1)
    return tf.reduce_mean(right) + 4 * tf.reduce_mean(off)


class OneObject(Task):
    """Images with one object each: its box and its class, trained by a step of its own."""

    metric = Metric("found", scale=100.0, unit="points")

    def check(self, model, data):
        if model.outputs[0].shape[-1] != 6:
            raise ValueError(f"model must give 6 numbers, got {model.outputs[0].shape[-1]}")

    def loss(self, model):
        return detection_loss

    def trainer(self, model, optimizer, distillation=None):
        trainer = _Detecting(model)
        trainer.compile(optimizer, jit_compile=False)
        return trainer

    def postprocess(self, outputs):
        return outputs[:, :4], outputs[:, 4:].argmax(axis=1)

    def example_values(self, y, predictions):
        (boxes, classes), (found, labels) = y, predictions
        return (overlap(boxes, found) > 0.3) & (classes == labels)


def overlap(one, other):
    """Intersection over union of boxes (left, top, right, bottom)."""
    low, high = np.maximum(one[:, :2], other[:, :2]), np.minimum(one[:, 2:], other[:, 2:])
    both = np.prod(np.maximum(high - low, 0), axis=1)
    areas = [np.prod(np.maximum(box[:, 2:] - box[:, :2], 0), axis=1) for box in (one, other)]
    return both / np.maximum(areas[0] + areas[1] - both, 1e-9)


def boxes_in_images():
    """Images of 16x16 pixels with a bright or a striped rectangle."""
    rng = np.random.default_rng(0)
    images = rng.normal(0, 0.05, (300, 16, 16, 1)).astype("float32")
    corners, sizes = rng.integers(0, 7, (300, 2)), rng.integers(5, 10, (300, 2))
    classes = rng.integers(0, 2, 300)
    for image, (left, top), (width, height), striped in zip(
        images, corners, sizes, classes, strict=True
    ):
        image[top : top + height : 1 + striped, left : left + width] += 1
    boxes = np.concatenate([corners, np.minimum(corners + sizes, 16)], axis=1) / 16
    return parts_of("boxes", images, (boxes.astype("float32"), classes))


def detector():
    """A trained detector."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            layers.Conv2D(12, 3, strides=2, activation="relu", name="stem"),
            layers.Conv2D(16, 3, activation="relu", name="body"),
            layers.Flatten(),
            layers.Dense(32, "relu", name="hidden"),
            layers.Dense(6, name="answer"),
        ]
    )
    trainer = OneObject().trainer(model, keras.optimizers.Adam(0.005))
    data = boxes_in_images().train
    trainer.fit(data.x, data.y, epochs=12, batch_size=32, verbose=0)
    return model
