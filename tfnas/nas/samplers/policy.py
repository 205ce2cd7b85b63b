"""Policies over architectures: distributions with a gradient.

Both forms are softmax-linear, so that a policy learns from a few dozen trials:

    building   the state is the architecture so far, the action the next decision's choice
    modifying  the state is a whole architecture, the action changes one decision of it

Their gradients are exact; :func:`update_policy` takes REINFORCE steps with an entropy bonus, or
PPO's clipped ones.

References:
    Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist
    Reinforcement Learning", 1992. Schulman et al., "Proximal Policy Optimization Algorithms",
    2017, equation 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from tfnas.search_space.search_space import Decision, Values

_CONTEXT = 0.5  # weight of the state beside the constant


class Policy(Protocol):
    """What :func:`update_policy` needs."""

    def log_probabilities(self, steps: Sequence[Any]) -> np.ndarray:
        """Returns ln of the probability of each step."""
        ...

    def gradient_step(
        self, steps: Sequence[Any], weights: np.ndarray, rate: float, entropy: float
    ) -> None:
        """Moves along sum of weight x grad ln p + entropy x grad H, averaged."""
        ...


def update_policy(
    policy: Policy,
    steps: Sequence[Any],
    advantages: np.ndarray,
    *,
    rate: float,
    entropy: float,
    epochs: int = 1,
    clip: float | None = None,
) -> None:
    """Improves a policy by what its steps were worth, in place.

    Args:
        policy: The policy.
        steps: What was done: value dictionaries, or (state, action) pairs.
        advantages: What each was worth, above or below 0.
        rate: Step size.
        entropy: Weight of the entropy bonus.
        epochs: Passes over the steps.
        clip: PPO's epsilon; None: REINFORCE.
    """
    before = policy.log_probabilities(steps) if clip is not None else None
    for _ in range(epochs):
        weights = advantages
        if before is not None and clip is not None:
            ratio = np.exp(policy.log_probabilities(steps) - before)
            beyond = np.where(advantages > 0, ratio > 1 + clip, ratio < 1 - clip)
            weights = advantages * ratio * ~beyond
        policy.gradient_step(steps, weights, rate, entropy)


class BuildingPolicy:
    """Decides one after the other, each with the decisions before it in view.

    Args:
        decisions: The space's, parents before children.
    """

    def __init__(self, decisions: Sequence[Decision]) -> None:
        self.decisions = tuple(decisions)
        self._starts = np.cumsum([0, *(len(d.choices) for d in self.decisions)])
        self.weights = [
            np.zeros((len(d.choices), 1 + start))
            for d, start in zip(self.decisions, self._starts, strict=False)
        ]

    def sample(self, rng: np.random.Generator) -> Values:
        """Returns decided values."""
        values: Values = {}
        state = np.zeros(self._starts[-1])
        for i, decision in enumerate(self.decisions):
            if not decision.active(values):
                continue
            probabilities = _softmax(self.weights[i] @ self._seen(state[None], i)[0])
            choice = _draw(probabilities, rng)
            values[decision.name] = decision.choices[choice]
            state[self._starts[i] + choice] = 1.0
        return values

    def log_probabilities(self, steps: Sequence[Values]) -> np.ndarray:
        """Returns ln of the probability of each of several decided values."""
        states, chosen = self._encoded(steps)
        total = np.zeros(len(steps))
        for i in range(len(self.decisions)):
            active = chosen[:, i] >= 0
            probabilities = _softmax(self._seen(states, i) @ self.weights[i].T)
            own = np.take_along_axis(probabilities, np.maximum(chosen[:, i : i + 1], 0), 1)[:, 0]
            total += np.where(active, np.log(np.maximum(own, 1e-12)), 0.0)
        return total

    def gradient_step(
        self, steps: Sequence[Values], weights: np.ndarray, rate: float, entropy: float
    ) -> None:
        """A step along the gradient of the weighted ln p, and of the entropy."""
        states, chosen = self._encoded(steps)
        for i in range(len(self.decisions)):
            active = chosen[:, i] >= 0
            if len(self.decisions[i].choices) < 2 or not active.any():
                continue
            seen = self._seen(states[active], i)
            slope = _logit_gradient(
                _softmax(seen @ self.weights[i].T), chosen[active, i], weights[active], entropy
            )
            self.weights[i] += rate * slope.T @ seen / len(steps)

    def _seen(self, states: np.ndarray, i: int) -> np.ndarray:
        """What decision i sees: a constant and what was decided before it."""
        before = _CONTEXT * states[:, : self._starts[i]]
        return np.concatenate([np.ones((len(states), 1)), before], axis=1)

    def _encoded(self, steps: Sequence[Values]) -> tuple[np.ndarray, np.ndarray]:
        states = np.zeros((len(steps), self._starts[-1]))
        chosen = np.full((len(steps), len(self.decisions)), -1)
        for row, values in enumerate(steps):
            for i, decision in enumerate(self.decisions):
                if decision.name in values:
                    chosen[row, i] = decision.choices.index(values[decision.name])
                    states[row, self._starts[i] + chosen[row, i]] = 1.0
        return states, chosen


class ModifyingPolicy:
    """Changes one decision of a whole architecture.

    A step is (state, action): decided values, and the number of a (decision, choice) pair of
    :attr:`actions`. What a change makes active is left to the caller.

    Args:
        decisions: The space's, parents before children.
    """

    def __init__(self, decisions: Sequence[Decision]) -> None:
        self.decisions = tuple(decisions)
        self.actions = [(d, choice) for d in self.decisions for choice in d.choices]
        self.weights = np.zeros((len(self.actions), 1 + len(self.actions)))

    def sample(self, values: Values, rng: np.random.Generator) -> int:
        """Returns the number of an action that changes something.

        Args:
            values: The architecture to change.
            rng: NumPy's random generator.

        Raises:
            ValueError: There is nothing to change.
        """
        probabilities = self._probabilities([values])[0]
        if not np.isfinite(probabilities).all():
            raise ValueError("values must leave another choice open, got the only arch there is")
        return _draw(probabilities, rng)

    def log_probabilities(self, steps: Sequence[tuple[Values, int]]) -> np.ndarray:
        """Returns ln of the probability of each action in its state."""
        probabilities = self._probabilities([values for values, _ in steps])
        own = probabilities[np.arange(len(steps)), [action for _, action in steps]]
        return np.log(np.maximum(own, 1e-12))

    def gradient_step(
        self, steps: Sequence[tuple[Values, int]], weights: np.ndarray, rate: float, entropy: float
    ) -> None:
        """A step along the gradient of the weighted ln p, and of the entropy."""
        states = [values for values, _ in steps]
        actions = np.array([action for _, action in steps])
        slope = _logit_gradient(self._probabilities(states), actions, weights, entropy)
        self.weights += rate * slope.T @ self._seen(states) / len(steps)

    def _probabilities(self, states: Sequence[Values]) -> np.ndarray:
        logits = self._seen(states) @ self.weights.T
        allowed = np.array(
            [
                [d.name in values and values[d.name] != choice for d, choice in self.actions]
                for values in states
            ]
        )
        with np.errstate(invalid="ignore"):
            return _softmax(np.where(allowed, logits, -np.inf))

    def _seen(self, states: Sequence[Values]) -> np.ndarray:
        held = [[float(values.get(d.name) == c) for d, c in self.actions] for values in states]
        return np.concatenate([np.ones((len(states), 1)), _CONTEXT * np.array(held)], axis=1)


def _draw(probabilities: np.ndarray, rng: np.random.Generator) -> int:
    place = int(np.searchsorted(np.cumsum(probabilities), rng.random() * probabilities.sum()))
    return (
        place
        if place < len(probabilities) and probabilities[place] > 0
        else int(np.argmax(probabilities))
    )


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _logit_gradient(
    probabilities: np.ndarray, chosen: np.ndarray, weights: np.ndarray, entropy: float
) -> np.ndarray:
    """Gradient by the logits of weight x ln p(chosen) + entropy x H(p), row by row."""
    slope = -probabilities * weights[:, None]
    slope[np.arange(len(probabilities)), chosen] += weights
    logs = np.log(np.maximum(probabilities, 1e-12))
    spread = -(probabilities * logs).sum(1, keepdims=True)
    return slope - entropy * probabilities * (logs + spread)
