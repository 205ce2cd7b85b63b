"""keras_tuner's hyperparameters as a search space, so that every oracle can search them.

A keras_tuner hypermodel declares its hyperparameters while it builds a model. Here each one becomes
a :class:`~tfnas.search_space.search_space.Decision`: the choices of a `Choice`, `Boolean` or
`Fixed`, or the steps of an `Int` or `Float`. A range without steps, or with more than
:data:`MAX_CHOICES`, becomes a :class:`~tfnas.search_space.ranges.RangeDecision`: any of its numbers
can be tried, on the scale of its `sampling` (linear, log or reverse_log).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tfnas.search_space.ranges import NumberRange, RangeDecision
from tfnas.search_space.search_space import ConditionedDecision, Decision, DecisionSpace, Values

MAX_CHOICES = 96  # steps of a range that are choices; more are searched as numbers


@dataclasses.dataclass(frozen=True)
class HyperParameterValues:
    """Values of hyperparameters, the counterpart of an architecture for keras_tuner hypermodels.

    Args:
        items: (name, value) of each active hyperparameter, in the order of the space.
    """

    items: tuple[tuple[str, Any], ...]

    @property
    def network(self) -> HyperParameterValues:
        """The values themselves, as different values give different networks."""
        return self

    @property
    def key(self) -> str:
        """A hash of 12 hexadecimal digits, the same in every process."""
        return hashlib.sha256(json.dumps(self.items).encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Returns the values by name."""
        return dict(self.items)

    def to_json(self, indent: int | None = None) -> str:
        """Returns the values by name as JSON text."""
        return json.dumps(self.to_dict(), indent=indent)

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.items)


class HyperParameterSpace(DecisionSpace):
    """The search space that keras_tuner's hyperparameters span.

    Example:
        >>> import keras_tuner
        >>> hp = keras_tuner.HyperParameters()
        >>> _ = hp.Choice("units", [8, 16]), hp.Boolean("bias")
        >>> HyperParameterSpace(hp.space).size
        4

    Args:
        space: keras_tuner's hyperparameters, `hp.space`.
    """

    def __init__(self, space: Sequence[Any]) -> None:
        found: dict[str, ConditionedDecision] = {}
        for hp in space:
            decision = _decision(hp)
            while decision.name in found:  # one name under several conditions
                decision = dataclasses.replace(decision, name=f"{decision.name}'")
            found[decision.name] = decision
        self.decisions = tuple(found.values())
        self._plain_names = tuple((d, d.name.rstrip("'")) for d in self.decisions)

    @property
    def size(self) -> float:
        """Number of different combinations; an upper bound if conditions are nested.

        It is infinite if a decision is a real number.
        """
        conditioned = [d for d in self.decisions if isinstance(d, ConditionedDecision)]
        if any(len(d.conditions) > 1 for d in conditioned):
            return math.prod(d.count for d in self.decisions)
        return super().size

    def values(self, arch: Any) -> Values:
        """Returns the values of the active decisions.

        Args:
            arch: The values of the hyperparameters.

        Raises:
            ValueError: They are not in the space.
        """
        items = dict(arch.items)
        decided: Values = {}
        for decision, plain in self._plain_names:
            if decision.active(decided):
                value = items.get(plain)
                if not decision.contains(value):
                    raise ValueError(f"{decision.name} must be {_allowed(decision)}, got {value!r}")
                decided[decision.name] = value
        return decided

    def from_values(self, values: Mapping[str, Any]) -> Any:
        """Returns the hyperparameters of decided values; inactive ones are ignored.

        A value that is not in the space (of a trial whose values the user has set) becomes the
        nearest one.

        Args:
            values: Values by the names of decisions.
        """
        decided: Values = {}
        items = []
        for decision, plain in self._plain_names:
            if decision.active(decided):
                value = values.get(decision.name, values.get(plain))
                decided[decision.name] = decision.nearest(value)
                items.append((plain, decided[decision.name]))
        return HyperParameterValues(tuple(items))

    def build(self, arch: Any) -> Any:
        """Raises NotImplementedError, as the hypermodel builds the models."""
        raise NotImplementedError("a keras_tuner hypermodel builds its own models")


def _decision(hp: Any) -> ConditionedDecision:
    conditions = tuple((c.name, tuple(c.values)) for c in hp.conditions)
    parent, values = conditions[-1] if conditions else (None, ())
    if not hasattr(hp, "min_value"):
        choices = tuple(dict.fromkeys(hp.values))
    elif hp.min_value == hp.max_value:
        choices = (hp.min_value,)
    else:
        integer = all(isinstance(end, int) for end in (hp.min_value, hp.max_value))
        numbers = NumberRange(hp.min_value, hp.max_value, hp.sampling, hp.step, integer)
        if numbers.count > MAX_CHOICES or hp.step is None:
            return RangeDecision(hp.name, (), parent, values, conditions, numbers)
        choices = tuple(dict.fromkeys(hp.values))
    return ConditionedDecision(hp.name, choices, parent, values, conditions)


def _allowed(decision: Decision) -> str:
    """The values of a decision, for a message."""
    if isinstance(decision, RangeDecision):
        return f"from {decision.range.low:g} to {decision.range.high:g}"
    return f"one of {decision.choices}"
