"""Chooses an option for each layer: by rank, by the energy kept, or by the MACs of the model.

Each function returns for every layer an option, or the reason why it is not replaced.

References:
    Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification and
    Detection", TPAMI 2015, section 2.4: a greedy choice of all ranks that maximizes the
    product of the energies kept, by the loss per MAC saved.
"""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Mapping, Sequence

from tfnas.graph.lower_hull import lower_hull
from tfnas.low_rank.options import Option, Options

ROUNDING = 1e-12  # fraction of the energy that is lost by rounding alone
Choice = Option | str
Rank = int | float


def by_rank(layers: Sequence[Options], rank: Rank | Mapping[str, Rank]) -> list[Choice]:
    """Chooses options of given ranks.

    Args:
        layers: The options of each layer.
        rank: A rank, or in (0, 1) a fraction of the full one; or a dict from names or patterns
            to these, of which the first match counts.

    Returns:
        For each layer its option, or the reason why it is not replaced.
    """
    chosen: list[Choice] = []
    for options in layers:
        layer_rank = rank
        if isinstance(layer_rank, Mapping):
            ranks = [v for p, v in layer_rank.items() if matches(p, options.unit.name)]
            if not ranks:
                chosen.append("not named in rank")
                continue
            layer_rank = ranks[0]
        chosen.append(_at_rank(options, layer_rank))
    return chosen


def _at_rank(options: Options, rank: Rank) -> Choice:
    """The method that has the smallest loss per MAC saved at a rank."""
    found = []
    for method in options.unit.methods:
        full = options.full(method)
        is_fraction = rank < 1
        ranks = tuple(max(1, round(rank * n)) if is_fraction else min(int(rank), n) for n in full)
        if options.macs(method, ranks) < options.unit.macs:
            found.append(options.at(method, ranks))
    if not found:
        return f"rank {rank} would save no MACs"
    return min(found, key=lambda option: option.loss / (options.unit.macs - option.macs))


def by_energy(layers: Sequence[Options], energy: float) -> list[Choice]:
    """Chooses the fewest MACs that keep a fraction of the squared singular values.

    Args:
        layers: The options of each layer.
        energy: The fraction, in (0, 1].

    Returns:
        For each layer its option, or the reason why it is not replaced.
    """
    chosen: list[Choice] = []
    for options in layers:
        option = options.cheapest_within(1.0 - energy + ROUNDING)
        reason = f"keeping {energy:g} of its energy would save no MACs"
        chosen.append(reason if option is None else option)
    return chosen


def by_macs(layers: Sequence[Options], saving: int) -> list[Choice] | None:
    """Chooses the options with the smallest total loss that save a number of MACs.

    This is greedy: along the lower convex hull of each layer's (MACs, loss) it takes the step with
    the smallest loss per MAC saved, until enough is saved. MACs saved in excess are then spent
    where they reduce the loss most.

    Args:
        layers: The options of each layer.
        saving: Number of multiply-accumulates to save.

    Returns:
        The choices; None where the layers can't save that much.
    """
    if saving <= 0:
        return ["not needed for the target"] * len(layers)
    if sum(max_saving(options) for options in layers) < saving:
        return None
    steps = sorted(
        (step for number, options in enumerate(layers) for step in _steps(number, options)),
        key=lambda step: step[0],
    )
    chosen: list[Option | None] = [None] * len(layers)
    saved = 0
    for _, number, option in steps:
        if saved >= saving:
            break
        saved += _macs(layers[number], chosen[number]) - option.macs
        chosen[number] = option
    _spend_excess(layers, chosen, saved - saving)
    return [
        option or ("not needed for the target" if options.best else "no rank saves MACs")
        for options, option in zip(layers, chosen, strict=True)
    ]


def max_saving(options: Options) -> int:
    """Returns the largest number of MACs that a layer can save.

    Args:
        options: The options of the layer.
    """
    return options.unit.macs - options.best[0].macs if options.best else 0


def _steps(number: int, options: Options) -> list[tuple[float, int, Option]]:
    """(loss per MAC saved, layer, option) along a layer's hull, from the original layer down."""
    by_cost = {float(option.macs): option for option in options.best}
    xs = [*by_cost, float(options.unit.macs)]
    ys = [*(option.loss for option in by_cost.values()), 0.0]
    hull = lower_hull(xs, ys)[::-1]
    return [
        ((cheap_loss - loss) / (macs - cheap), number, by_cost[cheap])
        for (macs, loss), (cheap, cheap_loss) in itertools.pairwise(hull)
    ]


def _spend_excess(layers: Sequence[Options], chosen: list[Option | None], spare: int) -> None:
    """Spends spare MACs where they reduce the loss most; changes `chosen`."""
    while True:
        best: tuple[float, int, Option | None] = (0.0, -1, None)
        for number, (options, current) in enumerate(zip(layers, chosen, strict=True)):
            if current is None:
                continue
            for other in (*options.best, None):
                extra = _macs(options, other) - current.macs
                gain = current.loss - (other.loss if other else 0.0)
                if 0 < extra <= spare and gain > best[0]:
                    best = gain, number, other
        _, number, option = best
        if number < 0:
            return
        spare -= _macs(layers[number], option) - _macs(layers[number], chosen[number])
        chosen[number] = option


def _macs(options: Options, option: Option | None) -> int:
    return options.unit.macs if option is None else option.macs


def matches(pattern: str, path: str) -> bool:
    """Returns whether a name or pattern matches a layer's path or name.

    Args:
        pattern: A name, path or pattern ("block_*").
        path: Path of the layer, such as "backbone/stem".
    """
    return any(fnmatch.fnmatchcase(name, pattern) for name in (path, path.split("/")[-1]))
