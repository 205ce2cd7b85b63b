"""Builds the smaller model: new layers with the kept channels and their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfnas.graph.functional import Call, LayerCopies, rebuild
from tfnas.graph.registered_layers import registered_layer
from tfnas.pruning.structured.channel_groups import Dependencies, trace

if TYPE_CHECKING:
    from tfnas.pruning.structured.channel_report import ChannelPruningReport


def slice_channels(
    model: keras.Model, dependencies: Dependencies, removed: np.ndarray
) -> keras.Model:
    """Returns a new functional model without the removed channels; nested models are flattened.

    Args:
        model: A built functional or Sequential model.
        dependencies: Result of :func:`~tfnas.pruning.structured.channel_groups.trace` for it.
        removed: Whether each root is removed, boolean, (channel ids,).
    """
    copies = LayerCopies()

    def apply(call: Call, tensors: list[Any]) -> list[Any]:
        layer = dependencies.layers.get(id(call.operation))
        if layer is None or not layer.sizes:
            return copies.call(call, tensors)
        if "channels" in layer.sizes and registered_layer(call.operation) is None:
            return [_reshape(call, tensors[0], dependencies, removed, copies)]
        changes = {
            name: int(dependencies.kept(ids, removed).sum()) for name, ids in layer.sizes.items()
        }
        copies.of(call.operation, **changes)
        return copies.call(call, tensors)

    def sliced(layer: Any) -> list[np.ndarray]:
        traced = dependencies.layers.get(id(layer))
        weights = {id(weight.variable): weight for weight in traced.weights} if traced else {}
        values = []
        for variable in layer.weights:
            array = np.asarray(variable)
            weight = weights.get(id(variable))
            for axis, ids in (weight.axes if weight else {}).items():
                array = np.compress(dependencies.kept(ids, removed), array, axis=axis)
            values.append(array)
        return values

    smaller = rebuild(model, apply, class_of=model, flow=dependencies.flow)
    copies.carry_weights(sliced)
    return smaller


def remove_again(model: keras.Model, report: ChannelPruningReport) -> keras.Model:
    """Returns a model without the channels that :func:`tfnas.prune_channels` removed before.

    Args:
        model: The model that was pruned, of the same layers; it is not changed.
        report: The report on its pruning.

    Returns:
        The smaller model, as it was returned it.

    Raises:
        ValueError: The report is on another model.
    """
    dependencies = trace(model)
    own = [(group.name, group.size) for group in dependencies.groups]
    if own != [(change.name, change.before) for change in report.groups]:
        raise ValueError(
            f"report must be on {model.name!r}, whose {len(own)} groups of channels are others "
            f"than its {len(report.groups)}"
        )
    removed = np.zeros(len(dependencies.roots), bool)
    for group, change in zip(dependencies.groups, report.groups, strict=True):
        removed[group.roots[list(change.removed)]] = True
    return slice_channels(model, dependencies, removed)


def _reshape(
    call: Call, tensor: Any, dependencies: Dependencies, removed: np.ndarray, copies: LayerCopies
) -> Any:
    """A reshape to the number of channels that are kept."""
    found = dependencies.values[call.outputs[0]]
    assert found is not None
    shape = list(call.outputs[0].shape)
    shape[found.axis] = int(dependencies.kept(found.ids, removed).sum())
    if isinstance(call.operation, keras.layers.Layer):
        name = copies.unique(call.operation.name)
        return keras.layers.Reshape(tuple(shape[1:]), name=name)(tensor)
    return keras.ops.reshape(tensor, (-1, *shape[1:]))
