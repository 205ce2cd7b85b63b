"""tfnas' searches of a table, through their oracle as in any search, without its files."""

from __future__ import annotations

import tempfile
from typing import Any

import keras_tuner as kt
import numpy as np

from search_tables.runs import Measurements, Picks
from search_tables.table import CATEGORICAL, REAL, Decisions, SearchTable
from tfnas.nas.oracle import SpaceOracle
from tfnas.nas.samplers.evolution import EvolutionSampler
from tfnas.nas.samplers.sampler import Sampler
from tfnas.search_space.hyperparameters import HyperParameterSpace
from tfnas.search_space.search_space import SearchSpace


def hyperparameters(decisions: Decisions) -> kt.HyperParameters:
    """Returns the decisions of a table as keras_tuner's hyperparameters."""
    hp = kt.HyperParameters()
    parents = decisions.parents or (-1,) * len(decisions)
    least = decisions.parent_levels or (0,) * len(decisions)
    for i in range(len(decisions)):
        if parents[i] < 0:
            _declare(hp, decisions, i)
            continue
        levels = range(least[i], decisions.levels[parents[i]])
        active = [_value(decisions, parents[i], level) for level in levels]
        with hp.conditional_scope(f"d{parents[i]}", active):
            _declare(hp, decisions, i)
    return hp


def configuration(decisions: Decisions, values: dict[str, Any]) -> np.ndarray:
    """Returns the configuration of values of hyperparameters, (decisions,)."""
    row = np.zeros(len(decisions))
    for i in range(len(decisions)):
        if (value := values.get(f"d{i}")) is not None:
            row[i] = value if decisions.kinds[i] != CATEGORICAL else int(value.removeprefix("c"))
    return decisions.canonical(row[None])[0]


def oracle_of(sampler: Sampler, space: SearchSpace, seed: int, **arguments: Any) -> SpaceOracle:
    """Returns an oracle that writes no file: what is compared is the choice.

    Args:
        sampler: The sampler.
        space: The search space.
        seed: Seed of the proposals.
        **arguments: Further arguments of the oracle.
    """
    oracle = SpaceOracle(sampler, space, seed=seed, **arguments)
    oracle.verbose = 0
    oracle._set_project_dir(tempfile.gettempdir(), "search_tables")
    oracle._save_trial = oracle.save = lambda *_: None
    return oracle


def evolution(**settings: Any) -> Any:
    """Returns the search by an evolution with these settings."""

    def run(table: SearchTable, measure: Measurements, evaluations: int, seed: int) -> Picks:
        decisions = table.decisions
        hp = hyperparameters(decisions)
        value, cost = kt.Objective("value", "max"), kt.Objective("cost", "min")
        oracle = oracle_of(
            EvolutionSampler(**settings),
            HyperParameterSpace(hp.space),
            seed,
            objective=[value, cost] if measure.two else value,
            max_trials=evaluations,
            hyperparameters=hp,
        )
        picks: Picks = {}
        for count in range(1, evaluations + 1):
            trial = oracle.create_trial("tuner0")
            if trial.status != "RUNNING":
                break
            found = measure.both(configuration(decisions, trial.hyperparameters.values))
            oracle.update_trial(trial.trial_id, dict(zip(("value", "cost"), found, strict=True)))
            trial.status = "COMPLETED"
            oracle.end_trial(trial)
            if not measure.two and count in MARKS:
                values = oracle.pick().hyperparameters.values
                picks[count] = configuration(decisions, values)
        return picks

    return run


MARKS = frozenset({25, 50, 100, 200, 400})


def _declare(hp: kt.HyperParameters, decisions: Decisions, i: int) -> None:
    if decisions.kinds[i] == REAL:
        hp.Float(f"d{i}", 0.0, 1.0)
    else:
        hp.Choice(f"d{i}", [_value(decisions, i, level) for level in range(decisions.levels[i])])


def _value(decisions: Decisions, i: int, level: int) -> Any:
    """The value of a level: of a category a string, so that it has no order."""
    return f"c{level}" if decisions.kinds[i] == CATEGORICAL else level
