"""Which option each layer takes: by ranks, by the energy kept, or by the MACs of all together.

Each chooser returns an option a layer, or the reason why it stays as it is.

References:
    Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification and
    Detection", TPAMI 2015, section 2.4: ranks of all layers together, so that the product of
    the energies kept is largest, greedily by what is lost for what is saved.
"""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Mapping, Sequence

from tfnas.graph.lower_hull import lower_hull
from tfnas.low_rank.options import Option, Options

LOSSLESS = 1e-12  # share of the energy that rounding alone loses
Choice = Option | str
Rank = int | float


def by_rank(layers: Sequence[Options], rank: Rank | Mapping[str, Rank]) -> list[Choice]:
    """Chooses by given ranks.

    Args:
        layers: The layers.
        rank: A rank, or in (0, 1) the share of the full one; or such by name or pattern, the
            first that matches counts.
    """
    chosen: list[Choice] = []
    for options in layers:
        wanted = rank
        if isinstance(wanted, Mapping):
            fitting = [v for p, v in wanted.items() if matches(p, options.unit.name)]
            if not fitting:
                chosen.append("rank names it not")
                continue
            wanted = fitting[0]
        chosen.append(_at_rank(options, wanted))
    return chosen


def _at_rank(options: Options, wanted: Rank) -> Choice:
    """Of the methods at a rank the one that loses least for what it saves."""
    found = []
    for method in options.unit.methods:
        full = options.full(method)
        share = wanted < 1
        ranks = tuple(max(1, round(wanted * n)) if share else min(int(wanted), n) for n in full)
        if options.macs(method, ranks) < options.unit.macs:
            found.append(options.at(method, ranks))
    if not found:
        return f"at rank {wanted} it would not multiply less"
    return min(found, key=lambda option: option.loss / (options.unit.macs - option.macs))


def by_energy(layers: Sequence[Options], energy: float) -> list[Choice]:
    """Chooses what multiplies least and keeps a share of the squared singular values.

    Args:
        layers: The layers.
        energy: The share, in (0, 1].
    """
    chosen: list[Choice] = []
    for options in layers:
        allowed = 1.0 - energy + LOSSLESS
        first = options.within(allowed)
        reason = f"with {energy:g} of its energy it would not multiply less"
        chosen.append(reason if first is None else first)
    return chosen


def by_macs(layers: Sequence[Options], saving: int) -> list[Choice] | None:
    """Chooses what loses least where all together save a number of MACs; None: they can't.

    Along the lower convex hull of each layer's (MACs, loss) the step that loses least for a
    MAC is taken next, until enough is saved; what was saved too much is then given back where
    most is won.

    Args:
        layers: The layers.
        saving: Multiply-accumulates to save.
    """
    if saving <= 0:
        return ["the target is met without it"] * len(layers)
    if sum(most_saved(options) for options in layers) < saving:
        return None
    steps = sorted(
        (step for number, options in enumerate(layers) for step in _steps(number, options)),
        key=lambda step: step[0],
    )
    taken: list[Option | None] = [None] * len(layers)
    saved = 0
    for _, number, option in steps:
        if saved >= saving:
            break
        saved += _macs(layers[number], taken[number]) - option.macs
        taken[number] = option
    _give_back(layers, taken, saved - saving)
    return [
        option or ("the target is met without it" if options.best else "no rank saves MACs")
        for options, option in zip(layers, taken, strict=True)
    ]


def most_saved(options: Options) -> int:
    """Returns how many MACs a layer can save."""
    return options.unit.macs - options.best[0].macs if options.best else 0


def _steps(number: int, options: Options) -> list[tuple[float, int, Option]]:
    """(loss a MAC saved, layer, option) along a layer's hull, from the whole layer down."""
    by_cost = {float(option.macs): option for option in options.best}
    xs = [*by_cost, float(options.unit.macs)]
    ys = [*(option.loss for option in by_cost.values()), 0.0]
    hull = lower_hull(xs, ys)[::-1]
    return [
        ((lower - upper) / (dear - cheap), number, by_cost[cheap])
        for (dear, upper), (cheap, lower) in itertools.pairwise(hull)
    ]


def _give_back(layers: Sequence[Options], taken: list[Option | None], spare: int) -> None:
    """Lets layers multiply more again, as long as something is spare; changes `taken`."""
    while True:
        best: tuple[float, int, Option | None] = (0.0, -1, None)
        for number, (options, now) in enumerate(zip(layers, taken, strict=True)):
            if now is None:
                continue
            for other in (*options.best, None):
                more = _macs(options, other) - now.macs
                won = now.loss - (other.loss if other else 0.0)
                if 0 < more <= spare and won > best[0]:
                    best = won, number, other
        won, number, option = best
        if number < 0:
            return
        spare -= _macs(layers[number], option) - _macs(layers[number], taken[number])
        taken[number] = option


def _macs(options: Options, option: Option | None) -> int:
    return options.unit.macs if option is None else option.macs


def matches(pattern: str, path: str) -> bool:
    """Whether a name or pattern means a layer, by its path or its own name."""
    return any(fnmatch.fnmatchcase(name, pattern) for name in (path, path.split("/")[-1]))
