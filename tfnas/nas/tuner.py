"""The base class of tfnas' tuners: keras_tuner's Tuner around an oracle and a trial runner.

    tuner           the arguments and the loop of trials
    trial_results   the measured trials, their Pareto front, their models
    tuner_config    the settings of trials
    tuner_state     what a resumed search needs beside its trials
    oracle          creates and ends trials; its sampler proposes architectures
    trial_runner    trains, converts and measures one architecture
    trial_store     the files of the trials

The default objective is `reward`, MnasNet's product of accuracy and latency.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

import keras
import keras_tuner as kt
import numpy as np

from tfnas.measure.elsewhere.named_device import timing_device
from tfnas.measure.latency import benchmark, reference_artifact
from tfnas.nas.argument_checks import check_teacher, check_techniques, with_compression
from tfnas.nas.executors.engine import Engine
from tfnas.nas.feasibility import STATIC_METRICS, KnownCosts
from tfnas.nas.fit_results import check_results
from tfnas.nas.keras_tuner_private import has_chief_oracle
from tfnas.nas.latency_prediction import LatencyPredictor
from tfnas.nas.metric_names import check_objective_names
from tfnas.nas.objectives import ObjectiveLike, objective_of
from tfnas.nas.oracle import SpaceOracle
from tfnas.nas.samplers.random_search import RandomSampler
from tfnas.nas.samplers.sampler import Sampler
from tfnas.nas.search_callbacks import TrialCallbacks
from tfnas.nas.search_removal import remove_search
from tfnas.nas.successive_halving import Halving
from tfnas.nas.tensorboard_metrics import check_tensorboard, write_measured
from tfnas.nas.trial_failures import InfeasibleTrialError
from tfnas.nas.trial_patches import check_ram_limit
from tfnas.nas.trial_quality import check_accuracy
from tfnas.nas.trial_runner import TrialRunner, TrialTask
from tfnas.nas.trial_store import CRASH
from tfnas.nas.tuner_arguments import KerasTunerArguments, check_names, split_arguments
from tfnas.nas.tuner_config import TunerConfig
from tfnas.nas.tuner_state import TunerState
from tfnas.runtime.crash_report import crash_reported
from tfnas.runtime.files import sweep_parts
from tfnas.runtime.folder_lock import owner_of
from tfnas.runtime.randomness import kept_random_state
from tfnas.runtime.retracing import retracing_expected
from tfnas.search_space.hypermodel import SpaceHyperModel, as_hypermodel, compile_for_search
from tfnas.search_space.search_space import SearchSpace
from tfnas.targets.device import ON_DEVICE, Device

_Status = kt.engine.trial.TrialStatus
_OWN_ARGUMENTS = (
    *("hypermodel", "objective", "max_trials", "seed"),
    *("sampler", "limits", "config", "device"),
)


class MeasuredTuner(TunerState):
    """Trains, converts and measures the architectures that an oracle proposes.

    With a search space, or if an objective or limit is a metric of the file, the model of each
    trial is converted and its file is measured. With any other hypermodel a trial is one of
    keras_tuner's. With `executions_per_trial` above 1 the objective is the mean over the
    executions, and the file is that of the last one. With `halving` a trial starts with few epochs;
    a promoted trial continues from the weights and the optimizer's state of the trial below it.
    Then trials report "rung" and "epochs", and `run_trial` gets `epochs` and `initial_epoch`.

    Args:
        hypermodel: A search space, its :class:`SpaceHyperModel`, or any keras_tuner
            HyperModel or model-building function; None if `run_trial` is overridden.
        objective: As in keras_tuner; None: "reward" if a search space is searched.
        max_trials: Number of trials.
        seed: Seed of proposals and trainings; None: a random one.
        sampler: Proposes the architectures; None: that of the tuner's class.
        limits: Metric -> bound to keep.
        config: How trials are trained, converted, measured and run.
        device: The device of the metrics `flash_bytes`, `ram_bytes` and `vela_...`.
        **kwargs: Arguments of keras_tuner's Oracle and Tuner; see :class:`KerasTunerArguments`.

    Raises:
        ValueError: An argument is unknown or outside its rule; the message names it.
        RuntimeError: Another search holds the directory that `overwrite` would clear.
        ImportError: A metric needs a package that is not installed.
    """

    default_sampler: ClassVar[type[Sampler]] = RandomSampler

    def __init__(
        self,
        hypermodel: SearchSpace | kt.HyperModel | None = None,
        objective: ObjectiveLike = None,
        max_trials: int | None = 20,
        seed: int | None = None,
        *,
        sampler: Sampler | None = None,
        limits: Mapping[str, float] | None = None,
        config: TunerConfig | None = None,
        device: Device | None = None,
        **kwargs: Unpack[KerasTunerArguments],
    ):
        self.config = config = _record("config", config, TunerConfig)
        self.device = device = _record("device", device, Device)
        sampler = self.default_sampler() if sampler is None else sampler
        records = {"config": config, "device": device, "sampler": sampler}
        check_names(kwargs, _OWN_ARGUMENTS, records)
        model = with_compression(as_hypermodel(hypermodel), config.compression)
        if model is None and type(self).run_trial is MeasuredTuner.run_trial:
            raise ValueError("hypermodel must be given unless run_trial is overridden, got None")
        is_space = isinstance(model, SpaceHyperModel)
        of_oracle, of_tuner = split_arguments(kwargs)
        oracle = SpaceOracle(
            sampler,
            model.space if is_space else None,
            objective_of(objective, default=config.default_objectives if is_space else None),
            max_trials,
            seed,
            limits,
            Halving(config.halving, config.min_epochs),
            **of_oracle,
        )
        executions = of_tuner.get("executions_per_trial", 1)
        self.check_settings(oracle, model, executions)
        self.trial_callbacks: TrialCallbacks = TrialCallbacks()
        self.written = None
        self._execution = 0
        observed = type(self).on_epoch_end is not MeasuredTuner.on_epoch_end
        self.runner = TrialRunner(model, oracle.objectives, config, device, executions, observed)
        self.latency_predictor = self.predict_latencies(oracle, model)
        self._open(oracle, model, of_tuner)

    def check_settings(
        self, oracle: SpaceOracle, model: kt.HyperModel | None, executions: int
    ) -> None:
        """Checks arguments that depend on each other.

        Args:
            oracle: What chooses the architectures.
            model: What builds the models.
            executions: Trainings of a trial.
        """
        if self.config.executor is not None and has_chief_oracle():
            raise ValueError(
                "executor must be None if keras_tuner's chief distributes the trials "
                f"(KERASTUNER_ORACLE_IP is set), got {self.config.executor!r}"
            )
        if oracle.halving.eta is not None and executions != 1:
            raise ValueError(
                "executions_per_trial must be 1 with halving, as a trial continues from the "
                f"weights of one network, got {executions!r}"
            )
        check_techniques(model)
        check_teacher(model, self.config.teacher)
        self.device.check(oracle.objectives.all_names & {*ON_DEVICE})
        check_ram_limit(
            self.config.patch_macs_ratio, {limit.name for limit in oracle.objectives.limits}
        )
        self.device.check_room({limit.name: limit.bound for limit in oracle.objectives.limits})

    def predict_latencies(
        self, oracle: SpaceOracle, model: kt.HyperModel | None
    ) -> LatencyPredictor | None:
        """Lets the oracle know what is known of an architecture before its trial.

        Args:
            oracle: What chooses the architectures.
            model: What builds the models.

        Returns:
            What predicts latencies; None where they are measured.
        """
        config, names = self.config, oracle.objectives.all_names
        predictor = None
        if config.latency_model is not None or config.latency_seconds is not None:
            predictor = LatencyPredictor(
                model,
                config.latency_model,
                config.latency_seconds,
                config.spec,
                config.threads,
                milliseconds="latency_ms" in names,
            )
            oracle.surrogate_features = predictor.feature
        if isinstance(model, SpaceHyperModel) and (names & STATIC_METRICS or predictor):
            oracle.proposals.costs = KnownCosts(model.space, config, names, predictor)
        return predictor

    def _open(
        self, oracle: SpaceOracle, model: kt.HyperModel | None, arguments: dict[str, Any]
    ) -> None:
        """Creates or resumes the search in its folder."""
        folder = pathlib.Path(
            arguments.get("directory") or ".", arguments.get("project_name") or "untitled_project"
        )
        if self.is_worker:
            arguments["overwrite"] = False  # only the chief clears the folder
        clears = arguments.get("overwrite") and folder.exists()
        # Fails if another process is writing to a folder that is to be cleared.
        with owner_of(folder) if clears else contextlib.nullcontext():
            if clears:
                remove_search(folder)
                arguments["overwrite"] = False  # keras_tuner would remove other files too
            super().__init__(oracle, model, **arguments)
        self.oracle: Any
        if self.is_worker:
            from tfnas.nas.chief.remote_oracle import RemoteOracle  # imports grpc

            self.oracle = RemoteOracle(self.oracle)

    # ---- the search

    @property
    def measures(self) -> bool:
        """Whether the file of each trial is measured."""
        return self.runner.measures

    @retracing_expected()
    def search(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Runs the trials.

        Args:
            *fit_args: Positional arguments of `keras.Model.fit`: x, y; or a data set.
            **fit_kwargs: Keyword arguments of `keras.Model.fit`. If files are measured,
                `validation_data` is required: their accuracy is measured on it.

        Raises:
            ValueError: `validation_data` is missing, or `halving` needs more `epochs`.
            ImportError: A callback is of TensorBoard, which is not installed.
            RuntimeError: Another search uses the directory, or too many consecutive trials failed.
            ConnectionError: The device of `measure_on` can't be reached, or was lost and did not
                come back. The same search goes on with the trial that was running.
        """
        check_tensorboard(fit_kwargs.get("callbacks"))
        if self.measures and fit_kwargs.get("validation_data") is None:
            raise ValueError(
                "validation_data must be given, got None: the files are measured on it"
            )
        if hasattr(fit_args[0] if fit_args else fit_kwargs.get("x"), "as_numpy_iterator"):
            fit_kwargs.setdefault("shuffle", False)  # a tf.data.Dataset does its own shuffling
        self.oracle.halving.set_epochs(fit_kwargs.get("epochs", 1), self.oracle.max_trials)
        if self.has_ended() and not os.access(self.folder(), os.W_OK):
            return  # a finished search in a folder that is read only
        device = timing_device(self.config.measure_on)
        if device is not None and self.measures:
            device.check()
        owner = contextlib.nullcontext() if self.is_worker else owner_of(self.folder())
        with owner, kept_random_state():  # as trials set the global seeds
            target_ms = self.config.target_latency_ms
            if self.target_ratio is None and target_ms is not None:
                [latency] = benchmark(
                    reference_artifact(),
                    threads=self.config.threads,
                    measure_on=self.config.measure_on,
                )
                self.runner.target_ratio = target_ms / latency.reference_ms
            if not has_chief_oracle():  # workers may be writing now
                sweep_parts(self.folder())
            self._check_objectives(fit_args, fit_kwargs)
            self.save()  # so that a search that is killed in its first trial can be resumed
            self.prepare_trials(fit_args, fit_kwargs)
            if self.config.executor is None:
                super().search(*fit_args, **fit_kwargs)
            else:
                self._search_on_executor(fit_args, fit_kwargs)

    def prepare_trials(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Does what a search needs before its first trial: the fit of a latency model.

        Args:
            args: Positional arguments of :meth:`search`.
            kwargs: Keyword arguments of :meth:`search`.
        """
        if self.latency_predictor is not None and not self.is_worker:
            report = self.trial_callbacks.phase_progressed
            self.latency_predictor.prepare(self.folder(), self.oracle.seed, report)

    def has_ended(self) -> bool:
        """Returns whether a search that was restored has no trial left to run."""
        return not self.is_worker and self.remaining_trials == 0 and not self.oracle.retry_queue

    def _check_objectives(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Checks that `fit` will report the objectives, before the first trial of a search."""
        own = type(self)
        overridden = own.run_trial is not MeasuredTuner.run_trial or (
            own.build_and_fit_model is not MeasuredTuner.build_and_fit_model
        )
        if self.is_worker or overridden or self.oracle.records:
            return

        def build() -> keras.Model:
            return self.built_model(self.oracle.get_space())

        check_objective_names(self.oracle.objectives.names, self.hypermodel, build, args, kwargs)
        if not isinstance(self.hypermodel, SpaceHyperModel):
            check_accuracy(self.oracle.objectives.all_names, build)

    def _search_on_executor(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if "verbose" in kwargs:
            self.oracle.verbose = kwargs["verbose"]
        self.on_search_begin()
        assert self.config.executor is not None
        Engine(self, self.config.executor, self.config.parallel).run(args, kwargs)
        self.on_search_end()

    def on_trial_begin(self, trial: kt.engine.trial.Trial) -> None:
        """Called by keras_tuner when a trial begins."""
        super().on_trial_begin(trial)
        self.trial_callbacks.trial_began(trial)

    def on_epoch_end(
        self,
        trial: kt.engine.trial.Trial,
        model: keras.Model,
        epoch: int,
        logs: Mapping[str, float] | None = None,
    ) -> None:
        """Called by keras_tuner after each epoch of a trial."""
        super().on_epoch_end(trial, model, epoch, logs)
        self.trial_callbacks.epoch_ended(trial, epoch)

    def on_trial_end(self, trial: kt.engine.trial.Trial) -> None:
        """Called by keras_tuner when a trial ends."""
        try:
            super().on_trial_end(trial)
        finally:  # also if this failure ends the search
            self.trial_callbacks.trial_ended(self.oracle.get_trial(trial.trial_id))

    # ---- a trial

    def run_and_update_trial(self, trial: kt.engine.trial.Trial, *args: Any, **kwargs: Any) -> None:
        """Runs a trial with the epochs of its rung; `run_trial` may be overridden."""
        budget = self.oracle.halving.budget(trial.trial_id)
        try:
            super().run_and_update_trial(trial, *args, **{**kwargs, **budget})
        except InfeasibleTrialError as error:
            trial.message = str(error)

    def try_run_and_update_trial(
        self, trial: kt.engine.trial.Trial, *args: Any, **kwargs: Any
    ) -> None:
        """Runs a trial; one that breaks a limit fails without keras_tuner's traceback."""
        trial.message = None
        with crash_reported(self.folder(trial.trial_id) / CRASH):
            super().try_run_and_update_trial(trial, *args, **kwargs)
        if trial.status == _Status.COMPLETED and trial.message is not None:
            trial.status = _Status.FAILED

    def run_trial(self, trial: kt.engine.trial.Trial, *args: Any, **kwargs: Any) -> Any:
        """Trains and measures a trial, once for each of its executions.

        Args:
            trial: The trial.
            *args: Positional arguments of :meth:`search`.
            **kwargs: Keyword arguments of :meth:`search`.

        Returns:
            Value by name of the metric, of each execution.
        """
        self._execution = 0
        pathlib.Path(self.checkpoint_path(trial.trial_id)).unlink(missing_ok=True)
        return super().run_trial(trial, *args, **kwargs)

    def build_and_fit_model(
        self, trial: kt.engine.trial.Trial, *args: Any, **kwargs: Any
    ) -> dict[str, float]:
        """Trains and measures one execution of a trial."""
        retries = self.oracle.retries(trial.trial_id)
        entropy = [self.oracle.seed, int(trial.trial_id), self._execution, retries]
        keras.utils.set_random_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        self._execution += 1
        model = self.built_model(trial.hyperparameters)
        built_by_data = not model.built
        results = self.runner.run(self.task_of(trial), model, args, kwargs)
        if built_by_data:
            self.save_build_config(trial, model)
        check_results(results, self.oracle.objective, self.oracle.objectives.names)
        write_measured(kwargs.get("callbacks"), results)
        return results

    def task_of(self, trial: kt.engine.trial.Trial) -> TrialTask:
        """Returns what a trial has to do.

        Args:
            trial: The trial.
        """
        parent = self.oracle.trials.get(self.oracle.parent(trial.trial_id))
        source = self.oracle.halving.continues.get(trial.trial_id)
        return TrialTask(
            trial.hyperparameters,
            self.oracle.architecture(trial),
            self.folder(trial.trial_id),
            self.checkpoint_path(trial.trial_id),
            int(self.oracle.seed),
            continues=None if source is None else self.checkpoint_path(source),
            load_parent=None if parent is None else lambda: self.network(parent),
        )

    def populate_initial_space(self) -> None:
        """Declares the hyperparameters; for a search space no model needs to be built."""
        if not isinstance(self.hypermodel, SpaceHyperModel):
            super().populate_initial_space()
            return
        hp = self.oracle.get_space()
        self.hypermodel.declare_hyperparameters(hp)
        self.oracle.update_space(hp)

    def override_compile_arguments(self, model: keras.Model) -> None:
        """Compiles a model with the `optimizer`, `loss` and `metrics` of the tuner, if any."""
        overrides = {"optimizer": self.optimizer, "loss": self.loss, "metrics": self.metrics}
        overrides = {name: value for name, value in overrides.items() if value}
        is_space = isinstance(self.hypermodel, SpaceHyperModel)
        if overrides and is_space and self.hypermodel.configure is None:
            compile_for_search(model, **{**self.hypermodel.compile_arguments, **overrides})
        else:
            super().override_compile_arguments(model)


def _record(name: str, value: Any, kind: type) -> Any:
    """A settings record; None: the one with the default of each field."""
    if value is not None and not isinstance(value, kind):
        raise ValueError(f"{name} must be a tfnas.{kind.__name__}, got {value!r}")
    return kind() if value is None else value
