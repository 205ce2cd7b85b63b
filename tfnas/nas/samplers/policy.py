"""Policies of the reinforcement learning: distributions over architectures.

Both kinds are linear models with a softmax, so that they learn from a few dozen trials:

    building   the state is a partial architecture, the action the choice of the next decision
    modifying  the state is a complete architecture, the action changes one of its decisions

Their gradients are exact. :func:`update_policy` takes steps of REINFORCE with an entropy bonus, or
PPO's clipped steps.

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

_STATE_SCALE = 0.5  # scale of the state's inputs relative to the constant input


class Policy(Protocol):
    """The interface of policies that :func:`update_policy` uses."""

    def log_probabilities(self, steps: Sequence[Any]) -> np.ndarray:
        """Returns the log-probability of each step, (steps,)."""
        ...

    def gradient_step(
        self, steps: Sequence[Any], weights: np.ndarray, rate: float, entropy: float
    ) -> None:
        """Adds rate x the mean of weight x grad ln p + entropy x grad H to the parameters."""
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
    """Updates a policy in place by the advantages of its steps.

    Args:
        policy: The policy.
        steps: Dictionaries of decided values, or (state, action) pairs.
        advantages: Advantage of each step, (steps,).
        rate: Learning rate.
        entropy: Weight of the entropy bonus.
        epochs: Passes over the steps.
        clip: PPO's epsilon; None: REINFORCE.
    """
    before = policy.log_probabilities(steps) if clip is not None else None
    for _ in range(epochs):
        weights = advantages
        if before is not None and clip is not None:
            ratio = np.exp(policy.log_probabilities(steps) - before)
            clipped = np.where(advantages > 0, ratio > 1 + clip, ratio < 1 - clip)
            weights = advantages * ratio * ~clipped
        policy.gradient_step(steps, weights, rate, entropy)


class BuildingPolicy:
    """Makes one decision after the other, each conditioned on the decisions before it.

    Args:
        decisions: Decisions of the search space, parents before children.
    """

    def __init__(self, decisions: Sequence[Decision]) -> None:
        self.decisions = tuple(decisions)
        self._starts = np.cumsum([0, *(d.num_options for d in self.decisions)])
        self.weights = [
            np.zeros((d.num_options, 1 + start))
            for d, start in zip(self.decisions, self._starts, strict=False)
        ]

    def sample(self, rng: np.random.Generator) -> Values:
        """Returns random values of the decisions.

        Args:
            rng: NumPy's random generator.
        """
        values: Values = {}
        state = np.zeros(self._starts[-1])
        for i, decision in enumerate(self.decisions):
            if not decision.active(values):
                continue
            probabilities = _softmax(self.weights[i] @ self._inputs(state[None], i)[0])
            option = _draw(probabilities, rng)
            values[decision.name] = decision.of_option(option, rng)
            state[self._starts[i] + option] = 1.0
        return values

    def log_probabilities(self, steps: Sequence[Values]) -> np.ndarray:
        """Returns the log-probability of each dictionary of decided values, (steps,)."""
        states, choices = self._encode(steps)
        total = np.zeros(len(steps))
        for i in range(len(self.decisions)):
            active = choices[:, i] >= 0
            probabilities = _softmax(self._inputs(states, i) @ self.weights[i].T)
            own = np.take_along_axis(probabilities, np.maximum(choices[:, i : i + 1], 0), 1)[:, 0]
            total += np.where(active, np.log(np.maximum(own, 1e-12)), 0.0)
        return total

    def gradient_step(
        self, steps: Sequence[Values], weights: np.ndarray, rate: float, entropy: float
    ) -> None:
        """Takes a step along the gradient of the weighted log-probabilities and of the entropy."""
        states, choices = self._encode(steps)
        for i in range(len(self.decisions)):
            active = choices[:, i] >= 0
            if self.decisions[i].num_options < 2 or not active.any():
                continue
            inputs = self._inputs(states[active], i)
            gradient = _logit_gradient(
                _softmax(inputs @ self.weights[i].T), choices[active, i], weights[active], entropy
            )
            self.weights[i] += rate * gradient.T @ inputs / len(steps)

    def _inputs(self, states: np.ndarray, i: int) -> np.ndarray:
        """The inputs of decision i: a constant and the decisions before it."""
        before = _STATE_SCALE * states[:, : self._starts[i]]
        return np.concatenate([np.ones((len(states), 1)), before], axis=1)

    def _encode(self, steps: Sequence[Values]) -> tuple[np.ndarray, np.ndarray]:
        states = np.zeros((len(steps), self._starts[-1]))
        choices = np.full((len(steps), len(self.decisions)), -1)
        for row, values in enumerate(steps):
            for i, decision in enumerate(self.decisions):
                if decision.name in values:
                    choices[row, i] = decision.option(values[decision.name])
                    states[row, self._starts[i] + choices[row, i]] = 1.0
        return states, choices


class ModifyingPolicy:
    """Changes one decision of a complete architecture.

    A step is (state, action): decided values, and the index of a (decision, option) pair in
    :attr:`actions`. The caller decides what becomes active by the change.

    Args:
        decisions: Decisions of the search space, parents before children.
    """

    def __init__(self, decisions: Sequence[Decision]) -> None:
        self.decisions = tuple(decisions)
        self.actions = [(d, option) for d in self.decisions for option in range(d.num_options)]
        self.weights = np.zeros((len(self.actions), 1 + len(self.actions)))

    def sample(self, values: Values, rng: np.random.Generator) -> int:
        """Returns the index of a random action that changes the architecture.

        Args:
            values: Decided values of the architecture.
            rng: NumPy's random generator.

        Raises:
            ValueError: The space has only one architecture.
        """
        probabilities = self._probabilities([values])[0]
        if not np.isfinite(probabilities).all():
            raise ValueError("values must allow a change, got the only architecture of the space")
        return _draw(probabilities, rng)

    def log_probabilities(self, steps: Sequence[tuple[Values, int]]) -> np.ndarray:
        """Returns the log-probability of each action in its state, (steps,)."""
        probabilities = self._probabilities([values for values, _ in steps])
        own = probabilities[np.arange(len(steps)), [action for _, action in steps]]
        return np.log(np.maximum(own, 1e-12))

    def gradient_step(
        self, steps: Sequence[tuple[Values, int]], weights: np.ndarray, rate: float, entropy: float
    ) -> None:
        """Takes a step along the gradient of the weighted log-probabilities and of the entropy."""
        states = [values for values, _ in steps]
        actions = np.array([action for _, action in steps])
        gradient = _logit_gradient(self._probabilities(states), actions, weights, entropy)
        self.weights += rate * gradient.T @ self._inputs(states) / len(steps)

    def _probabilities(self, states: Sequence[Values]) -> np.ndarray:
        logits = self._inputs(states) @ self.weights.T
        allowed = np.array(
            [
                [d.name in values and d.may_choose(o, values[d.name]) for d, o in self.actions]
                for values in states
            ]
        )
        with np.errstate(invalid="ignore"):
            return _softmax(np.where(allowed, logits, -np.inf))

    def _inputs(self, states: Sequence[Values]) -> np.ndarray:
        one_hot = [
            [float(d.name in values and d.option(values[d.name]) == o) for d, o in self.actions]
            for values in states
        ]
        return np.concatenate([np.ones((len(states), 1)), _STATE_SCALE * np.array(one_hot)], axis=1)


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
    probabilities: np.ndarray, choices: np.ndarray, weights: np.ndarray, entropy: float
) -> np.ndarray:
    """Gradient of weight x ln p(choice) + entropy x H(p) with respect to the logits, per row."""
    gradient = -probabilities * weights[:, None]
    gradient[np.arange(len(probabilities)), choices] += weights
    logs = np.log(np.maximum(probabilities, 1e-12))
    entropies = -(probabilities * logs).sum(1, keepdims=True)
    return gradient - entropy * probabilities * (logs + entropies)
