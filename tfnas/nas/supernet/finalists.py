"""The finalists of a weight-sharing search: the architectures of its trials, and their weights."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np

from tfnas.nas.samplers.sampler import Sampler
from tfnas.nas.search_state import SearchState
from tfnas.nas.trial_records import Proposal
from tfnas.search_space.architecture import Architecture


@dataclasses.dataclass(frozen=True)
class Finalist:
    """A network whose trial starts from the weights that were cut out for it.

    Args:
        architecture: The architecture.
        accuracy: Its accuracy with the shared weights.
        weights: File of its weights.
    """

    architecture: Architecture
    accuracy: float
    weights: pathlib.Path


class FinalistSampler(Sampler):
    """Proposes the finalists, the best first."""

    def __init__(self) -> None:
        self.finalists: list[Finalist] = []

    def propose(self, search: SearchState, rng: np.random.Generator) -> Proposal:
        """Returns the next finalist, as in :class:`Sampler`.

        Raises:
            RuntimeError: All finalists have had their trials.
        """
        if search.num_started >= len(self.finalists):
            raise RuntimeError(
                f"a trial must be one of the {len(self.finalists)} finalists, got another one: "
                "the weight-sharing search of this process has not run"
            )
        return Proposal(self.finalists[search.num_started].architecture)
