"""Random search, the baseline of the other algorithms."""

from __future__ import annotations

import numpy as np

from tfnas.nas.samplers.sampler import Sampler
from tfnas.nas.search_state import SearchState
from tfnas.nas.trial_records import Proposal


class RandomSampler(Sampler):
    """Proposes random architectures."""

    def propose(self, search: SearchState, rng: np.random.Generator) -> Proposal:
        """Returns a random architecture."""
        return Proposal(search.space.sample(rng))
