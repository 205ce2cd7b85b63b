"""Pruning of a trained model in one call, without training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.data.data_types import ExampleData
from tfnas.data.reading import check_data
from tfnas.graph.compatibility import TRAINED_WITH, check_float, check_unshared
from tfnas.graph.functional import clone
from tfnas.graph.functional_form import copyable_form
from tfnas.graph.layer_kernels import LayerSelection, check_any_kernel
from tfnas.pruning.criteria import WITH_DATA, Criterion, check_criterion
from tfnas.pruning.gradients import LossGradients
from tfnas.pruning.mask_constraint import assign_masks, attach, carry_masks
from tfnas.pruning.mask_plan import MaskPlan, Scope
from tfnas.pruning.prunable_kernels import PrunableKernel, find_kernels, select
from tfnas.pruning.pruning_report import PruningReport, report_of
from tfnas.pruning.repair import by_output_error, repair, without_zeros
from tfnas.schedules import check_ratio

if TYPE_CHECKING:
    import keras

OBS, BY_OUTPUT = "obs", "output"


def prune(
    model: keras.Model,
    sparsity: float | None = None,
    threshold: float | None = None,
    criterion: Criterion = "magnitude",
    data: ExampleData | None = None,
    *,
    granularity: str | tuple[int, int] = "element",
    scope: Scope = "layer",
    layers: LayerSelection | None = None,
    exclude: LayerSelection = (),
    reconstruct: bool = False,
    loss: str | Callable[..., Any] | None = None,
    seed: int = 0,
) -> tuple[keras.Model, PruningReport]:
    """Sets the least important weights of a model to zero; returns a pruned copy and a report.

    The model is not changed. The copy is not compiled, as after `keras.models.clone_model`. Its
    zeros stay zero when it is compiled and trained further.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(1)])
        >>> _ = model.layers[0].kernel.assign(np.linspace(0.1, 1.0, 10)[:, None])
        >>> pruned, report = tfnas.prune(model, threshold=0.5)
        >>> report.zeros, report.weights
        (4, 10)

    Args:
        model: A built Keras 3 model.
        sparsity: Fraction of weights to set to zero, in [0, 1). Not with `threshold`.
        threshold: Weights with a score below it are set to zero. For criterion "magnitude" a
            magnitude.
        criterion: Importance of weights: "magnitude", "gradient", "taylor", "random", or a
            function of a kernel's weights (see :mod:`tfnas.pruning.criteria`); or "obs", the
            change of the layer's output after the kept weights are adjusted.
        data: Inputs and targets for "gradient" and "taylor": a tuple (x, y) of arrays such as
            (examples, height, width, channels) and (examples,), a `tf.data.Dataset` or a
            `keras.utils.PyDataset`. For "obs" and `reconstruct` a few hundred inputs;
            targets are ignored.
        granularity: "element", blocks such as "1x4", N:M such as "2:4", or "filter". See
            :mod:`tfnas.pruning.masks`.
        scope: "layer", "global", "erk", or a dictionary that maps names or patterns of layers
            to sparsities; other layers get `sparsity`. See :mod:`tfnas.pruning.scope`. With
            "obs" also "output": by the effect of each layer's error on the model's outputs,
            measured on the data (:mod:`tfnas.pruning.allocation`).
        layers: Layers to prune; None: every layer with a kernel. Names, paths or patterns,
            layers, or classes of layers.
        exclude: Layers to leave unchanged, likewise; also "first", "last", "depthwise".
        reconstruct: Whether the kept weights are fitted, layer by layer and in closed form, to
            the outputs of the original layers on the data; the statistics of
            BatchNormalization are adapted. Always done for "obs".
        loss: Loss for "gradient" and "taylor"; None: the loss that the model is compiled with.
        seed: Seed of the order of equal scores, and of "random".

    Returns:
        The copy and the report. After a reconstruction the report has each layer's relative
        output error before and after.

    Raises:
        ValueError: An argument is out of range, or the model can't be copied.

    References:
        Han et al. 2015 for magnitude, Molchanov et al. 2019 for "taylor", Hassibi and Stork
        1992 and Frantar et al. 2022 for "obs" and reconstruction.
    """
    check_criterion(criterion, data, more=(OBS,))
    check_data(data)
    _check_amount(sparsity, threshold, scope)
    if reconstruct and data is None:
        raise ValueError("data must be given with reconstruct=True, got None")
    obs = criterion == OBS
    by_output = _check_obs(threshold, granularity, scope) if obs else False
    plan = MaskPlan.of(
        "magnitude" if obs else criterion, granularity, "layer" if by_output else scope, seed
    )
    model = copyable_form(model, data)
    kernels, none = find_kernels(model)
    check_float(model, "prune", TRAINED_WITH)
    check_any_kernel(kernels, none, "layers and exclude must leave a kernel")
    kept, excluded = select(kernels, layers, exclude)
    kept, unfit = plan.admit(kept)
    for kernel in kept:
        check_unshared(kernel.name, kernel.numpy())
    if sparsity is not None:
        plan.check_reachable(plan.sparsities(kept, sparsity))
    copy = clone(model)
    carry_masks(copy, kernels, copied_kernels(copy, kernels, kernels))
    pruned = copied_kernels(copy, kernels, kept)
    skipped = [*excluded, *unfit, *none]
    if by_output:
        sparsities = by_output_error(model, kept, data, sparsity or 0.0)
        plan = dataclasses.replace(plan, scope=sparsities)
    gradients = LossGradients(model, kept, loss)(data) if criterion in WITH_DATA else None
    masks = _masks(plan, kept, gradients, sparsity, threshold)
    if not (obs or reconstruct):
        attach(copy, pruned)
        assign_masks(pruned, masks)
        return copy, report_of(pruned, skipped)
    masks = without_zeros(masks, [kernel.numpy() for kernel in kept])
    attach(copy, pruned)
    assign_masks(pruned, masks)
    notes = repair(copy, model, pruned, masks, data, choose=obs)
    return copy, report_of(pruned, skipped, notes)


def _masks(
    plan: MaskPlan,
    kernels: Sequence[PrunableKernel],
    gradients: list[np.ndarray] | None,
    sparsity: float | None,
    threshold: float | None,
) -> list[np.ndarray]:
    weights = [kernel.numpy() for kernel in kernels]
    if threshold is not None:
        return plan.masks_above(kernels, weights, gradients, threshold)
    return plan.masks(kernels, weights, gradients, sparsity or 0.0)


def copied_kernels(
    copy: keras.Model, kernels: Sequence[PrunableKernel], selected: Sequence[PrunableKernel]
) -> list[PrunableKernel]:
    """Returns the kernels of a model's copy that correspond to kernels of the model.

    They are matched by position, since Keras may give the layers of the copy other names.

    Args:
        copy: The copy.
        kernels: All kernels of the original.
        selected: The kernels of the original to return the copies of.
    """
    index = {id(kernel): i for i, kernel in enumerate(kernels)}
    found = find_kernels(copy)[0]
    return [dataclasses.replace(found[index[id(k)]], name=k.name, path=k.path) for k in selected]


def _check_obs(threshold: float | None, unit: Any, scope: Scope) -> bool:
    """Checks the arguments for criterion "obs"; returns whether the scope is "output"."""
    if threshold is not None:
        raise ValueError(f"threshold must be None for criterion 'obs', got {threshold!r}")
    if unit != "element":
        raise ValueError(f"granularity must be 'element' for criterion 'obs', got {unit!r}")
    if scope == "global":
        raise ValueError(
            "scope must not be 'global' for criterion 'obs', whose scores are not comparable "
            "between layers: use 'output'"
        )
    return isinstance(scope, str) and scope == BY_OUTPUT


def _check_amount(sparsity: float | None, threshold: float | None, scope: Scope) -> None:
    count = sum(value is not None for value in (sparsity, threshold))
    if count > 1 or (not count and not isinstance(scope, Mapping)):
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
