"""Which channels to remove where a model has residual blocks, for limits on MACs and weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

    from tfnas.pruning.structured.channel_report import ChannelPruningReport

NEAR = 0.85  # of the target, below which rounded sizes must not fall
HALVINGS = 6  # bisections of the fraction of weights beside a limit on costs


def shared_layers(model: keras.Model) -> list[str]:
    """Returns layers that must have as many channels as another: those that a sum adds up.

    Args:
        model: A Keras model.
    """
    from tfnas.pruning.structured.prune_channels import prune_channels

    _, report = prune_channels(model, target_macs=0.999)
    return [maker for g in report.groups if len(g.makers) > 1 for maker in g.makers]


def by_savings(
    model: keras.Model, shared: list[str], **options: Any
) -> tuple[keras.Model, ChannelPruningReport]:
    """Prunes channels where that saves most: inside the blocks and by fours, where possible.

    The channels between residual blocks then stay as they are. Kernels compute 8 channels at a
    time, but where 8 is half of a layer, multiples of 4 leave more choices.

    Args:
        model: A Keras model.
        shared: Its :func:`shared_layers`.
        **options: Arguments of :func:`tfnas.prune_channels`, with `target_macs` or
            `target_params`.

    Returns:
        The pruned model and the report.

    Raises:
        ValueError: The target can't be met.
    """
    from tfnas.pruning.structured.prune_channels import prune_channels

    macs = "target_macs" in options
    target = options["target_macs" if macs else "target_params"]
    last = ValueError("no channel can be removed")
    for more in ({"exclude": shared, "round_to": 4}, {"exclude": shared}, {"round_to": 4}, {}):
        try:
            smaller, report = prune_channels(model, scope="saving", **options, **more)
        except ValueError as error:
            last = error
            continue
        before, after = report.macs if macs else report.parameters
        if "round_to" not in more or after >= NEAR * target * before:
            return smaller, report
    raise last


def both_sizes(model: keras.Model, macs: float, weights: float) -> dict[str, int]:
    """Returns the channels that layers keep for a fraction of the MACs and one of the weights.

    Each group keeps as few as the stricter of the two demands. Together that would remove too
    many weights, so the fraction of weights is raised by bisection while the limit is met.

    Args:
        model: A Keras model.
        macs: Fraction of the MACs that stays, below 1.
        weights: Fraction of the weights that stays, below 1.

    Returns:
        First layer of each group -> its channels.

    Raises:
        ValueError: One of the fractions can't be met.
    """
    from tfnas.pruning.structured.prune_channels import prune_channels

    shared = shared_layers(model)
    least = _kept(by_savings(model, shared, target_macs=macs)[1])
    limit = weights * model.count_params()
    low, high, found = weights, 1.0, None
    for tried in range(HALVINGS):
        fraction = low if not tried else (low + high) / 2
        own = _kept(by_savings(model, shared, target_params=fraction)[1])
        sizes = {**own, **{name: min(size, own.get(name, size)) for name, size in least.items()}}
        _, report = prune_channels(model, sizes=sizes)
        if report.parameters[1] <= limit:
            low, found = fraction, sizes
        else:
            high = fraction
    assert found is not None  # the first one meets both
    return found


def equal_sizes(model: keras.Model, macs: float | None, weights: float | None) -> dict[str, int]:
    """Returns the channels that layers keep where each keeps the same fraction of its own.

    Layers of equal widths stay so: in a small file the tables that they share, such as the zero
    points of their channels, count more than the best distribution of the channels.

    Args:
        model: A Keras model.
        macs: Fraction of the MACs that stays; None: no limit.
        weights: Fraction of the weights that stays; None: no limit.

    Returns:
        First layer of each group -> its channels.

    Raises:
        ValueError: One of the fractions can't be met.
    """
    from tfnas.pruning.structured.prune_channels import prune_channels

    limits = {"target_macs": macs, "target_params": weights}
    removable: dict[str, int] = {}
    for name, target in limits.items():
        if target is not None:
            _, report = prune_channels(model, scope="group", **{name: target})  # type: ignore[arg-type]
            removable |= {g.makers[0]: g.before for g in report.groups if g.after < g.before}
    widest = max(removable.values())
    low, high = 1, widest  # channels of the widest that stay: met, not met
    while high - low > 1:
        middle = (low + high) // 2
        _, report = prune_channels(model, sizes=_scaled_sizes(removable, middle / widest))
        (before, after), (old, new) = report.macs, report.parameters
        met = after <= (macs or 1) * before and new <= (weights or 1) * old
        low, high = (middle, high) if met else (low, middle)
    return _scaled_sizes(removable, low / widest)


def _scaled_sizes(widths: dict[str, int], fraction: float) -> dict[str, int]:
    """Returns fewer channels of each layer, as many of layers that have as many."""
    return {name: max(1, math.floor(fraction * width + 1e-9)) for name, width in widths.items()}


def _kept(report: ChannelPruningReport) -> dict[str, int]:
    """Returns the first layer of each pruned group -> the channels that it keeps."""
    return {g.makers[0]: g.after for g in report.groups if g.makers and g.after < g.before}
