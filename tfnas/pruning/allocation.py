"""Sparsity of each layer for a total sparsity, from unlabeled examples only.

The error of a layer has effects on the model's outputs that differ by orders of magnitude: in a
block with a shortcut they are small, in the last convolutions large. :func:`measure_curves`
measures for each kernel

    effect(sparsity) = slope * error(sparsity),

where error is the layer's relative output error after optimal-brain-surgeon pruning, fitted on
one half of the examples and measured on the other half, so that overfitting of layers with many
inputs shows; and slope is the change of the model's outputs per unit of error, measured by
running the model with that layer pruned.

:func:`distribute` then minimizes the sum of effects for a total number of zeros
(:mod:`tfnas.pruning.budget_spread`). This is fast, so one measurement serves many sparsities.

References:
    Frantar and Alistarh, "SPDY", ICML 2022 (allocation by measured layer errors).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.graph.batchnorm import input_batches
from tfnas.pruning.budget_spread import spread
from tfnas.pruning.layer_probes import probes, slopes_of
from tfnas.pruning.prunable_kernels import PrunableKernel

if TYPE_CHECKING:
    import keras

LEVELS = (0.2, 0.35, 0.5, 0.6, 0.7, 0.8, 0.9)
_GRID = np.linspace(0.0, 0.95, 96)


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """The effect of one kernel's sparsity on the model's outputs.

    Args:
        name: The kernel's name.
        size: Number of weights.
        levels: Sparsities, ascending, in (0, 1).
        errors: Relative output error of the layer at each level, on held-out examples.
        slope: Change of the model's outputs per unit of error: the divergence of class
            probabilities (nats per example), or the relative squared change.
    """

    name: str
    size: int
    levels: tuple[float, ...]
    errors: tuple[float, ...]
    slope: float

    def effects(self, sparsities: np.ndarray) -> np.ndarray:
        """Returns the effect at each sparsity: log-linear between levels, 0 at 0.

        Args:
            sparsities: Sparsities in [0, 1), (n,).
        """
        errors = np.log(np.maximum(np.maximum.accumulate(self.errors), 1e-9))
        levels = np.array([0.0, *self.levels])
        first = errors[0] - 4.0  # errors fall fast below the first level
        effect = self.slope * np.exp(np.interp(sparsities, levels, [first, *errors]))
        return np.where(sparsities > 0, effect, 0.0)


def distribute(
    curves: Sequence[Curve], sparsity: float, total: int | None = None
) -> dict[str, float]:
    """Returns the sparsity of each kernel for which the model's outputs change least.

    Example:
        >>> curves = [Curve("a", 100, (0.5, 0.9), (0.1, 0.5), slope) for slope in (1.0, 0.01)]
        >>> curves[1] = dataclasses.replace(curves[1], name="b")
        >>> sparsities = distribute(curves, 0.4)
        >>> bool(sparsities["b"] > sparsities["a"]), round(sum(sparsities.values()) / 2, 4)
        (True, 0.4)

    Args:
        curves: Curves of the kernels, of :func:`measure_curves`.
        sparsity: Target fraction of zeros of all weights together.
        total: Number of all weights. None: the weights of `curves`.

    Returns:
        Maps the name of each kernel to its sparsity.

    Raises:
        ValueError: The target is too high, since no kernel loses more than 95%.
    """
    sizes = np.array([curve.size for curve in curves], np.float64)
    target = sparsity * (total or sizes.sum())
    if not 0 <= target <= _GRID[-1] * sizes.sum():
        raise ValueError(
            f"sparsity must leave 5% of the {int(sizes.sum())} prunable weights, "
            f"got {sparsity!r} of {total or int(sizes.sum())}"
        )
    effects = np.stack([curve.effects(_GRID) for curve in curves])
    sparsities = spread(
        [curve.size for curve in curves], _GRID[1:], effects[:, 1:], target / sizes.sum()
    )
    return {curve.name: value for curve, value in zip(curves, sparsities, strict=True)}


def measure_curves(
    model: keras.Model,
    kernels: Sequence[PrunableKernel],
    data: Any,
    *,
    levels: tuple[float, ...] = LEVELS,
    shrinkage: float = 0.3,
    rows: int = 30_000,
    batch_size: int = 32,
) -> list[Curve]:
    """Measures the effect of each kernel's sparsity on the outputs; the model is not changed.

    Args:
        model: A built Keras 3 model, before pruning.
        kernels: Kernels of :func:`tfnas.pruning.prunable_kernels.find_kernels`; those that can't be
            fitted are left out.
        data: Unlabeled inputs, as for :func:`tfnas.data.batches`; at least 2 batches.
        levels: Sparsities at which the layers' errors are measured; none: only the slopes are.
        shrinkage: As for :func:`tfnas.pruning.reconstruct.reconstruct`.
        rows: Approximate number of patches that are read of each layer.
        batch_size: Number of examples per forward pass.

    Returns:
        One curve per kernel that can be fitted: its effect at several sparsities.

    Raises:
        ValueError: The data holds fewer than two batches, or does not match the model.
    """
    batches = input_batches(data, batch_size)
    found = [probe for probe, _ in probes(model, kernels, batches, levels, shrinkage, rows)]
    slopes = slopes_of(model, found, batches)
    return [
        Curve(probe.kernel.name, probe.kernel.size, probe.levels, probe.errors, slope)
        for probe, slope in zip(found, slopes, strict=True)
    ]
