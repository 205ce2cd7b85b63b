"""Pruning a finished model, without training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfnas.data.datasets import check_data
from tfnas.graph.compatibility import TRAINED_WITH, check_float, check_unshared
from tfnas.graph.functional import clone
from tfnas.pruning.criteria import WITH_DATA, Criterion, check_criterion
from tfnas.pruning.gradients import LossGradients
from tfnas.pruning.mask_constraint import assign_masks, attach, carry_masks
from tfnas.pruning.mask_plan import MaskPlan, Scope
from tfnas.pruning.prunable_kernels import PrunableKernel, find_kernels, select
from tfnas.pruning.pruning_report import PruningReport, report_of
from tfnas.pruning.repair import by_output_error, repair, without_zeros
from tfnas.schedules import check_ratio

OBS, BY_OUTPUT = "obs", "output"


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
    reconstruct: bool = False,
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
            function of a kernel's weights (see :mod:`tfnas.pruning.criteria`); or "obs",
            what the layer's output misses least once the kept weights make up for it.
        data: Inputs and targets for "gradient" and "taylor": a tuple (x, y), a
            `tf.data.Dataset` or a `keras.utils.PyDataset`. For "obs" and `reconstruct` a
            few hundred inputs; targets are ignored.
        granularity: "element", blocks such as "1x4", N:M such as "2:4", or "filter". See
            :mod:`tfnas.pruning.masks`.
        scope: "layer", "global", "erk", or a dictionary name or pattern -> ratio; layers
            that it does not name get `sparsity`. See :mod:`tfnas.pruning.scope`. With "obs"
            also "output": by what each layer's error does to the model's outputs, measured on
            the data (:mod:`tfnas.pruning.allocation`).
        layers: What to prune; None: every layer with a kernel. Names, paths or patterns,
            layers, or classes of layers.
        exclude: What to leave alone, in the same terms; also "first", "last", "depthwise".
        reconstruct: Whether the kept weights are fitted anew, layer by layer and in closed
            form, to what the original gives on the data; BatchNormalization follows. "obs"
            does it always.
        loss: The loss behind "gradient" and "taylor"; None: the one the model is compiled
            with.
        seed: Seed of draws among equal scores and of "random".

    Returns:
        The copy and the report; after a reconstruction it tells each layer's relative
        output error before and after.

    Raises:
        ValueError: An argument is outside its rule, or the model can't be copied.

    References:
        Han et al. 2015 for magnitude, Molchanov et al. 2019 for "taylor", Hassibi and Stork
        1992 and Frantar et al. 2022 for "obs" and the reconstruction.
    """
    check_criterion(criterion, data, more=(OBS,))
    check_data(data)
    _check_amount(sparsity, threshold, scope)
    if reconstruct and data is None:
        raise ValueError("data must be given to reconstruct, got None")
    obs = criterion == OBS
    by_output = _check_obs(threshold, granularity, scope) if obs else False
    plan = MaskPlan.of(
        "magnitude" if obs else criterion, granularity, "layer" if by_output else scope, seed
    )
    kernels, none = find_kernels(model)
    check_float(model, "prune", TRAINED_WITH)
    kept, excluded = select(kernels, layers, exclude)
    kept, unfit = plan.admit(kept)
    for kernel in kept:
        check_unshared(kernel.name, kernel.numpy())
    if sparsity is not None:
        plan.check_reachable(plan.ratios(kept, sparsity))
    copy = clone(model)
    carry_masks(copy, kernels, twins(copy, kernels, kernels))
    pruned = twins(copy, kernels, kept)
    skipped = [*excluded, *unfit, *none]
    if by_output:
        ratios = by_output_error(model, kept, data, sparsity or 0.0)
        plan = dataclasses.replace(plan, scope=ratios)
    gradients = LossGradients(model, kept, loss)(data) if criterion in WITH_DATA else None
    weights = [kernel.numpy() for kernel in kept]
    if threshold is not None:
        masks = plan.masks_above(kept, weights, gradients, threshold)
    else:
        masks = plan.masks(kept, weights, gradients, sparsity or 0.0)
    if obs or reconstruct:
        masks = without_zeros(masks, weights)
    attach(copy, pruned)
    assign_masks(pruned, masks)
    if not (obs or reconstruct):
        return copy, report_of(pruned, skipped)
    notes = repair(copy, model, pruned, masks, data, choose=obs)
    return copy, report_of(pruned, skipped, notes)


def twins(
    copy: Any, kernels: Sequence[PrunableKernel], wanted: Sequence[PrunableKernel]
) -> list[PrunableKernel]:
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


def _check_obs(threshold: float | None, unit: Any, scope: Scope) -> bool:
    """Whether the ratios are to be found by the outputs; raises where "obs" can't be had."""
    if threshold is not None:
        raise ValueError(f"threshold must be None for criterion 'obs', got {threshold!r}")
    if unit != "element":
        raise ValueError(f"granularity must be 'element' for criterion 'obs', got {unit!r}")
    if scope == "global":
        raise ValueError(
            "scope must not be 'global' for criterion 'obs', whose scores of two layers do not "
            "compare: take 'output'"
        )
    return isinstance(scope, str) and scope == BY_OUTPUT


def _check_amount(sparsity: float | None, threshold: float | None, scope: Scope) -> None:
    given = sum(value is not None for value in (sparsity, threshold))
    if given > 1 or (not given and not isinstance(scope, Mapping)):
        raise ValueError(
            f"one of sparsity and threshold must be given, got sparsity={sparsity!r} and "
            f"threshold={threshold!r}"
        )
    if sparsity is not None:
        check_ratio(sparsity, name="sparsity")
    if threshold is not None and scope != "layer":
        raise ValueError(f"scope must be 'layer' with a threshold, got {scope!r}")
    if threshold is not None and not (
        isinstance(threshold, int | float | np.floating) and math.isfinite(threshold)
    ):
        raise ValueError(f"threshold must be a finite number, got {threshold!r}")
