"""What the parts of a search see of it: samplers and surrogates get it as an argument."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from tfnas.nas.objectives import Objectives
from tfnas.nas.trial_records import TrialRecord
from tfnas.search_space.architecture import Architecture


class SearchState(Protocol):
    """What a sampler sees of its search; :class:`~tfnas.nas.oracle.SpaceOracle` implements it."""

    @property
    def space(self) -> Any:
        """The search space."""
        ...

    @property
    def objectives(self) -> Objectives:
        """The objectives and limits."""
        ...

    @property
    def num_started(self) -> int:
        """Number of architectures whose trials were started."""
        ...

    @property
    def learning_records(self) -> Sequence[TrialRecord]:
        """Records that the search learns from: all, or with halving those of one rung."""
        ...

    @property
    def pending(self) -> Sequence[Any]:
        """Architectures of the trials that are running."""
        ...

    @property
    def failed(self) -> Sequence[Any]:
        """Architectures of the trials that failed, as those that broke a limit."""
        ...

    def encode(self, arch: Architecture) -> np.ndarray:
        """Returns the features of an architecture for a surrogate, (features,)."""
        ...
