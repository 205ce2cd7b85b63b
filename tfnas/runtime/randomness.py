"""Seeds of a training, and the caller's random generators, which it leaves as they were.

What a training draws comes from four generators of the process (Python's, NumPy's, TensorFlow's
and Keras') and from one in each layer that draws, such as Dropout. A training that is the same
each time needs all of them seeded; what else the caller's program draws must not become the same
each time because a function of a library was called. :func:`seeded` does the one and undoes it
for the other, :func:`seed_layers` does the rest.

With the same seed, TensorFlow's operations may still add numbers in another order, on GPUs above
all. `tf.config.experimental.enable_op_determinism()` forbids that, for good and for the whole
process; :func:`operations_are_deterministic` tells whether it was called.

The generators belong to the process: of trainings in several threads at once none is repeatable.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

_LIMIT = 2**32  # NumPy's seeds are below
_KERAS = ("global_random_seed", "global_seed_generator")


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it all draws follow from a seed; after it the caller's go on as before.

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
        yield


@contextlib.contextmanager
def kept_random_state() -> Iterator[None]:
    """Puts the process' random generators back as they were, whatever seeds are set within it."""
    numpy = np.random.get_state()  # noqa: NPY002  what `set_random_seed` sets
    python, library = random.getstate(), _library_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        _restore(library)


def seed_layers(model: Any, seed: int) -> None:
    """Seeds the layers that draw, such as Dropout, also those inside other layers.

    Each has a generator of its own, whose seed Keras draws when the layer is made, read from a
    file, or copied; no file holds it.

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
    """Returns whether TensorFlow's operations give the same bits each time in this process."""
    from tensorflow.python.framework import config  # TensorFlow 2.21 exports the switch alone

    return bool(config.is_op_determinism_enabled())


def make_operations_deterministic() -> None:
    """Makes TensorFlow's operations give the same bits each time, in this process, for good."""
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()


def _library_state() -> dict[str, Any]:
    """Keras' and TensorFlow's seeds and generators, which they let nobody read (3.15, 2.21)."""
    from keras.src.backend.common import global_state
    from tensorflow.python.eager import context

    here = context.context()
    drawn = getattr(here, "_rng", None)  # there once a seed was set
    return {
        "keras": {name: global_state.get_global_attribute(name) for name in _KERAS},
        "seed": context.global_seed(),
        "drawn": None if drawn is None else drawn.getstate(),
    }


def _restore(state: dict[str, Any]) -> None:
    import tensorflow as tf
    from keras.src.backend.common import global_state
    from tensorflow.python.eager import context

    for name, value in state["keras"].items():
        global_state.set_global_attribute(name, value)
    tf.random.set_seed(state["seed"])  # None: none
    if state["drawn"] is not None:
        context.context()._rng.setstate(state["drawn"])
