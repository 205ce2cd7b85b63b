"""The base class of tfnas' tuners: each trial is trained, converted and measured.

The metrics of a trial are those of its `.tflite` file: `file_accuracy` on the validation data,
`latency_ratio` to the reference model, `size_bytes` and so on. The default objective is `reward`,
MnasNet's product of accuracy and latency.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import keras_tuner as kt
import numpy as np
from keras_tuner.src.distribute import utils as dist_utils
from keras_tuner.src.engine.tuner_utils import SaveBestEpoch

from tfnas.compression.trial_compression import (
    Compressed,
    CompressedTraining,
    NotCompressible,
    epochs_of,
    spec_of,
    untrained_form,
)
from tfnas.data.reading import arrays, spread
from tfnas.loading import load_model
from tfnas.measure.accuracy import evaluate
from tfnas.measure.latency import DEFAULT_ROUNDS, benchmark, check_rounds, reference_artifact
from tfnas.measure.latency_model.latency_model import LatencyModel
from tfnas.measure.measure import ACTIVATION_BYTES, measurement_of
from tfnas.measure.measurement import Measurement, pareto_front
from tfnas.measure.profile import profile
from tfnas.nas.argument_checks import check_target, check_teacher, with_compression
from tfnas.nas.executors.engine import Engine, ExecutorFactory
from tfnas.nas.fit_arguments import cheaper_callbacks, needs_every_validation, validate_at_the_end
from tfnas.nas.latency_prediction import LatencyPredictor, PredictionErrors
from tfnas.nas.measured_trial import DIRECTIONS, MeasuredTrial, latency_metrics
from tfnas.nas.objectives import KNOWN_DIRECTIONS, REWARD, ObjectiveLike, objective_of
from tfnas.nas.oracle import INFEASIBLE, SpaceOracle
from tfnas.nas.reward import mnasnet_reward
from tfnas.nas.search_callbacks import TrialCallbacks
from tfnas.nas.successive_halving import continue_from
from tfnas.nas.weight_inheritance import inherit_weights
from tfnas.quantization.quantize_aware import fake_quants
from tfnas.quantization.spec import QuantSpec
from tfnas.runtime.argument_rules import check_count
from tfnas.runtime.files import save_model, write_atomically
from tfnas.runtime.folder_lock import owner_of
from tfnas.runtime.randomness import kept_random_state
from tfnas.search_space.compression import Compression
from tfnas.search_space.compression_choices import CompressionSpace
from tfnas.search_space.hypermodel import CompressedHyperModel, SpaceHyperModel, compile_for_search
from tfnas.search_space.search_space import SearchSpace
from tfnas.targets.device import MICRO, VELA, Device, NotOnDevice
from tfnas.targets.device import UNTRAINED as DEVICE_UNTRAINED
from tfnas.targets.ethos_u import VelaError
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.convert import to_tflite

_CALIBRATION = 200
_Status = kt.engine.trial.TrialStatus
_STATIC_METRICS = {"macs", "parameters", "peak_activation_bytes"}  # known without a file
_LATENCY_METRICS = {"latency_ratio", "latency_ms"}
_UNTRAINED_METRICS = {"size_bytes", *_LATENCY_METRICS, *DEVICE_UNTRAINED}  # known before training
_MODEL = "model.keras"  # name of the compressed model in the folder of a trial


class _Infeasible(kt.errors.FailedTrialError):
    """A limit is broken whatever the weights are, or the device can't run the file."""


class MeasuredTuner(kt.Tuner):
    """Trains, converts and measures the architectures that an oracle proposes.

    With a search space, or if an objective or limit is a metric of the file, the model of each
    trial is converted and its file is measured. With any other hypermodel a trial is one of
    keras_tuner's. With `executions_per_trial` above 1 the objective is the mean over the
    executions, and the file is that of the last one. With `halving` a trial starts with few epochs;
    a promoted trial continues from the weights and the optimizer's state of the trial below it.
    Then trials report "rung" and "epochs", and `run_trial` gets `epochs` and `initial_epoch`.

    Args:
        oracle: Proposes the architectures.
        hypermodel: A search space, its :class:`SpaceHyperModel`, or any keras_tuner
            HyperModel or model-building function; None if `run_trial` is overridden.
        mode: Mode of the files that are measured; see :func:`tfnas.to_tflite`.
        target_latency_ms: Target latency of the reward, in ms on this machine. It is converted
            once to a ratio to the reference model, which is kept with the search.
        target_latency_ratio: The same as a ratio to the reference model.
        latency_exponent: Exponent of MnasNet's reward, at most 0.
        threads: Threads of the latency measurement.
        rounds: Interleaved rounds of the latency measurement.
        inherit: Whether a trial's model starts from the weights that overlap with those of its
            parent trial; the fraction of copied weights is reported as "inherited".
        executor: An executor of `concurrent.futures`, or a function that creates one. Trials run
            on it, while this process keeps the oracle. See
            :class:`~tfnas.runtime.worker_processes.TrialProcesses`.
        parallel: Number of trials at once on the executor; None: its number of workers.
        compression: Choices of pruning, clustering and so on, searched beside the hyperparameters
            of a hypermodel. A search space has its own, `MobileNetV2Space(compression=...)`.
            The epochs of a trial are split as in :mod:`tfnas.compression.trial_compression`, and
            the searched number format replaces `mode`.
        teacher: The trained Keras model, or several, that networks with `distill` learn from; it
            takes the same inputs as the networks.
        accelerator: NPU of the `vela_` metrics; see :class:`~tfnas.targets.device.Device`.
        runtime_flash: Flash that the firmware takes beside the file, in bytes.
        runtime_ram: RAM that the firmware takes beside the activations, in bytes.
        latency_model: A fitted latency model of the search space. Proposals that exceed a latency
            limit by its prediction are not tried, and the surrogate sees the predicted
            latency; see :mod:`tfnas.nas.latency_prediction`. Trials are still measured.
        latency_seconds: Time to fit a latency model when the search begins, in s; instead of
            `latency_model`.
        **kwargs: Further arguments of keras_tuner's Tuner.

    Raises:
        ValueError: An argument is outside its rule; the message names it.
        RuntimeError: Another search holds the directory that `overwrite` would clear.
        ImportError: A metric needs a package that is not installed.
    """

    def __init__(
        self,
        oracle: SpaceOracle,
        hypermodel: Any = None,
        *,
        mode: str | QuantSpec = "int8",
        target_latency_ms: float | None = None,
        target_latency_ratio: float | None = None,
        latency_exponent: float = -0.07,
        threads: int = 1,
        rounds: int = DEFAULT_ROUNDS,
        inherit: bool = False,
        executor: concurrent.futures.Executor | ExecutorFactory | None = None,
        parallel: int | None = None,
        compression: CompressionSpace | None = None,
        teacher: keras.Model | Sequence[keras.Model] | None = None,
        accelerator: str = "ethos-u55-128",
        runtime_flash: int = 0,
        runtime_ram: int = 0,
        latency_model: LatencyModel | None = None,
        latency_seconds: float | None = None,
        **kwargs: Any,
    ):
        check_target(target_latency_ms, target_latency_ratio)
        mnasnet_reward(1.0, 1.0, 1.0, latency_exponent)  # checks the exponent
        check_rounds(rounds)
        check_count("threads", threads, 1)
        check_count("parallel", parallel, 1, optional=True)
        if executor is not None and not (hasattr(executor, "submit") or callable(executor)):
            raise ValueError(
                "executor must be an executor of concurrent.futures or a function that creates "
                f"one, got {executor!r}"
            )
        if executor is not None and dist_utils.has_chief_oracle():
            raise ValueError(
                "executor must be None if keras_tuner's chief distributes the trials "
                f"(KERASTUNER_ORACLE_IP is set), got {executor!r}"
            )
        self.spec = QuantSpec.of(mode)
        self.target_latency_ms = target_latency_ms
        self.target_ratio = target_latency_ratio
        self.latency_exponent = latency_exponent
        self.threads = threads
        self.rounds = rounds
        self.inherit = inherit
        self.executor, self.parallel = executor, parallel
        self.trial_callbacks: TrialCallbacks = TrialCallbacks()
        self._written: str | None = None  # the text that was last written to the tuner's file
        if oracle.halving.eta is not None and kwargs.get("executions_per_trial", 1) != 1:
            raise ValueError(
                "executions_per_trial must be 1 with halving, as a trial continues from the "
                f"weights of one network, got {kwargs['executions_per_trial']!r}"
            )
        self._execution = 0
        self._costs: dict[Any, dict[str, float]] = {}
        hypermodel = with_compression(as_hypermodel(hypermodel), compression)
        if hypermodel is None and type(self).run_trial is MeasuredTuner.run_trial:
            raise ValueError("hypermodel must be given unless run_trial is overridden, got None")
        needed = {*oracle.objectives.names, *(limit.name for limit in oracle.objectives.limits)}
        self.measures = isinstance(hypermodel, SpaceHyperModel | CompressedHyperModel) or bool(
            needed & (set(KNOWN_DIRECTIONS) - _STATIC_METRICS)
        )
        self.teacher = teacher
        check_teacher(hypermodel, teacher)
        self.device = Device(accelerator, runtime_flash, runtime_ram)
        self._device_metrics = needed & {*MICRO, *VELA}
        self.device.check(self._device_metrics)
        self.device.check_room({limit.name: limit.bound for limit in oracle.objectives.limits})
        self.latency_predictor: LatencyPredictor | None = None
        if latency_model is not None or latency_seconds is not None:
            self.latency_predictor = LatencyPredictor(
                hypermodel,
                latency_model,
                latency_seconds,
                self.spec,
                threads,
                milliseconds="latency_ms" in needed,
            )
            oracle.surrogate_features = self.latency_predictor.feature
        self._needs_costs = bool(needed & _STATIC_METRICS)
        if isinstance(hypermodel, SpaceHyperModel) and (
            self._needs_costs or self.latency_predictor
        ):
            oracle.costs_before_trial = self._costs_before_trial
        folder = pathlib.Path(
            kwargs.get("directory") or ".", kwargs.get("project_name") or "untitled_project"
        )
        if self._is_worker():
            kwargs["overwrite"] = False  # only the chief clears the folder
        if kwargs.get("overwrite") and folder.exists():
            with owner_of(folder):  # fails if another process is writing to it
                super().__init__(oracle, hypermodel, **kwargs)
        else:
            super().__init__(oracle, hypermodel, **kwargs)
        self.oracle: Any
        if self._is_worker():
            from tfnas.nas.chief.remote_oracle import RemoteOracle  # imports grpc

            self.oracle = RemoteOracle(self.oracle)

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Runs the trials.

        Args:
            *fit_args: Positional arguments of `keras.Model.fit`: x, y; or a data set.
            **fit_kwargs: Keyword arguments of `keras.Model.fit`. If files are measured,
                `validation_data` is required: their accuracy is measured on it.

        Raises:
            ValueError: `validation_data` is missing, or `halving` needs more `epochs`.
            RuntimeError: Another search uses the directory, or too many consecutive trials failed.
        """
        if self.measures and fit_kwargs.get("validation_data") is None:
            raise ValueError(
                "validation_data must be given, got None: the files are measured on it"
            )
        if hasattr(fit_args[0] if fit_args else fit_kwargs.get("x"), "as_numpy_iterator"):
            fit_kwargs.setdefault("shuffle", False)  # a tf.data.Dataset does its own shuffling
        self.oracle.halving.set_epochs(fit_kwargs.get("epochs", 1), self.oracle.max_trials)
        owner = contextlib.nullcontext() if self._is_worker() else owner_of(self._folder())
        with owner, kept_random_state():  # as trials set the global seeds
            if self.target_ratio is None and self.target_latency_ms is not None:
                [latency] = benchmark(reference_artifact(), threads=self.threads)
                self.target_ratio = self.target_latency_ms / latency.reference_ms
            self.save()  # so that a search that is killed in its first trial can be resumed
            if self.latency_predictor is not None and not self._is_worker():
                self.latency_predictor.prepare(self._folder(), self.oracle.seed)
            if self.executor is None:
                super().search(*fit_args, **fit_kwargs)
            else:
                self._search_on_executor(fit_args, fit_kwargs)

    def _search_on_executor(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if "verbose" in kwargs:
            self.oracle.verbose = kwargs["verbose"]
        self.on_search_begin()
        assert self.executor is not None
        Engine(self, self.executor, self.parallel).run(args, kwargs)
        self.on_search_end()

    def _folder(self) -> pathlib.Path:
        return pathlib.Path(self.project_dir)

    def on_trial_begin(self, trial: kt.engine.trial.Trial) -> None:
        """Called by keras_tuner when a trial begins."""
        super().on_trial_begin(trial)
        self.trial_callbacks.trial_began(trial)

    def on_epoch_end(
        self, trial: kt.engine.trial.Trial, model: Any, epoch: int, logs: Any = None
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

    def candidates(self) -> list[MeasuredTrial]:
        """Returns the trials that ended well, in the order of their ends."""
        return [self.candidate(trial) for trial in self.oracle.completed()]

    def pareto_front(self) -> list[MeasuredTrial]:
        """Returns the candidates that no other one dominates.

        With several objectives the front is that of the objectives, sorted by the first one. With
        one objective it is that of accuracy, latency and size, sorted by latency. Candidates that
        break a limit are left out.
        """
        records = [record for record in self.oracle.records if record.violation == 0]
        return self.front_of(self.candidate(self.oracle.trials[e.trial_id]) for e in records)

    def front_of(self, candidates: Iterable[MeasuredTrial]) -> list[MeasuredTrial]:
        """Returns the Pareto front of some candidates, as :meth:`pareto_front` does for all.

        Args:
            candidates: Trials that ended well.
        """
        members, objectives = list(candidates), self.oracle.objectives
        if len(objectives.names) > 1:
            rows: list[tuple[float, ...]] = [objectives.losses(c.metrics) for c in members]
            directions: tuple[str, ...] = ("min",) * len(objectives.names)
            sort_by = 0
        else:
            rows = [candidate.objectives() for candidate in members]
            directions, sort_by = DIRECTIONS, 1
        front = sorted(pareto_front(rows, directions), key=lambda i: rows[i][sort_by])
        return [members[i] for i in front]

    def prediction_errors(self) -> PredictionErrors | None:
        """Returns the errors of the predicted latencies; None: no latencies were predicted."""
        if self.latency_predictor is None or self.latency_predictor.model is None:
            return None
        measured = [(c.architecture, c.measurement.latency) for c in self.candidates()]
        return self.latency_predictor.errors(
            [(arch, latency.ratio) for arch, latency in measured if latency]
        )

    def candidate(self, trial: kt.engine.trial.Trial) -> MeasuredTrial:
        """Returns a completed trial with its measurement."""
        folder = pathlib.Path(self.get_trial_dir(trial.trial_id))
        text = (folder / "measurement.json").read_text()
        return MeasuredTrial(
            trial.trial_id,
            self.oracle.architecture(trial),
            Measurement.from_json(text),
            trial.score,
            folder / "model.tflite",
            {name: trial.metrics.get_best_value(name) for name in trial.metrics.metrics},
        )

    def _run_and_update_trial(
        self, trial: kt.engine.trial.Trial, *args: Any, **kwargs: Any
    ) -> None:
        """Runs a trial with the epochs of its rung; `run_trial` may be overridden."""
        budget = self.oracle.halving.budget(trial.trial_id)
        try:
            super()._run_and_update_trial(trial, *args, **{**kwargs, **budget})
        except _Infeasible as error:
            trial.message = str(error)

    def _try_run_and_update_trial(
        self, trial: kt.engine.trial.Trial, *args: Any, **kwargs: Any
    ) -> None:
        """Runs a trial; one that breaks a limit fails without keras_tuner's traceback."""
        trial.message = None
        super()._try_run_and_update_trial(trial, *args, **kwargs)
        if trial.status == _Status.COMPLETED and trial.message is not None:
            trial.status = _Status.FAILED

    def run_trial(self, trial: kt.engine.trial.Trial, *args: Any, **kwargs: Any) -> Any:
        """Trains and measures a trial, once for each of its executions.

        Args:
            trial: The trial.
            *args: Positional arguments of :meth:`search`.
            **kwargs: Keyword arguments of :meth:`search`.
        """
        self._execution = 0
        return super().run_trial(trial, *args, **kwargs)

    def _build_and_fit_model(
        self, trial: kt.engine.trial.Trial, *args: Any, **kwargs: Any
    ) -> dict[str, float]:
        """Trains and measures one execution of a trial."""
        retries = self.oracle.retries(trial.trial_id)
        entropy = [self.oracle.seed, int(trial.trial_id), self._execution, retries]
        keras.utils.set_random_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        self._execution += 1
        x = args[0] if args else kwargs.get("x")
        model = self._try_build(trial.hyperparameters)
        inherited: dict[str, float] = {}
        source = self.oracle.halving.continues.get(trial.trial_id)
        if source is None:
            self._fail_if_infeasible(trial, model, x)
            inherited = self._inherited(trial, model)
        else:
            with _without_optimizer_warnings():
                continue_from(model, self._get_checkpoint_fname(source))
        try:
            compression = self._compression(trial)
            if compression is not None:
                compressed = self._train_compressed(trial, model, compression, args, kwargs)
                logs, model, plain = compressed.logs, compressed.model, compressed.plain
            else:
                history = self._fit(trial, model, args, kwargs)
                if not self.measures:
                    return history
                logs = self._logs_of_measured_epoch(trial, model, history.history)
                plain = model
            measured = self._measure(trial, model, plain, x, kwargs["validation_data"])
        except (NotOnDevice, VelaError) as error:
            raise _Infeasible(f"{INFEASIBLE}{error}") from error
        except (ConversionError, NotCompressible) as error:  # a retry would fail too
            raise kt.errors.FailedTrialError(str(error)) from error
        return {**logs, **measured, **inherited}

    def _compression(self, trial: kt.engine.trial.Trial) -> Compression | None:
        """The compression of a trial; None: it is not searched."""
        if not isinstance(self.hypermodel, SpaceHyperModel | CompressedHyperModel):
            return None
        return self.hypermodel.compression(trial.hyperparameters)

    def _spec(self, compression: Compression | None) -> QuantSpec:
        return self.spec if compression is None else spec_of(compression)

    def _train_compressed(
        self,
        trial: kt.engine.trial.Trial,
        model: keras.Model,
        compression: Compression,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Compressed:
        """Trains and compresses a network, and saves its weights and the compressed model."""
        x = args[0] if args else kwargs.get("x")
        # The checkpoint (`trained` below) is of the network before its compression.
        user_callbacks = [
            callback
            for callback in kwargs.get("callbacks") or ()
            if not isinstance(callback, SaveBestEpoch)
        ]

        epochs = sum(epochs_of(compression, kwargs.get("epochs", 1)).values())

        def fit(
            model: keras.Model, callbacks: list[keras.callbacks.Callback], **phase: Any
        ) -> keras.callbacks.History:
            options = {**kwargs, **phase, "callbacks": user_callbacks}
            is_last = phase["epochs"] == epochs
            return self._fit(trial, model, args, options, callbacks, reported=is_last)

        training = CompressedTraining(
            fit,
            spread(x, _CALIBRATION, "x"),
            teacher=self.teacher,
            seed=int(self.oracle.seed),
            trained=lambda net: net.save_weights(self._get_checkpoint_fname(trial.trial_id)),
        )
        initial_epoch = kwargs.get("initial_epoch", 0)
        compressed = training.run(model, compression, kwargs.get("epochs", 1), initial_epoch)
        save_model(compressed.model, pathlib.Path(self.get_trial_dir(trial.trial_id)) / _MODEL)
        return compressed

    def _fit(
        self,
        trial: kt.engine.trial.Trial,
        model: keras.Model,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        callbacks: Sequence[Any] = (),
        reported: bool = True,
    ) -> Any:
        """Trains as the hypermodel does, without validation whose results are not used.

        `callbacks` are those of a compression, beside those in `kwargs`; `reported` is whether the
        trial reports the logs of the last epoch.
        """
        options = dict(kwargs)
        if self._logs_are_internal() and not needs_every_validation(
            kwargs, self.oracle.objectives.names
        ):
            options = validate_at_the_end(kwargs, reported)
        options["callbacks"] = cheaper_callbacks([*(kwargs.get("callbacks") or ()), *callbacks])
        return self.hypermodel.fit(trial.hyperparameters, model, *args, **options)

    def _logs_are_internal(self) -> bool:
        """Whether no `fit` of a hypermodel and no `on_epoch_end` of a tuner is overridden."""
        hypermodel = self.hypermodel
        is_keras_fit = isinstance(hypermodel, SpaceHyperModel) and (
            type(hypermodel).fit is kt.HyperModel.fit
        )
        return is_keras_fit and type(self).on_epoch_end is MeasuredTuner.on_epoch_end

    def _fail_if_infeasible(self, trial: kt.engine.trial.Trial, model: Any, x: Any) -> None:
        """Fails a trial before its training if it breaks a limit whatever its weights are."""
        limits = {limit.name for limit in self.oracle.objectives.limits}
        known: dict[str, float] = {}
        compression = self._compression(trial)
        try:
            if compression is not None:
                model = untrained_form(model, compression)
            if limits & _STATIC_METRICS:
                known |= self._costs_of(model, self._spec(compression))
            if limits & _UNTRAINED_METRICS:
                known |= self._untrained_file(model, x, self._spec(compression), limits)
        except (NotCompressible, NotOnDevice, VelaError) as error:
            raise _Infeasible(f"{INFEASIBLE}{error}") from error
        if broken := self.oracle.objectives.broken(known):
            raise _Infeasible(f"{INFEASIBLE}{'; '.join(broken)}")

    def _untrained_file(
        self, model: Any, x: Any, spec: QuantSpec, limits: set[str]
    ) -> dict[str, float]:
        """Metrics of the file of an untrained model: size, device, lower bounds of the latency.

        They are empty if the model can't be converted before training.
        """
        try:
            calibration = spread(x, _CALIBRATION, "x") if spec.needs_calibration else None
            artifact = to_tflite(model, spec, calibration)
        except ConversionError:
            return {}  # some modes need trained weights
        metrics = {"size_bytes": float(artifact.size)}
        metrics |= self.device.metrics(artifact, limits & DEVICE_UNTRAINED)
        if limits & _LATENCY_METRICS:
            [latency] = benchmark(artifact, threads=self.threads, rounds=self.rounds)
            metrics["latency_ratio"] = latency.ratio_low
            metrics["latency_ms"] = latency.median_ms * latency.ratio_low / latency.ratio
        return metrics

    def _costs_of(self, model: Any, spec: QuantSpec) -> dict[str, float]:
        cost = profile(model)
        size = ACTIVATION_BYTES.get(spec.mode, 4)
        return {
            "macs": float(cost.macs),
            "parameters": float(cost.parameters),
            "peak_activation_bytes": float(cost.peak_activation_bytes(size)),
        }

    def _costs_before_trial(self, arch: Any) -> dict[str, float]:
        """Metrics of an architecture that are known without a trial."""
        known = {} if self.latency_predictor is None else self.latency_predictor.lower_bounds(arch)
        if not self._needs_costs:
            return known
        if arch.network not in self._costs:
            compression = getattr(arch, "compression", None)
            model = self.hypermodel.space.build(arch)
            if compression is not None:
                with contextlib.suppress(NotCompressible):  # its trial reports the reason
                    model = untrained_form(model, compression)
            self._costs[arch.network] = self._costs_of(model, self._spec(compression))
        return {**self._costs[arch.network], **known}

    def _inherited(self, trial: kt.engine.trial.Trial, model: Any) -> dict[str, float]:
        """Copies overlapping weights of the parent into a model if `inherit` is set."""
        if not self.inherit:
            return {}
        parent = self.oracle.parent(trial.trial_id)
        if parent is None or parent not in self.oracle.trials:
            return {"inherited": 0.0}
        return {"inherited": inherit_weights(model, self._network(self.oracle.trials[parent]))}

    def _logs_of_measured_epoch(
        self, trial: kt.engine.trial.Trial, model: keras.Model, history: dict[str, list[float]]
    ) -> dict[str, float]:
        """The logs of the epoch whose weights are measured.

        It is the last epoch, or if the objective is in the logs the best one, which keras_tuner
        has checkpointed.
        """
        epoch = -1
        values = history.get(self.oracle.objectives.names[0])
        if len(self.oracle.objectives.names) > 1:
            values = None
        if values and self.executions_per_trial == 1:
            best = np.argmax if self.oracle.objective.direction == "max" else np.argmin
            epoch = int(best(values))
            model.load_weights(self._get_checkpoint_fname(trial.trial_id))
        return {name: float(values[epoch]) for name, values in history.items()}

    def _measure(
        self, trial: kt.engine.trial.Trial, model: Any, plain: Any, x: Any, validation_data: Any
    ) -> dict[str, float]:
        spec = self._spec(self._compression(trial))
        calibration = spread(x, _CALIBRATION, "x") if spec.needs_calibration else None
        artifact = to_tflite(model, spec, None if fake_quants(model) else calibration)
        if not isinstance(validation_data, tuple | list):
            validation_data = arrays(validation_data, what="validation_data")
        score = evaluate(artifact, *validation_data[:2])
        [latency] = benchmark(artifact, threads=self.threads, rounds=self.rounds)
        cost = profile(plain)
        arch = self.oracle.architecture(trial)
        measurement = measurement_of(artifact, score, latency, cost, arch.key, part="validation")
        folder = pathlib.Path(self.get_trial_dir(trial.trial_id))
        artifact.save(folder / "model.tflite")
        write_atomically(folder / "architecture.json", arch.to_json(indent=2))
        write_atomically(folder / "measurement.json", measurement.to_json(indent=2))
        reward = mnasnet_reward(
            score.value, latency.ratio, self.target_ratio, self.latency_exponent
        )
        return {
            REWARD: reward,
            "file_accuracy": score.value,
            **latency_metrics(latency),
            "size_bytes": float(artifact.size),
            "gzip_bytes": float(artifact.gzip_size),
            "macs": float(cost.macs),
            "parameters": float(cost.parameters),
            "peak_activation_bytes": float(measurement.peak_activation_bytes or 0),
            **self.device.metrics(artifact, self._device_metrics),
        }

    def load_model(self, trial: kt.engine.trial.Trial) -> keras.Model:
        """Returns the model of a trial with its best weights and an optimizer without state.

        For a trial with a compression it is the compressed model behind the file, not compiled.
        """
        path = pathlib.Path(self.get_trial_dir(trial.trial_id)) / _MODEL
        return load_model(path) if path.exists() else self._network(trial)

    def _network(self, trial: kt.engine.trial.Trial) -> keras.Model:
        """The network of a trial before its compression."""
        with _without_optimizer_warnings():
            return super().load_model(trial)

    def _populate_initial_space(self) -> None:
        """Declares the hyperparameters; for a search space no model needs to be built."""
        if not isinstance(self.hypermodel, SpaceHyperModel):
            super()._populate_initial_space()
            return
        hp = self.oracle.get_space()
        self.hypermodel.declare_hyperparameters(hp)
        self.oracle.update_space(hp)

    def _override_compile_args(self, model: keras.Model) -> None:
        """Compiles a model with the `optimizer`, `loss` and `metrics` of the tuner, if any."""
        overrides = {"optimizer": self.optimizer, "loss": self.loss, "metrics": self.metrics}
        overrides = {name: value for name, value in overrides.items() if value}
        is_space = isinstance(self.hypermodel, SpaceHyperModel)
        if overrides and is_space and self.hypermodel.configure is None:
            compile_for_search(model, **{**self.hypermodel.compile_arguments, **overrides})
        else:
            super()._override_compile_args(model)

    def _configure_tensorboard_dir(
        self, callbacks: list[Any], trial: kt.engine.trial.Trial, execution: int = 0
    ) -> None:
        """Configures TensorBoard, which is imported only if there is a callback of it."""
        if any(type(callback).__name__ == "TensorBoard" for callback in callbacks):
            super()._configure_tensorboard_dir(callbacks, trial, execution)

    def get_state(self) -> dict[str, Any]:
        """Returns the state that a resumed search needs, such as the target ratio."""
        halving = self.oracle.halving
        rungs = {"halving": halving.eta, "min_epochs": halving.min_epochs, "epochs": halving.epochs}
        state = {"target_ratio": self.target_ratio, **rungs}
        return {**super().get_state(), **state, **self._measurement_settings()}

    def _measurement_settings(self) -> dict[str, Any]:
        """The settings that must not change, so that rewards stay comparable."""
        return {
            "mode": self.spec.mode,
            "latency_exponent": self.latency_exponent,
            "threads": self.threads,
            **dataclasses.asdict(self.device),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores the state that :meth:`get_state` returned.

        Args:
            state: The state.

        Raises:
            ValueError: A setting of the search has another value than in the state.
        """
        super().set_state(state)
        kept, current = state.get("target_ratio"), self.target_ratio
        if (current is not None and current != kept) or (self.target_latency_ms and kept is None):
            raise ValueError(
                f"target_latency_ratio of the search in {self.project_dir!r} is {kept}, got "
                f"{current or f'{self.target_latency_ms} ms'}: rewards would not be comparable"
            )
        halving = self.oracle.halving
        rungs = {"halving": halving.eta, "min_epochs": halving.min_epochs}
        for name, value in {**rungs, **self._measurement_settings()}.items():
            if state.get(name, value) != value:
                raise ValueError(
                    f"{name} of the search in {self.project_dir!r} is {state[name]!r}, "
                    f"got {value!r}: rewards would not be comparable"
                )
        self.target_ratio = kept
        halving.epochs = state.get("epochs")

    def save(self) -> None:
        """Writes the state of the tuner and of the oracle atomically, if it has changed."""
        if not self._is_worker():
            self.oracle.save()
        text = json.dumps(self.get_state())
        if text != self._written:
            write_atomically(os.fspath(self._get_tuner_fname()), text)
            self._written = text


def as_hypermodel(hypermodel: Any) -> Any:
    """Wraps a search space in a hypermodel; anything else is returned as it is.

    Args:
        hypermodel: A search space, keras_tuner HyperModel, model-building function or None.

    Raises:
        ValueError: The argument is none of these.
    """
    if isinstance(hypermodel, SearchSpace):
        return SpaceHyperModel(hypermodel)
    if hypermodel is None or isinstance(hypermodel, kt.HyperModel) or callable(hypermodel):
        return hypermodel
    raise ValueError(
        f"hypermodel must be a search space such as tfnas.MobileNetV2Space, its hypermodel(), a "
        f"keras_tuner.HyperModel or a function, got {type(hypermodel).__name__}"
    )


@contextlib.contextmanager
def _without_optimizer_warnings() -> Iterator[None]:
    """Silences the warning that a file has no state of the optimizer, or another one's."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
        yield


_ORACLE_ARGUMENTS = (
    "hyperparameters",
    "tune_new_entries",
    "allow_new_entries",
    "limits",
    "halving",
    "min_epochs",
    "max_retries_per_trial",
    "max_consecutive_failed_trials",
)


def oracle_arguments(
    hypermodel: Any, objective: ObjectiveLike, kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Returns the arguments of the oracle among those of a tuner.

    Args:
        hypermodel: The hypermodel of the tuner.
        objective: The objective of the tuner; None: the reward if a search space is searched.
        kwargs: Further arguments of the tuner; those of the oracle are removed from it.
    """
    further = {name: kwargs.pop(name) for name in _ORACLE_ARGUMENTS if name in kwargs}
    hypermodel = as_hypermodel(hypermodel)
    is_space = isinstance(hypermodel, SpaceHyperModel)
    return {
        "space": hypermodel.space if is_space else None,
        "objective": objective_of(objective, default=REWARD if is_space else None),
        **further,
    }
