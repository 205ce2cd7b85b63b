"""Seeds of a training, without a change of the caller's random generators.

A training draws from four generators of the process (Python's, NumPy's, TensorFlow's and Keras')
and from one in each random layer, such as Dropout. To be repeatable it needs all of them seeded.
Other draws of the caller's program must not become repeatable because a function of a library was
called. :func:`seeded` seeds the generators of the process and restores them afterwards, with the
exceptions that :func:`kept_random_state` lists; :func:`seed_layers` seeds the layers.

With the same seed, TensorFlow's operations may still add numbers in another order, on GPUs above
all. `tf.config.experimental.enable_op_determinism()` forbids that, for the whole
process and irrevocably; :func:`operations_are_deterministic` returns whether it was called.

The generators belong to the process: trainings in several threads at once are not repeatable.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import keras
import numpy as np

from tfnas.keras_private import (
    forget_seed_generator,
    op_determinism_is_enabled,
    random_state,
    restore_random_state,
)

_LIMIT = 2**32  # NumPy's seeds are below


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds all draws within the context; afterwards the caller's generators continue as before.

    :func:`kept_random_state` lists what is seeded and restored, and what is not.

    Example:
        >>> keras.utils.set_random_seed(1)
        >>> with seeded(0):
        ...     first = np.random.random()
        >>> own = np.random.random()
        >>> with seeded(0):
        ...     bool(np.random.random() == first)
        True
        >>> keras.utils.set_random_seed(1)
        >>> bool(np.random.random() == own)
        True

    Args:
        seed: A whole number >= 0.
    """
    with kept_random_state():
        keras.utils.set_random_seed(seed % _LIMIT)
        forget_seed_generator()  # Keras 3.12 keeps the old one
        yield


@contextlib.contextmanager
def kept_random_state() -> Iterator[None]:
    """Restores the random generators of the process at the end of the context.

    Restored are the state of Python's `random`, of NumPy's legacy generator, of Keras' global seed
    generator, and TensorFlow's global seed with the generator of its eager operations. Not
    restored are:

    - the sequences of eager TensorFlow operations with a seed of their own, such as
      `tf.random.uniform([], seed=1)`: `tf.random.set_seed` clears their kernels, so that each
      starts again at its first number;
    - `tf.random.get_global_generator()`: what is drawn from it within the context is neither
      seeded nor taken back.
    """
    numpy = np.random.get_state()  # noqa: NPY002  what `set_random_seed` sets
    python, libraries = random.getstate(), random_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        restore_random_state(libraries)


def seed_layers(model: keras.Model, seed: int) -> None:
    """Seeds the random layers of a model, such as Dropout, also those inside other layers.

    Each has a generator of its own, whose seed Keras draws when the layer is created, loaded or
    copied; it is not saved. A seed that the layer was given, as in `Dropout(0.5, seed=42)`, is
    replaced too.

    Example:
        >>> layers = [keras.Input((2,)), keras.layers.Dropout(0.5), keras.layers.Dropout(0.5)]
        >>> model = keras.Sequential(layers)
        >>> seed_layers(model, 0)
        >>> [np.asarray(state).tolist() for state in model.variables]
        [[2968811710, 0], [3677149159, 0]]

    Args:
        model: A built Keras model; its layers are changed in place.
        seed: A whole number >= 0.
    """
    states = [v for v in model.variables if v.name == "seed_generator_state"]
    seeds = np.random.SeedSequence(seed).generate_state(len(states))
    for state, own in zip(states, seeds, strict=True):
        state.assign(np.array([own, 0], state.dtype))


def operations_are_deterministic() -> bool:
    """Returns whether TensorFlow's operations are deterministic in this process."""
    return op_determinism_is_enabled()


def make_operations_deterministic() -> None:
    """Makes TensorFlow's operations deterministic in this process, irrevocably."""
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
