"""The model whose layers ignore some channels: what structured pruning has to compute.

A smaller model is right if it equals this one. It has the same layers and sizes: each layer and
operation gets zeros for the removed channels of its inputs, and its weights are zero there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.graph.functional import Call, LayerCopies, rebuild
from tfnas.pruning.structured.channel_groups import Dependencies

if TYPE_CHECKING:
    import keras


def mask_channels(
    model: keras.Model, dependencies: Dependencies, removed: np.ndarray
) -> keras.Model:
    """Returns a functional model of the same sizes that ignores the removed channels.

    Example:
        >>> import keras, numpy as np
        >>> from tfnas.pruning.structured.channel_groups import trace
        >>> layers = [keras.layers.Dense(4), keras.layers.Dense(2)]
        >>> model = keras.Sequential([keras.Input((3,)), *layers])
        >>> found = trace(model)
        >>> removed = np.zeros(len(found.roots), bool)
        >>> removed[found.groups[0].removable[:1]] = True
        >>> masked = mask_channels(model, found, removed)
        >>> int((np.array(masked.layers[1].kernel) == 0).all(axis=0).sum())
        1

    Args:
        model: A built functional or Sequential model; it is not changed.
        dependencies: Result of :func:`~tfnas.pruning.structured.channel_groups.trace` for it.
        removed: Whether each root is removed, boolean, (channel ids,).
    """
    import keras

    copies = LayerCopies()

    def apply(call: Call, tensors: list[Any]) -> list[Any]:
        masked = []
        for value, tensor in zip(call.inputs, tensors, strict=True):
            mask = np.ones([1] * len(value.shape), bool)
            for axis, ids in dependencies.values[value].axes.items():
                row = [1] * len(value.shape)
                row[axis] = -1
                mask = mask & dependencies.kept(ids, removed).reshape(row)
            whole = bool(mask.all())
            masked.append(tensor if whole else _Masked(mask)(tensor))
        return copies.call(call, masked)

    def silenced(layer: Any) -> list[np.ndarray]:
        weights = dependencies.weights_of(layer)
        values = []
        for variable in layer.weights:
            array = np.array(variable)
            if (weight := weights.get(id(variable))) is not None:
                for axis, ids in weight.axes.items():
                    np.moveaxis(array, axis, 0)[~dependencies.kept(ids, removed)] = 0
            values.append(array)
        return values

    class _Masked(keras.layers.Layer):
        """Puts zeros at some channels, also where these are infinite."""

        def __init__(self, mask: np.ndarray) -> None:
            super().__init__(dtype=None)
            self.mask = mask
            self.supports_masking = True

        def call(self, x: Any) -> Any:
            return keras.ops.where(self.mask, x, keras.ops.zeros_like(x))

        def compute_output_shape(self, shape: Any) -> Any:
            return shape

    result = rebuild(model, apply, class_of=None, flow=dependencies.flow)
    copies.carry_weights(silenced)
    return result
