"""Pruning a finished model, without training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfnas.pruning.constraint import assign_masks, attach
from tfnas.pruning.criteria import WITH_DATA, Criterion, check_criterion
from tfnas.pruning.gradients import LossGradients
from tfnas.pruning.kernels import Kernel, find_kernels, select
from tfnas.pruning.plan import MaskPlan, Scope
from tfnas.pruning.record import PruningReport, report_of
from tfnas.rewrite import clone
from tfnas.schedules import check_ratio


def prune(
    model: Any,
    sparsity: float | None = None,
    threshold: float | None = None,
    criterion: Criterion = "magnitude",
    data: Any = None,
    *,
    granularity: Any = "element",
    scope: Scope = "layer",
    layers: Any = None,
    exclude: Any = (),
    loss: Any = None,
    seed: int = 0,
) -> tuple[Any, PruningReport]:
    """Returns a pruned copy of a model, and a report; the model stays as it is.

    The zeros of the copy stay zero when it is compiled and trained further. Like a clone of
    Keras' it is not compiled.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(1)])
        >>> _ = model.layers[0].kernel.assign(np.linspace(0.1, 1.0, 10)[:, None])
        >>> pruned, report = tfnas.prune(model, threshold=0.5)
        >>> report.zeros, report.weights
        (4, 10)

    Args:
        model: A built Keras 3 model.
        sparsity: Share of weights that becomes zero, in [0, 1). Not with `threshold`.
        threshold: Scores below it become zero: of magnitudes, in the weights' own unit.
        criterion: What is pruned first: "magnitude", "gradient", "taylor", "random", or a
            function of a kernel's weights. See :mod:`tfnas.pruning.criteria`.
        data: Inputs and targets for "gradient" and "taylor": a tuple (x, y), a
            `tf.data.Dataset` or a `keras.utils.PyDataset`.
        granularity: "element", blocks such as "1x4", N:M such as "2:4", or "filter". See
            :mod:`tfnas.pruning.masks`.
        scope: "layer", "global", "erk", or a dictionary name or pattern -> ratio; layers
            that it does not name get `sparsity`. See :mod:`tfnas.pruning.scope`.
        layers: What to prune; None: every layer with a kernel. Names, paths or patterns,
            layers, or classes of layers.
        exclude: What to leave alone, in the same terms; also "first", "last", "depthwise".
        loss: The loss behind "gradient" and "taylor"; None: the one the model is compiled
            with.
        seed: Seed of draws among equal scores and of "random".

    Returns:
        The copy and the report.

    Raises:
        ValueError: An argument is outside its rule, or the model can't be copied.

    References:
        Han et al. 2015 for magnitude, Molchanov et al. 2019 for "taylor".
    """
    check_criterion(criterion, data)
    _check_amount(sparsity, threshold, scope)
    plan = MaskPlan.of(criterion, granularity, scope, seed)
    kernels, none = find_kernels(model)
    kept, excluded = select(kernels, layers, exclude)
    kept, unfit = plan.admit(kept)
    if sparsity is not None:
        plan.check_reachable(plan.ratios(kept, sparsity))
    copy = clone(model)
    gradients = LossGradients(model, kept, loss)(data) if criterion in WITH_DATA else None
    weights = [kernel.numpy() for kernel in kept]
    if threshold is not None:
        masks = plan.masks_above(kept, weights, gradients, threshold)
    else:
        masks = plan.masks(kept, weights, gradients, sparsity or 0.0)
    pruned = twins(copy, kernels, kept)
    attach(copy, pruned)
    assign_masks(pruned, masks)
    return copy, report_of(pruned, [*excluded, *unfit, *none])


def twins(copy: Any, kernels: Sequence[Kernel], wanted: Sequence[Kernel]) -> list[Kernel]:
    """Returns a copy's kernels for some of its original's.

    By their place, not by name: Keras may number the copy's layers otherwise.

    Args:
        copy: The copy.
        kernels: All kernels of the original.
        wanted: Some of them.
    """
    place = {id(kernel): i for i, kernel in enumerate(kernels)}
    found = find_kernels(copy)[0]
    return [dataclasses.replace(found[place[id(k)]], name=k.name, path=k.path) for k in wanted]


def _check_amount(sparsity: float | None, threshold: float | None, scope: Scope) -> None:
    given = sum(value is not None for value in (sparsity, threshold))
    if given > 1 or (not given and not isinstance(scope, Mapping)):
        raise ValueError(
            f"one of sparsity and threshold must be given, got sparsity={sparsity!r} and "
            f"threshold={threshold!r}"
        )
    if sparsity is not None:
        check_ratio(sparsity, name="sparsity")
    if threshold is not None and not (
        isinstance(threshold, int | float | np.floating) and math.isfinite(threshold)
    ):
        raise ValueError(f"threshold must be a finite number, got {threshold!r}")
