"""Reconstruction of a masked model, for :func:`tfnas.prune`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfnas.pruning.allocation import distribute, measure_curves
from tfnas.pruning.input_moments import unsupported_reason
from tfnas.pruning.mask_constraint import assign_masks, attach, detach
from tfnas.pruning.prunable_kernels import PrunableKernel
from tfnas.pruning.reconstruct import reconstruct


def by_output_error(
    model: Any, kernels: Sequence[PrunableKernel], data: Any, sparsity: float
) -> dict[str, float]:
    """Returns the sparsity of each kernel, by the effect of its error on the model's outputs.

    Args:
        model: The model before pruning.
        kernels: The kernels to prune.
        data: A few hundred inputs.
        sparsity: Target sparsity of all kernels together, in [0, 1).
    """
    # Kernels that can't be fitted have no curve; they get the common sparsity.
    return dict(distribute(measure_curves(model, kernels, data), sparsity))


def without_zeros(masks: Sequence[np.ndarray], weights: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns masks that also mask present zeros, so that fitting keeps these zero.

    A kernel of zeros only counts as not trained yet, and keeps its mask.

    Args:
        masks: A mask for each kernel, boolean, of the kernel's shape.
        weights: The values of each kernel.
    """
    return [
        mask & (values != 0) if values.any() else mask
        for mask, values in zip(masks, weights, strict=True)
    ]


def repair(
    copy: Any,
    original: Any,
    kernels: Sequence[PrunableKernel],
    masks: Sequence[np.ndarray],
    data: Any,
    choose: bool,
) -> dict[str, str]:
    """Fits the kernels of a pruned copy to the original's outputs; returns notes by kernel name.

    Args:
        copy: The pruned copy, with masks attached; changed in place.
        original: The model before pruning.
        kernels: The kernels of the copy.
        masks: The masks of the kernels; with `choose` only their number of zeros matters.
        data: A few hundred inputs.
        choose: Whether new zeros are selected, by the change of the layer's output.

    Returns:
        Maps the name of each kernel to its output error before and after, or to the reason why it
        was not fitted.
    """
    fits = [unsupported_reason(kernel) is None for kernel in kernels]
    keep, zeros = {}, {}
    for kernel, mask, fit in zip(kernels, masks, fits, strict=True):
        if choose and fit:
            zeros[kernel.name] = int(np.count_nonzero(~mask))
        else:
            keep[kernel.name] = mask
    detach(kernels)  # the old masks must not apply to the fitted kernels
    results = reconstruct(copy, original, kernels, data, zeros=zeros, keep=keep)
    attach(copy, kernels)
    final = [
        kernel.numpy() != 0 if choose and fit else mask
        for kernel, mask, fit in zip(kernels, masks, fits, strict=True)
    ]
    assign_masks(kernels, final)
    return {name: _note(result) for name, result in results.items()}


def _note(result: tuple[float, float] | str) -> str:
    if isinstance(result, str):
        return f"not fitted: {result}"
    before, after = result
    return f"output error {before:.3g}, fitted {after:.3g}"
