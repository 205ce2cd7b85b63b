"""Reinforcement learning over architectures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfnas.nas.samplers.policy import BuildingPolicy, ModifyingPolicy, update_policy
from tfnas.nas.surrogate.screening import ScreenedOracle
from tfnas.nas.trial_records import Proposal, TrialRecord, ranked
from tfnas.nas.tuner import MeasuredTuner, oracle_arguments
from tfnas.runtime.argument_rules import check_count
from tfnas.search_space.search_space import SearchSpace, Values

FORMS = ("building", "modifying")


class ReinforceOracle(ScreenedOracle):
    """A policy that learns which decisions pay.

    In the form "building" the policy decides an architecture from nothing, choice by choice,
    each with the earlier ones in view. In the form "modifying" it changes one decision of an
    architecture at a time (a block's type, kernel, expansion or width, a block more or
    less), beginning with one of the best tried so far.

    After every `batch_size` trials the policy takes a step. What a trial is worth is its
    place among all trials so far (for "modifying": the place gained over the trial it came
    from), as a normal deviate: so the baseline is their median, no unit matters, and several
    objectives are ranked by Pareto front. Of `children` draws a surrogate picks one.

    Args:
        space: The search space; None: what keras_tuner's hypermodel declares.
        objective: As keras_tuner takes it; several are searched for their Pareto front.
        max_trials: Number of trials.
        seed: Seed of all proposals.
        form: "building" or "modifying".
        batch_size: Trials a step of the policy.
        learning_rate: Step size, above 0.
        entropy: Weight of the entropy bonus, at least 0.
        clip: PPO's epsilon, in (0, 1); None: REINFORCE.
        epochs: Passes over the trials a step.
        warmup: Random trials at the start.
        children: Draws that a surrogate picks one of; 1: no surrogate.
        limits: Metric -> bound that must be kept.
        **kwargs: keras_tuner's further arguments of an Oracle.

    Raises:
        ValueError: An argument is outside its rule; the message names it.

    References:
        Zoph and Le, "Neural Architecture Search with Reinforcement Learning", ICLR 2017
        (building). Cai et al., "Efficient Architecture Search by Network Transformation",
        AAAI 2018 (modifying). Schulman et al., "PPO", 2017.
    """

    def __init__(
        self,
        space: SearchSpace | None = None,
        objective: Any = None,
        max_trials: int | None = 20,
        seed: int | None = None,
        form: str = "building",
        batch_size: int = 8,
        learning_rate: float = 0.5,
        entropy: float = 0.02,
        clip: float | None = None,
        epochs: int = 4,
        warmup: int = 16,
        children: int = 24,
        limits: Mapping[str, float] | None = None,
        **kwargs: Any,
    ):
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
        for name, value in (("batch_size", batch_size), ("epochs", epochs)):
            check_count(name, value, 1)
        check_count("warmup", warmup, 0)
        if not learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {learning_rate!r}")
        if not entropy >= 0:
            raise ValueError(f"entropy must be at least 0, got {entropy!r}")
        if clip is not None and not 0 < clip < 1:
            raise ValueError(f"clip must be in (0, 1), got {clip!r}")
        super().__init__(
            space,
            objective,
            max_trials,
            seed,
            limits,
            children=children,
            num_initial=warmup,
            **kwargs,
        )
        self.form, self.batch_size = form, batch_size
        self.learning_rate, self.entropy, self.clip = learning_rate, entropy, clip
        self.epochs, self.warmup = epochs, warmup
        self._policy: Any = None
        self._ranked: tuple[int, np.ndarray] = (-1, np.zeros(0, int))

    @property
    def policy(self) -> Any:
        """The policy; made anew where the space has grown."""
        decisions = tuple(self.space.decisions)
        if self._policy is None or self._policy.decisions != decisions:
            kind = BuildingPolicy if self.form == "building" else ModifyingPolicy
            self._policy = kind(decisions)
        return self._policy

    def propose(self, rng: np.random.Generator) -> Proposal:
        """Returns a random arch at first, then what the policy draws."""
        if self.num_started < self.warmup or not self.learning_records:
            return Proposal(self.space.sample(rng))
        if self.form == "building":
            return Proposal(self.space.from_values(self.policy.sample(rng)))
        start = self._start(rng)
        values = self.space.values(start.architecture)
        while True:
            decision, choice = self.policy.actions[self.policy.sample(values, rng)]
            values = self.space.complete({**values, decision.name: choice}, rng)
            if self.children == 1 or rng.random() < 0.5:
                return Proposal(self.space.from_values(values), start.trial_id)

    def learn(self, record: TrialRecord) -> None:
        """Teaches the policy, after each batch."""
        if len(self.learning_records) % self.batch_size or len(self.learning_records) < self.warmup:
            return
        recent = self.learning_records[-_MEMORY:]
        worth = _normal_scores(recent)
        steps: list[Any] = []
        advantages: list[float] = []
        if self.form == "building":
            steps = [self.space.values(known.architecture) for known in recent]
            advantages = list(worth)
        else:
            places = {known.trial_id: place for known, place in zip(recent, worth, strict=True)}
            points = {known.trial_id: known.architecture for known in recent}
            for known in recent:
                if known.parent in places:
                    for step in self._steps(points[known.parent], known.architecture):
                        steps.append(step)
                        advantages.append(places[known.trial_id] - places[known.parent])
        if steps:
            update_policy(
                self.policy,
                steps,
                np.array(advantages),
                rate=self.learning_rate,
                entropy=self.entropy,
                epochs=self.epochs,
                clip=self.clip,
            )

    def forget(self) -> None:
        """The policy stays as it is; what it was taught on does not."""
        super().forget()
        self._ranked = (-1, np.zeros(0, int))

    def _start(self, rng: np.random.Generator) -> TrialRecord:
        """One of the best so far, the better the likelier."""
        recent = self.learning_records[-_MEMORY:]
        if self._ranked[0] != len(self.learning_records):
            self._ranked = (len(self.learning_records), ranked(recent))
        order = self._ranked[1]
        place = min(int(rng.exponential(4.0)), len(order) - 1)
        return recent[order[place]]

    def _steps(self, before: Any, after: Any) -> list[tuple[Values, int]]:
        """The actions that lead from one arch to another, each from the first."""
        old, new = self.space.values(before), self.space.values(after)
        numbers = {(d.name, c): i for i, (d, c) in enumerate(self.policy.actions)}
        return [
            (old, numbers[name, value])
            for name, value in new.items()
            if name in old and old[name] != value
        ]


_MEMORY = 256  # trials that a policy learns from


def _normal_scores(records: list[TrialRecord]) -> np.ndarray:
    """The place of each record as a normal deviate, the best above 0."""
    from scipy.stats import norm

    places = np.empty(len(records))
    places[ranked(records)[::-1]] = np.arange(len(records))
    return norm.ppf((places + 0.5) / len(records))


class ReinforceTuner(MeasuredTuner):
    """Searches by reinforcement learning for small, fast, accurate `.tflite` files.

    Example:
        >>> import tfnas
        >>> split = tfnas.data.load("digits")
        >>> space = tfnas.MobileNetV2Space(split.input_shape, 10, "microcontroller")
        >>> tuner = tfnas.ReinforceTuner(space, max_trials=24, form="building",
        ...                              directory="runs", project_name="rl", seed=0)
        >>> tuner.search(  # doctest: +SKIP
        ...     split.x_train, split.y_train, epochs=3,
        ...     validation_data=(split.x_val, split.y_val))

    Args:
        hypermodel: A search space such as :class:`tfnas.MobileNetV2Space`, its
            `hypermodel(optimizer=..., loss=...)`, or any keras_tuner HyperModel or
            model-building function.
        objective: As for :class:`tfnas.EvolutionTuner`.
        max_trials: Number of trials.
        seed: Seed of proposals and trainings.
        form: "building": the policy decides an architecture choice by choice; "modifying":
            it changes one of the best.
        batch_size: Trials a step of the policy.
        learning_rate: Step size of the policy.
        entropy: Weight of the entropy bonus.
        clip: PPO's epsilon; None: REINFORCE.
        epochs: Passes over the trials a step.
        warmup: Random trials at the start.
        children: Draws that a surrogate picks one of; 1: no surrogate.
        **kwargs: As for :class:`tfnas.EvolutionTuner`.

    Raises:
        ValueError: An argument is outside its rule; the message names it.

    References:
        Zoph and Le, "Neural Architecture Search with Reinforcement Learning", ICLR 2017;
        Cai et al., "Efficient Architecture Search by Network Transformation", AAAI 2018.
    """

    def __init__(
        self,
        hypermodel: Any = None,
        objective: Any = None,
        max_trials: int = 20,
        seed: int | None = None,
        form: str = "building",
        batch_size: int = 8,
        learning_rate: float = 0.5,
        entropy: float = 0.02,
        clip: float | None = None,
        epochs: int = 4,
        warmup: int = 16,
        children: int = 24,
        **kwargs: Any,
    ):
        oracle = ReinforceOracle(
            max_trials=max_trials,
            seed=seed,
            form=form,
            batch_size=batch_size,
            learning_rate=learning_rate,
            entropy=entropy,
            clip=clip,
            epochs=epochs,
            warmup=warmup,
            children=children,
            **oracle_arguments(hypermodel, objective, kwargs),
        )
        super().__init__(oracle, hypermodel, **kwargs)
