"""Architecture search by reinforcement learning (REINFORCE or PPO)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfnas.nas.objectives import Objectives
from tfnas.nas.samplers.policy import update_policy
from tfnas.nas.samplers.policy_forms import FORMS, MAX_RECORDS, PolicyForm
from tfnas.nas.samplers.sampler import Sampler
from tfnas.nas.search_state import SearchState
from tfnas.nas.surrogate.screening import MIN_RECORDS, Screening, default_screening
from tfnas.nas.trial_records import Proposal, TrialRecord, ranked
from tfnas.runtime.argument_rules import check_count


@dataclasses.dataclass(kw_only=True, eq=False)
class ReinforceSampler(Sampler):
    """A policy that learns which decisions lead to good architectures.

    In the form "building" the policy makes all decisions of an architecture, each conditioned on
    the earlier ones. In the form "modifying" it changes one decision at a time (type, kernel,
    expansion or width of a block, number of blocks), starting from one of the best
    architectures so far.

    The policy is updated after every `batch_size` trials. The advantage of a trial is the normal
    score of its rank among all trials so far (for "modifying" its gain over the parent's). So the
    baseline is the median, units don't matter, and several objectives are ranked by Pareto front.
    A surrogate chooses among `children` samples of the policy.

    Example:
        >>> import tfnas
        >>> sampler = tfnas.ReinforceSampler(form="modifying", warmup=8)
        >>> sampler.batch_size
        8

    Args:
        form: "building", "modifying", or an object with the methods of
            :class:`~tfnas.nas.samplers.policy_forms.PolicyForm`.
        batch_size: Number of trials between updates of the policy.
        learning_rate: Learning rate of the policy, above 0.
        entropy: Weight of the entropy bonus, at least 0.
        clip: PPO's epsilon, in (0, 1); None: REINFORCE.
        epochs: Passes over the trials in an update.
        warmup: Number of random trials at the start.
        children: Number of samples that the surrogate chooses from; 1: no surrogate.
        surrogate: Chooses among the samples; None: expected improvement of a Gaussian process,
            with several objectives of a random weighting of them.

    Raises:
        ValueError: An argument is outside its rule; the message names it.

    References:
        Zoph and Le, "Neural Architecture Search with Reinforcement Learning", ICLR 2017
        (building). Cai et al., "Efficient Architecture Search by Network Transformation",
        AAAI 2018 (modifying). Schulman et al., "PPO", 2017.
    """

    form: str | PolicyForm = "building"
    batch_size: int = 8
    learning_rate: float = 0.5
    entropy: float = 0.02
    clip: float | None = None
    epochs: int = 4
    warmup: int = 16
    children: int = 24
    surrogate: Screening | None = None

    def __post_init__(self) -> None:
        if isinstance(self.form, str) and self.form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, got {self.form!r}")
        check_count("batch_size", self.batch_size, 1)
        check_count("epochs", self.epochs, 1)
        check_count("warmup", self.warmup, 0)
        check_count("children", self.children, 1)
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate!r}")
        if not self.entropy >= 0:
            raise ValueError(f"entropy must be at least 0, got {self.entropy!r}")
        if self.clip is not None and not 0 < self.clip < 1:
            raise ValueError(f"clip must be in (0, 1), got {self.clip!r}")
        self.num_initial = self.warmup
        self.min_records = max(self.warmup, MIN_RECORDS)
        self._form: Any = FORMS[self.form]() if isinstance(self.form, str) else self.form
        self._policy: Any = None

    def begin(self, objectives: Objectives) -> None:
        """Fills in the surrogate if it was not passed in.

        Example:
            >>> from tfnas.nas.objectives import Objectives, objective_of
            >>> sampler = ReinforceSampler(children=6)
            >>> sampler.begin(Objectives.of(objective_of("reward")))
            >>> sampler.screening.children
            6

        Args:
            objectives: The objectives of the search.
        """
        self.screening = self.surrogate or default_screening(objectives, self.children)

    def policy(self, search: SearchState) -> Any:
        """Returns the policy; a new one if the search space has grown.

        Example:
            >>> import tfnas
            >>> from tfnas.nas.oracle import SpaceOracle
            >>> space = tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller")
            >>> search = SpaceOracle(ReinforceSampler(), space, "reward", seed=0)
            >>> policy = search.sampler.policy(search)
            >>> len(policy.decisions) == len(space.decisions)
            True

        Args:
            search: The search so far.
        """
        decisions = tuple(search.space.decisions)
        if self._policy is None or self._policy.decisions != decisions:
            self._policy = self._form.policy(decisions)
        return self._policy

    def propose(self, search: SearchState, rng: np.random.Generator) -> Proposal:
        """Returns a random architecture during warm-up, then a sample of the policy.

        Example:
            >>> import numpy as np, tfnas
            >>> from tfnas.nas.oracle import SpaceOracle
            >>> space = tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller")
            >>> search = SpaceOracle(ReinforceSampler(), space, "reward", seed=0)
            >>> proposal = search.sampler.propose(search, np.random.default_rng(0))
            >>> proposal.architecture.num_classes
            10

        Args:
            search: The search so far.
            rng: NumPy's random generator.
        """
        if search.num_started < self.warmup or not search.learning_records:
            return Proposal(search.space.sample(rng))
        screened = self.screening.children > 1
        return self._form.propose(search, self.policy(search), rng, screened)

    def learn(self, search: SearchState, record: TrialRecord) -> None:
        """Updates the policy after each batch of trials.

        Example:
            >>> import numpy as np, tfnas
            >>> from tfnas.nas.oracle import SpaceOracle
            >>> from tfnas.nas.trial_records import TrialRecord
            >>> space = tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller")
            >>> sampler = ReinforceSampler(warmup=1, batch_size=1)
            >>> search = SpaceOracle(sampler, space, "reward", seed=0)
            >>> arch = space.sample(np.random.default_rng(0))
            >>> search.learning_records = [TrialRecord("0", arch, 0.0, (-0.9,), parent=None)]
            >>> search.sampler.learn(search, search.learning_records[-1])

        Args:
            search: The search so far.
            record: The newest record.
        """
        count = len(search.learning_records)
        if count % self.batch_size or count < self.warmup:
            return
        recent = search.learning_records[-MAX_RECORDS:]
        policy = self.policy(search)
        scored = list(zip(recent, _normal_scores(recent), strict=True))
        steps, advantages = self._form.steps(search, policy, scored)
        if steps:
            update_policy(
                policy,
                steps,
                np.array(advantages),
                rate=self.learning_rate,
                entropy=self.entropy,
                epochs=self.epochs,
                clip=self.clip,
            )

    def forget(self) -> None:
        """Drops the ranking of a lower rung; the policy is kept.

        Example:
            >>> ReinforceSampler(form="modifying").forget()
        """
        super().forget()
        self._form.forget()


def _normal_scores(records: Sequence[TrialRecord]) -> np.ndarray:
    """The normal score of each record's rank; better ones are larger, the median is 0."""
    from scipy.stats import norm

    places = np.empty(len(records))
    places[ranked(records)[::-1]] = np.arange(len(records))
    return norm.ppf((places + 0.5) / len(records))
