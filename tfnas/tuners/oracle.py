"""The part that all of tfnas' oracles share: state on disk that a kill can't tear.

keras_tuner writes its files in place; a kill in between leaves half a file and a search
that can't be resumed. Here every file is replaced whole.
"""

from __future__ import annotations

import json
import os
from typing import Any

import keras_tuner as kt
import numpy as np

from tfnas.architecture import Architecture
from tfnas.files import write_atomically
from tfnas.spaces.space import SearchSpace


class SpaceOracle(kt.Oracle):
    """An oracle that proposes architectures of a search space.

    A subclass gives :meth:`propose`. The random generator of a proposal is made from the
    seed and the number of trials so far, so that a resumed search goes on as it would
    have.

    Args:
        space: The search space.
        objective: As keras_tuner takes it, but a single one.
        max_trials: Number of trials.
        seed: Seed of all proposals, a whole number; None draws one.
        **kwargs: keras_tuner's further arguments of an Oracle.

    Raises:
        ValueError: `objective` is a list, or `max_trials` is below 1.
    """

    _PROPOSALS = 100
    _STEPS = 10_000

    def __init__(
        self,
        space: SearchSpace,
        objective: Any = None,
        max_trials: int | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        if isinstance(objective, list | tuple):
            raise ValueError(
                f"objective must be a single one, got {objective!r}: search by the reward and "
                "take pareto_front() for the trade-off"
            )
        if max_trials is not None and (not isinstance(max_trials, int) or max_trials < 1):
            raise ValueError(f"max_trials must be a whole number >= 1, got {max_trials!r}")
        super().__init__(objective=objective, max_trials=max_trials, seed=seed, **kwargs)
        if seed is not None:  # keras_tuner takes 0 for "none given"
            self.seed = self._seed_state = seed
        self.space = space

    def propose(self, rng: np.random.Generator) -> Architecture:
        """Returns the architecture to try next; it may have been tried before."""
        raise NotImplementedError

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Returns the values of a trial that was not tried yet, for keras_tuner."""
        rng = np.random.default_rng([self.seed, len(self.trials)])
        tried = {self.architecture(trial).network for trial in self.trials.values()}
        if len(tried) >= self.space.size:
            return {"status": kt.engine.trial.TrialStatus.STOPPED, "values": None}
        proposals = (self.propose(rng) for _ in range(self._PROPOSALS))
        arch = next((proposal for proposal in proposals if proposal.network not in tried), None)
        if arch is None:  # a random walk away from what is known
            arch = self.propose(rng)
            for _ in range(self._STEPS):
                arch = self.space.mutate(arch, rng)
                if arch.network not in tried:
                    break
            else:
                return {"status": kt.engine.trial.TrialStatus.STOPPED, "values": None}
        values = self.space.values(arch)
        return {"status": kt.engine.trial.TrialStatus.RUNNING, "values": values}

    def architecture(self, trial: kt.engine.trial.Trial) -> Architecture:
        """Returns the architecture that a trial tried."""
        return self.space.from_values(trial.hyperparameters.values)

    def retries(self, trial_id: str) -> int:
        """Returns how often a trial was run before and failed."""
        return int(self._run_times[trial_id])

    def completed(self) -> list[kt.engine.trial.Trial]:
        """Returns the trials that ended well, in the order of their end."""
        ended = (self.trials[trial_id] for trial_id in self.end_order)
        return [t for t in ended if t.status == kt.engine.trial.TrialStatus.COMPLETED]

    def _check_consecutive_failures(self) -> None:
        """keras_tuner's rule, on the last trials alone, and with the failure kept on disk."""
        last = [self.trials[trial_id] for trial_id in reversed(self.end_order)]
        status = kt.engine.trial.TrialStatus
        failures = next((i for i, t in enumerate(last) if t.status != status.FAILED), len(last))
        if failures and failures % self.max_consecutive_failed_trials == 0:
            self._save_trial(last[0])
            self.save()
            cause = (last[0].message or "no message").strip().splitlines()[-1]
            raise RuntimeError(f"{failures} trials failed one after the other, the last: {cause}")

    def save(self) -> None:
        """Writes the oracle's state, whole or not at all."""
        write_atomically(self._get_oracle_fname(), json.dumps(self.get_state()))

    def reload(self) -> None:
        """Restores the state; where oracle.json lags behind the trials' own files, they rule.

        A kill can fall between the two writes, so that a trial that ended is still
        "ongoing" in oracle.json, or one that began is not in it at all.
        """
        super().reload()
        status = kt.engine.trial.TrialStatus
        for trial_id in sorted(self.trials):
            ended = self.trials[trial_id].status in (status.COMPLETED, status.FAILED)
            if trial_id not in self.start_order:
                self.start_order.append(trial_id)
            if ended and trial_id not in self.end_order:
                self.end_order.append(trial_id)
            if ended and trial_id in self._retry_queue:
                self._retry_queue.remove(trial_id)
            if not ended and trial_id not in self._retry_queue:
                self._retry_queue.append(trial_id)
            if not ended:  # keras_tuner takes metrics that are there for this run's
                self.trials[trial_id].metrics.metrics.clear()

    def _save_trial(self, trial: kt.engine.trial.Trial) -> None:
        path = os.path.join(self._get_trial_dir(trial.trial_id), "trial.json")
        write_atomically(path, json.dumps(trial.get_state()))
