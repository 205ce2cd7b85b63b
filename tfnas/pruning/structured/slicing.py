"""Builds the smaller model: new layers with the kept channels and their weights."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfnas.graph.functional import Call, LayerCopies, rebuild
from tfnas.keras_private import operations_between
from tfnas.pruning.structured.channel_groups import Dependencies, trace
from tfnas.pruning.structured.channel_trace import ChannelLayer, ChannelWeight, Kept

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

    def kept(ids: np.ndarray) -> np.ndarray:
        return dependencies.kept(ids, removed)

    def apply(call: Call, tensors: list[Any]) -> list[Any]:
        rewrite = dependencies.rewrites.get(call)
        if rewrite is not None and _loses_channels(call, dependencies, kept):
            return _with_free_names(call, list(rewrite(tensors, kept)), tensors, copies)
        layer = dependencies.layers.get(id(call.operation))
        if layer is not None and isinstance(layer.layer, keras.layers.Layer):
            copies.of(layer.layer, **_new_settings(layer, kept))
        return copies.call(call, tensors)

    def sliced(layer: Any) -> list[np.ndarray]:
        weights = dependencies.weights_of(layer)
        return [_sliced(variable, weights.get(id(variable)), kept) for variable in layer.weights]

    smaller = rebuild(model, apply, class_of=model, flow=dependencies.flow)
    copies.carry_weights(sliced)
    return smaller


def _loses_channels(call: Call, dependencies: Dependencies, kept: Kept) -> bool:
    values = (*call.inputs, *call.outputs)
    rows = [ids for value in values for ids in dependencies.values[value].axes.values()]
    return not all(kept(ids).all() for ids in rows)


def _with_free_names(
    call: Call, outputs: list[Any], inputs: list[Any], copies: LayerCopies
) -> list[Any]:
    """The outputs; the operations between them and the inputs get names that are free."""
    for operation in operations_between(inputs, outputs):
        is_same = type(operation) is type(call.operation)
        operation.name = copies.unique(call.operation.name if is_same else operation.name)
    return outputs


def _new_settings(layer: ChannelLayer, kept: Kept) -> dict[str, Any]:
    """The changed arguments of a layer's configuration; none where it keeps all channels."""
    rows = [*layer.sizes.values(), *(ids for w in layer.weights for ids in w.axes.values())]
    if all(kept(ids).all() for ids in rows):
        return {}
    changes: dict[str, Any] = {name: int(kept(ids).sum()) for name, ids in layer.sizes.items()}
    changes |= {name: setting(kept) for name, setting in layer.settings.items()}
    nested = {name for name in changes if "." in name}
    config = copy.deepcopy(layer.layer.get_config()) if nested else {}
    for name in nested:
        *path, last = name.split(".")
        inner = config
        for part in path:
            inner = inner[part]
        inner[last] = changes.pop(name)
        config[path[0]].pop("build_config", None)  # it has the sizes of before
        changes[path[0]] = config[path[0]]
    return changes


def _sliced(variable: Any, weight: ChannelWeight | None, kept: Kept) -> np.ndarray:
    """The values of a weight for the channels that are kept."""
    array = np.asarray(variable)
    if weight is None:
        return array
    for axis, ids in weight.axes.items():
        array = np.compress(kept(ids), array, axis=axis)
    if weight.rescaled is not None:
        ids, power = weight.rescaled
        array = (array * kept(ids).mean() ** power).astype(array.dtype)
    return array


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
    dependencies = trace_of(model, report)
    return slice_channels(model, dependencies, removal_of(dependencies, report))


def trace_of(model: keras.Model, report: ChannelPruningReport) -> Dependencies:
    """Returns the channels of a model that was pruned, as they were traced then.

    Args:
        model: The model.
        report: The report on its pruning.

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
    return dependencies


def removal_of(dependencies: Dependencies, report: ChannelPruningReport) -> np.ndarray:
    """Returns whether each root was removed, boolean, (channel ids,).

    Args:
        dependencies: Result of :func:`trace_of`.
        report: The report.
    """
    removed = np.zeros(len(dependencies.roots), bool)
    for group, change in zip(dependencies.groups, report.groups, strict=True):
        removed[group.roots[list(change.removed)]] = True
    return removed
