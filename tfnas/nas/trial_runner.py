"""Runs one trial: trains a model, converts it, measures its file.

A :class:`TrialRunner` knows the settings of the search, but neither the tuner nor the oracle, so
that it can be sent to another process. What it needs to know of a trial is a :class:`TrialTask`.
The metrics of a trial are those of its `.tflite` file: `file_accuracy` on the validation data (of
models that give classes, :mod:`tfnas.nas.trial_quality`),
`latency_ratio` to the reference model, `size_bytes` and so on.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import keras_tuner as kt
import numpy as np

from tfnas.compression.technique_context import CALIBRATION
from tfnas.compression.trial_compression import (
    Compressed,
    CompressedTraining,
    epochs_of,
    untrained_form,
)
from tfnas.compression.trial_refusals import NotCompressible
from tfnas.data.reading import spread, spread_pairs
from tfnas.graph.finite_loss import Diverged
from tfnas.keras_private import forget_kernels
from tfnas.measure.elsewhere.timing_device import DeviceLost, FileRefused
from tfnas.measure.latency import benchmark
from tfnas.measure.measure import measurement_of
from tfnas.measure.profile import profile
from tfnas.nas.feasibility import (
    STATIC_METRICS,
    UNTRAINED_METRICS,
    macs_metric,
    spec_of_trial,
    static_costs,
    untrained_metrics,
)
from tfnas.nas.fit_arguments import (
    cheaper_callbacks,
    needs_every_validation,
    validate_at_the_end,
    validation_pair,
)
from tfnas.nas.fit_results import epochs_of_results
from tfnas.nas.keras_tuner_private import SaveBestEpoch
from tfnas.nas.keras_warnings import without_optimizer_warnings
from tfnas.nas.measured_trial import (
    COMPRESSED_MODEL,
    LOWER_IS_BETTER,
    MEASUREMENT,
    MODEL_FILE,
    latency_metrics,
)
from tfnas.nas.metric_directions import KNOWN_DIRECTIONS, REWARD
from tfnas.nas.objectives import Objectives
from tfnas.nas.reward import mnasnet_reward
from tfnas.nas.successive_halving import continue_from
from tfnas.nas.trial_failures import DeviceLostInTrial, InfeasibleTrialError
from tfnas.nas.trial_patches import TrialPatches, with_costs, with_patches
from tfnas.nas.trial_quality import OF_CLASSES, Quality, quality_of
from tfnas.nas.tuner_config import TunerConfig
from tfnas.nas.weight_files import read_weights
from tfnas.nas.weight_inheritance import inherit_weights
from tfnas.quantization.aware_models import fake_quants
from tfnas.quantization.spec import QuantSpec
from tfnas.runtime.files import save_model, write_atomically
from tfnas.search_space.compression import Compression
from tfnas.search_space.hypermodel import CompressedHyperModel, SpaceHyperModel
from tfnas.targets.device import ON_DEVICE, Device, NotOnDevice
from tfnas.targets.ethos_u import VelaError
from tfnas.targets.patch_based import PatchReport
from tfnas.tasks.evaluation import evaluate
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.convert import to_tflite


@dataclasses.dataclass(frozen=True, eq=False)
class TrialTask:
    """What a runner needs to know of a trial.

    Args:
        hyperparameters: The hyperparameters.
        architecture: The architecture that they describe.
        folder: The folder of the trial, for its results.
        checkpoint: The file of its weights, which keras_tuner's checkpoint callback writes.
        seed: Seed of random draws of the compression.
        continues: The checkpoint of the trial that it continues; None: its own weights are new.
        load_parent: Loads the model of the parent trial; None: there is no parent.
        starts_from: File of the weights that its training starts from; None: they are new.
    """

    hyperparameters: kt.HyperParameters
    architecture: Any
    folder: pathlib.Path
    checkpoint: str
    seed: int
    continues: str | None = None
    load_parent: Callable[[], keras.Model] | None = None
    starts_from: str | None = None


class TrialRunner:
    """Trains, converts and measures one architecture at a time.

    Args:
        hypermodel: The hypermodel; its `fit` trains the models.
        objectives: The objectives and limits of the search.
        config: The settings of the search.
        device: The target device.
        executions: Number of trainings of each trial.
        observed: Whether code beside Keras' own sees the logs of each epoch.
    """

    def __init__(
        self,
        hypermodel: kt.HyperModel | None,
        objectives: Objectives,
        config: TunerConfig,
        device: Device,
        executions: int = 1,
        observed: bool = False,
    ) -> None:
        self.hypermodel: Any = hypermodel
        self.objectives, self.device, self.executions = objectives, device, executions
        self.config = config.for_trials()
        self.patches = TrialPatches.of(config.patch_macs_ratio, objectives.limits, device)
        self.target_ratio: float | None = config.target_latency_ratio
        """Target latency of the reward as a ratio to the reference model, once it is known."""
        needed = objectives.all_names
        searched = isinstance(hypermodel, SpaceHyperModel | CompressedHyperModel)
        on_file = {*objectives.names, *(needed - STATIC_METRICS)} & set(KNOWN_DIRECTIONS)
        self.measures = searched or bool(on_file)
        self._device_metrics = needed & {*ON_DEVICE}
        self._keras_fit = isinstance(hypermodel, SpaceHyperModel) and (
            type(hypermodel).fit is kt.HyperModel.fit
        )
        self._observed = observed or not self._keras_fit

    def run(
        self, task: TrialTask, model: keras.Model, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Trains and measures the model of a trial.

        Args:
            task: The trial.
            model: Its compiled model, which is trained in place.
            args: Positional arguments of `keras.Model.fit`.
            kwargs: Keyword arguments of `keras.Model.fit`.

        Returns:
            Value by name of the metric; the result of `fit` if no file is measured.

        Raises:
            InfeasibleTrialError: A limit is broken whatever the weights are.
            FailedTrialError: The training diverges, or the model can't be compressed or converted.
            DeviceLostInTrial: The device that measures was lost and did not come back.
        """
        try:
            return self._run(task, model, args, kwargs)
        except DeviceLost as error:
            raise DeviceLostInTrial(str(error)) from error
        finally:
            if self._keras_fit:  # code of the user's own may have functions that trials share
                forget_kernels()

    def _run(
        self, task: TrialTask, model: keras.Model, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        x = args[0] if args else kwargs.get("x")
        self._build(task, model, x)
        network = model
        inherited: dict[str, float] = {}
        if task.continues is None:
            self._check_feasible(task, model, x)
            inherited = self._inherit(task, model)
            if task.starts_from is not None:
                read_weights(model, task.starts_from)
        else:
            with without_optimizer_warnings():
                continue_from(model, task.continues)
        try:
            compression = self.compression(task)
            if compression is not None:
                compressed = self._train_compressed(task, model, compression, args, kwargs)
                logs, model, plain = compressed.logs, compressed.model, compressed.plain
            else:
                results = self._fit(task, model, args, kwargs)
                has_best = self._keep_weights(task, model)
                if not self.measures:
                    return results
                history = epochs_of_results(results, self.objectives)
                logs, plain = self._logs_of_measured_epoch(task, model, history, has_best), model
            quality = self._quality(network)
            measured = self._measure(task, model, plain, x, kwargs["validation_data"], quality)
        except (NotOnDevice, FileRefused, VelaError) as error:
            raise InfeasibleTrialError(str(error)) from error
        except (ConversionError, NotCompressible, Diverged) as error:  # a retry would fail too
            raise kt.errors.FailedTrialError(str(error)) from error
        return {**logs, **measured, **inherited}

    def compression(self, task: TrialTask) -> Compression | None:
        """Returns the compression of a trial; None: it is not searched."""
        if not isinstance(self.hypermodel, SpaceHyperModel | CompressedHyperModel):
            return None
        return self.hypermodel.compression(task.hyperparameters)

    def _build(self, task: TrialTask, model: keras.Model, x: Any) -> None:
        """Builds a model that its first batch would build, if its weights are used before."""
        limits = {limit.name for limit in self.objectives.limits}
        known = limits & (STATIC_METRICS | UNTRAINED_METRICS)
        if not model.built and (known or self.config.inherit or task.continues is not None):
            model(spread(x, 1, "x"))

    def _keep_weights(self, task: TrialTask, model: keras.Model) -> bool:
        """Saves the last weights if the user's `fit` ignored the callback that saves the best ones.

        Returns whether the best ones were saved.
        """
        own_fit = type(self.hypermodel).fit is not kt.HyperModel.fit
        if not own_fit or pathlib.Path(task.checkpoint).exists():
            return True
        model.save_weights(task.checkpoint)
        return False

    def _check_feasible(self, task: TrialTask, model: keras.Model, x: Any) -> None:
        """Fails a trial before its training if it breaks a limit whatever its weights are."""
        limits = {limit.name for limit in self.objectives.limits}
        compression = self.compression(task)
        spec = spec_of_trial(self.config, compression)
        known: dict[str, float] = {}
        patched: PatchReport | None = None

        def convert() -> Artifact:
            nonlocal patched
            file = to_tflite(model, spec, _calibration(x, spec))
            file, patched = self.patches.apply(file)
            return file

        try:
            if compression is not None:
                model = untrained_form(model, compression)
            if limits & STATIC_METRICS:
                known |= static_costs(model, spec, limits)
            if limits & UNTRAINED_METRICS:
                known |= untrained_metrics(convert, limits, self.config, self.device)
                known = with_costs(known, patched)
        except (NotCompressible, NotOnDevice, FileRefused, VelaError) as error:
            raise InfeasibleTrialError(str(error)) from error
        if broken := self.objectives.broken(known):
            raise InfeasibleTrialError("; ".join(broken))

    def _inherit(self, task: TrialTask, model: keras.Model) -> dict[str, float]:
        """Copies overlapping weights of the parent into a model if `inherit` is set."""
        if not self.config.inherit:
            return {}
        if task.load_parent is None:
            return {"inherited": 0.0}
        return {"inherited": inherit_weights(model, task.load_parent())}

    def _train_compressed(
        self,
        task: TrialTask,
        model: keras.Model,
        compression: Compression,
        args: Sequence[Any],
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
            return self._fit(task, model, args, options, callbacks, reported=is_last)

        y = args[1] if len(args) > 1 else kwargs.get("y")
        images, targets = spread_pairs(x, y, CALIBRATION, "x")
        training = CompressedTraining(
            fit,
            images,
            teacher=self.config.teacher,
            seed=task.seed,
            trained=lambda network: network.save_weights(task.checkpoint),
            targets=targets,
        )
        initial_epoch = kwargs.get("initial_epoch", 0)
        compressed = training.run(model, compression, kwargs.get("epochs", 1), initial_epoch)
        save_model(compressed.model, task.folder / COMPRESSED_MODEL)
        return compressed

    def _fit(
        self,
        task: TrialTask,
        model: keras.Model,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        callbacks: Sequence[Any] = (),
        reported: bool = True,
    ) -> Any:
        """Trains as the hypermodel does, without validation whose results are not used.

        `callbacks` are those of a compression, beside those in `kwargs`; `reported` is whether the
        trial reports the logs of the last epoch.
        """
        options = dict(kwargs)
        if not self._observed and not needs_every_validation(kwargs, self.objectives.names):
            options = validate_at_the_end(kwargs, reported)
        options["callbacks"] = cheaper_callbacks([*callbacks, *(kwargs.get("callbacks") or ())])
        return self.hypermodel.fit(task.hyperparameters, model, *args, **options)

    def _logs_of_measured_epoch(
        self,
        task: TrialTask,
        model: keras.Model,
        history: dict[str, list[float]],
        has_best: bool,
    ) -> dict[str, float]:
        """The logs of the epoch whose weights are measured.

        It is the last epoch, or if the objective is in the logs the best one, which keras_tuner
        has checkpointed (`has_best`).
        """
        epoch = -1
        values = history.get(self.objectives.names[0]) if len(self.objectives.names) == 1 else None
        if values and self.executions == 1 and has_best:
            best = np.argmax if self.objectives.directions[0] == "max" else np.argmin
            epoch = int(best(values))
            model.load_weights(task.checkpoint)
        return {name: float(values[epoch]) for name, values in history.items()}

    def _measure(
        self,
        task: TrialTask,
        model: keras.Model,
        plain: keras.Model,
        x: Any,
        validation_data: Any,
        quality: Quality,
    ) -> dict[str, float]:
        """Converts `model`, measures the file, and writes it with its measurement.

        `plain` is the model without fake quantization, whose costs are reported.
        """
        spec = spec_of_trial(self.config, self.compression(task))
        calibration = None if fake_quants(model) else _calibration(x, spec)
        artifact, patched = self.patches.apply(to_tflite(model, spec, calibration))
        score = evaluate(artifact, *validation_pair(validation_data), quality.metric)
        threads, rounds = self.config.threads, self.config.rounds
        measure_on = self.config.measure_on
        [latency] = benchmark(artifact, threads=threads, rounds=rounds, measure_on=measure_on)
        cost = profile(plain)
        arch = task.architecture
        judged = {} if quality.metric.higher_is_better else LOWER_IS_BETTER
        where = {"part": "validation", **judged}
        measurement = measurement_of(artifact, score, latency, cost, arch.key, **where)
        if patched is not None:
            measurement = with_patches(measurement, patched)
        artifact.save(task.folder / MODEL_FILE)
        write_atomically(task.folder / "architecture.json", arch.to_json(indent=2))
        write_atomically(task.folder / MEASUREMENT, measurement.to_json(indent=2))
        return {
            **(self._rewards(score.value, latency.ratio) if quality.is_accuracy else {}),
            **latency_metrics(latency),
            **_size_metrics(artifact),
            **self.patches.metrics(patched),
            "parameters": float(cost.parameters),
            "peak_activation_bytes": float(measurement.peak_activation_bytes or 0),
            **with_costs(
                macs_metric(cost, self.objectives.all_names)
                | self.device.metrics(artifact, self._device_metrics),
                patched,
            ),
        }

    def _quality(self, network: keras.Model) -> Quality:
        """How the file of a trained network is judged."""
        if isinstance(self.hypermodel, SpaceHyperModel):
            return OF_CLASSES
        return quality_of(network)

    def _rewards(self, accuracy: float, latency_ratio: float) -> dict[str, float]:
        return {REWARD: self.reward(accuracy, latency_ratio), "file_accuracy": accuracy}

    def reward(self, accuracy: float, latency_ratio: float) -> float:
        """Returns MnasNet's reward, with the target and exponent of the search.

        Args:
            accuracy: Accuracy of the file, in [0, 1].
            latency_ratio: Its latency as a ratio to the reference model.
        """
        exponent = self.config.latency_exponent
        return mnasnet_reward(accuracy, latency_ratio, self.target_ratio, exponent)


def _calibration(x: Any, spec: QuantSpec) -> Any:
    """Examples for the ranges of a file; None: its format needs none."""
    return spread(x, CALIBRATION, "x") if spec.needs_calibration else None


def _size_metrics(artifact: Artifact) -> dict[str, float]:
    return {"size_bytes": float(artifact.size), "gzip_bytes": float(artifact.gzip_size)}
