"""Changes of training images that leave their class as it is, drawn anew for each batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

SHARE = 1 / 16  # of an image's side that it is shifted by at most


def flip(images: Any) -> Any:
    """Mirrors every second image, left to right."""
    return _mirrored(images, _every_second(images))


def _every_second(images: Any) -> Any:
    return tf.random.uniform([tf.shape(images)[0]]) < 0.5


def _mirrored(images: Any, which: Any) -> Any:
    return tf.where(which[:, None, None, None], images[:, :, ::-1], images)


def shift(images: Any, pixels: int | None = None) -> Any:
    """Moves each image by its own few pixels; what comes in is mirrored.

    Args:
        images: (n, height, width, channels).
        pixels: How far at most; None: by a share of the side.
    """
    most = [max(1, round(size * SHARE)) if pixels is None else pixels for size in images.shape[1:3]]
    padded = tf.pad(images, [[0, 0], [most[0]] * 2, [most[1]] * 2, [0, 0]], "REFLECT")
    for axis, size, reach in zip((1, 2), images.shape[1:3], most, strict=True):
        begin = tf.random.uniform([tf.shape(images)[0], 1], maxval=2 * reach + 1, dtype=tf.int32)
        padded = tf.gather(padded, begin + tf.range(size)[None], axis=axis, batch_dims=1)
    return padded


AUGMENTATIONS: dict[str, Callable[[Any], Any]] = {"flip": flip, "shift": shift}


def check_augment(names: Sequence[str]) -> None:
    """Raises ValueError unless all names are known."""
    known = not isinstance(names, str) and all(name in AUGMENTATIONS for name in names)
    if not known or len(set(names)) < len(names):
        raise ValueError(
            f"augment must hold some of {', '.join(AUGMENTATIONS)}, each once, got {names!r}"
        )


class AugmentedImages(keras.utils.PyDataset):
    """Batches of changed images, in an order of its own each epoch.

    Args:
        x: Images (n, height, width, channels).
        y: Labels (n,).
        names: Some of `AUGMENTATIONS`.
        batch_size: Examples a batch.
        seed: Seed of the order and of the changes.
        told: What a teacher says of the images, (n, ...), and, where they are mirrored, of their
            mirror images; targets are then (labels, what is told). None: labels alone.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        names: Sequence[str],
        batch_size: int,
        seed: int,
        told: Sequence[np.ndarray] | None = None,
    ) -> None:
        super().__init__()
        self.x, self.y, self.batch_size, self.told = x, y, batch_size, told
        self._rng = tf.random.Generator.from_seed(seed)
        self._order = tf.range(len(x))

        @tf.function(reduce_retracing=True)
        def change(images: Any) -> tuple[Any, Any]:
            images, which = tf.cast(images, tf.float32), tf.zeros([tf.shape(images)[0]], tf.bool)
            for name in names:
                if name == "flip":
                    which = _every_second(images)
                    images = _mirrored(images, which)
                else:
                    images = AUGMENTATIONS[name](images)
            return images, which

        self._change = change
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self.x) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        rows = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        images, mirrored = self._change(self.x[rows])
        if self.told is None:
            return images, self.y[rows]
        told = self.told[0][rows].copy()
        which = mirrored.numpy()
        told[which] = self.told[-1][rows[which]]
        return images, (self.y[rows], told)

    def on_epoch_end(self) -> None:
        """Draws a new order."""
        keys = self._rng.uniform([len(self.x)])
        self._order = tf.argsort(keys).numpy()

    def dataset(self) -> tf.data.Dataset:
        """Returns the batches as a dataset, which draws a new order each time that it ends."""

        def epoch() -> Iterator[tuple[Any, Any]]:
            yield from (self[index] for index in range(len(self)))
            self.on_epoch_end()

        kinds = tf.nest.map_structure(
            lambda part: tf.TensorSpec([None, *part.shape[1:]], tf.as_dtype(part.dtype)), self[0]
        )
        batches = tf.data.Dataset.from_generator(epoch, output_signature=kinds).prefetch(2)
        counted = batches.apply(tf.data.experimental.assert_cardinality(len(self)))
        return untuned(counted)


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns a dataset that tf.data doesn't tune as it runs, as it does those that Keras makes.

    The thread that tunes sleeps up to a minute, and at the end of an epoch TensorFlow 2.21
    sometimes waits for that.

    Args:
        dataset: The dataset.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
