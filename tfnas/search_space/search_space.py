"""What a tuner may ask of a search space.

A space is a list of :class:`Decision` objects (which value for the kernel of stage 3?)
and a way to turn the decided values into an :class:`~tfnas.search_space.architecture.Architecture`
and back. Everything a search does (sampling, mutating, crossing over, counting,
encoding, declaring hyperparameters) follows from the decisions, so it is written here,
once. A decision may hang on another one: the kernel of a stage matters only while the
stage is not an identity. Values of decisions that do not matter are never stored, so
that equal networks are equal values.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from tfnas.search_space.architecture import Architecture

Values = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Decision:
    """One choice that a search makes.

    Args:
        name: Name of the decision, unique in its space.
        choices: The values it can take, at least one, no value twice.
        parent: Name of the decision that this one hangs on, if any.
        parent_values: This decision matters while the parent has one of these values.
    """

    name: str
    choices: tuple[Any, ...]
    parent: str | None = None
    parent_values: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        plain = (c.item() if isinstance(c, np.generic) else c for c in self.choices)
        object.__setattr__(self, "choices", tuple(plain))
        if not self.choices:
            raise ValueError(f"{self.name} must have at least one choice, got none")
        if len(set(self.choices)) != len(self.choices):
            raise ValueError(f"{self.name} must not hold a choice twice, got {self.choices}")

    def active(self, values: Mapping[str, Any]) -> bool:
        """Whether the decision matters, given the values decided before it."""
        return self.parent is None or values.get(self.parent) in self.parent_values


@dataclasses.dataclass(frozen=True)
class ConditionedDecision(Decision):
    """A decision under all of several conditions.

    Args:
        conditions: (name of another decision, its values) that must all hold.
    """

    conditions: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def active(self, values: Mapping[str, Any]) -> bool:
        """Whether all conditions hold."""
        return all(name in values and values[name] in among for name, among in self.conditions)


@runtime_checkable
class SearchSpace(Protocol):
    """The protocol that tuners rely on; :class:`DecisionSpace` implements it."""

    @property
    def decisions(self) -> Sequence[Decision]: ...

    @property
    def size(self) -> int: ...

    def sample(self, rng: np.random.Generator) -> Architecture: ...

    def mutate(self, arch: Architecture, rng: np.random.Generator) -> Architecture: ...

    def crossover(
        self, a: Architecture, b: Architecture, rng: np.random.Generator
    ) -> Architecture: ...

    def encode(self, arch: Architecture) -> np.ndarray: ...

    def declare(self, hp: Any) -> Architecture: ...

    def values(self, arch: Architecture) -> Values: ...

    def from_values(self, values: Mapping[str, Any]) -> Architecture: ...

    def build(self, arch: Architecture) -> Any: ...


def combinations(decisions: Sequence[Decision]) -> int:
    """Returns how many different values decisions can have together, by their parents.

    Example:
        >>> kind = Decision("kind", ("a", "b"))
        >>> combinations([kind, Decision("size", (1, 2, 3), "kind", ("a",))])
        4

    Args:
        decisions: Parents before children.
    """

    def count(decision: Decision) -> int:
        children = [child for child in decisions if child.parent == decision.name]
        return sum(
            math.prod(count(child) for child in children if choice in child.parent_values)
            for choice in decision.choices
        )

    return math.prod(count(root) for root in decisions if root.parent is None)


class DecisionSpace:
    """Everything about a search space that follows from its decisions.

    A subclass gives `decisions` (parents before children), :meth:`values` and
    :meth:`from_values`.
    """

    decisions: tuple[Decision, ...]

    def values(self, arch: Architecture) -> Values:
        """Returns the active decisions of `arch`; ValueError where it is not in the space."""
        raise NotImplementedError

    def from_values(self, values: Mapping[str, Any]) -> Architecture:
        """Returns the architecture of these decisions; inactive ones are ignored."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """The exact number of different architectures (descriptions), a Python integer."""
        return combinations(self.decisions)

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Returns a random architecture: each active decision uniform over its choices.

        Example:
            >>> import numpy as np, tfnas
            >>> space = tfnas.MobileNetV2Space((28, 28, 1), 10)
            >>> space.sample(np.random.default_rng(0)).num_classes
            10

        Args:
            rng: NumPy's random generator.
        """
        return self.from_values(self.complete({}, rng))

    def mutate(self, arch: Architecture, rng: np.random.Generator) -> Architecture:
        """Returns `arch` with one decision changed; never `arch` itself.

        A decision that becomes active by the change is sampled.

        Args:
            arch: An architecture of this space.
            rng: NumPy's random generator.

        Raises:
            ValueError: `arch` is not in the space, or is the only one in it.
        """
        values = self.values(arch)
        open_decisions = [d for d in self.decisions if d.name in values and len(d.choices) > 1]
        if not open_decisions:
            raise ValueError("arch can't be mutated: the space leaves it no other choice")
        decision = open_decisions[rng.integers(len(open_decisions))]
        others = [choice for choice in decision.choices if choice != values[decision.name]]
        values[decision.name] = others[rng.integers(len(others))]
        return self.from_values(self.complete(values, rng))

    def crossover(self, a: Architecture, b: Architecture, rng: np.random.Generator) -> Architecture:
        """Returns a child that takes each group of decisions whole from `a` or from `b`.

        A group is a decision without a parent and all that hangs on it: a stage comes
        whole from one side, so a good stage is not torn apart.

        Args:
            a: An architecture of this space.
            b: An architecture of this space.
            rng: NumPy's random generator.

        Raises:
            ValueError: `a` or `b` is not in the space.
        """
        parents = self.values(a), self.values(b)
        taken: dict[str, Values] = {}
        values: Values = {}
        for decision in self.decisions:
            side = taken.get(decision.parent or "", parents[rng.integers(2)])
            taken[decision.name] = side
            if decision.active(values):
                if decision.name not in side:  # its conditions came from both sides
                    values[decision.name] = decision.choices[rng.integers(len(decision.choices))]
                else:
                    values[decision.name] = side[decision.name]
        return self.from_values(values)

    def encode(self, arch: Architecture) -> np.ndarray:
        """Returns `arch` as a vector for a predictor: one one-hot group a decision.

        The group of a decision that does not matter is all zeros. Different
        architectures have different vectors.

        Args:
            arch: An architecture of this space.

        Returns:
            A float32 vector of length sum(len(d.choices) for d in decisions).

        Raises:
            ValueError: `arch` is not in the space.
        """
        values = self.values(arch)
        groups = [
            [float(d.name in values and choice == values[d.name]) for choice in d.choices]
            for d in self.decisions
        ]
        return np.concatenate([np.asarray(group, np.float32) for group in groups])

    def declare(self, hp: Any) -> Architecture:
        """Declares the decisions as keras_tuner hyperparameters and reads them.

        Example:
            >>> import keras_tuner, tfnas
            >>> space = tfnas.MobileNetV2Space((28, 28, 1), 10)
            >>> arch = space.declare(keras_tuner.HyperParameters())

        Args:
            hp: `keras_tuner.HyperParameters`; children are in conditional scopes.

        Returns:
            The architecture that the current values of `hp` describe.
        """
        values: Values = {}
        for decision in self.decisions:
            choices = list(decision.choices)
            if decision.parent is None:
                values[decision.name] = hp.Choice(decision.name, choices)
                continue
            if not decision.parent_values:
                continue  # never matters; keras_tuner refuses an empty condition
            # Of several conditions keras_tuner knows one: its scopes nest parents alone.
            with hp.conditional_scope(decision.parent, list(decision.parent_values)):
                value = hp.Choice(decision.name, choices)
                if decision.active(values):
                    values[decision.name] = value
        return self.from_values(values)

    def complete(self, values: Mapping[str, Any], rng: np.random.Generator) -> Values:
        """Returns values without those that do not matter, with the missing ones sampled.

        Args:
            values: Decided values by name.
            rng: NumPy's random generator.
        """
        complete: Values = {}
        for decision in self.decisions:
            if decision.active(complete):
                fallback = decision.choices[rng.integers(len(decision.choices))]
                complete[decision.name] = values.get(decision.name, fallback)
        return complete
