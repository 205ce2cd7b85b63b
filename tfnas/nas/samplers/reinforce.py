"""Architecture search by reinforcement learning (REINFORCE or PPO)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfnas.nas.objectives import ObjectiveLike
from tfnas.nas.samplers.policy import BuildingPolicy, ModifyingPolicy, update_policy
from tfnas.nas.surrogate.screening import ScreenedOracle
from tfnas.nas.trial_records import Proposal, TrialRecord, ranked
from tfnas.nas.tuner import MeasuredTuner, oracle_arguments
from tfnas.runtime.argument_rules import check_count
from tfnas.search_space.search_space import SearchSpace, Values

FORMS = ("building", "modifying")


class ReinforceOracle(ScreenedOracle):
    """A policy that learns which decisions lead to good architectures.

    In the form "building" the policy makes all decisions of an architecture, each conditioned on
    the earlier ones. In the form "modifying" it changes one decision at a time (type, kernel,
    expansion or width of a block, number of blocks), starting from one of the best
    architectures so far.

    The policy is updated after every `batch_size` trials. The advantage of a trial is the normal
    score of its rank among all trials so far (for "modifying" its gain over the parent's). So the
    baseline is the median, units don't matter, and several objectives are ranked by Pareto front.
    A surrogate chooses among `children` samples of the policy.

    Args:
        space: The search space; None: the hyperparameters that keras_tuner's hypermodel declares.
        objective: As in keras_tuner; of several the Pareto front is searched for.
        max_trials: Number of trials.
        seed: Seed of all proposals.
        form: "building" or "modifying".
        batch_size: Number of trials between updates of the policy.
        learning_rate: Learning rate of the policy, above 0.
        entropy: Weight of the entropy bonus, at least 0.
        clip: PPO's epsilon, in (0, 1); None: REINFORCE.
        epochs: Passes over the trials in an update.
        warmup: Number of random trials at the start.
        children: Number of samples that the surrogate chooses from; 1: no surrogate.
        limits: Metric -> bound to keep.
        **kwargs: Further arguments of keras_tuner's Oracle.

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
        objective: ObjectiveLike = None,
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
        """The policy; a new one if the search space has grown."""
        decisions = tuple(self.space.decisions)
        if self._policy is None or self._policy.decisions != decisions:
            kind = BuildingPolicy if self.form == "building" else ModifyingPolicy
            self._policy = kind(decisions)
        return self._policy

    def propose(self, rng: np.random.Generator) -> Proposal:
        """Returns a random architecture during warm-up, then a sample of the policy."""
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
        """Updates the policy after each batch of trials."""
        if len(self.learning_records) % self.batch_size or len(self.learning_records) < self.warmup:
            return
        recent = self.learning_records[-_MAX_RECORDS:]
        scores = _normal_scores(recent)
        steps: list[Any] = []
        advantages: list[float] = []
        if self.form == "building":
            steps = [self.space.values(earlier.architecture) for earlier in recent]
            advantages = list(scores)
        else:
            score_of = {
                earlier.trial_id: score for earlier, score in zip(recent, scores, strict=True)
            }
            architectures = {earlier.trial_id: earlier.architecture for earlier in recent}
            for earlier in recent:
                if earlier.parent in score_of:
                    gain = score_of[earlier.trial_id] - score_of[earlier.parent]
                    new_steps = self._steps(architectures[earlier.parent], earlier.architecture)
                    steps += new_steps
                    advantages += [gain] * len(new_steps)
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
        """Drops the ranking of a lower rung; the policy is kept."""
        super().forget()
        self._ranked = (-1, np.zeros(0, int))

    def _start(self, rng: np.random.Generator) -> TrialRecord:
        """One of the best records so far; better ones are more likely."""
        recent = self.learning_records[-_MAX_RECORDS:]
        if self._ranked[0] != len(self.learning_records):
            self._ranked = (len(self.learning_records), ranked(recent))
        order = self._ranked[1]
        place = min(int(rng.exponential(4.0)), len(order) - 1)
        return recent[order[place]]

    def _steps(self, before: Any, after: Any) -> list[tuple[Values, int]]:
        """The actions that lead from one architecture to another, with the first as their state."""
        old, new = self.space.values(before), self.space.values(after)
        indices = {(d.name, c): i for i, (d, c) in enumerate(self.policy.actions)}
        return [
            (old, indices[name, value])
            for name, value in new.items()
            if name in old and old[name] != value
        ]


_MAX_RECORDS = 256  # trials that a policy learns from


def _normal_scores(records: list[TrialRecord]) -> np.ndarray:
    """The normal score of each record's rank; better ones are larger, the median is 0."""
    from scipy.stats import norm

    places = np.empty(len(records))
    places[ranked(records)[::-1]] = np.arange(len(records))
    return norm.ppf((places + 0.5) / len(records))


class ReinforceTuner(MeasuredTuner):
    """Searches for small, fast and accurate `.tflite` files by reinforcement learning.

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
        form: "building": the policy makes all decisions of an architecture; "modifying": it
            changes decisions of one of the best architectures.
        batch_size: Number of trials between updates of the policy.
        learning_rate: Learning rate of the policy.
        entropy: Weight of the entropy bonus.
        clip: PPO's epsilon; None: REINFORCE.
        epochs: Passes over the trials in an update.
        warmup: Number of random trials at the start.
        children: Number of samples that a surrogate chooses from; 1: no surrogate.
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
        objective: ObjectiveLike = None,
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
