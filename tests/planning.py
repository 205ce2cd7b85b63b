"""Candidates and walks through the plan of `compress`, for its tests."""

import numpy as np

from tfnas.compression.budget import CandidateCosts
from tfnas.compression.candidate_store import Candidate
from tfnas.compression.planner import next_step
from tfnas.compression.recipe import Recipe
from tfnas.tasks.assessment import ACCURACY, Assessment

FORMATS = ["float16", "dynamic", "int8", "int8x4"]  # without training


def candidate(recipe=None, drop=0.0, size=100, latency=0.5, gz=None, macs=1.0, right=None):
    """Returns a candidate with such costs; `right`: whether each example was classified right."""
    costs = CandidateCosts(drop, size, size if gz is None else gz, latency, macs, 10)
    right = np.ones(10, bool) if right is None else right
    return Candidate(
        recipe or Recipe((), "int8"),
        None,
        costs,
        (drop, drop - 1, drop + 1),
        Assessment(ACCURACY, right),
    )


def walked(state, outcome):
    """Returns the names of the recipes that are tried, for candidates of `outcome(recipe)`."""
    names = []
    state, recipe = next_step(state, None)
    while recipe is not None:
        names.append(str(recipe))
        assert recipe.why
        state, recipe = next_step(state, outcome(recipe))
    return names
