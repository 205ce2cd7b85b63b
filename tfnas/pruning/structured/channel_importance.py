"""Importance of channels, from their weights or from the gradient of the loss.

Coupled channels, which are removed together, have one score:

    l1, l2      the norm of the channels' slice of each kernel that they enter or leave,
                relative to the mean norm of that kernel's slices, averaged over kernels
    scale       |gamma| of the normalizations of the channels, likewise; groups without a
                normalization are scored by l2
    taylor      mean over batches of (sum of w dL/dw over the slices that the channels enter)^2.
                As outputs are linear in these slices, the sum is the derivative of the loss
                with respect to a gate on the channel at the input of the next layers.
    random      a random baseline

The scores of a group are divided by their mean, which makes groups comparable; not those of
"taylor", which are squared changes of the loss and comparable as they are.

References:
    Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017 (norms). Liu et al.,
    "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017 (scales).
    Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019 (Taylor,
    equation 8). Fang et al. 2023 (the mean over dependent layers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from tfnas.pruning.structured.channel_groups import Dependencies
from tfnas.pruning.structured.channel_trace import ChannelWeight

CRITERIA = ("l1", "l2", "scale", "taylor", "random")


def scores(
    dependencies: Dependencies,
    criterion: str,
    *,
    gradients: Iterable[Sequence[np.ndarray]] | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Returns the score of each root, (channel ids,); 0 for other channel ids.

    Args:
        dependencies: The traced model.
        criterion: One of :data:`CRITERIA`.
        gradients: For "taylor": for each batch, dL/dw of each of :func:`input_kernels`.
        seed: Seed of "random".
    """
    size = len(dependencies.roots)
    if criterion == "random":
        raw = np.random.default_rng(seed).random(size)
    elif criterion == "taylor":
        raw = _taylor(dependencies, gradients or ())
    elif criterion == "scale":
        raw = _mean_of(dependencies, "scale", _norm(1))
        fallback = _mean_of(dependencies, "kernel", _norm(2))
        for group in dependencies.groups:
            if not raw[group.removable].any():
                raw[group.removable] = fallback[group.removable]
    else:
        raw = _mean_of(dependencies, "kernel", _norm(1 if criterion == "l1" else 2))
    if criterion == "taylor":
        return raw / raw.max() if raw.max() > 0 else raw
    result = np.zeros(size)
    for group in dependencies.groups:
        if len(group.removable):
            mean = float(raw[group.removable].mean())
            result[group.removable] = raw[group.removable] / mean if mean > 0 else 1.0
    return result


def _norm(power: int) -> Callable[[np.ndarray], np.ndarray]:
    def norm(slices: np.ndarray) -> np.ndarray:
        return (np.abs(slices) ** power).sum(axis=1) ** (1 / power)

    return norm


def _rows(array: np.ndarray, axis: int) -> np.ndarray:
    """The array as (positions of an axis, all other elements)."""
    return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)


def _mean_of(
    dependencies: Dependencies, role: str, norm: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """The norms of each root's slices, relative to the mean of their weight, averaged."""
    size = len(dependencies.roots)
    total, counts = np.zeros(size), np.zeros(size)
    for weight in _weights(dependencies, role):
        array = np.asarray(weight.variable, np.float64)
        for axis, ids in weight.axes.items():
            roots = dependencies.roots[ids]
            own = np.zeros(size)
            np.add.at(own, roots, norm(_rows(array, axis)))
            present = np.unique(roots)
            mean = own[present].mean()
            if mean > 0:
                total[present] += own[present] / mean
                counts[present] += 1
    return total / np.maximum(counts, 1)


def _weights(dependencies: Dependencies, role: str) -> Iterable[ChannelWeight]:
    for layer in dependencies.layers.values():
        yield from (weight for weight in layer.weights if weight.role == role)


def input_kernels(dependencies: Dependencies) -> list[ChannelWeight]:
    """Returns the kernels that combine input channels into output channels.

    Zeros in the slice of an input channel have the effect of removing that channel.

    Args:
        dependencies: The traced model.
    """
    kernels = _weights(dependencies, "kernel")
    return [kernel for kernel in kernels if kernel.output_axis is not None]


def _taylor(dependencies: Dependencies, gradients: Iterable[Sequence[np.ndarray]]) -> np.ndarray:
    size = len(dependencies.roots)
    total, count = np.zeros(size), 0
    kernels = input_kernels(dependencies)
    for batch in gradients:
        gate = np.zeros(size)
        for kernel, gradient in zip(kernels, batch, strict=True):
            product = np.asarray(kernel.variable, np.float64) * gradient
            for axis, ids in kernel.axes.items():
                if axis != kernel.output_axis:
                    np.add.at(gate, dependencies.roots[ids], _rows(product, axis).sum(axis=1))
        total += gate**2
        count += 1
    return total / max(count, 1)
