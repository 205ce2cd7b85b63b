"""Recipes of candidates: techniques one after another, then a number format.

A recipe is a value whose name is the key of its candidate, so that finished work is found again.
Its steps are in an order in which each keeps what the one before achieved (see
:mod:`tfnas.graph.compatibility`).
"""

from __future__ import annotations

import dataclasses

from tfnas.compression.technique_row import Step, check_order
from tfnas.compression.techniques.registry import technique


@dataclasses.dataclass(frozen=True)
class RecipeStep:
    """One technique with its amount.

    Args:
        technique: Name of a technique, see :mod:`tfnas.compression.techniques.registry`.
        amount: Its amount, as the technique's `for_amount` takes it. "prune_channels" and
            "factorize": fraction of the multiply-accumulates that stays; "factorize_dense":
            fraction of the dense layers' weights that stays; "train": multiple of a step's epochs;
            "prune": fraction of zeros; "cluster": values a kernel; "ptq": bits of a weight.
        weights: "prune_channels": fraction of the weights that stays; None: no limit on weights.
        equal: "prune_channels": whether every layer keeps the same fraction of its channels. Layers
            of equal widths stay so, and share tables in the file.
    """

    technique: str
    amount: float
    weights: float | None = None
    equal: bool = False

    @property
    def kept(self) -> float | None:
        """Fraction of the weights that stays, of "factorize_dense" of the dense ones; None: any."""
        return self.amount if self.technique == "factorize_dense" else self.weights

    def keeping(self, fraction: float) -> RecipeStep:
        """Returns the step with another fraction of the weights.

        Example:
            >>> str(RecipeStep("factorize_dense", 0.5).keeping(0.4))
            'factorize_dense 0.4'
            >>> str(RecipeStep("prune_channels", 0.5, 0.6).keeping(0.4))
            'prune_channels 0.5 weights 0.4'

        Args:
            fraction: Fraction of the weights that stays.
        """
        if self.technique == "factorize_dense":
            return dataclasses.replace(self, amount=fraction)
        return dataclasses.replace(self, weights=fraction)

    def step(self) -> Step:
        """Returns the technique with its settings."""
        settings = technique(self.technique).for_amount(self.amount, weights=self.weights)
        if self.equal:
            settings = dataclasses.replace(settings, scope="group")
        return Step(self.technique, settings)

    def __str__(self) -> str:
        also = "" if self.weights is None else f" weights {self.weights:g}"
        return f"{self.technique} {self.amount:g}{also}{' equal' * self.equal}"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Steps and the number format of a file.

    Example:
        >>> recipe = Recipe((RecipeStep("prune_channels", 0.5),), "int8", aware=True)
        >>> str(recipe), recipe.key
        ('prune_channels 0.5, int8 trained', 'prune_channels_0.5-int8_trained')

    Args:
        steps: The techniques in their order.
        mode: Number format of the file.
        aware: Whether the model is trained quantization-aware for that format.
        untrained: Whether nothing is trained: only the size of the file is asked for, which hardly
            depends on the values of its weights.
        why: Why it is tried, for people; not part of the value.
    """

    steps: tuple[RecipeStep, ...]
    mode: str
    aware: bool = False
    untrained: bool = dataclasses.field(default=False, kw_only=True)
    why: str = dataclasses.field(default="", compare=False)

    def __post_init__(self) -> None:
        check_order([step.technique for step in self.steps])

    @property
    def key(self) -> str:
        """The name of the candidate's folder."""
        return str(self).replace(", ", "-").replace(" ", "_")

    @property
    def final_step(self) -> Step | None:
        """Quantization-aware training for the number format; None where there is none."""
        if not self.aware:
            return None
        return Step("qat", technique("qat").settings(mode=self.mode, allow_float=True))

    @property
    def trains(self) -> bool:
        """Whether a part of the recipe trains the model."""
        return not self.untrained and (bool(self.steps) or self.aware)

    def __str__(self) -> str:
        mode = self.mode + " trained" * self.aware + " size" * self.untrained
        return ", ".join([*map(str, self.steps), mode])
