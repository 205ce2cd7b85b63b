"""The lower convex hull of points: along it a greedy choice of steps is optimal."""

from __future__ import annotations

from collections.abc import Sequence


def lower_hull(xs: Sequence[float], ys: Sequence[float]) -> list[tuple[float, float]]:
    """Returns the lower convex hull of points with ascending x (Andrew's monotone chain).

    Example:
        >>> lower_hull([0, 1, 2], [0, 5, 2])
        [(0, 0), (2, 2)]

    Args:
        xs: x of each point, ascending.
        ys: y of each point.
    """
    hull: list[tuple[float, float]] = []
    for x, y in zip(xs, ys, strict=True):
        while len(hull) > 1 and _turns_right(hull[-2], hull[-1], (x, y)):
            hull.pop()
        hull.append((x, y))
    return hull


def _turns_right(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    return (b[0] - a[0]) * (c[1] - a[1]) <= (b[1] - a[1]) * (c[0] - a[0])
