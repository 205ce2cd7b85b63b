"""A search over scores of shared weights: a sampler that learns without trials.

The sampler is one of :mod:`tfnas.nas.samplers`, so that evolution and reinforcement are the same
code as in a search over trials. Each network is scored once; its score is kept in a file, so that
a search that was killed repeats its proposals without computing them again.
"""

from __future__ import annotations

import copy
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfnas.nas.objectives import Objectives, metric_text
from tfnas.nas.proposals import ProposalFilter
from tfnas.nas.samplers.sampler import Sampler
from tfnas.nas.trial_records import TrialRecord, ranked
from tfnas.runtime.json_lines import append_json_line, read_json_lines
from tfnas.runtime.store import damage_named
from tfnas.search_space.architecture import Architecture

Metrics = Mapping[str, float]
_WORST = 1e30  # a loss in place of infinity, whose differences are no numbers


class SharedSearch:
    """Proposes networks and learns from their scores; a :class:`SearchState` of its sampler.

    Args:
        space: The search space.
        objectives: The objectives and limits.
        sampler: The sampler; it is copied.
        costs: Returns the metrics of a network that need no score.
        score: Returns all metrics of a network, from itself and its costs.
        seed: Seed of the proposals.
        path: File of the accuracies.
    """

    def __init__(
        self,
        space: Any,
        objectives: Objectives,
        sampler: Sampler,
        costs: Callable[[Architecture], Metrics],
        score: Callable[[Architecture], Metrics],
        seed: int,
        path: pathlib.Path,
    ) -> None:
        self.space, self.objectives, self.seed = space, objectives, seed
        self.sampler = copy.deepcopy(sampler)
        self.sampler.begin(objectives)
        self.proposals = ProposalFilter()
        self.proposals.costs = costs
        self.score, self.path = score, path
        self.learning_records: list[TrialRecord] = []
        self.metrics: list[Metrics] = []
        """Metrics of the networks, in the order of their records."""
        self.kept = _read(path)
        """Metrics of the networks that were scored, also in earlier runs, by their keys."""

    @property
    def num_started(self) -> int:
        """Number of networks that were proposed."""
        return len(self.learning_records)

    @property
    def pending(self) -> tuple[Architecture, ...]:
        """Networks that are being scored: none, as each is scored at once."""
        return ()

    @property
    def failed(self) -> tuple[Architecture, ...]:
        """None: a network that breaks a limit is not scored."""
        return ()

    def encode(self, arch: Architecture) -> np.ndarray:
        """Returns the features of an architecture for a surrogate, (features,)."""
        return np.asarray(self.space.encode(arch))

    def run(self, evaluations: int, scored: Callable[[int, int], None] = lambda *_: None) -> None:
        """Scores networks until there are enough, or no other ones.

        Args:
            evaluations: Number of networks.
            scored: Called after each network that has no score of an earlier run, with the number
                of networks so far, and in all.

        Raises:
            RuntimeError: No network keeps the limits.
        """
        while self.num_started < evaluations:
            number = self.num_started
            rng = np.random.default_rng([self.seed, 2, number])
            proposal = self.proposals.next_proposal(self, self.sampler, rng)
            if proposal is None:
                return
            arch = proposal.architecture
            self.proposals.register(str(number), arch)
            is_new = arch.key not in self.kept
            metrics = self._metrics(arch)
            losses = self.objectives.losses(metrics)
            violation = self.objectives.violation(metrics)
            if not all(map(math.isfinite, losses)):  # no device runs it
                violation = math.inf
                losses = tuple(min(loss, _WORST) for loss in losses)
            record = TrialRecord(str(number), arch, violation, losses, proposal.parent)
            self.learning_records.append(record)
            self.metrics.append(metrics)
            self.sampler.learn(self, record)
            if is_new:
                scored(self.num_started, evaluations)

    def _metrics(self, arch: Architecture) -> Metrics:
        if arch.key not in self.kept:
            self.kept[arch.key] = dict(self.score(arch))
            line = {"architecture": arch.key, "metrics": self.kept[arch.key]}
            append_json_line(self.path, line)
        return self.kept[arch.key]

    def best(self, number: int) -> list[tuple[Architecture, Metrics]]:
        """Returns the best networks with their metrics, those that keep the limits first.

        Several objectives: the Pareto front, then those behind it.

        Args:
            number: Number of networks.
        """
        order = ranked(self.learning_records)[:number]
        return [(self.learning_records[i].architecture, self.metrics[i]) for i in order]

    def best_scores(self) -> str:
        """Returns the best value of each objective in one line, of networks within the limits."""
        violations = [record.violation for record in self.learning_records]
        keeping = [place for place, each in enumerate(violations) if each == 0]
        if not keeping:
            wrong = "keeps the limits" if self.objectives.limits else "runs on the device"
            return f"none of {len(violations):,} networks {wrong}"
        names, directions = self.objectives.names, self.objectives.directions
        best = {
            name: (max if direction == "max" else min)(self.metrics[i][name] for i in keeping)
            for name, direction in zip(names, directions, strict=True)
        }
        shown = ", ".join(f"{name} {metric_text(value)}" for name, value in best.items())
        apart = ", perhaps of different networks" if len(names) > 1 else ""
        return f"best of {len(violations):,} networks, with the shared weights: {shown}{apart}"


def _read(path: pathlib.Path) -> dict[str, dict[str, float]]:
    """The scores that were kept, by the keys of architectures."""
    with damage_named(path, "scores of shared weights"):
        return {
            str(line["architecture"]): {n: float(v) for n, v in line["metrics"].items()}
            for line in read_json_lines(path)
        }
