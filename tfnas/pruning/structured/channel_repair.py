"""Repair of what follows a cut, without labels: the layers that lost channels are fitted again.

The removed channels are set to zero in a copy of the model, which then computes what the smaller
model computes and has the original's layers. :func:`tfnas.pruning.reconstruct.reconstruct` fits
the kernels of the copy, front to back, to the outputs of the original layers on the inputs in the
copy: least squares over the channels that stay, with the biases and the statistics of
BatchNormalization. Then the channels are cut out of the copy.

References:
    Luo, Wu and Lin, "ThiNet: A Filter Level Pruning Method for Deep Neural Network Compression",
    ICCV 2017. He, Zhang and Sun, "Channel Pruning for Accelerating Very Deep Neural Networks",
    ICCV 2017.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.data.reading import spread
from tfnas.graph.functional import clone
from tfnas.graph.kernel_state import model_compression
from tfnas.pruning.prunable_kernels import find_kernels
from tfnas.pruning.reconstruct import reconstruct
from tfnas.pruning.repair import without_zeros
from tfnas.pruning.structured.channel_groups import Dependencies, trace
from tfnas.pruning.structured.slicing import removal_of, slice_channels, trace_of

if TYPE_CHECKING:
    import keras

    from tfnas.pruning.structured.channel_report import ChannelPruningReport

EXAMPLES = 512  # most that are read
SHRINKAGE = 0.03  # of the moments; few unknowns for each layer, unlike single zeros
ROWS = 20_000  # patches of each layer


def zeroed(
    model: keras.Model, dependencies: Dependencies, removed: np.ndarray
) -> tuple[keras.Model, dict[int, np.ndarray]]:
    """Returns a copy whose weights are zero at the removed channels, and where they may not be.

    Args:
        model: A built functional or Sequential model; it is not changed.
        dependencies: Result of :func:`~tfnas.pruning.structured.channel_groups.trace` for it.
        removed: Whether each root is removed, boolean, (channel ids,).

    Returns:
        The copy, and for the id of each of its variables with removed channels the mask of its
        shape that is False at them.
    """
    copy = clone(model)
    ours = {id(old): new for old, new in zip(model.variables, copy.variables, strict=True)}
    masks: dict[int, np.ndarray] = {}
    for layer in dependencies.layers.values():
        for weight in layer.weights:
            mask = np.ones(weight.shape, bool)
            for axis, ids in weight.axes.items():
                np.moveaxis(mask, axis, 0)[~dependencies.kept(ids, removed)] = False
            if not mask.all():
                variable = ours[id(weight.variable)]
                variable.assign(np.where(mask, np.array(variable), 0))
                masks[id(variable)] = mask
    return copy, masks


def refitted(
    model: keras.Model, dependencies: Dependencies, removed: np.ndarray, data: Any
) -> tuple[keras.Model, list[str]]:
    """Returns a smaller model whose layers are fitted to the original ones, and remarks.

    Args:
        model: A built functional or Sequential model; it is not changed.
        dependencies: Result of :func:`~tfnas.pruning.structured.channel_groups.trace` for it.
        removed: Whether each root is removed, boolean, (channel ids,).
        data: Inputs, as for :func:`tfnas.data.batches`; of more than 512 arrays as many are used.

    Returns:
        The smaller model, and a remark for the layers that could not be fitted.

    Raises:
        ValueError: The data does not fit the model, or weights of the model share values.
    """
    if "clusters" in model_compression(model):
        raise ValueError(
            "reconstruct must be False for a model whose weights share values, got True: remove "
            "channels first"
        )
    copy, masks = zeroed(model, dependencies, removed)
    kernels, _ = find_kernels(copy)
    keep = [masks.get(id(k.variable), np.ones(k.shape, bool)) for k in kernels]
    keep = without_zeros(keep, [kernel.numpy() for kernel in kernels])
    by_name = {kernel.name: mask for kernel, mask in zip(kernels, keep, strict=True)}
    examples = spread(data, EXAMPLES)
    results = reconstruct(
        copy, model, kernels, examples, keep=by_name, shrinkage=SHRINKAGE, rows=ROWS
    )
    unfit = [f"{name} ({why})" for name, why in results.items() if isinstance(why, str)]
    notes = [f"cut, but not fitted: {', '.join(unfit)}"] if unfit else []
    return slice_channels(
        copy, trace(copy, dependencies.exclude, dependencies.approximate), removed
    ), notes


def remove_again_refitted(
    model: keras.Model, report: ChannelPruningReport, data: Any
) -> keras.Model:
    """Returns a model without the channels that were removed before, its layers fitted.

    Args:
        model: The model that was pruned, of the same layers; it is not changed.
        report: The report on its pruning.
        data: As for :func:`refitted`.

    Raises:
        ValueError: The report is on another model.
    """
    dependencies = trace_of(model, report)
    return refitted(model, dependencies, removal_of(dependencies, report), data)[0]
