"""Sensitivity analysis: the loss of quality when one kernel alone is pruned.

:func:`sensitivity` measures it for each kernel; :meth:`Sensitivity.suggest` distributes a total
sparsity over the kernels so that the sum of the measured losses is least. It assumes that the
losses of single kernels add up, so evaluate the pruned model.

References:
    Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 3.2, for the
    measurement; He et al. 2018 and Evci et al. 2020 on why a uniform sparsity is not the best.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.data.data_types import ExampleData
from tfnas.graph.functional import clone
from tfnas.graph.functional_form import copyable_form
from tfnas.graph.layer_kernels import LayerSelection
from tfnas.pruning.budget_spread import spread
from tfnas.pruning.criteria import WITH_DATA, Criterion, check_criterion
from tfnas.pruning.gradients import LossGradients
from tfnas.pruning.mask_plan import MaskPlan
from tfnas.pruning.prunable_kernels import PrunableKernel, find_kernels, select
from tfnas.pruning.prune import copied_kernels
from tfnas.schedules import check_ratio
from tfnas.table import Tabular

if TYPE_CHECKING:
    import keras

SPARSITIES = (0.3, 0.5, 0.7, 0.8, 0.9)


@dataclasses.dataclass(frozen=True, repr=False)
class Sensitivity(Tabular):
    """Quality against sparsity for each kernel. Prints as a table, the most sensitive first.

    Example:
        >>> found = Sensitivity(0.9, (0.5, 0.8), ("a", "b"), (100, 300), ((0.8, 0.6), (0.9, 0.85)))
        >>> print(found)
        layer  weights     0.5     0.8
        -----  -------  ------  ------
        a          100  0.8000  0.6000
        b          300  0.9000  0.8500
        unpruned: 0.9000; columns: the quality with this kernel alone pruned to that
          sparsity

    Args:
        baseline: Quality of the unpruned model; higher is better.
        sparsities: The measured sparsities, ascending.
        names: Names of the kernels.
        weights: Number of weights of each kernel.
        scores: Quality with one kernel pruned, (kernels, sparsities).
    """

    baseline: float
    sparsities: tuple[float, ...]
    names: tuple[str, ...]
    weights: tuple[int, ...]
    scores: tuple[tuple[float, ...], ...]

    def losses(self) -> np.ndarray:
        """Returns the loss of quality, at least 0 and not decreasing, (kernels, sparsities)."""
        return np.maximum.accumulate(np.maximum(self.baseline - np.array(self.scores), 0), axis=1)

    def suggest(self, total: float) -> dict[str, float]:
        """Returns the sparsity of each kernel for a total sparsity.

        Pass it as `scope=` to `tfnas.prune` or `tfnas.PruningCallback`.

        Args:
            total: Target sparsity of all kernels together, from 0 to the highest measured
                sparsity.

        Returns:
            Maps the name of each kernel to its sparsity, in [0, 1).

        Raises:
            ValueError: The total is out of range.
        """
        check_ratio(total, name="total")
        if total > self.sparsities[-1]:
            raise ValueError(
                f"total must be at most the highest sparsity measured, {self.sparsities[-1]:g}, "
                f"got {total:g}"
            )
        sparsities = spread(self.weights, self.sparsities, self.losses(), total)
        return dict(zip(self.names, sparsities, strict=True))

    def rows(self) -> list[list[str]]:
        """Returns one row per kernel, the most sensitive first; see :meth:`headers`."""
        order = np.argsort(-self.losses()[:, -1], kind="stable")
        return [
            [self.names[i], f"{self.weights[i]:,}", *(f"{s:.4f}" for s in self.scores[i])]
            for i in order
        ]

    def headers(self) -> list[str]:
        """Returns the titles of the columns."""
        return ["layer", "weights", *(f"{sparsity:g}" for sparsity in self.sparsities)]

    def notes(self) -> list[str]:
        """Returns the quality of the unpruned model, and the meaning of the columns."""
        return [
            f"unpruned: {self.baseline:.4f}; columns: the quality with this kernel alone pruned "
            "to that sparsity"
        ]

    def to_json(self) -> str:
        """Returns the record as JSON text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Sensitivity:
        """Returns the record that :meth:`to_json` wrote.

        Args:
            text: JSON text.

        Raises:
            ValueError: The text is not such a record; the message names unknown or missing keys.
        """
        from tfnas.search_space.json_records import check_keys, parse_json_object

        fields = parse_json_object(text, "sensitivity")
        check_keys(cls, fields)
        try:
            lists = {k: tuple(v) for k, v in fields.items() if k != "baseline"}
            lists["scores"] = tuple(tuple(row) for row in fields["scores"])
        except TypeError as error:
            raise ValueError(
                f"sparsities, names, weights and scores must be lists: {error}"
            ) from error
        return cls(**{**fields, **lists})


def sensitivity(
    model: keras.Model,
    evaluate: Callable[[keras.Model], float],
    sparsities: Sequence[float] = SPARSITIES,
    *,
    criterion: Criterion = "magnitude",
    data: ExampleData | None = None,
    granularity: str | tuple[int, int] = "element",
    layers: LayerSelection | None = None,
    exclude: LayerSelection = (),
    loss: str | Callable[..., Any] | None = None,
    seed: int = 0,
) -> Sensitivity:
    """Measures the quality of a model with one kernel at a time pruned.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="d")])
        >>> x = np.random.default_rng(0).normal(size=(32, 8))
        >>> expected = model.predict(x, verbose=0)
        >>> def evaluate(pruned):
        ...     return -float(np.square(pruned.predict(x, verbose=0) - expected).mean())
        >>> found = tfnas.sensitivity(model, evaluate, [0.25, 0.5])
        >>> list(found.suggest(0.5))
        ['d']

    Args:
        model: A built Keras 3 model; it is not changed.
        evaluate: Takes a (pruned, not compiled) model and returns its quality; higher is
            better. It is called once for the unpruned model, and once for each kernel and
            sparsity.
        sparsities: Sparsities to measure, in (0, 1).
        criterion: As for :func:`tfnas.prune`, as are all following arguments.
        data: Inputs and targets for "gradient" and "taylor": a tuple (x, y) of arrays such as
            (examples, height, width, channels) and (examples,), a `tf.data.Dataset` or a
            `keras.utils.PyDataset`.
        granularity: "element", blocks, N:M or "filter".
        layers: Layers to measure; None: every layer with a kernel.
        exclude: Layers to leave out.
        loss: Loss for "gradient" and "taylor".
        seed: Seed of the order of equal scores, and of "random".

    Returns:
        The quality of the model with each kernel pruned to each sparsity. `print` shows it as a
        table; :meth:`Sensitivity.suggest` derives a sparsity for each kernel from it.

    Raises:
        ValueError: An argument is out of range, or `evaluate` returns no number.

    References:
        Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 3.2.
    """
    check_criterion(criterion, data)
    levels = tuple(sorted({check_ratio(s, name="sparsities") for s in sparsities}))
    if not levels or levels[0] == 0.0:
        raise ValueError(f"sparsities must be in (0, 1), got {list(sparsities)}")
    plan = MaskPlan.of(criterion, granularity, "layer", seed)
    model = copyable_form(model, data)
    all_kernels = find_kernels(model)[0]
    kernels = plan.admit(select(all_kernels, layers, exclude)[0])[0]
    plan.check_reachable(levels)
    gradients = LossGradients(model, kernels, loss)(data) if criterion in WITH_DATA else None
    copy = clone(model)
    pruned = copied_kernels(copy, all_kernels, kernels)
    baseline = _quality(evaluate, copy)
    scores = []
    for index, kernel in enumerate(kernels):
        variable, gradient = pruned[index].variable, None if gradients is None else gradients[index]
        row = []
        for weights in _pruned_weights(plan, kernel, gradient, levels):
            variable.assign(weights)
            row.append(_quality(evaluate, copy))
        variable.assign(kernel.numpy())
        scores.append(tuple(row))
    names = tuple(kernel.name for kernel in kernels)
    return Sensitivity(baseline, levels, names, tuple(k.size for k in kernels), tuple(scores))


def _pruned_weights(
    plan: MaskPlan, kernel: PrunableKernel, gradient: np.ndarray | None, sparsities: Sequence[float]
) -> Iterator[np.ndarray]:
    """Yields the weights of one kernel, pruned to each sparsity."""
    weights = kernel.numpy()
    gradients = None if gradient is None else [gradient]
    for sparsity in sparsities:
        [mask] = plan.masks([kernel], [weights], gradients, sparsity)
        yield np.where(mask, weights, 0)


def _quality(evaluate: Callable[[Any], float], model: Any) -> float:
    value = evaluate(model)
    try:
        quality = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"evaluate must return a number, got {value!r}") from error
    if math.isnan(quality):
        raise ValueError("evaluate must return a number, got NaN")
    return quality
