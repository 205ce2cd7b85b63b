"""Inheritance of weights: a child copies those that overlap with its parent's.

References:
    Real et al., "Large-Scale Evolution of Image Classifiers", ICML 2017, section 3.4 (weight
    inheritance). Cai et al., "Once-for-All", ICLR 2020 (the center of a larger kernel).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tfnas.keras_private import all_layers, own_variables

if TYPE_CHECKING:
    import keras


def inherit_weights(child: keras.Model, parent: keras.Model) -> float:
    """Copies the overlapping weights of layers of the same name and type.

    On an axis that differs in size the first elements are copied, on the two spatial axes of a
    convolution those of the center. All other weights keep their initial values.

    Example:
        >>> import keras
        >>> def net(units):
        ...     return keras.Sequential([keras.Input((3,)), keras.layers.Dense(units, name="d")])
        >>> inherit_weights(net(4), net(2))
        0.5

    Args:
        child: A built Keras model; changed in place.
        parent: A built Keras model.

    Returns:
        The fraction of the child's weights that were copied, from 0 to 1.
    """
    layers = {layer.name: layer for layer in all_layers(parent, include_self=False)}
    copied = total = 0
    for layer in all_layers(child, include_self=False):
        source = layers.get(layer.name)
        weights, values = _own_weights(layer), []
        if source is not None and type(source) is type(layer):
            values = [np.asarray(w) for w in _own_weights(source)]
        total += sum(int(np.prod(w.shape)) for w in weights)
        if len(values) != len(weights):
            continue
        for weight, value in zip(weights, values, strict=True):
            copied += _copy_overlap(weight, value)
    return copied / total if total else 0.0


def _own_weights(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The weights of a layer without those of nested layers and without random states."""
    return [w for w in own_variables(layer) if w.dtype != "uint32"]


def _copy_overlap(weight: keras.Variable, value: np.ndarray) -> int:
    """Copies the overlap of a value into a weight; returns its number of elements."""
    updated = np.array(weight)
    if updated.ndim != value.ndim:
        return 0
    targets, sources = [], []
    for axis, (size, source_size) in enumerate(zip(updated.shape, value.shape, strict=True)):
        common = min(size, source_size)
        is_centered = updated.ndim == 4 and axis < 2
        target_start = (size - common) // 2 if is_centered else 0
        source_start = (source_size - common) // 2 if is_centered else 0
        targets.append(slice(target_start, target_start + common))
        sources.append(slice(source_start, source_start + common))
    overlap = value[tuple(sources)]
    updated[tuple(targets)] = overlap
    weight.assign(updated)
    return int(overlap.size)
