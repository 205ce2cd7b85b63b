"""Structured pruning in one call: removes the least important channels to meet a target."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
import numbers
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tfnas.data.data_types import ExampleData
from tfnas.graph.compatibility import check_float
from tfnas.graph.functional import walk
from tfnas.graph.functional_form import as_functional
from tfnas.graph.macs import not_counted
from tfnas.pruning.structured.channel_groups import MODEL_OUTPUT, Dependencies, trace
from tfnas.pruning.structured.channel_importance import (
    Importance,
    importance_of,
    is_comparable,
    scores,
)
from tfnas.pruning.structured.channel_repair import refitted
from tfnas.pruning.structured.channel_report import ChannelPruningReport, report_of
from tfnas.pruning.structured.channel_selection import (
    MOST,
    Cost,
    best_of_each_layer,
    by_sizes,
    choose,
    removal_order,
)
from tfnas.pruning.structured.cut_effect import lost_by_the_cut
from tfnas.pruning.structured.remaining_cost import RemainingCosts
from tfnas.pruning.structured.slicing import slice_channels

if TYPE_CHECKING:
    import keras

SCOPES = ("global", "group", "saving")
_TARGETS = ("ratio", "target_macs", "target_params", "target_latency_ratio", "sizes")


def prune_channels(
    model: keras.Model,
    ratio: float | None = None,
    *,
    target_macs: float | None = None,
    target_params: float | None = None,
    target_latency_ratio: float | None = None,
    latency: Callable[[keras.Model], float] | None = None,
    sizes: Mapping[str, int] | None = None,
    criterion: str | Importance = "l2",
    scope: str = "global",
    round_to: int | None = None,
    max_ratio: float = MOST,
    exclude: Sequence[str] = (),
    approximate: bool = False,
    reconstruct: bool = False,
    data: ExampleData | None = None,
    loss: str | Callable[..., Any] | None = None,
    seed: int = 0,
) -> tuple[keras.Model, ChannelPruningReport]:
    """Removes the least important channels of a model; returns a smaller model and a report.

    Set exactly one of the targets `ratio`, `target_macs`, `target_params`,
    `target_latency_ratio` and `sizes`. Channels that depend on each other, such as the two
    inputs of an addition, are removed together.

    Example:
        >>> import keras, tfnas
        >>> layers = [keras.layers.Conv2D(16, 3, name="a"), keras.layers.Conv2D(4, 3, name="b")]
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
        >>> smaller, report = tfnas.prune_channels(model, target_macs=0.5)
        >>> smaller.get_layer("a").filters, smaller.output_shape
        (8, (None, 4, 4, 4))

    Args:
        model: A Keras 3 model; it is not changed. A subclassed one is opened, see
            :func:`tfnas.as_functional`.
        ratio: Smallest fraction of the removable channels that is removed, in (0, 1).
        target_macs: Largest number of MACs (multiply-accumulates) per example. A value in
            (0, 1] is a fraction of the MACs of `model`.
        target_params: Largest number of weights. A value in (0, 1] is a fraction of the number
            of weights of `model`.
        target_latency_ratio: Longest time of the smaller model, as a fraction of the time of
            `model`, in (0, 1). Requires `latency`.
        latency: Function of a model that returns its time, in any unit, such as a
            :class:`tfnas.LatencyModel`.
        sizes: Maps the path of a layer to its number of channels in the smaller model. Coupled
            layers get the same number; other layers keep theirs. `max_ratio` and `scope` are
            ignored.
        criterion: Importance of a channel: "l1" or "l2" (norm of its weights), "scale" (gamma
            of BatchNormalization), "taylor" (estimated change of the loss; requires `data`),
            "obs" (estimated change of the outputs after a reconstruction; requires `data`),
            "random", or your own :class:`tfnas.Importance`: a function of a group of channels
            that returns their scores.
        scope: How the removed channels are distributed over the groups of coupled channels.
            "global": the channels with the lowest scores of the entire model. With criterion
            "taylor", "obs", another comparable one or `target_latency_ratio`, each score is
            divided by the cost that the removal saves.
            "group": the same fraction of each group.
            "saving": the fraction of a group is proportional to the square root of the cost
            that the removal of one of its channels saves. Early groups mostly lose more.
        round_to: The number of channels of each group is rounded up to a multiple of it, such
            as 8.
        max_ratio: Largest fraction of a group's channels that is removed, in (0, 1]; at least
            one channel stays. Protects groups with low scores in scope "global".
        exclude: Names, paths or patterns ("block_*") of layers whose channels are not removed.
        approximate: Whether channels may be removed from what LayerNormalization normalizes. Its
            mean and variance are then over fewer channels, which fine-tuning has to repair; all
            other removals compute exactly what zeros for the removed channels would.
        reconstruct: Whether the layers that lost channels are fitted, one by one and in closed
            form, to the outputs of the original ones on the data, without labels; the statistics
            of BatchNormalization are adapted. For use without training.
        data: Inputs and targets for "taylor": a tuple (x, y) of arrays such as
            (examples, height, width, channels) and (examples,), a `tf.data.Dataset` or a
            `keras.utils.PyDataset`. For other criteria, and for `reconstruct`, a few hundred inputs
            are enough: the report then has how far the outputs moved.
        loss: Loss for "taylor"; None: the loss that the model is compiled with.
        seed: Seed of criterion "random".

    Returns:
        The smaller model, functional and not compiled (nested models are flattened), and the
        report.

    Raises:
        ValueError: An argument is out of range, a pattern matches no layer, or the target
            can't be met. In the last case the message has the lowest cost that can be reached.

    References:
        Fang et al., "DepGraph: Toward Any Structural Pruning", CVPR 2023. Luo et al., "ThiNet",
        ICCV 2017, for the reconstruction.
    """
    if reconstruct and data is None:
        raise ValueError("data must be given with reconstruct=True, got None")
    target = _target(ratio, target_macs, target_params, target_latency_ratio, sizes)
    _check(target, latency, scope, round_to, max_ratio)
    importance = importance_of(criterion, data=data, loss=loss, seed=seed)
    check_float(model, "prune_channels")
    model = as_functional(model, data)
    dependencies = trace(model, excluded(model, exclude), approximate)
    costs = RemainingCosts(dependencies, model.count_params())
    if target[0] == "target_macs" and costs.uncounted:
        raise ValueError(not_counted("target_macs", costs.uncounted))
    needs_model = hasattr(importance, "prepared")
    if needs_model or latency is not None:
        # A model that can't be copied raises before the long computation.
        slice_channels(model, dependencies, costs.nothing)
    if needs_model:
        importance = importance.prepared(model, dependencies)  # type: ignore[attr-defined]
    found = scores(dependencies, importance)
    if sizes is not None:
        removed = by_sizes(dependencies, found, sizes)
    else:
        budget = _CostTarget.of(target, model, dependencies, costs, latency)
        # Norms rank the channels of a group but do not estimate the loss: per saving, they would
        # empty the groups whose channels cost most. Taylor scores do estimate the loss.
        per_saving = is_comparable(importance) or latency is not None or scope == "saving"
        savings = budget.savings if per_saving else None
        order = removal_order(dependencies, found, scope, savings, max_ratio)
        removed = _within(target, budget, dependencies, order, round_to, max_ratio)
    report = report_of(model, dependencies, costs, removed)
    notes = list(report.notes)
    if reconstruct:
        smaller, unfit = refitted(model, dependencies, removed, data)
        notes += unfit
    else:
        smaller = slice_channels(model, dependencies, removed)
    notes += lost_by_the_cut(model, smaller, data) if removed.any() else []
    return smaller, dataclasses.replace(report, notes=tuple(notes))


def _within(
    target: tuple[str, Any],
    budget: _CostTarget,
    dependencies: Dependencies,
    order: np.ndarray,
    round_to: int | None,
    max_ratio: float,
) -> np.ndarray:
    """The roots to remove so that the target is met; raises ValueError if it can't be."""
    chosen = choose(dependencies, order, budget.cost, budget.limit, round_to)
    if chosen is None:
        all_removed = np.zeros(len(dependencies.roots), bool)
        all_removed[order] = True
        raise ValueError(
            f"{target[0]} can't be met: got {target[1]:g}, and without all removable channels the "
            f"model still has {budget.describe(budget.cost(all_removed))}; max_ratio allows the "
            f"removal of {max_ratio:.0%} of a group{_obstacles(dependencies)}"
        )
    return chosen


def _target(*values: Any) -> tuple[str, Any]:
    targets = dict(zip(_TARGETS, values, strict=True))
    chosen = {name: value for name, value in targets.items() if value is not None}
    if len(chosen) != 1:
        raise ValueError(
            f"exactly one of {', '.join(_TARGETS)} must be set, got {', '.join(chosen) or 'none'}"
        )
    name, value = next(iter(chosen.items()))
    if name == "sizes":
        if not isinstance(value, Mapping) or not value:
            raise ValueError(f"sizes must map layers to numbers of channels, got {value!r}")
        return name, value
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    amount = float(value) if number else 0.0
    if not amount > 0:
        raise ValueError(f"{name} must be a number above 0, got {value!r}")
    if name in ("ratio", "target_latency_ratio") and amount >= 1:
        raise ValueError(f"{name} must be in (0, 1), got {value!r}")
    return name, amount


def _check(
    target: tuple[str, Any],
    latency: Any,
    scope: str,
    round_to: Any,
    max_ratio: Any,
) -> None:
    if (target[0] == "target_latency_ratio") != (latency is not None):
        raise ValueError(
            f"latency and target_latency_ratio require each other, got {latency!r} and {target[0]}"
        )
    if latency is not None and not callable(latency):
        raise ValueError(f"latency must take a model and return its time, got {latency!r}")
    if scope not in SCOPES:
        raise ValueError(f"scope must be one of {', '.join(SCOPES)}, got {scope!r}")
    valid = isinstance(round_to, int) and not isinstance(round_to, bool) and round_to >= 1
    if round_to is not None and not valid:
        raise ValueError(f"round_to must be a whole number from 1 on, got {round_to!r}")
    if scope == "saving" and target[0] == "ratio":
        raise ValueError(
            "scope 'saving' requires target_macs, target_params or target_latency_ratio, got "
            f"ratio {target[1]!r}"
        )
    if target[0] == "sizes" and round_to is not None:
        raise ValueError(f"round_to must be None with sizes, which are exact, got {round_to!r}")
    check_max_ratio(max_ratio)


def check_max_ratio(value: float) -> None:
    """Checks the argument `max_ratio` of :func:`prune_channels`.

    Args:
        value: The argument.

    Raises:
        ValueError: It is not a number in (0, 1].
    """
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (number and 0 < value <= 1):
        raise ValueError(f"max_ratio must be in (0, 1], got {value!r}")


def excluded(model: keras.Model, patterns: Sequence[str]) -> list[str]:
    """Returns the paths of the layers that match names or patterns.

    Args:
        model: A built functional or Sequential model.
        patterns: Paths, names or patterns of layers.

    Raises:
        ValueError: A pattern matches none.
    """
    if isinstance(patterns, str):
        patterns = (patterns,)
    names = [call.name for call in walk(model).calls]
    found: list[str] = []
    for pattern in patterns:
        matches = [
            n for n in names if any(fnmatch.fnmatchcase(p, pattern) for p in (n, n.split("/")[-1]))
        ]
        if not matches:
            raise ValueError(f"exclude must name layers, got {pattern!r}, which matches none")
        found += matches
    return found


def _obstacles(dependencies: Dependencies) -> str:
    """The most frequent reasons why channels have to stay; the model's output where alone."""
    if not dependencies.groups and not dependencies.whole:
        return "; the model has no layer with known output channels"
    reasons: Counter[str] = Counter(r for g in dependencies.groups for r in g.locked.values())
    whole = [reason for reason in dependencies.whole.values() if reason not in reasons]
    if whole or len(reasons) > 1:
        del reasons[MODEL_OUTPUT]
    texts = [f"{count} channels have to stay: {reason}" for reason, count in reasons.most_common(2)]
    way_out = "prune the channels of a model before it is quantized"
    quantized = [way_out] * any(reason.endswith("is quantized") for reason in whole)
    return "".join(f"; {text}" for text in [*texts, *whole[:2], *quantized])


class _CostTarget:
    """A target as a cost function, a limit, the saving of each root, and a text for a cost."""

    def __init__(
        self, cost: Cost, limit: float, savings: np.ndarray | None, describe: Callable[[float], str]
    ) -> None:
        self.cost, self.limit, self.savings, self.describe = cost, limit, savings, describe

    @classmethod
    def of(
        cls,
        target: tuple[str, float],
        model: Any,
        dependencies: Dependencies,
        costs: RemainingCosts,
        latency: Callable[[Any], float] | None,
    ) -> _CostTarget:
        name, value = target
        if name == "ratio":
            return cls(
                costs.kept_fraction, 1.0 - value, None, lambda kept: f"{kept:.1%} of its channels"
            )
        if latency is not None:
            return _by_latency(value, model, dependencies, costs, latency)
        unit: Literal["macs", "parameters"] = "macs" if name == "target_macs" else "parameters"
        count: Callable[[np.ndarray], float] = getattr(costs, unit)
        baseline = count(costs.nothing)
        limit = value * baseline if value <= 1 else value
        return cls(
            count, limit, costs.savings(unit), lambda n: f"{n:,.0f} of {baseline:,.0f} {unit}"
        )


def _by_latency(
    value: float,
    model: Any,
    dependencies: Dependencies,
    costs: RemainingCosts,
    latency: Callable[[Any], float],
) -> _CostTarget:
    """Savings per channel, from the time of the model without half of each group."""
    baseline = float(latency(model))
    if not (math.isfinite(baseline) and baseline > 0):
        raise ValueError(f"latency must return a time above 0, got {baseline!r}")
    savings = np.full(len(dependencies.roots), 1e-9 * baseline)
    needed = best_of_each_layer(dependencies, np.zeros(len(dependencies.roots)))
    for group in dependencies.groups:
        half = [root for root in group.removable[1::2] if int(root) not in needed]
        if half:
            removed = costs.nothing.copy()
            removed[half] = True
            saved = baseline - float(latency(slice_channels(model, dependencies, removed)))
            savings[group.removable] = max(saved / len(half), 1e-9 * baseline)

    def cost(removed: np.ndarray) -> float:
        return float(latency(slice_channels(model, dependencies, removed)))

    return _CostTarget(
        cost, value * baseline, savings, lambda time: f"{time / baseline:.3f} of its time"
    )
