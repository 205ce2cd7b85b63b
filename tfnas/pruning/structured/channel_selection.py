"""Selection of the channels to remove, so that a target is met and the least is lost.

Channels are sorted, the least important first. Bisection finds the shortest prefix of this
order whose removal meets the target, since each removed channel lowers the cost. Each group
and each layer keeps at least one channel. With `round_to` the most important of the removed
channels are kept after all, until the size of the group is a multiple.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping

import numpy as np

from tfnas.pruning.structured.channel_groups import Dependencies, Group

MOST = 0.9  # default of max_ratio

Cost = Callable[
    [np.ndarray], float
]  # takes whether each root is removed; returns the cost of the smaller model


def removal_order(
    dependencies: Dependencies,
    scores: np.ndarray,
    scope: str,
    savings: np.ndarray | None = None,
    most: float = MOST,
) -> np.ndarray:
    """Returns the roots of the removable channels, the first to remove first.

    Args:
        dependencies: The traced model.
        scores: The score of each root, (channel ids,).
        scope: "global": by score; "group": by rank in the group, so that all groups lose the
            same fraction; "saving": by rank, more from groups whose channels save more.
        savings: Cost that the removal of each root saves, (channel ids,); "global" then sorts
            by score per saving. Required for "saving".
        most: Largest fraction of a group's channels that is removed.
    """
    keys: list[tuple[float, int]] = []
    needed = best_of_each_layer(dependencies, scores)
    for group in dependencies.groups:
        ranked = group.removable[np.argsort(scores[group.removable], kind="stable")]
        free = len(ranked) - max(0, least_kept(group, most) - len(group.locked))
        for rank, root in enumerate(ranked[: max(free, 0)]):
            if int(root) in needed:
                continue
            if scope == "group":
                key = (rank + 1) / len(ranked)
            elif scope == "saving":
                # If the loss of a group grows with the square of its removed fraction, the loss
                # per saving is equal in all groups when that fraction is proportional to the
                # square root of the saving.
                assert savings is not None
                saved = math.sqrt(savings[root])
                key = (rank + 1) / len(ranked) / saved if saved else math.inf
            else:
                key = scores[root] / (savings[root] if savings is not None else 1.0)
            keys.append((float(key), int(root)))
    return np.array([root for _, root in sorted(keys)], int)


def best_of_each_layer(dependencies: Dependencies, scores: np.ndarray) -> set[int]:
    """Returns the most important root of each layer and tensor, so that none loses all channels.

    That a group keeps a channel is not enough: a group can hold the channels of several
    layers, as when a concatenation is added to another tensor, and a slice takes some of them.

    Args:
        dependencies: The traced model.
        scores: The score of each root, (channel ids,).
    """
    locked = np.zeros(len(dependencies.roots), bool)
    locked[[root for group in dependencies.groups for root in group.locked]] = True
    weights = (w for layer in dependencies.layers.values() for w in layer.weights)
    axes: list[Mapping[int, np.ndarray]] = [weight.axes for weight in weights]
    axes += [known.axes for known in dependencies.values.values()]
    needed: set[int] = set()
    for row in {id(ids): ids for each in axes for ids in each.values()}.values():
        roots = dependencies.roots[row]
        if not locked[roots].any():
            needed.add(int(roots[np.argmax(scores[roots])]))
    return needed


def least_kept(group: Group, most: float) -> int:
    """Returns the least number of channels that a group keeps.

    Args:
        group: The group.
        most: Largest fraction of its channels that is removed.
    """
    return max(1, group.size - math.floor(most * group.size + 1e-9))


def choose(
    dependencies: Dependencies,
    order: np.ndarray,
    cost: Cost,
    target: float,
    round_to: int | None = None,
) -> np.ndarray | None:
    """Returns whether each root is removed, (channel ids,); None if the target can't be met.

    Args:
        dependencies: The traced model.
        order: Result of :func:`removal_order`.
        cost: Cost of the model after a removal; it must not rise when more is removed.
        target: Largest allowed cost.
        round_to: Multiple that the group sizes are rounded up to.
    """
    low, high = 0, len(order)  # removing `high` meets the target, fewer than `low` does not
    if cost(removal(dependencies, order, high, round_to)) > target:
        return None
    while low < high:
        middle = (low + high) // 2
        if cost(removal(dependencies, order, middle, round_to)) <= target:
            high = middle
        else:
            low = middle + 1
    return removal(dependencies, order, high, round_to)


def by_sizes(
    dependencies: Dependencies, scores: np.ndarray, sizes: Mapping[str, int]
) -> np.ndarray:
    """Returns whether each root is removed, (channel ids,), to give groups the target sizes.

    Args:
        dependencies: The traced model.
        scores: The score of each root, (channel ids,).
        sizes: Maps the path of a layer to the number of channels that its group keeps.

    Raises:
        ValueError: A layer has no output channels of its own, or a size is not possible.
    """
    removed = np.zeros(len(dependencies.roots), bool)
    needed = best_of_each_layer(dependencies, scores)
    requested: dict[str, tuple[str, int]] = {}
    for name, size in sizes.items():
        group = next((g for g in dependencies.groups if name in g.makers), None)
        if group is None:
            makers = sorted(maker for g in dependencies.groups for maker in g.makers)
            raise ValueError(
                f"sizes must name layers with output channels, got {name!r}; these are "
                f"{', '.join(makers) or 'none'}"
            )
        is_whole = isinstance(size, numbers.Integral) and not isinstance(size, bool)
        if not is_whole or not 1 <= size <= group.size:
            raise ValueError(
                f"sizes must be whole numbers from 1 to the number of channels, got {size!r} for "
                f"{name!r} with {group.size} channels"
            )
        other, before = requested.setdefault(group.name, (name, size))
        if before != size:
            raise ValueError(
                f"sizes must be the same for {other!r} and {name!r}, whose channels are coupled, "
                f"got {before} and {size}"
            )
        ranked = group.removable[np.argsort(scores[group.removable], kind="stable")]
        free = [root for root in ranked if int(root) not in needed]
        if size < group.size and group.size - size > len(free):
            reasons = "; ".join(dict.fromkeys(group.locked.values()))
            raise ValueError(
                f"sizes must leave {name!r} at least {group.size - len(free)} channels, got "
                f"{size}{': ' if reasons else ''}{reasons}"
            )
        removed[free[: group.size - size]] = True
    return removed


def removal(
    dependencies: Dependencies, order: np.ndarray, count: int, round_to: int | None
) -> np.ndarray:
    """Returns whether each root is removed, (channel ids,): the first `count` of an order.

    Args:
        dependencies: The traced model.
        order: Roots, the first to remove first.
        count: Number of roots to remove.
        round_to: Multiple that the group sizes are rounded up to.
    """
    removed = np.zeros(len(dependencies.roots), bool)
    removed[order[:count]] = True
    if round_to is None or round_to == 1:
        return removed
    rank_of = {int(root): rank for rank, root in enumerate(order)}
    for group in dependencies.groups:
        pruned = sorted(
            (int(n) for n in group.removable[removed[group.removable]]), key=rank_of.__getitem__
        )
        kept = group.size - len(pruned)
        target = min(group.size, math.ceil(kept / round_to) * round_to)
        for root in pruned[len(pruned) - (target - kept) :]:
            removed[root] = False
    return removed
