"""The oracle in a process that runs trials: it knows one trial and its parent.

A worker proposes nothing and writes no file of a trial. On an executor of
:mod:`concurrent.futures` it gets a copy of the oracle (:func:`oracle_of_worker`); under
keras_tuner's chief it reads the file of its trial (:func:`adopt_trial`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import keras_tuner as kt

from tfnas.nas.oracle import SpaceOracle
from tfnas.nas.proposals import ProposalFilter
from tfnas.nas.samplers.random_search import RandomSampler
from tfnas.nas.trial_store import TrialStore


def oracle_of_worker(oracle: SpaceOracle, trial: kt.engine.trial.Trial) -> SpaceOracle:
    """Returns a copy of an oracle for a worker.

    Args:
        oracle: The oracle.
        trial: The trial that the worker runs.
    """
    worker, trial_id = copy.copy(oracle), trial.trial_id
    names = (trial_id, oracle.parent(trial_id))
    trials = {name: oracle.trials[name] for name in names if name is not None}
    worker.forget_other_trials(trials, oracle.retries(trial_id))
    worker.records, worker.learning_records = [], []
    worker.halving = oracle.halving.for_worker(trial_id)
    worker.proposals, worker.sampler = ProposalFilter(), RandomSampler()
    worker.surrogate_features = None
    worker.store = TrialStore(oracle.store.folder)
    worker.store.histories = {trial_id: oracle.store.history(trial_id)}
    return worker


def adopt_trial(
    oracle: SpaceOracle,
    trial: kt.engine.trial.Trial,
    get_trial: Callable[[str], kt.engine.trial.Trial],
) -> None:
    """Makes a worker's own oracle that of a trial, whose file it reads.

    Args:
        oracle: The oracle.
        trial: The trial.
        get_trial: Returns a trial of the chief by its id.
    """
    trial_id = trial.trial_id
    promotion = oracle.store.read_one(trial_id)
    oracle.trials, parent = {trial_id: trial}, oracle.parent(trial_id)
    if parent is not None:
        oracle.trials[parent] = get_trial(parent)
    oracle.run_times[trial_id] = oracle.store.history(trial_id).runs
    oracle.halving.restore(trial_id, promotion)
