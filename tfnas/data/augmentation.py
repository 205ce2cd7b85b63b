"""Changes of training images that leave their class as it is, drawn anew for each batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

SHARE = 1 / 16  # of an image's side that it is shifted by at most


def flip(images: Any, seed: Any = None) -> Any:
    """Mirrors every second image, left to right.

    Args:
        images: (n, height, width, channels).
        seed: Two whole numbers that all is drawn by; None: TensorFlow's own generator draws.
    """
    return _mirrored(images, _every_second(images, seed))


def _every_second(images: Any, seed: Any) -> Any:
    return _uniform([tf.shape(images)[0]], seed) < 0.5


def _uniform(shape: Any, seed: Any, **kind: Any) -> Any:
    if seed is None:
        return tf.random.uniform(shape, **kind)
    return tf.random.stateless_uniform(shape, seed, **kind)


def _mirrored(images: Any, which: Any) -> Any:
    return tf.where(which[:, None, None, None], images[:, :, ::-1], images)


def shift(images: Any, pixels: int | None = None, seed: Any = None) -> Any:
    """Moves each image by its own few pixels; what comes in is mirrored.

    Args:
        images: (n, height, width, channels).
        pixels: How far at most; None: by a share of the side.
        seed: As for :func:`flip`.
    """
    most = [max(1, round(size * SHARE)) if pixels is None else pixels for size in images.shape[1:3]]
    padded = tf.pad(images, [[0, 0], [most[0]] * 2, [most[1]] * 2, [0, 0]], "REFLECT")
    for axis, size, reach in zip((1, 2), images.shape[1:3], most, strict=True):
        own = None if seed is None else tf.random.fold_in(seed, axis)
        begin = _uniform([tf.shape(images)[0], 1], own, maxval=2 * reach + 1, dtype=tf.int32)
        padded = tf.gather(padded, begin + tf.range(size)[None], axis=axis, batch_dims=1)
    return padded


AUGMENTATIONS: dict[str, Callable[..., Any]] = {"flip": flip, "shift": shift}


def check_augment(names: Sequence[str]) -> None:
    """Raises ValueError unless all names are known."""
    known = not isinstance(names, str) and all(name in AUGMENTATIONS for name in names)
    if not known or len(set(names)) < len(names):
        raise ValueError(
            f"augment must hold some of {', '.join(AUGMENTATIONS)}, each once, got {names!r}"
        )


class AugmentedImages(keras.utils.PyDataset):
    """Batches of changed images, in an order of its own each epoch.

    What a batch holds follows from the seed, its epoch and its place alone: threads that read
    ahead, also beyond the end of an epoch, change nothing.

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
        self.seed, self.epoch = seed, 0
        self._order = self._order_of(0)

        @tf.function(reduce_retracing=True)
        def change(images: Any, drawn_by: Any) -> tuple[Any, Any]:
            images, which = tf.cast(images, tf.float32), tf.zeros([tf.shape(images)[0]], tf.bool)
            for place, name in enumerate(names):
                own = tf.random.fold_in(drawn_by, place)
                if name == "flip":
                    which = _every_second(images, own)
                    images = _mirrored(images, which)
                else:
                    images = AUGMENTATIONS[name](images, seed=own)
            return images, which

        self._change = change

    def __len__(self) -> int:
        return -(-len(self.x) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self._batch(self._order, self.epoch, index)

    def on_epoch_end(self) -> None:
        """Goes to the next order."""
        self.epoch += 1
        self._order = self._order_of(self.epoch)

    def _order_of(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.x))

    def _batch(self, order: np.ndarray, epoch: int, index: int) -> tuple[Any, Any]:
        rows = order[index * self.batch_size : (index + 1) * self.batch_size]
        drawn_by = np.random.SeedSequence([self.seed, epoch, index]).generate_state(2)
        images, mirrored = self._change(self.x[rows], tf.constant(drawn_by, tf.int64))
        if self.told is None:
            return images, self.y[rows]
        told = self.told[0][rows].copy()
        which = mirrored.numpy()
        told[which] = self.told[-1][rows[which]]
        return images, (self.y[rows], told)

    def dataset(self) -> tf.data.Dataset:
        """Returns the batches as a dataset; each time that it is read is an epoch."""

        def batches() -> Iterator[tuple[Any, Any]]:
            order, epoch = self._order, self.epoch
            self.on_epoch_end()  # now: when the last batch is read, the next epoch may have begun
            yield from (self._batch(order, epoch, index) for index in range(len(self)))

        kinds = tf.nest.map_structure(
            lambda part: tf.TensorSpec([None, *part.shape[1:]], tf.as_dtype(part.dtype)), self[0]
        )
        dataset = tf.data.Dataset.from_generator(batches, output_signature=kinds).prefetch(2)
        counted = dataset.apply(tf.data.experimental.assert_cardinality(len(self)))
        return untuned(counted)


def shuffled(examples: Any, batch_size: int, seed: int) -> tf.data.Dataset:
    """Returns batches of arrays, in an order of its own each time that they are read.

    Of arrays, Keras' `fit` draws the order anew in each epoch, but from the same state: with
    TensorFlow's seed set, all epochs have the same batches.

    Args:
        examples: Arrays of n rows each, in any nest of tuples.
        batch_size: Rows a batch.
        seed: Seed of the orders, of which TensorFlow's own is a part.
    """
    tensors = tf.nest.map_structure(tf.convert_to_tensor, examples)
    count = len(tf.nest.flatten(tensors)[0])
    rows = tf.data.Dataset.range(count).shuffle(count, seed=seed).batch(batch_size)
    taken = rows.map(lambda own: tf.nest.map_structure(lambda t: tf.gather(t, own), tensors))
    return untuned(taken.prefetch(2))


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
