"""The step from masks to a repaired model, for :func:`tfnas.prune`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfnas.pruning.allocation import distribute, measure_curves
from tfnas.pruning.input_moments import hindrance
from tfnas.pruning.mask_constraint import assign_masks, attach, detach
from tfnas.pruning.prunable_kernels import PrunableKernel
from tfnas.pruning.reconstruct import reconstruct


def by_output_error(
    model: Any, kernels: Sequence[PrunableKernel], data: Any, sparsity: float
) -> dict[str, float]:
    """Returns a ratio a kernel, by what its error does to the model's outputs."""
    # Kernels that can't be fitted have no curve; they get the common ratio, as all together.
    return dict(distribute(measure_curves(model, kernels, data), sparsity))


def without_zeros(masks: Sequence[np.ndarray], weights: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns masks that also hold what is zero already: it is not to be fitted back.

    A kernel that is all zeros is taken for one that has yet to be trained.
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
    """Fits a pruned copy's kernels to the original's outputs; returns a note a kernel.

    Args:
        copy: The pruned copy, its masks hung; changed in place.
        original: The model before pruning.
        kernels: The copy's kernels.
        masks: Their masks; with `choose`, only how many zeros they hold counts.
        data: A few hundred inputs.
        choose: Whether the zeros are chosen anew, by what the output loses.
    """
    fits = [hindrance(kernel) is None for kernel in kernels]
    keep, zeros = {}, {}
    for kernel, mask, fit in zip(kernels, masks, fits, strict=True):
        if choose and fit:
            zeros[kernel.name] = int(np.count_nonzero(~mask))
        else:
            keep[kernel.name] = mask
    detach(kernels)  # a new kernel is not to be masked with the old zeros
    told = reconstruct(copy, original, kernels, data, zeros=zeros, keep=keep)
    attach(copy, kernels)
    final = [
        kernel.numpy() != 0 if choose and fit else mask
        for kernel, mask, fit in zip(kernels, masks, fits, strict=True)
    ]
    assign_masks(kernels, final)
    return {name: _note(result) for name, result in told.items()}


def _note(result: tuple[float, float] | str) -> str:
    if isinstance(result, str):
        return f"not fitted: {result}"
    before, after = result
    return f"output error {before:.3g}, fitted {after:.3g}"
