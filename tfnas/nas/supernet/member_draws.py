"""Which networks a step of shared weights trains: the sandwich rule, within what may win."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfnas.nas.objectives import Objectives
from tfnas.search_space.architecture import Architecture

_TRIES = 64  # draws of a network within the bounds, before the nearest one is taken
Load = Callable[[Architecture], float]


class MemberDraws:
    """Draws the networks of a step: the teacher of the others first, then the smallest one.

    Without bounds the teacher is the largest network of the space. Where it breaks a bound, it and
    its like can't win, and take most of the time: then only networks within the bounds are trained,
    and the nearest to the bounds of those that were drawn is the teacher.

    Args:
        space: The elastic space.
        random_members: Number of random networks beside the teacher and the smallest one.
        load: Returns what a network takes of its bounds, at most 1 if it keeps them; None: there
            are no bounds.

    References:
        Yu and Huang, "Universally Slimmable Networks", ICCV 2019 (sandwich rule); Wang et al.,
        "AttentiveNAS", CVPR 2021 (draws that depend on what is searched for).
    """

    def __init__(self, space: Any, random_members: int, load: Load | None = None) -> None:
        self.space, self.random_members = space, random_members
        largest = space.largest(np.random.default_rng(0))
        self.load = None if load is None or load(largest) <= 1 else load

    def __call__(self, rng: np.random.Generator) -> list[Architecture]:
        """Returns the networks of a step.

        Args:
            rng: NumPy's random generator.
        """
        smallest = self.space.smallest(rng)
        if self.load is None:
            drawn = [self.random(rng) for _ in range(self.random_members)]
            return [self.space.largest(rng), smallest, *drawn]
        drawn = [self.random(rng) for _ in range(self.random_members + 1)]
        drawn.sort(key=self.load, reverse=True)
        return [drawn[0], smallest, *drawn[1:]]

    def random(self, rng: np.random.Generator) -> Architecture:
        """Returns a random network within the bounds; if there is none, the nearest of those drawn.

        Args:
            rng: NumPy's random generator.
        """
        if self.load is None:
            return self.space.sample(rng)
        drawn = []
        for _ in range(_TRIES):
            arch = self.space.sample(rng)
            drawn.append((self.load(arch), arch))
            if drawn[-1][0] <= 1:
                return arch
        return min(drawn, key=lambda each: each[0])[1]


def load_of(
    costs: Callable[[Architecture], Mapping[str, float]],
    objectives: Objectives,
    target_ratio: float | None,
) -> Load | None:
    """Returns the load of networks under the limits and the target latency; None: there are none.

    Args:
        costs: Returns the metrics of a network that are known without a training.
        objectives: The objectives and limits.
        target_ratio: The target latency as a ratio to the reference model's; None: no target.
    """
    bounds = {each.name: each.bound for each in objectives.limits if each.direction == "min"}
    if target_ratio is not None and "reward" in objectives.all_names:
        bounds["latency_ratio"] = min(target_ratio, bounds.get("latency_ratio", target_ratio))
    if not bounds:
        return None

    def load(arch: Architecture) -> float:
        known = costs(arch)
        return max((known[n] / b for n, b in bounds.items() if n in known and b > 0), default=0.0)

    return load
