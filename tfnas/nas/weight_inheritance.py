"""Weights that a child takes from its parent where their layers overlap.

References:
    Real et al., "Large-Scale Evolution of Image Classifiers", ICML 2017, section 3.4 (weight
    inheritance). Cai et al., "Once-for-All", ICLR 2020 (the center of a larger kernel).
"""

from __future__ import annotations

from typing import Any

import numpy as np


def inherit_weights(child: Any, parent: Any) -> float:
    """Copies what fits from layers of the same name; returns the share of weights taken.

    Of an axis that differs in size the first records are copied, of the two spatial axes of a
    convolution the center. What the parent has no value for stays as it was made.

    Example:
        >>> import keras
        >>> def net(units):
        ...     return keras.Sequential([keras.Input((3,)), keras.layers.Dense(units, name="d")])
        >>> inherit_weights(net(4), net(2))
        0.5

    Args:
        child: A built Keras model; changed in place.
        parent: A built Keras model.
    """
    theirs = {layer.name: layer for layer in parent._flatten_layers(include_self=False)}
    taken = total = 0
    for layer in child._flatten_layers(include_self=False):
        given = theirs.get(layer.name)
        mine, values = _own(layer), []
        if given is not None and type(given) is type(layer):
            values = [np.asarray(w) for w in _own(given)]
        total += sum(int(np.prod(w.shape)) for w in mine)
        if len(values) != len(mine):
            continue
        for weight, value in zip(mine, values, strict=True):
            taken += _copy(weight, value)
    return taken / total if total else 0.0


def _own(layer: Any) -> list[Any]:
    """A layer's weights without those of layers inside it, and without random states."""
    states = [w for w in layer._non_trainable_variables if w.dtype != "uint32"]
    return [*layer._trainable_variables, *states]


def _copy(weight: Any, value: np.ndarray) -> int:
    """Copies the overlap; returns its number of elements."""
    own = np.array(weight)
    if own.ndim != value.ndim:
        return 0
    into, out_of = [], []
    for axis, (size, given) in enumerate(zip(own.shape, value.shape, strict=True)):
        common = min(size, given)
        centered = own.ndim == 4 and axis < 2
        first, from_ = ((size - common) // 2, (given - common) // 2) if centered else (0, 0)
        into.append(slice(first, first + common))
        out_of.append(slice(from_, from_ + common))
    overlap = value[tuple(out_of)]
    own[tuple(into)] = overlap
    weight.assign(own)
    return int(overlap.size)
