"""All private parts of keras_tuner that the search uses, under names of its own.

Everything here was read in keras_tuner 1.4.8 (:data:`READ_IN`).
`tests/nas/test_keras_tuner_private.py` compares the source of each private part with that of this
version, and fails when the library changes. No other module of tfnas imports `keras_tuner.src`.

:class:`HookedTuner` and :class:`HookedOracle` turn keras_tuner's private methods into methods that
subclasses override and call as `super().method(...)`.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import keras_tuner as kt
from keras_tuner.src.distribute import utils as _distribution
from keras_tuner.src.engine import metrics_tracking, tuner_utils
from keras_tuner.src.engine import objective as _objective
from keras_tuner.src.engine import oracle as _oracle

READ_IN = "1.4.8"

MetricsTracker = metrics_tracking.MetricsTracker
"""The metrics of a trial (1.4.8, `engine/metrics_tracking.py`)."""
MultiObjective = _objective.MultiObjective
"""Several objectives, which keras_tuner adds up (1.4.8, `engine/objective.py`)."""
SaveBestEpoch = tuner_utils.SaveBestEpoch
"""The checkpoint callback of a trial (1.4.8, `engine/tuner_utils.py`)."""
TunerCallback = tuner_utils.TunerCallback
"""The callback that calls the tuner's hooks (1.4.8, `engine/tuner_utils.py`)."""


def created_objective(objective: str | kt.Objective) -> kt.Objective:
    """Returns an objective with its direction (1.4.8, `engine/objective.py`).

    Args:
        objective: The name of a metric of Keras, or an objective.

    Raises:
        ValueError: The direction of the name is unknown.
    """
    return _objective.create_objective(objective)


def validate_results(results: Any, objective: kt.Objective, function: str) -> None:
    """Checks the type of a trial's results (1.4.8, `engine/tuner_utils.py`).

    Args:
        results: What a function of the user's returned.
        objective: The objective.
        function: Name of the function, for the message.

    Raises:
        FatalTypeError: It is none of the types that keras_tuner takes.
        FatalValueError: The objective is not in a dictionary.
    """
    tuner_utils.validate_trial_results(results, objective, function)


def has_chief_oracle() -> bool:
    """Returns whether keras_tuner's chief distributes trials (1.4.8, `distribute/utils.py`)."""
    return _distribution.has_chief_oracle()


def oracle_client_class() -> Any:
    """Returns the class of a worker's client (1.4.8, `distribute/oracle_client.py`).

    The import needs grpc, and takes time: only workers of a chief call this.
    """
    from keras_tuner.src.distribute.oracle_client import OracleClient

    return OracleClient


def own_oracle(client: Any) -> Any:
    """Returns the oracle inside a worker's client (1.4.8, `distribute/oracle_client.py`).

    Args:
        client: The client.

    Raises:
        AttributeError: The client is not initialized yet.
    """
    if "_oracle" not in vars(client):
        raise AttributeError("_oracle")
    return vars(client)["_oracle"]


def synchronized(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a method of an oracle in keras_tuner's lock (1.4.8, `engine/oracle.py`).

    Unlike keras_tuner's own decorator it releases the lock also if the method raises.

    Args:
        function: The method.
    """
    locked = kt.synchronized(function)

    @functools.wraps(function)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return locked(self, *args, **kwargs)
        except BaseException:
            if _oracle.THREADS[self] == threading.current_thread().name:
                _oracle.THREADS[self] = None
                _oracle.LOCKS[self].release()
            raise

    return wrapper


@contextlib.contextmanager
def _lost_output() -> Iterator[None]:
    """Ends no search for what it prints: a closed pipe, a full disk, no stdout."""
    try:
        yield
    except (OSError, ValueError):
        pass
    except AttributeError:
        if sys.stdout is not None:  # Python's, where its descriptor is closed
            raise


class LastingDisplay(_oracle.Display):
    """What prints the trials (1.4.8, `engine/oracle.py`), without an error where it can't."""

    def on_trial_begin(self, trial: kt.engine.trial.Trial) -> None:
        """Prints the values of a trial."""
        with _lost_output():
            super().on_trial_begin(trial)

    def on_trial_end(self, trial: kt.engine.trial.Trial) -> None:
        """Prints the score of a trial."""
        with _lost_output():
            super().on_trial_end(trial)


class HookedOracle(kt.Oracle):
    """keras_tuner's oracle with public names for its private parts (1.4.8, `engine/oracle.py`)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._display = LastingDisplay(oracle=self)

    def save_trial(self, trial: kt.engine.trial.Trial) -> None:
        """Writes a trial to its file; subclasses override it."""
        super()._save_trial(trial)

    def _save_trial(self, trial: kt.engine.trial.Trial) -> None:
        self.save_trial(trial)

    def check_consecutive_failures(self) -> None:
        """Raises after too many failed trials in a row; subclasses override it."""
        super()._check_consecutive_failures()

    def _check_consecutive_failures(self) -> None:
        self.check_consecutive_failures()

    def check_objective_found(self, metrics: Mapping[str, float]) -> None:
        """Checks that a trial reports its objectives.

        Raises:
            ValueError: An objective is missing.
        """
        super()._check_objective_found(metrics)

    def set_seed(self, seed: int) -> None:
        """Sets the seed of all proposals."""
        self.seed = self._seed_state = seed

    @property
    def run_times(self) -> dict[str, int]:
        """Trial -> number of its runs that ended."""
        return self._run_times

    @property
    def retry_queue(self) -> list[str]:
        """Trials that wait for another run; the last one is next."""
        return self._retry_queue

    @property
    def project_folder(self) -> str:
        """The folder of the search; it is created."""
        return self._project_dir

    def trial_folder(self, trial_id: str) -> str:
        """Returns the folder of a trial; it is created."""
        return self._get_trial_dir(trial_id)

    def forget_ongoing(self, trial_id: str) -> None:
        """Makes a trial one that no tuner runs."""
        for tuner_id, ongoing in list(self.ongoing_trials.items()):
            if ongoing.trial_id == trial_id:
                del self.ongoing_trials[tuner_id]

    def forget_other_trials(self, trials: Mapping[str, kt.engine.trial.Trial], runs: int) -> None:
        """Drops everything that an oracle knows beyond some trials.

        Args:
            trials: The trials by their ids; the first one is to be run.
            runs: Number of earlier runs of the first one.
        """
        empty: dict[str, Any] = {
            "ongoing_trials": {},
            "start_order": [],
            "end_order": [],
            "tuner_ids": set(),
            "_retry_queue": [],
            "_tried_so_far": set(),
            "_id_to_hash": collections.defaultdict(lambda: None),
            "_run_times": collections.defaultdict(int, {next(iter(trials)): runs}),
        }
        self.__dict__.update(trials=dict(trials), **empty)


class HookedTuner(kt.Tuner):
    """keras_tuner's tuner with public names for its private parts.

    Read in 1.4.8, `engine/tuner.py` and `engine/base_tuner.py`.
    """

    def run_and_update_trial(self, trial: kt.engine.trial.Trial, *args: Any, **kwargs: Any) -> None:
        """Runs a trial and reports its metrics; subclasses override it."""
        super()._run_and_update_trial(trial, *args, **kwargs)

    def _run_and_update_trial(
        self, trial: kt.engine.trial.Trial, *args: Any, **kwargs: Any
    ) -> None:
        self.run_and_update_trial(trial, *args, **kwargs)

    def try_run_and_update_trial(
        self, trial: kt.engine.trial.Trial, *args: Any, **kwargs: Any
    ) -> None:
        """Runs a trial and sets its status, whatever happens; subclasses override it."""
        super()._try_run_and_update_trial(trial, *args, **kwargs)

    def _try_run_and_update_trial(
        self, trial: kt.engine.trial.Trial, *args: Any, **kwargs: Any
    ) -> None:
        self.try_run_and_update_trial(trial, *args, **kwargs)

    def build_and_fit_model(self, trial: kt.engine.trial.Trial, *args: Any, **kwargs: Any) -> Any:
        """Runs one execution of a trial; subclasses override it."""
        return super()._build_and_fit_model(trial, *args, **kwargs)

    def _build_and_fit_model(self, trial: kt.engine.trial.Trial, *args: Any, **kwargs: Any) -> Any:
        return self.build_and_fit_model(trial, *args, **kwargs)

    def populate_initial_space(self) -> None:
        """Declares the hyperparameters of the hypermodel; subclasses override it."""
        super()._populate_initial_space()

    def _populate_initial_space(self) -> None:
        self.populate_initial_space()

    def override_compile_arguments(self, model: keras.Model) -> None:
        """Compiles a model with `optimizer`, `loss` and `metrics`; subclasses override it."""
        super()._override_compile_args(model)

    def _override_compile_args(self, model: keras.Model) -> None:
        self.override_compile_arguments(model)

    def _configure_tensorboard_dir(
        self, callbacks: list[Any], trial: kt.engine.trial.Trial, execution: int = 0
    ) -> None:
        """Configures TensorBoard, which is imported only if there is a callback of it."""
        if any(type(callback).__name__ == "TensorBoard" for callback in callbacks):
            super()._configure_tensorboard_dir(callbacks, trial, execution)

    def built_model(self, hyperparameters: kt.HyperParameters) -> keras.Model:
        """Returns the compiled model of some hyperparameters."""
        return self._try_build(hyperparameters)

    def checkpoint_path(self, trial_id: str) -> str:
        """Returns the file of a trial's weights."""
        return self._get_checkpoint_fname(trial_id)

    def build_config_path(self, trial_id: str) -> str:
        """Returns the file of the shapes that a trial's model was built with."""
        return self._get_build_config_fname(trial_id)

    @property
    def state_path(self) -> str:
        """The file of the tuner's own state."""
        return str(self._get_tuner_fname())

    @property
    def is_worker(self) -> bool:
        """Whether this process is a worker of keras_tuner's chief."""
        return self._is_worker()
