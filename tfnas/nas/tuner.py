"""The part that all of tfnas' tuners share: a trial is trained, converted and measured.

What a trial reports is what its `.tflite` file does: `file_accuracy` on the validation
data, `latency_ratio` to the reference model, `size_bytes`. The default objective is
`reward`, MnasNet's product of the first two.
"""

from __future__ import annotations

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
from tfnas.data.datasets import arrays, spread
from tfnas.loading import load_model
from tfnas.measure.accuracy import evaluate
from tfnas.measure.latency import DEFAULT_ROUNDS, benchmark, check_rounds, reference_artifact
from tfnas.measure.latency_model.latency_model import LatencyModel
from tfnas.measure.measure import ACTIVATION_BYTES, measurement_of
from tfnas.measure.measurement import Latency, Measurement, pareto_front
from tfnas.measure.profile import profile
from tfnas.nas.argument_checks import check_target, check_teacher, with_compression
from tfnas.nas.executors.engine import Engine
from tfnas.nas.fit_arguments import cheaper_callbacks, needs_every_validation, validate_at_the_end
from tfnas.nas.latency_prediction import LatencyPredictor, PredictionErrors
from tfnas.nas.objectives import KNOWN_DIRECTIONS, REWARD, objective_of
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
from tfnas.search_space.architecture import Architecture
from tfnas.search_space.compression import Compression
from tfnas.search_space.compression_choices import CompressionSpace
from tfnas.search_space.hypermodel import CompressedHyperModel, SpaceHyperModel, compile_for_search
from tfnas.search_space.search_space import SearchSpace
from tfnas.targets.device import MICRO, VELA, Device, NotOnDevice
from tfnas.targets.device import UNTRAINED as DEVICE_UNTRAINED
from tfnas.targets.ethos_u import VelaError
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.convert import ConversionError, to_tflite

_CALIBRATION = 200
_Status = kt.engine.trial.TrialStatus
_STATIC_METRICS = {"macs", "parameters", "peak_activation_bytes"}  # known without any file
_LATENCY_METRICS = {"latency_ratio", "latency_ms"}
_UNTRAINED_METRICS = {"size_bytes", *_LATENCY_METRICS, *DEVICE_UNTRAINED}  # known before training
_MODEL = "model.keras"  # of a trial that compresses


@dataclasses.dataclass(frozen=True)
class MeasuredTrial:
    """A trial that ended well, with what was measured on its file.

    Args:
        trial_id: keras_tuner's name of the trial.
        architecture: What was built.
        measurement: What its file does; the score is on the validation data.
        objective: The value that the search maximizes or minimizes.
        path: The `.tflite` file.
        metrics: All that the trial reported, by name.
    """

    trial_id: str
    architecture: Architecture
    measurement: Measurement
    objective: float
    path: pathlib.Path
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict, repr=False)

    def artifact(self) -> Artifact:
        """Reads the file."""
        return Artifact.load(self.path)

    def objectives(self) -> tuple[float, float, int]:
        """Returns (accuracy, latency ratio, bytes), as :data:`DIRECTIONS` ranks them."""
        score, latency = self.measurement.score, self.measurement.latency
        if score is None or latency is None:
            raise ValueError(f"trial {self.trial_id} must have a score and a latency")
        return score.value, latency.ratio, self.measurement.size_bytes


DIRECTIONS = ("max", "min", "min")


def latency_metrics(latency: Latency) -> dict[str, float]:
    """Returns what a trial reports of a latency."""
    return {"latency_ratio": latency.ratio, "latency_ms": latency.median_ms}


class _Infeasible(kt.errors.FailedTrialError):
    """A limit is broken whatever the trial learns, or the device can't run what it gives."""


class MeasuredTuner(kt.Tuner):
    """Trains, converts and measures what an oracle proposes.

    Of a search space, or where an objective or limit is a metric of the file, each trial's
    model is converted and its file measured; of any other hypermodel a trial is what
    keras_tuner's is. With `executions_per_trial` above 1 the objective is the mean over the
    executions and the file that of the last one. With `halving` of the oracle a trial begins
    with few epochs, and a promotion with the weights, and the optimizer, of the trial below it;
    it reports its "rung" and "epochs", and its `run_trial` gets `epochs` and `initial_epoch`.

    Args:
        oracle: Proposes the architectures.
        hypermodel: A search space, its :class:`SpaceHyperModel`, or any keras_tuner
            HyperModel or model-building function; None where `run_trial` is overridden.
        mode: Mode of the files that are measured; see :func:`tfnas.to_tflite`.
        target_latency_ms: Latency aimed at, in ms on this machine. It is turned into a
            ratio to the reference model once, and that ratio is kept with the search.
        target_latency_ratio: The same as a ratio to the reference model; instead of ms.
        latency_exponent: Exponent of MnasNet's reward, at most 0.
        threads: Threads of the latency measurement.
        rounds: Interleaved rounds of the latency measurement.
        inherit: Whether a trial's model begins with the weights that overlap with those of
            the trial that its architecture was made from; reported as "inherited", the share
            of weights taken.
        executor: Any executor of `concurrent.futures`, or a function that makes one: trials
            run on it, and this process keeps the oracle. See
            :class:`~tfnas.runtime.worker_processes.TrialProcesses`.
        parallel: Trials at once on the executor; None: its number of workers.
        compression: What may be chosen of pruning, clustering and so on beside a hypermodel's
            own hyperparameters; a search space has its own, `MobileNetV2Space(compression=...)`.
            Where it is searched, a trial's epochs are split as :mod:`.compressing` says, and
            its choice of the number format takes the place of `mode`.
        teacher: The trained Keras model that compressions with `distill` learn from, or
            several; it takes what the networks take.
        accelerator: The NPU of the `vela_` metrics; see :class:`~tfnas.targets.device.Device`.
        runtime_flash: Bytes of flash that a firmware takes beside the file.
        runtime_ram: Bytes of RAM that it takes beside the activations.
        latency_model: A fitted latency model of a search space: proposals that break a latency
            limit by its prediction are dropped without a trial, and the surrogate sees the
            predicted latency; see :mod:`tfnas.nas.latency_prediction`. Trials are measured as ever.
        latency_seconds: Instead: time to fit one when the search begins, in seconds.
        **kwargs: keras_tuner's further arguments of a Tuner.

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
        executor: Any = None,
        parallel: int | None = None,
        compression: CompressionSpace | None = None,
        teacher: Any = None,
        accelerator: str = "ethos-u55-128",
        runtime_flash: int = 0,
        runtime_ram: int = 0,
        latency_model: LatencyModel | None = None,
        latency_seconds: float | None = None,
        **kwargs: Any,
    ):
        check_target(target_latency_ms, target_latency_ratio)
        mnasnet_reward(1.0, 1.0, 1.0, latency_exponent)  # its own rule, before any work
        check_rounds(rounds)
        check_count("threads", threads, 1)
        check_count("parallel", parallel, 1, optional=True)
        if executor is not None and not (hasattr(executor, "submit") or callable(executor)):
            raise ValueError(
                f"executor must be one of concurrent.futures, or make one, got {executor!r}"
            )
        if executor is not None and dist_utils.has_chief_oracle():
            raise ValueError(
                "executor must be None where keras_tuner's chief hands out the trials "
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
        self._written: str | None = None  # what the tuner's file holds, as far as this wrote it
        if oracle.halving.eta is not None and kwargs.get("executions_per_trial", 1) != 1:
            raise ValueError(
                "executions_per_trial must be 1 with halving, as a trial continues from one "
                f"network's weights, got {kwargs['executions_per_trial']!r}"
            )
        self._execution = 0
        self._costs: dict[Any, dict[str, float]] = {}
        hypermodel = with_compression(as_hypermodel(hypermodel), compression)
        if hypermodel is None and type(self).run_trial is MeasuredTuner.run_trial:
            raise ValueError("hypermodel must be given unless run_trial is overridden, got None")
        wanted = {*oracle.objectives.names, *(limit.name for limit in oracle.objectives.limits)}
        self.measures = isinstance(hypermodel, SpaceHyperModel | CompressedHyperModel) or bool(
            wanted & (set(KNOWN_DIRECTIONS) - _STATIC_METRICS)
        )
        self.teacher = teacher
        check_teacher(hypermodel, teacher)
        self.device = Device(accelerator, runtime_flash, runtime_ram)
        self._device_metrics = wanted & {*MICRO, *VELA}
        self.device.check(self._device_metrics)
        self.device.check_room({limit.name: limit.bound for limit in oracle.objectives.limits})
        self.latency_predictor: LatencyPredictor | None = None
        if latency_model is not None or latency_seconds is not None:
            given = latency_model, latency_seconds, self.spec, threads
            self.latency_predictor = LatencyPredictor(hypermodel, *given, "latency_ms" in wanted)
            oracle.surrogate_features = self.latency_predictor.feature
        self._needs_costs = bool(wanted & _STATIC_METRICS)
        if isinstance(hypermodel, SpaceHyperModel) and (
            self._needs_costs or self.latency_predictor
        ):
            oracle.costs_before_trial = self._costs_before_trial
        folder = pathlib.Path(
            kwargs.get("directory") or ".", kwargs.get("project_name") or "untitled_project"
        )
        if self._is_worker():
            kwargs["overwrite"] = False  # it is the chief's to clear
        if kwargs.get("overwrite") and folder.exists():
            with owner_of(folder):  # not what another process is writing
                super().__init__(oracle, hypermodel, **kwargs)
        else:
            super().__init__(oracle, hypermodel, **kwargs)
        self.oracle: Any
        if self._is_worker():
            from tfnas.nas.chief.remote_oracle import RemoteOracle  # grpc, which only workers need

            self.oracle = RemoteOracle(self.oracle)

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Runs the trials.

        Args:
            *fit_args: As for `keras.Model.fit`: x, y; or a data set.
            **fit_kwargs: As for `keras.Model.fit`. Where files are measured,
                `validation_data` must be there: their accuracy is measured on it.

        Raises:
            ValueError: `validation_data` is missing, or `epochs` don't go with `halving`.
            RuntimeError: Another search holds the directory, or too many trials failed one
                after the other.
        """
        if self.measures and fit_kwargs.get("validation_data") is None:
            raise ValueError(
                "validation_data must be given, got None: the files are measured on it"
            )
        if hasattr(fit_args[0] if fit_args else fit_kwargs.get("x"), "as_numpy_iterator"):
            fit_kwargs.setdefault("shuffle", False)  # a tf.data.Dataset shuffles itself
        self.oracle.halving.set_epochs(fit_kwargs.get("epochs", 1), self.oracle.max_trials)
        owner = contextlib.nullcontext() if self._is_worker() else owner_of(self._folder())
        with owner, kept_random_state():  # each trial sets seeds
            if self.target_ratio is None and self.target_latency_ms is not None:
                [latency] = benchmark(reference_artifact(), threads=self.threads)
                self.target_ratio = self.target_latency_ms / latency.reference_ms
            self.save()  # so that a kill in the first trial is known of
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
        Engine(self, self.executor, self.parallel).run(args, kwargs)
        self.on_search_end()

    def _folder(self) -> pathlib.Path:
        return pathlib.Path(self.project_dir)

    def on_trial_begin(self, trial: kt.engine.trial.Trial) -> None:
        """keras_tuner's hook."""
        super().on_trial_begin(trial)
        self.trial_callbacks.trial_began(trial)

    def on_epoch_end(
        self, trial: kt.engine.trial.Trial, model: Any, epoch: int, logs: Any = None
    ) -> None:
        """keras_tuner's hook."""
        super().on_epoch_end(trial, model, epoch, logs)
        self.trial_callbacks.epoch_ended(trial, epoch)

    def on_trial_end(self, trial: kt.engine.trial.Trial) -> None:
        """keras_tuner's hook."""
        try:
            super().on_trial_end(trial)
        finally:  # also when this failure is the one that ends the search
            self.trial_callbacks.trial_ended(self.oracle.get_trial(trial.trial_id))

    def candidates(self) -> list[MeasuredTrial]:
        """Returns the trials that ended well, in the order of their end."""
        return [self.candidate(trial) for trial in self.oracle.completed()]

    def pareto_front(self) -> list[MeasuredTrial]:
        """Returns the candidates that no other beats in all objectives at once.

        With one objective it is accuracy, latency and size that count, and they are sorted by
        latency, fastest first; with several those, by the first. Candidates that break a limit
        are left out.
        """
        records = [record for record in self.oracle.records if record.violation == 0]
        return self.front_of(self.candidate(self.oracle.trials[e.trial_id]) for e in records)

    def front_of(self, candidates: Iterable[MeasuredTrial]) -> list[MeasuredTrial]:
        """Returns those of some candidates that no other beats, as :meth:`pareto_front` does."""
        found, objectives = list(candidates), self.oracle.objectives
        if len(objectives.names) > 1:
            rows: list[tuple[float, ...]] = [objectives.losses(c.metrics) for c in found]
            directions: tuple[str, ...] = ("min",) * len(objectives.names)
            place = 0
        else:
            rows = [candidate.objectives() for candidate in found]
            directions, place = DIRECTIONS, 1
        return [
            found[i] for i in sorted(pareto_front(rows, directions), key=lambda i: rows[i][place])
        ]

    def prediction_errors(self) -> PredictionErrors | None:
        """Returns how far the predicted latencies can be shrunk; None: none were predicted."""
        if self.latency_predictor is None or self.latency_predictor.model is None:
            return None
        found = [(c.architecture, c.measurement.latency) for c in self.candidates()]
        return self.latency_predictor.errors(
            [(a, latency.ratio) for a, latency in found if latency]
        )

    def candidate(self, trial: kt.engine.trial.Trial) -> MeasuredTrial:
        """Returns what was measured in a completed trial."""
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
        """keras_tuner's hook around `run_trial`, overridden or not: a rung has its epochs."""
        budget = self.oracle.halving.budget(trial.trial_id)
        try:
            super()._run_and_update_trial(trial, *args, **{**kwargs, **budget})
        except _Infeasible as error:
            trial.message = str(error)

    def _try_run_and_update_trial(
        self, trial: kt.engine.trial.Trial, *args: Any, **kwargs: Any
    ) -> None:
        """keras_tuner's, which prints a traceback; a limit is an answer and needs none."""
        trial.message = None
        super()._try_run_and_update_trial(trial, *args, **kwargs)
        if trial.status == _Status.COMPLETED and trial.message is not None:
            trial.status = _Status.FAILED

    def run_trial(self, trial: kt.engine.trial.Trial, *args: Any, **kwargs: Any) -> Any:
        """Trains and measures; keras_tuner's own `run_trial` around it."""
        self._execution = 0
        return super().run_trial(trial, *args, **kwargs)

    def _build_and_fit_model(
        self, trial: kt.engine.trial.Trial, *args: Any, **kwargs: Any
    ) -> dict[str, float]:
        """keras_tuner's hook for one execution of a trial."""
        retry = self.oracle.retries(trial.trial_id)
        entropy = [self.oracle.seed, int(trial.trial_id), self._execution, retry]
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
                made = self._train_compressed(trial, model, compression, args, kwargs)
                logs, model, plain = made.logs, made.model, made.plain
            else:
                history = self._fit(trial, model, args, kwargs)
                if not self.measures:
                    return history
                logs = self._logs_of_measured_epoch(trial, model, history.history)
                plain = model
            measured = self._measure(trial, model, plain, x, kwargs["validation_data"])
        except (NotOnDevice, VelaError) as error:
            raise _Infeasible(f"{INFEASIBLE}{error}") from error
        except (ConversionError, NotCompressible) as error:  # the same every time
            raise kt.errors.FailedTrialError(str(error)) from error
        return {**logs, **measured, **inherited}

    def _compression(self, trial: kt.engine.trial.Trial) -> Compression | None:
        """What a trial chose of its compression; None: that is not searched."""
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
        """Trains and compresses; keeps the network's weights, and the model behind the file."""
        x = args[0] if args else kwargs.get("x")
        # keras_tuner's checkpoint is of the network alone, when its own training has ended.
        given = [c for c in kwargs.get("callbacks") or () if not isinstance(c, SaveBestEpoch)]

        epochs = sum(epochs_of(compression, kwargs.get("epochs", 1)).values())

        def fit(model: Any, callbacks: list[Any], **of_part: Any) -> Any:
            options = {**kwargs, **of_part, "callbacks": given}
            last = of_part["epochs"] == epochs
            return self._fit(trial, model, args, options, callbacks, reported=last)

        training = CompressedTraining(
            fit,
            spread(x, _CALIBRATION, "x"),
            teacher=self.teacher,
            seed=int(self.oracle.seed),
            trained=lambda net: net.save_weights(self._get_checkpoint_fname(trial.trial_id)),
        )
        begin = kwargs.get("initial_epoch", 0)
        made = training.run(model, compression, kwargs.get("epochs", 1), begin)
        save_model(made.model, pathlib.Path(self.get_trial_dir(trial.trial_id)) / _MODEL)
        return made

    def _fit(
        self,
        trial: kt.engine.trial.Trial,
        model: keras.Model,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        callbacks: Sequence[Any] = (),
        reported: bool = True,
    ) -> Any:
        """Trains as the hypermodel does, without validation that nobody reads.

        `callbacks` are a compression's own, beside those in `kwargs`; `reported` tells whether
        the trial reports what the last epoch logs.
        """
        options = dict(kwargs)
        if self._nobody_else_reads_logs() and not needs_every_validation(
            kwargs, self.oracle.objectives.names
        ):
            options = validate_at_the_end(kwargs, reported)
        options["callbacks"] = cheaper_callbacks([*(kwargs.get("callbacks") or ()), *callbacks])
        return self.hypermodel.fit(trial.hyperparameters, model, *args, **options)

    def _nobody_else_reads_logs(self) -> bool:
        """Whether neither a hypermodel's nor a tuner's code of the user's sees `fit`'s logs."""
        hypermodel = self.hypermodel
        keras_fits = isinstance(hypermodel, SpaceHyperModel) and (
            type(hypermodel).fit is kt.HyperModel.fit
        )
        return keras_fits and type(self).on_epoch_end is MeasuredTuner.on_epoch_end

    def _fail_if_infeasible(self, trial: kt.engine.trial.Trial, model: Any, x: Any) -> None:
        """Fails a trial that breaks a limit whatever it learns, before it is trained."""
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
        """Bytes of the file and the least that its time can be; nothing where it has none."""
        try:
            calibration = spread(x, _CALIBRATION, "x") if spec.needs_calibration else None
            artifact = to_tflite(model, spec, calibration)
        except ConversionError:
            return {}  # some modes take trained networks alone
        known = {"size_bytes": float(artifact.size)}
        known |= self.device.metrics(artifact, limits & DEVICE_UNTRAINED)
        if limits & _LATENCY_METRICS:
            [latency] = benchmark(artifact, threads=self.threads, rounds=self.rounds)
            known["latency_ratio"] = latency.ratio_low
            known["latency_ms"] = latency.median_ms * latency.ratio_low / latency.ratio
        return known

    def _costs_of(self, model: Any, spec: QuantSpec) -> dict[str, float]:
        cost = profile(model)
        size = ACTIVATION_BYTES.get(spec.mode, 4)
        return {
            "macs": float(cost.macs),
            "parameters": float(cost.parameters),
            "peak_activation_bytes": float(cost.peak_activation_bytes(size)),
        }

    def _costs_before_trial(self, arch: Any) -> dict[str, float]:
        """What is known of an architecture before it is tried."""
        known = {} if self.latency_predictor is None else self.latency_predictor.lower_bounds(arch)
        if not self._needs_costs:
            return known
        if arch.network not in self._costs:
            compression = getattr(arch, "compression", None)
            model = self.hypermodel.space.build(arch)
            if compression is not None:
                with contextlib.suppress(NotCompressible):  # its trial says so
                    model = untrained_form(model, compression)
            self._costs[arch.network] = self._costs_of(model, self._spec(compression))
        return {**self._costs[arch.network], **known}

    def _inherited(self, trial: kt.engine.trial.Trial, model: Any) -> dict[str, float]:
        """Gives a model its parent's weights, where that is asked for."""
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

        It is the last one, or, where the objective is in the logs, the best one: the one
        that keras_tuner checkpoints.
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
        """Builds the trial's model and loads its best weights; its optimizer starts anew.

        Of a trial that compresses it is the model behind the file, not compiled.
        """
        kept = pathlib.Path(self.get_trial_dir(trial.trial_id)) / _MODEL
        return load_model(kept) if kept.exists() else self._network(trial)

    def _network(self, trial: kt.engine.trial.Trial) -> keras.Model:
        """A trial's network before any compression."""
        with _without_optimizer_warnings():
            return super().load_model(trial)

    def _populate_initial_space(self) -> None:
        """A search space knows its decisions: no model is built to find them."""
        if not isinstance(self.hypermodel, SpaceHyperModel):
            super()._populate_initial_space()
            return
        hp = self.oracle.get_space()
        self.hypermodel.declare_hyperparameters(hp)
        self.oracle.update_space(hp)

    def _override_compile_args(self, model: keras.Model) -> None:
        """`optimizer`, `loss` and `metrics` of the tuner rule over the hypermodel's."""
        given = {"optimizer": self.optimizer, "loss": self.loss, "metrics": self.metrics}
        given = {name: value for name, value in given.items() if value}
        own = isinstance(self.hypermodel, SpaceHyperModel)
        if given and own and self.hypermodel.configure is None:
            compile_for_search(model, **{**self.hypermodel.compile_arguments, **given})
        else:
            super()._override_compile_args(model)

    def _configure_tensorboard_dir(
        self, callbacks: list[Any], trial: kt.engine.trial.Trial, execution: int = 0
    ) -> None:
        """TensorBoard is imported only where a callback asks for it."""
        if any(type(callback).__name__ == "TensorBoard" for callback in callbacks):
            super()._configure_tensorboard_dir(callbacks, trial, execution)

    def get_state(self) -> dict[str, Any]:
        """Results that a resumed search needs: the target, as a ratio."""
        halving = self.oracle.halving
        rungs = {"halving": halving.eta, "min_epochs": halving.min_epochs, "epochs": halving.epochs}
        kept = {"target_ratio": self.target_ratio, **rungs}
        return {**super().get_state(), **kept, **self._measurement_settings()}

    def _measurement_settings(self) -> dict[str, Any]:
        """What must stay the same for rewards to compare."""
        return {
            "mode": self.spec.mode,
            "latency_exponent": self.latency_exponent,
            "threads": self.threads,
            **dataclasses.asdict(self.device),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`get_state` gave."""
        super().set_state(state)
        kept, given = state.get("target_ratio"), self.target_ratio
        if (given is not None and given != kept) or (self.target_latency_ms and kept is None):
            raise ValueError(
                f"target_latency_ratio of the search in {self.project_dir!r} is {kept}, got "
                f"{given or f'{self.target_latency_ms} ms'}: rewards would not compare"
            )
        halving = self.oracle.halving
        rungs = {"halving": halving.eta, "min_epochs": halving.min_epochs}
        for name, value in {**rungs, **self._measurement_settings()}.items():
            if state.get(name, value) != value:
                raise ValueError(
                    f"{name} of the search in {self.project_dir!r} is {state[name]!r}, "
                    f"got {value!r}: rewards would not compare"
                )
        self.target_ratio = kept
        halving.epochs = state.get("epochs")

    def save(self) -> None:
        """Writes tuner and oracle, whole or not at all, where they would change."""
        if not self._is_worker():
            self.oracle.save()
        text = json.dumps(self.get_state())
        if text != self._written:
            write_atomically(os.fspath(self._get_tuner_fname()), text)
            self._written = text


def as_hypermodel(hypermodel: Any) -> Any:
    """Returns a search space as the hypermodel that tuners run, all else as it is.

    Raises:
        ValueError: It is none of the kinds that keras_tuner takes.
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
    """A file may hold another optimizer's state, or none, where a teacher taught."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
        yield


_ORACLE_ARGUMENTS = (
    *("hyperparameters", "tune_new_entries", "allow_new_entries", "limits"),
    *("halving", "min_epochs"),
    *("max_retries_per_trial", "max_consecutive_failed_trials"),
)


def oracle_arguments(hypermodel: Any, objective: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Takes what is an oracle's out of a tuner's arguments.

    Args:
        hypermodel: What is searched.
        objective: As it was given; None is the reward where a space is searched.
        kwargs: The tuner's other arguments; those of the oracle leave it.
    """
    given = {name: kwargs.pop(name) for name in _ORACLE_ARGUMENTS if name in kwargs}
    hypermodel = as_hypermodel(hypermodel)
    own = isinstance(hypermodel, SpaceHyperModel)
    space = hypermodel.space if own else None
    return {
        "space": space,
        "objective": objective_of(objective, default=REWARD if own else None),
        **given,
    }
