"""The interface of search spaces, and its implementation for spaces of decisions.

A space consists of :class:`Decision` objects (such as the kernel size of stage 3) and of functions
that convert decided values to an :class:`~tfnas.search_space.architecture.Architecture` and back.
Sampling, mutation, crossover, counting, encoding and the declaration of hyperparameters follow
from the decisions and are implemented here. A decision can depend on another one: the kernel size
of a stage is active only if the stage is not an identity. Values of inactive decisions are not
stored, so that equal networks have equal values.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from tfnas.search_space.architecture import Architecture

if TYPE_CHECKING:
    import keras
    import keras_tuner

Values = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Decision:
    """A variable of the search, with a finite number of choices.

    Args:
        name: Name of the decision, unique in its space.
        choices: Its possible values, at least one, without duplicates.
        parent: Name of the decision that this one depends on; None: it is always active.
        parent_values: The decision is active if the parent has one of these values.

    Raises:
        ValueError: There is no choice, or one comes twice.
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
        """Returns whether the decision is active.

        Args:
            values: Values of the decisions before it, by name.
        """
        return self.parent is None or values.get(self.parent) in self.parent_values

    # ---- values; a decision without a list of choices overrides these

    @property
    def count(self) -> float:
        """Number of values, a whole number; infinite for real numbers."""
        return len(self.choices)

    @property
    def num_options(self) -> int:
        """Number of options that a policy chooses from: here the choices."""
        return len(self.choices)

    def option(self, value: Hashable) -> int:
        """Returns the option that a value belongs to.

        Args:
            value: A value of the decision.
        """
        return self.choices.index(value)

    def of_option(self, option: int, rng: np.random.Generator) -> Any:
        """Returns a value of an option.

        Args:
            option: The option, from 0.
            rng: NumPy's random generator, used if the option has several values.
        """
        return self.choices[option]

    def may_choose(self, option: int, value: Hashable) -> bool:
        """Returns whether an option has other values than the present one.

        Args:
            option: The option, from 0.
            value: The present value.
        """
        return self.choices[option] != value

    def draw(self, rng: np.random.Generator) -> Any:
        """Returns a random value.

        Args:
            rng: NumPy's random generator.
        """
        return self.choices[rng.integers(len(self.choices))]

    def changed(self, value: Hashable, rng: np.random.Generator) -> Any:
        """Returns another random value.

        Args:
            value: The present value, not the only one.
            rng: NumPy's random generator.
        """
        others = [choice for choice in self.choices if choice != value]
        return others[rng.integers(len(others))]

    def mixed(self, first: Hashable, second: Hashable, rng: np.random.Generator) -> Any:
        """Returns a value of a child of two parents: here that of the first.

        Args:
            first: The value of the parent that the child takes the decision from.
            second: The value of the other parent.
            rng: NumPy's random generator.
        """
        return first

    def contains(self, value: Hashable) -> bool:
        """Returns whether a value is one of the decision's.

        Args:
            value: Any value.
        """
        return value in self.choices

    def nearest(self, value: Hashable) -> Any:
        """Returns the nearest value of the decision; the first one if none is near.

        Args:
            value: Any value.
        """
        if value in self.choices:
            return value
        numbers = all(isinstance(choice, int | float) for choice in self.choices)
        if isinstance(value, int | float) and numbers:
            return min(self.choices, key=lambda choice: abs(choice - value))
        return self.choices[0]

    def features(self, value: Hashable, active: bool) -> list[float]:
        """Returns a value as numbers for a surrogate: here one-hot.

        Args:
            value: The value; ignored if the decision is not active.
            active: Whether the decision is active; if not, all numbers are 0.
        """
        return [float(active and choice == value) for choice in self.choices]


@dataclasses.dataclass(frozen=True)
class ConditionedDecision(Decision):
    """A decision that depends on several others.

    Args:
        conditions: Pairs of (name of another decision, its values); the decision is active if all
            of them hold.
    """

    conditions: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def active(self, values: Mapping[str, Any]) -> bool:
        """Returns whether all conditions hold."""
        for name, among in self.conditions:  # a loop: the call that a search makes most often
            if name not in values or values[name] not in among:
                return False
        return True


@runtime_checkable
class SearchSpace(Protocol):
    """The interface of search spaces that tuners use; :class:`DecisionSpace` implements it."""

    @property
    def decisions(self) -> Sequence[Decision]: ...

    @property
    def size(self) -> float: ...

    def sample(self, rng: np.random.Generator) -> Architecture: ...

    def mutate(self, arch: Architecture, rng: np.random.Generator) -> Architecture: ...

    def crossover(
        self, a: Architecture, b: Architecture, rng: np.random.Generator
    ) -> Architecture: ...

    def encode(self, arch: Architecture) -> np.ndarray: ...

    def declare(self, hp: keras_tuner.HyperParameters) -> Architecture: ...

    def values(self, arch: Architecture) -> Values: ...

    def from_values(self, values: Mapping[str, Any]) -> Architecture: ...

    def build(self, arch: Architecture) -> keras.Model: ...


def combinations(decisions: Sequence[Decision]) -> float:
    """Returns the number of different combinations of decisions that depend on their parents.

    It is a whole number, or infinite if a decision is a real number.

    Example:
        >>> kind = Decision("kind", ("a", "b"))
        >>> combinations([kind, Decision("size", (1, 2, 3), "kind", ("a",))])
        4

    Args:
        decisions: Parents before children.
    """

    def count(decision: Decision) -> float:
        children = [child for child in decisions if child.parent == decision.name]
        if not children or not decision.choices:  # of a range with children: an upper bound
            return decision.count * math.prod(count(child) for child in children)
        return sum(
            math.prod(count(child) for child in children if choice in child.parent_values)
            for choice in decision.choices
        )

    return math.prod(count(root) for root in decisions if root.parent is None)


class DecisionSpace:
    """A search space that is defined by its decisions.

    A subclass sets `decisions` (parents before children) and implements :meth:`values` and
    :meth:`from_values`.
    """

    decisions: tuple[Decision, ...]

    def values(self, arch: Architecture) -> Values:
        """Returns the values of the active decisions of an architecture, by name.

        Args:
            arch: The architecture.

        Raises:
            ValueError: The architecture is not in the space.
        """
        raise NotImplementedError

    def from_values(self, values: Mapping[str, Any]) -> Architecture:
        """Returns the architecture of decided values; inactive ones are ignored.

        Args:
            values: Values by the names of decisions.
        """
        raise NotImplementedError

    @property
    def size(self) -> float:
        """The exact number of different architectures (descriptions), a Python integer.

        It is infinite if a decision is a real number.
        """
        return combinations(self.decisions)

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Returns a random architecture, each active decision uniform over its values.

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
        """Returns another architecture that differs in one decision.

        Decisions that become active by the change are sampled.

        Args:
            arch: An architecture of this space.
            rng: NumPy's random generator.

        Raises:
            ValueError: `arch` is not in the space, or is the only one in it.
        """
        values = self.values(arch)
        mutable = [d for d in self.decisions if d.name in values and d.count > 1]
        if not mutable:
            raise ValueError("arch can't be mutated: the space has no other architecture")
        decision = mutable[rng.integers(len(mutable))]
        values[decision.name] = decision.changed(values[decision.name], rng)
        return self.from_values(self.complete(values, rng))

    def crossover(self, a: Architecture, b: Architecture, rng: np.random.Generator) -> Architecture:
        """Returns a child that takes each group of decisions from either `a` or `b`.

        A group is a decision without a parent and all decisions that depend on it. So a stage is
        taken as a whole from one parent. A number of a range is between those of both parents.

        Args:
            a: An architecture of this space.
            b: An architecture of this space.
            rng: NumPy's random generator.

        Raises:
            ValueError: `a` or `b` is not in the space.
        """
        parents = self.values(a), self.values(b)
        sources: dict[str, Values] = {}
        values: Values = {}
        for decision in self.decisions:
            source = sources.get(decision.parent or "", parents[rng.integers(2)])
            other = parents[1] if source is parents[0] else parents[0]
            sources[decision.name] = source
            if decision.active(values):
                if decision.name not in source:  # its conditions came from both parents
                    values[decision.name] = decision.draw(rng)
                else:
                    own = source[decision.name]
                    values[decision.name] = decision.mixed(own, other.get(decision.name, own), rng)
        return self.from_values(values)

    def encode(self, arch: Architecture) -> np.ndarray:
        """Returns an architecture as a vector for a surrogate: a one-hot group for each decision.

        The group of an inactive decision is all zeros. Different architectures have different
        vectors. A number of a range has a group of two, see :mod:`tfnas.search_space.ranges`.

        Args:
            arch: An architecture of this space.

        Returns:
            The vector, float32, (features,).

        Raises:
            ValueError: `arch` is not in the space.
        """
        values = self.values(arch)
        groups = [d.features(values.get(d.name), d.name in values) for d in self.decisions]
        return np.array([number for group in groups for number in group], np.float32)

    def declare(self, hp: keras_tuner.HyperParameters) -> Architecture:
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
                continue  # never active; keras_tuner refuses an empty condition
            # keras_tuner's scopes can only nest the conditions of parents.
            with hp.conditional_scope(decision.parent, list(decision.parent_values)):
                value = hp.Choice(decision.name, choices)
                if decision.active(values):
                    values[decision.name] = value
        return self.from_values(values)

    def complete(self, values: Mapping[str, Any], rng: np.random.Generator) -> Values:
        """Returns values without those of inactive decisions, with the missing ones sampled.

        Args:
            values: Decided values, by name.
            rng: NumPy's random generator.
        """
        complete: Values = {}
        for decision in self.decisions:
            if decision.active(complete):
                known = decision.name in values
                complete[decision.name] = values[decision.name] if known else decision.draw(rng)
        return complete
