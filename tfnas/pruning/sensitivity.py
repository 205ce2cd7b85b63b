"""How much a model's quality falls when one kernel alone is pruned.

:func:`sensitivity` measures it, kernel by kernel; :meth:`Sensitivity.suggest` spreads a
total over the kernels so that the sum of the measured losses is least. That the losses of
single kernels add up is an assumption: measure what it suggests.

References:
    Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 3.2, for the
    measurement; He et al. 2018 and Evci et al. 2020 for why a uniform share is not best.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfnas.graph.functional import clone
from tfnas.pruning.budget_spread import spread
from tfnas.pruning.criteria import WITH_DATA, Criterion, check_criterion
from tfnas.pruning.gradients import LossGradients
from tfnas.pruning.mask_plan import MaskPlan
from tfnas.pruning.prunable_kernels import find_kernels, select
from tfnas.pruning.prune import twins
from tfnas.schedules import check_ratio
from tfnas.table import table

SPARSITIES = (0.3, 0.5, 0.7, 0.8, 0.9)


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """Quality against sparsity, a kernel. Prints as a table, the most sensitive first.

    Args:
        baseline: Quality of the model as it is; more is better.
        sparsities: The ratios that were tried, ascending.
        names: The kernels.
        weights: Number of weights of each.
        scores: Quality with one kernel pruned, a row a kernel, a column a ratio.
    """

    baseline: float
    sparsities: tuple[float, ...]
    names: tuple[str, ...]
    weights: tuple[int, ...]
    scores: tuple[tuple[float, ...], ...]

    def losses(self) -> np.ndarray:
        """Returns what each ratio costs, (kernels, sparsities), at least 0 and never falling."""
        return np.maximum.accumulate(np.maximum(self.baseline - np.array(self.scores), 0), axis=1)

    def suggest(self, total: float) -> dict[str, float]:
        """Returns a ratio a kernel with which `total` of all weights are zero.

        It is what `scope=` of `tfnas.prune` and `tfnas.PruningCallback` takes.

        Args:
            total: Share of the kernels' weights, from 0 to the highest ratio tried.

        Raises:
            ValueError: The total is out of that range.
        """
        check_ratio(total, name="total")
        if total > self.sparsities[-1]:
            raise ValueError(
                f"total must be at most the highest sparsity measured, {self.sparsities[-1]:g}, "
                f"got {total:g}"
            )
        ratios = spread(self.weights, self.sparsities, self.losses(), total)
        return dict(zip(self.names, ratios, strict=True))

    def rows(self) -> list[list[str]]:
        """Returns a row a kernel, the most sensitive first; see :meth:`headers`."""
        order = np.argsort(-self.losses()[:, -1], kind="stable")
        return [
            [self.names[i], f"{self.weights[i]:,}", *(f"{s:.4f}" for s in self.scores[i])]
            for i in order
        ]

    def headers(self) -> list[str]:
        """Returns the titles of the columns."""
        return ["layer", "weights", *(f"{sparsity:g}" for sparsity in self.sparsities)]

    def __str__(self) -> str:
        return (
            table(self.headers(), self.rows()) + f"\nunpruned: {self.baseline:.4f}; columns: the "
            "quality with so large a share of this kernel alone set to zero"
        )

    def to_json(self) -> str:
        """Returns the record as JSON text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Sensitivity:
        """Returns the record that :meth:`to_json` wrote.

        Raises:
            ValueError: The text is no such record; a key that is unknown or missing is named.
        """
        from tfnas.search_space.architecture import check_keys, parse_json_object

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
    model: Any,
    evaluate: Callable[[Any], float],
    sparsities: Sequence[float] = SPARSITIES,
    *,
    criterion: Criterion = "magnitude",
    data: Any = None,
    granularity: Any = "element",
    layers: Any = None,
    exclude: Any = (),
    loss: Any = None,
    seed: int = 0,
) -> Sensitivity:
    """Measures the quality of a model with one kernel at a time pruned.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="d")])
        >>> x = np.random.default_rng(0).normal(size=(32, 8))
        >>> wanted = model.predict(x, verbose=0)
        >>> def closeness(pruned):
        ...     return -float(np.square(pruned.predict(x, verbose=0) - wanted).mean())
        >>> found = tfnas.sensitivity(model, closeness, [0.25, 0.5])
        >>> list(found.suggest(0.5))
        ['d']

    Args:
        model: A built Keras 3 model; it stays as it is.
        evaluate: Takes a (pruned, not compiled) model and returns its quality; more is
            better. It is called once for each kernel and ratio, and once before.
        sparsities: Ratios to try, in (0, 1).
        criterion: See :func:`tfnas.prune`, as all that follows.
        data: Inputs and targets for "gradient" and "taylor".
        granularity: "element", blocks, N:M or "filter".
        layers: What to try; None: every layer with a kernel.
        exclude: What to leave out.
        loss: The loss behind "gradient" and "taylor".
        seed: Seed of draws.

    Returns:
        The record.

    Raises:
        ValueError: An argument is outside its rule, or `evaluate` returns no number.
    """
    check_criterion(criterion, data)
    ratios = tuple(sorted({check_ratio(s, name="sparsities") for s in sparsities}))
    if not ratios or ratios[0] == 0.0:
        raise ValueError(f"sparsities must hold ratios in (0, 1), got {list(sparsities)}")
    plan = MaskPlan.of(criterion, granularity, "layer", seed)
    every = find_kernels(model)[0]
    kernels = plan.admit(select(every, layers, exclude)[0])[0]
    plan.check_reachable(ratios)
    gradients = LossGradients(model, kernels, loss)(data) if criterion in WITH_DATA else None
    copy = clone(model)
    pruned = twins(copy, every, kernels)
    baseline = _quality(evaluate, copy)
    scores = []
    for index, kernel in enumerate(kernels):
        twin, weights = pruned[index].variable, kernel.numpy()
        slope = None if gradients is None else [gradients[index]]
        row = []
        for ratio in ratios:
            [mask] = plan.masks([kernel], [weights], slope, ratio)
            twin.assign(np.where(mask, weights, 0))
            row.append(_quality(evaluate, copy))
        twin.assign(weights)
        scores.append(tuple(row))
    names = tuple(kernel.name for kernel in kernels)
    return Sensitivity(baseline, ratios, names, tuple(k.size for k in kernels), tuple(scores))


def _quality(evaluate: Callable[[Any], float], model: Any) -> float:
    value = evaluate(model)
    try:
        quality = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"evaluate must return a number, got {value!r}") from error
    if math.isnan(quality):
        raise ValueError("evaluate must return a number, got NaN")
    return quality
