"""Random augmentations of training images, and data sets of augmented batches.

Keras' `RandomFlip` and `RandomTranslation` are not used. Their seed is an integer or a
`SeedGenerator`, which counts its draws; here a batch follows from the seed, the epoch and its
index alone, so that threads and a resumed training change nothing, and the flipped images must be
known to take a teacher's outputs for them. `RandomTranslation` also shifts by fractions of pixels
and repeats the pixel at the border when it reflects (1 0 0 1 2, here 1 0 1 2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfnas.data.augmentation_names import NAMES

FRACTION = 1 / 16  # largest shift, as a fraction of an image's side


def flip(images: Any, seed: Any = None) -> Any:
    """Flips each image horizontally with a probability of one half.

    Args:
        images: Images, (n, height, width, channels).
        seed: Two integers, as for TensorFlow's stateless random operations; None: TensorFlow's
            global generator is used.

    Returns:
        The images, of the same shape.
    """
    return _flip(images, _half(images, seed))


def _half(images: Any, seed: Any) -> Any:
    """A random half of the images, as booleans (n,)."""
    return _uniform([tf.shape(images)[0]], seed) < 0.5


def _uniform(shape: Any, seed: Any, **options: Any) -> Any:
    if seed is None:
        return tf.random.uniform(shape, **options)
    return tf.random.stateless_uniform(shape, seed, **options)


def _flip(images: Any, flipped: Any) -> Any:
    return tf.where(flipped[:, None, None, None], images[:, :, ::-1], images)


def shift(images: Any, pixels: int | None = None, seed: Any = None) -> Any:
    """Shifts each image by a random number of pixels; gaps are filled by reflection.

    Args:
        images: Images, (n, height, width, channels).
        pixels: Largest shift in pixels, below both sides; None: 1/16 of the side, at least one
            pixel of a side that has two or more.
        seed: As for :func:`flip`.

    Returns:
        The images, of the same shape.

    Raises:
        ValueError: `pixels` is negative or as large as a side.
    """
    sides = images.shape[1:3]
    if pixels is not None and not 0 <= pixels < min(sides):
        height, width = sides
        raise ValueError(
            f"pixels must be >= 0 and below the sides of the images, {height} x {width}, got "
            f"{pixels!r}"
        )
    # A reflection repeats no edge: it has one pixel less than the side.
    largest = [
        min(max(1, round(side * FRACTION)), side - 1) if pixels is None else pixels
        for side in sides
    ]
    padded = tf.pad(images, [[0, 0], [largest[0]] * 2, [largest[1]] * 2, [0, 0]], "REFLECT")
    for axis, side, reach in zip((1, 2), sides, largest, strict=True):
        axis_seed = None if seed is None else tf.random.fold_in(seed, axis)
        begin = _uniform([tf.shape(images)[0], 1], axis_seed, maxval=2 * reach + 1, dtype=tf.int32)
        padded = tf.gather(padded, begin + tf.range(side)[None], axis=axis, batch_dims=1)
    return padded


AUGMENTATIONS: dict[str, Callable[..., Any]] = dict(zip(NAMES, (flip, shift), strict=True))


class AugmentedImages(keras.utils.PyDataset):
    """Batches of augmented images, in another order in each epoch.

    The contents of a batch depend only on the seed, the epoch and the index of the batch, so
    threads that prefetch, also beyond the end of an epoch, change nothing.

    Args:
        x: Images, (n, height, width, channels).
        y: Labels, (n,).
        names: Some of `AUGMENTATIONS`.
        batch_size: Examples in a batch.
        seed: Seed of the orders and of the augmentations.
        teacher_outputs: A teacher's outputs for the images, (n, ...), and if they are flipped, also
            for the flipped images; targets are then (labels, teacher outputs). None: labels only.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        names: Sequence[str],
        batch_size: int,
        seed: int,
        teacher_outputs: Sequence[np.ndarray] | None = None,
    ) -> None:
        super().__init__()
        self.x, self.y, self.batch_size = x, y, batch_size
        self.teacher_outputs = teacher_outputs
        self.seed, self.epoch = seed, 0
        self._order = self._order_of(0)

        @tf.function(autograph=False, reduce_retracing=True)
        def augment(images: Any, batch_seed: Any) -> tuple[Any, Any]:
            images, flipped = tf.cast(images, tf.float32), tf.zeros([tf.shape(images)[0]], tf.bool)
            for position, name in enumerate(names):
                name_seed = tf.random.fold_in(batch_seed, position)
                if name == "flip":
                    flipped = _half(images, name_seed)
                    images = _flip(images, flipped)
                else:
                    images = AUGMENTATIONS[name](images, seed=name_seed)
            return images, flipped

        self._augment = augment

    def __len__(self) -> int:
        return -(-len(self.x) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self._batch(self._order, self.epoch, index)

    def on_epoch_end(self) -> None:
        """Starts the next epoch, with another order."""
        self.epoch += 1
        self._order = self._order_of(self.epoch)

    def start_at(self, epoch: int) -> None:
        """Sets the epoch of the next iteration.

        Args:
            epoch: Its number, from 0.
        """
        self.epoch, self._order = epoch, self._order_of(epoch)

    def _order_of(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.x))

    def _batch(self, order: np.ndarray, epoch: int, index: int) -> tuple[Any, Any]:
        rows = order[index * self.batch_size : (index + 1) * self.batch_size]
        batch_seed = np.random.SeedSequence([self.seed, epoch, index]).generate_state(2)
        images, flipped = self._augment(self.x[rows], tf.constant(batch_seed, tf.int64))
        if self.teacher_outputs is None:
            return images, self.y[rows]
        outputs = self.teacher_outputs[0][rows].copy()
        is_flipped = flipped.numpy()
        outputs[is_flipped] = self.teacher_outputs[-1][rows[is_flipped]]
        return images, (self.y[rows], outputs)

    def dataset(self) -> tf.data.Dataset:
        """Returns the batches as a `tf.data.Dataset`; each iteration over it is an epoch."""

        def batches() -> Iterator[tuple[Any, Any]]:
            order, epoch = self._order, self.epoch
            self.on_epoch_end()  # first, as the next epoch may start before the last batch is read
            yield from (self._batch(order, epoch, index) for index in range(len(self)))

        signature = tf.nest.map_structure(
            lambda part: tf.TensorSpec([None, *part.shape[1:]], tf.as_dtype(part.dtype)), self[0]
        )
        dataset = tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(2)
        sized = dataset.apply(tf.data.experimental.assert_cardinality(len(self)))
        return untuned(sized)


class ShuffledBatches:
    """Batches of arrays, in another order in each epoch.

    Keras' `fit` shuffles arrays in each epoch, but from the same random state: if TensorFlow's
    global seed is set, all epochs have the same batches. Here the order depends on the seed and on
    the number of the epoch alone, so a training that was stopped continues with its own batches.

    Args:
        examples: Arrays of n rows each, in any nest of tuples and dictionaries.
        batch_size: Rows in a batch.
        seed: Seed of the orders.
    """

    def __init__(self, examples: Any, batch_size: int, seed: int) -> None:
        self.examples, self.batch_size, self.seed, self.epoch = examples, batch_size, seed, 0

    def start_at(self, epoch: int) -> None:
        """Sets the epoch of the next iteration.

        Args:
            epoch: Its number, from 0.
        """
        self.epoch = epoch

    def dataset(self) -> tf.data.Dataset:
        """Returns the batches as a `tf.data.Dataset`; each iteration over it is an epoch."""
        tensors = tf.nest.map_structure(tf.convert_to_tensor, self.examples)
        count = len(tf.nest.flatten(tensors)[0])

        def rows() -> Iterator[np.ndarray]:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(count)
            for start in range(0, count, self.batch_size):
                yield order[start : start + self.batch_size]

        orders = tf.data.Dataset.from_generator(
            rows, output_signature=tf.TensorSpec([None], tf.int64)
        ).apply(tf.data.experimental.assert_cardinality(-(-count // self.batch_size)))
        gathered = orders.map(
            lambda row: tf.nest.map_structure(lambda t: tf.gather(t, row), tensors)
        )
        return untuned(gathered.prefetch(2))


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns a data set without tf.data's autotuning.

    The thread of the autotuning sleeps for up to a minute, and TensorFlow 2.21 sometimes waits for
    it at the end of an epoch.

    Args:
        dataset: The dataset.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
