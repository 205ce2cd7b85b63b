"""The smaller model: every layer made anew with the channels that stay, weights carried over."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfnas.graph.functional import Call, LayerCopies, rebuild
from tfnas.pruning.structured.channel_groups import Dependencies


def slice_channels(model: Any, dependencies: Dependencies, removed: np.ndarray) -> Any:
    """Returns a new functional model without some channels; nested models become flat.

    Args:
        model: The model.
        dependencies: What :func:`~tfnas.pruning.structured.channel_groups.trace` found in it.
        removed: Whether each class goes.
    """
    copies = LayerCopies()

    def apply(call: Call, tensors: list[Any]) -> list[Any]:
        unit = dependencies.units.get(id(call.operation))
        if unit is None or not unit.sizes:
            return copies.call(call, tensors)
        if "channels" in unit.sizes:
            return [_reshape(call, tensors[0], dependencies, removed, copies)]
        changes = {
            name: int(dependencies.kept(labels, removed).sum())
            for name, labels in unit.sizes.items()
        }
        copies.of(call.operation, **changes)
        return copies.call(call, tensors)

    def sliced(layer: Any) -> list[np.ndarray]:
        unit = dependencies.units.get(id(layer))
        parts = {id(part.variable): part for part in unit.slices} if unit else {}
        values = []
        for variable in layer.weights:
            array = np.asarray(variable)
            part = parts.get(id(variable))
            for axis, labels in (part.axes if part else {}).items():
                array = np.compress(dependencies.kept(labels, removed), array, axis=axis)
            values.append(array)
        return values

    smaller = rebuild(model, apply, flow=dependencies.flow)
    copies.carry_weights(sliced)
    return smaller


def _reshape(
    call: Call, tensor: Any, dependencies: Dependencies, removed: np.ndarray, copies: LayerCopies
) -> Any:
    """A reshape to as many channels as there are now."""
    found = dependencies.values[call.outputs[0]]
    assert found is not None
    shape = list(call.outputs[0].shape)
    shape[found.axis] = int(dependencies.kept(found.labels, removed).sum())
    if isinstance(call.operation, keras.layers.Layer):
        name = copies.unique(call.operation.name)
        return keras.layers.Reshape(tuple(shape[1:]), name=name)(tensor)
    return keras.ops.reshape(tensor, (-1, *shape[1:]))
