"""Which channels go, so that a target is met from below and as little as possible is lost.

Channels are put in an order, the least worth first; the shortest prefix whose removal meets
the target is taken, by bisection, as every cost falls with every channel. No group and no
layer loses all of its channels, and where `round_to` asks for it the best of the removed come
back until a group's size is a multiple.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping

import numpy as np

from tfnas.pruning.structured.channel_groups import Dependencies, Group

MOST = 0.9  # share of a group's channels that may go, unless said otherwise

Cost = Callable[[np.ndarray], float]  # whether each class goes -> what the model then costs


def removal_order(
    dependencies: Dependencies,
    scores: np.ndarray,
    scope: str,
    savings: np.ndarray | None = None,
    most: float = MOST,
) -> np.ndarray:
    """Returns the classes that may go, the first to go first.

    Args:
        dependencies: The traced model.
        scores: A score a class.
        scope: "global": by score; "group": by rank in the group, so that groups shrink alike;
            "saving": by rank, groups more whose channels save more.
        savings: What each class's removal saves; scores are then a saving. "saving" needs it.
        most: Share of a group's channels that may go.
    """
    keys: list[tuple[float, int]] = []
    needed = needed_by_makers(dependencies, scores)
    for group in dependencies.groups:
        ranked = group.classes[np.argsort(scores[group.classes], kind="stable")]
        free = len(ranked) - max(0, least_kept(group, most) - len(group.kept))
        for rank, number in enumerate(ranked[: max(free, 0)]):
            if int(number) in needed:
                continue
            if scope == "group":
                key = (rank + 1) / len(ranked)
            elif scope == "saving":
                # What a group loses grows with the square of the share that has gone: then
                # all lose alike per saving where that share goes as the saving's root.
                assert savings is not None
                saved = math.sqrt(savings[number])
                key = (rank + 1) / len(ranked) / saved if saved else math.inf
            else:
                key = scores[number] / (savings[number] if savings is not None else 1.0)
            keys.append((float(key), int(number)))
    return np.array([number for _, number in sorted(keys)], int)


def needed_by_makers(dependencies: Dependencies, scores: np.ndarray) -> set[int]:
    """Returns the best class of each layer that makes channels: none is left without any.

    A group may be made by several layers, as where a concatenation is added to something.

    Args:
        dependencies: The traced model.
        scores: A score a class.
    """
    locked = {number for group in dependencies.groups for number in group.kept}
    needed: set[int] = set()
    for unit in dependencies.units.values():
        for part in unit.slices:
            if part.makes is not None:
                classes = dependencies.classes[part.axes[part.makes]]
                if locked.isdisjoint(classes.tolist()):
                    needed.add(int(classes[np.argmax(scores[classes])]))
    return needed


def least_kept(group: Group, most: float) -> int:
    """Returns how many channels of a group stay where a share of `most` may go."""
    return max(1, group.size - math.floor(most * group.size + 1e-9))


def choose(
    dependencies: Dependencies,
    order: np.ndarray,
    cost: Cost,
    target: float,
    round_to: int | None = None,
) -> np.ndarray | None:
    """Returns whether each class goes; None where not even all that may go suffices.

    Args:
        dependencies: The traced model.
        order: Of :func:`removal_order`.
        cost: What the model costs after a removal; it must not rise with it.
        target: Most that it may cost.
        round_to: Multiple that the sizes of groups shall have.
    """
    low, high = 0, len(order)  # high removed suffice, fewer than low do not
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
    """Returns whether each class goes where groups shall have sizes that were given.

    Args:
        dependencies: The traced model.
        scores: A score a class.
        sizes: Layer that makes channels -> how many of its group's stay.

    Raises:
        ValueError: A layer makes no channels that may go, or a size can't be had.
    """
    removed = np.zeros(len(dependencies.classes), bool)
    needed = needed_by_makers(dependencies, scores)
    asked: dict[str, tuple[str, int]] = {}
    for name, size in sizes.items():
        group = next((g for g in dependencies.groups if name in g.makers), None)
        if group is None:
            makers = sorted(maker for g in dependencies.groups for maker in g.makers)
            raise ValueError(
                f"sizes must name layers that make channels, got {name!r}; there are "
                f"{', '.join(makers) or 'none'}"
            )
        whole = isinstance(size, numbers.Integral) and not isinstance(size, bool)
        if not whole or not 1 <= size <= group.size:
            raise ValueError(
                f"sizes must be whole numbers from 1 to what a layer has, got {size!r} for "
                f"{name!r} of {group.size}"
            )
        other, before = asked.setdefault(group.name, (name, size))
        if before != size:
            raise ValueError(
                f"sizes must be the same for {other!r} and {name!r}, whose channels hang together, "
                f"got {before} and {size}"
            )
        ranked = group.classes[np.argsort(scores[group.classes], kind="stable")]
        free = [number for number in ranked if int(number) not in needed]
        if size < group.size and group.size - size > len(free):
            reasons = "; ".join(dict.fromkeys(group.kept.values()))
            raise ValueError(
                f"sizes must leave {name!r} at least {group.size - len(free)} channels, got "
                f"{size}{': ' if reasons else ''}{reasons}"
            )
        removed[free[: group.size - size]] = True
    return removed


def removal(
    dependencies: Dependencies, order: np.ndarray, count: int, round_to: int | None
) -> np.ndarray:
    """Returns whether each class goes where the first `count` of an order shall."""
    removed = np.zeros(len(dependencies.classes), bool)
    removed[order[:count]] = True
    if round_to is None or round_to == 1:
        return removed
    place = {int(number): rank for rank, number in enumerate(order)}
    for group in dependencies.groups:
        gone = sorted(
            (int(n) for n in group.classes[removed[group.classes]]), key=place.__getitem__
        )
        kept = group.size - len(gone)
        wanted = min(group.size, math.ceil(kept / round_to) * round_to)
        for number in gone[len(gone) - (wanted - kept) :]:
            removed[number] = False
    return removed
