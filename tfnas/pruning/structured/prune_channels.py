"""`prune_channels`: from a model and one target to a smaller model and a report."""

from __future__ import annotations

import fnmatch
import math
import numbers
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfnas.graph.compatibility import check_float, model_compression
from tfnas.graph.functional import walk
from tfnas.pruning.gradients import LossGradients
from tfnas.pruning.structured.channel_groups import OUTPUT, Dependencies, Group, trace
from tfnas.pruning.structured.channel_importance import CRITERIA, scores, takers
from tfnas.pruning.structured.channel_report import ChannelPruningReport, GroupChange
from tfnas.pruning.structured.channel_selection import (
    MOST,
    Cost,
    by_sizes,
    choose,
    needed_by_makers,
    removal_order,
)
from tfnas.pruning.structured.remaining_cost import RemainingCosts
from tfnas.pruning.structured.slicing import slice_channels

SCOPES = ("global", "group", "saving")
_TARGETS = ("ratio", "target_macs", "target_params", "target_latency_ratio", "sizes")


def prune_channels(
    model: Any,
    ratio: float | None = None,
    *,
    target_macs: float | None = None,
    target_params: float | None = None,
    target_latency_ratio: float | None = None,
    latency: Callable[[Any], float] | None = None,
    sizes: Mapping[str, int] | None = None,
    criterion: str = "l2",
    scope: str = "global",
    round_to: int | None = None,
    max_ratio: float = MOST,
    exclude: Sequence[str] = (),
    data: Any = None,
    loss: Any = None,
    seed: int = 0,
) -> tuple[Any, ChannelPruningReport]:
    """Returns a smaller model without the channels that are worth least, and a report.

    Example:
        >>> import keras, tfnas
        >>> layers = [keras.layers.Conv2D(16, 3, name="a"), keras.layers.Conv2D(4, 3, name="b")]
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
        >>> smaller, report = tfnas.prune_channels(model, target_macs=0.5)
        >>> smaller.get_layer("a").filters, smaller.output_shape
        (8, (None, 4, 4, 4))

    Args:
        model: A built functional or Sequential Keras 3 model; it stays as it is.
        ratio: Share of the channels that can go, in (0, 1). One target of these five is
            given, and met from below.
        target_macs: Most multiply-accumulates an example; in (0, 1]: as a share of the
            model's.
        target_params: Most weights; in (0, 1]: as a share of the model's.
        target_latency_ratio: Most that `latency` may give, as a share of the model's, in (0, 1).
        latency: Takes a model and returns its time; :class:`tfnas.LatencyModel` is one.
        sizes: Layer -> number of its channels that stay, those worth most, and of all that
            hangs together with them; other layers keep theirs. For widths found otherwise;
            `max_ratio` and `scope` play no part.
        criterion: "l1", "l2", "scale" (of BatchNormalization), "taylor" (with `data`), or
            "random"; see :mod:`tfnas.pruning.structured.channel_importance`.
        scope: "global": channels go wherever least is lost (with "taylor" or
            `target_latency_ratio`: for what is saved); "group": the same share of every group;
            "saving": more of the groups whose channels save more, which are mostly early ones.
            The share that goes is as the square root of what a channel saves.
        round_to: Multiple that the sizes of groups shall have, such as 8.
        max_ratio: Share of any group's channels that may go, in (0, 1]; one always stays. Less
            keeps "global" from emptying the groups that its scores think least of.
        exclude: Names or patterns of layers whose channels stay.
        data: Inputs and targets, for "taylor".
        loss: The loss behind "taylor"; None: the one the model is compiled with.
        seed: Seed of "random".

    Returns:
        A new functional model (nested models become flat), not compiled, and what went.

    Raises:
        ValueError: An argument is outside its rule, a pattern matches no layer, or the
            target can't be met; the message tells how near one can get.

    References:
        Fang et al., "DepGraph: Toward Any Structural Pruning", CVPR 2023.
    """
    target = _target(ratio, target_macs, target_params, target_latency_ratio, sizes)
    _check(target, latency, criterion, scope, round_to, data)
    if scope == "saving" and ratio is not None:
        raise ValueError(
            "scope 'saving' goes with target_macs, target_params or target_latency_ratio, got "
            f"ratio {ratio!r}"
        )
    if sizes is not None and round_to is not None:
        raise ValueError(f"round_to doesn't go with sizes, which are exact, got {round_to!r}")
    check_ratio_of_groups(max_ratio)
    check_float(model, "prune_channels")
    dependencies = trace(model, excluded(model, exclude))
    costs = RemainingCosts(dependencies, model.count_params())
    if criterion == "taylor" or latency is not None:
        slice_channels(
            model, dependencies, costs.nothing
        )  # what can't be copied shows before long work
    gradients = None
    if criterion == "taylor":
        gradients = (g for _, g in LossGradients(model, takers(dependencies), loss).each(data))
    found = scores(dependencies, criterion, gradients=gradients, seed=seed)
    if sizes is not None:
        chosen = by_sizes(dependencies, found, sizes)
        return slice_channels(model, dependencies, chosen), _report(
            model, dependencies, costs, chosen
        )
    priced = _Priced.of(target, model, dependencies, costs, latency)
    # Norms say which channel of a group is worth least, but not what the loss would be: per
    # saving, they would empty the groups whose channels cost most. Taylor's tell the loss.
    tells = criterion == "taylor" or latency is not None
    savings = priced.savings if tells or scope == "saving" else None
    order = removal_order(dependencies, found, scope, savings, max_ratio)
    removed = choose(dependencies, order, priced.cost, priced.limit, round_to)
    if removed is None:
        everything = np.zeros(len(dependencies.classes), bool)
        everything[order] = True
        raise ValueError(
            f"{target[0]} can't be met: got {target[1]:g}, and with every channel gone that may "
            f"go the model has {priced.told(priced.cost(everything))}; by max_ratio at most "
            f"{max_ratio:.0%} of a group go{_obstacles(dependencies)}"
        )
    return slice_channels(model, dependencies, removed), _report(
        model, dependencies, costs, removed
    )


def _target(*values: Any) -> tuple[str, Any]:
    given = dict(zip(_TARGETS, values, strict=True))
    chosen = {name: value for name, value in given.items() if value is not None}
    if len(chosen) != 1:
        raise ValueError(
            f"exactly one of {', '.join(_TARGETS)} must be given, got {', '.join(chosen) or 'none'}"
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
    target: tuple[str, Any], latency: Any, criterion: str, scope: str, round_to: Any, data: Any
) -> None:
    if (target[0] == "target_latency_ratio") != (latency is not None):
        raise ValueError(f"latency goes with target_latency_ratio, got {latency!r} and {target[0]}")
    if latency is not None and not callable(latency):
        raise ValueError(f"latency must take a model and return its time, got {latency!r}")
    if criterion not in CRITERIA:
        raise ValueError(f"criterion must be one of {', '.join(CRITERIA)}, got {criterion!r}")
    if criterion == "taylor" and data is None:
        raise ValueError("data must hold inputs and targets for criterion 'taylor', got None")
    if scope not in SCOPES:
        raise ValueError(f"scope must be one of {', '.join(SCOPES)}, got {scope!r}")
    whole = isinstance(round_to, int) and not isinstance(round_to, bool) and round_to >= 1
    if round_to is not None and not whole:
        raise ValueError(f"round_to must be a whole number from 1 on, got {round_to!r}")


def check_ratio_of_groups(value: Any) -> None:
    """Raises ValueError unless `max_ratio` is a share in (0, 1]."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (number and 0 < value <= 1):
        raise ValueError(f"max_ratio must be in (0, 1], got {value!r}")


def excluded(model: Any, patterns: Sequence[str]) -> list[str]:
    """Returns the paths of the layers that names or patterns match.

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
    """What keeps most channels, beside the model's output."""
    if not dependencies.groups:
        return (
            "; no layer is known to make channels: those of a quantized model have to go "
            "before it is quantized"
        )
    reasons: Counter[str] = Counter(r for g in dependencies.groups for r in g.kept.values())
    del reasons[OUTPUT]
    return "".join(
        f"; {count} have to stay, since {reason}" for reason, count in reasons.most_common(2)
    )


class _Priced:
    """A target as a cost, a limit and what each class saves."""

    def __init__(
        self, cost: Cost, limit: float, savings: np.ndarray | None, told: Callable[[float], str]
    ) -> None:
        self.cost, self.limit, self.savings, self.told = cost, limit, savings, told

    @classmethod
    def of(
        cls,
        target: tuple[str, float],
        model: Any,
        dependencies: Dependencies,
        costs: RemainingCosts,
        latency: Callable[[Any], float] | None,
    ) -> _Priced:
        name, value = target
        if name == "ratio":
            return cls(costs.share, 1.0 - value, None, lambda share: f"{share:.1%} of its channels")
        if latency is not None:
            return _by_latency(value, model, dependencies, costs, latency)
        what = "macs" if name == "target_macs" else "parameters"
        count: Callable[[np.ndarray], float] = getattr(costs, what)
        whole = count(costs.nothing)
        limit = value * whole if value <= 1 else value
        return cls(count, limit, costs.savings(what), lambda n: f"{n:,.0f} of {whole:,.0f} {what}")


def _by_latency(
    value: float,
    model: Any,
    dependencies: Dependencies,
    costs: RemainingCosts,
    latency: Callable[[Any], float],
) -> _Priced:
    """What a channel of each group saves: the time without half of the group."""
    whole = float(latency(model))
    if not (math.isfinite(whole) and whole > 0):
        raise ValueError(f"latency must return a time above 0, got {whole!r}")
    savings = np.full(len(dependencies.classes), 1e-9 * whole)
    needed = needed_by_makers(dependencies, np.zeros(len(dependencies.classes)))
    for group in dependencies.groups:
        half = [number for number in group.classes[1::2] if int(number) not in needed]
        if half:
            removed = costs.nothing.copy()
            removed[half] = True
            saved = whole - float(latency(slice_channels(model, dependencies, removed)))
            savings[group.classes] = max(saved / len(half), 1e-9 * whole)

    def cost(removed: np.ndarray) -> float:
        return float(latency(slice_channels(model, dependencies, removed)))

    return _Priced(cost, value * whole, savings, lambda time: f"{time / whole:.3f} of its time")


def _report(
    model: Any, dependencies: Dependencies, costs: RemainingCosts, removed: np.ndarray
) -> ChannelPruningReport:
    groups = tuple(_change(group, removed) for group in dependencies.groups)
    norms = sorted(
        unit.path
        for unit in dependencies.units.values()
        if type(unit.layer).__name__ == "LayerNormalization"
        and any(
            removed[dependencies.classes[x]].any() for p in unit.slices for x in p.axes.values()
        )
    )
    notes = [
        f"{told}: {', '.join(names)}"
        for told, names in (
            ("normalized over fewer channels now, so only nearly as before", norms),
            ("MACs are without those of layers that are not understood", costs.uncounted),
        )
        if names
    ]
    notes += _held(model)
    return ChannelPruningReport(
        groups,
        (costs.macs(costs.nothing), costs.macs(removed)),
        (costs.parameters(costs.nothing), costs.parameters(removed)),
        tuple(notes),
    )


def _held(model: Any) -> list[str]:
    """What training would undo of what pruning or clustering achieved."""
    found = model_compression(model)
    told = {
        "clusters": "values are shared: tfnas.ClusteringCallback(None) in its training keeps that",
        "zeros": "weights are zero: tfnas.keep_zeros(smaller) before training keeps that",
    }
    return [text for what, text in told.items() if what in found]


def _change(group: Group, removed: np.ndarray) -> GroupChange:
    after = group.size - int(removed[group.classes].sum())
    reason = "; ".join(dict.fromkeys(group.kept.values()))
    return GroupChange(group.name, group.makers, group.size, after, reason)
