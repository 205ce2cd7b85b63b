"""Search algorithms of keras_tuner, Optuna and pymoo, where they are installed."""

from __future__ import annotations

import importlib.util
import tempfile
from typing import Any

import numpy as np

from search_tables.runs import Algorithm, Measurements
from search_tables.table import CATEGORICAL, REAL, Decisions, SearchTable


def installed(name: str) -> bool:
    """Returns whether a library can be imported."""
    return importlib.util.find_spec(name) is not None


def keras_tuner_bayesian(
    table: SearchTable, measure: Measurements, evaluations: int, seed: int
) -> None:
    """keras_tuner's BayesianOptimization with its defaults."""
    import keras_tuner as kt

    from search_tables.ours import configuration, hyperparameters

    oracle = kt.oracles.BayesianOptimizationOracle(
        objective=kt.Objective("value", "max"),
        max_trials=evaluations,
        seed=seed + 1,  # 0 means "none" there
        hyperparameters=hyperparameters(table.decisions),
    )
    oracle.verbose = 0
    oracle._set_project_dir(tempfile.gettempdir(), "search_tables_keras_tuner")
    oracle._save_trial = oracle.save = lambda *_: None
    for _ in range(evaluations):
        trial = oracle.create_trial("tuner0")
        if trial.status != "RUNNING":
            return
        value = measure(configuration(table.decisions, trial.hyperparameters.values))
        oracle.update_trial(trial.trial_id, {"value": value})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)


def optuna_sampler(kind: str, **settings: Any) -> Algorithm:
    """Returns the search by one of Optuna's samplers."""

    def run(table: SearchTable, measure: Measurements, evaluations: int, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)

        def evaluate(trial: Any) -> Any:
            row = _suggested(trial, table.decisions)
            return measure.both(row) if measure.two else measure(row)

        sampler = getattr(optuna.samplers, kind)(seed=seed, **settings)
        directions = ["maximize", "minimize"] if measure.two else ["maximize"]
        study = optuna.create_study(directions=directions, sampler=sampler)
        study.optimize(evaluate, n_trials=evaluations)

    return run


def pymoo_nsga2(table: SearchTable, measure: Measurements, evaluations: int, seed: int) -> None:
    """pymoo's NSGA-II over levels, with uniform crossover and mutation."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.mutation import Mutation
    from pymoo.core.problem import ElementwiseProblem
    from pymoo.core.sampling import Sampling
    from pymoo.operators.crossover.ux import UX
    from pymoo.optimize import minimize

    decisions, rng = table.decisions, np.random.default_rng([seed, 11, 29])
    highest = [
        1.0 if kind == REAL else n - 1
        for kind, n in zip(decisions.kinds, decisions.levels, strict=True)
    ]

    class Configurations(ElementwiseProblem):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(n_var=len(decisions), n_obj=2, xl=0.0, xu=np.array(highest))

        def _evaluate(self, x: Any, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            value, cost = measure.both(x)
            out["F"] = [-value, cost]

    class Random(Sampling):  # type: ignore[misc]
        def _do(self, problem: Any, n_samples: int, **kwargs: Any) -> Any:
            return decisions.sample(n_samples, rng)

    class Uniform(Mutation):  # type: ignore[misc]
        def _do(self, problem: Any, x: Any, **kwargs: Any) -> Any:
            x = np.array(x)
            anew = rng.random(x.shape) < 1.0 / x.shape[1]
            return np.where(anew, decisions.sample(len(x), rng), x)

    algorithm = NSGA2(
        pop_size=20,
        sampling=Random(),
        crossover=UX(),
        mutation=Uniform(),
        eliminate_duplicates=True,
    )
    minimize(Configurations(), algorithm, ("n_eval", evaluations), seed=seed)


def _suggested(trial: Any, decisions: Decisions) -> np.ndarray:
    """A configuration that Optuna suggests; inactive decisions are not asked for."""
    row = np.zeros(len(decisions))
    for i in range(len(decisions)):
        if i not in decisions.active(row):
            continue
        if decisions.kinds[i] == REAL:
            row[i] = trial.suggest_float(f"d{i}", 0.0, 1.0)
        elif decisions.kinds[i] == CATEGORICAL:
            row[i] = trial.suggest_categorical(f"d{i}", list(range(decisions.levels[i])))
        else:
            row[i] = trial.suggest_int(f"d{i}", 0, decisions.levels[i] - 1)
    return row
