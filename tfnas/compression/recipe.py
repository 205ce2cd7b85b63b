"""How a candidate is made: techniques one after another, and a number format.

A recipe is a value: its name is the key of what it makes, so that work that is done is found
again. The order of its steps is the one in which each keeps what the one before it achieved
(see :mod:`tfnas.graph.compatibility`).
"""

from __future__ import annotations

import dataclasses

STEPS = ("prune_channels", "factorize", "factorize_dense", "train", "prune", "cluster")


@dataclasses.dataclass(frozen=True)
class RecipeStep:
    """One technique with its amount.

    Args:
        technique: One of `STEPS`.
        amount: "prune_channels" and "factorize": share of the multiply-accumulates that stays;
            "factorize_dense": share of the dense layers' weights that low rank leaves; "train":
            times as many epochs as a step has; "prune": share of zeros; "cluster": values a kernel.
        weights: "prune_channels": share of the weights that stays as well; None: whatever is left.
    """

    technique: str
    amount: float
    weights: float | None = None

    def __str__(self) -> str:
        also = "" if self.weights is None else f" weights {self.weights:g}"
        return f"{self.technique} {self.amount:g}{also}"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Steps that end in a file of a mode.

    Example:
        >>> recipe = Recipe((Step("prune_channels", 0.5),), "int8", aware=True)
        >>> str(recipe), recipe.key
        ('prune_channels 0.5, int8 trained', 'prune_channels_0.5-int8_trained')

    Args:
        steps: The techniques in their order.
        mode: Number format of the file.
        aware: Whether it is trained for that.
        why: Why it is tried, for people; not part of what it is.
    """

    steps: tuple[RecipeStep, ...]
    mode: str
    aware: bool = False
    why: str = dataclasses.field(default="", compare=False)

    def __post_init__(self) -> None:
        order = [STEPS.index(step.technique) for step in self.steps]
        if order != sorted(set(order)):
            raise ValueError(f"steps must be in the order {', '.join(STEPS)}, got {self}")

    @property
    def key(self) -> str:
        """Its name as a folder's."""
        return str(self).replace(", ", "-").replace(" ", "_")

    @property
    def trains(self) -> bool:
        """Whether something of it trains."""
        return bool(self.steps) or self.aware

    def __str__(self) -> str:
        return ", ".join([*map(str, self.steps), self.mode + " trained" * self.aware])
