"""The part that all of tfnas' tuners share: a trial is trained, converted and measured.

What a trial reports is what its `.tflite` file does: `file_accuracy` on the validation
data, `latency_ratio` to the reference model, `size_bytes`. The default objective is
`reward`, MnasNet's product of the first two.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import warnings
from typing import Any

import keras
import keras_tuner as kt
import numpy as np

from tfnas.architecture import Architecture
from tfnas.bench.evaluate import evaluate
from tfnas.bench.latency import (
    DEFAULT_ROUNDS,
    benchmark,
    check_rounds,
    reference_artifact,
)
from tfnas.bench.measure import measurement_of
from tfnas.bench.profile import profile
from tfnas.data import arrays, spread
from tfnas.export.artifact import Artifact
from tfnas.export.tflite import ConversionError, to_tflite
from tfnas.files import write_atomically
from tfnas.measurement import Measurement, pareto_front
from tfnas.quantization.spec import QuantSpec
from tfnas.spaces.hypermodel import SpaceHyperModel, compile_for_search
from tfnas.spaces.space import SearchSpace
from tfnas.tuners.oracle import SpaceOracle
from tfnas.tuners.reward import mnasnet_reward

REWARD = "reward"
_CALIBRATION = 200


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A trial that ended well, with what was measured on its file.

    Args:
        trial_id: keras_tuner's name of the trial.
        architecture: What was built.
        measurement: What its file does; the score is on the validation data.
        objective: The value that the search maximises or minimises.
        path: The `.tflite` file.
    """

    trial_id: str
    architecture: Architecture
    measurement: Measurement
    objective: float
    path: pathlib.Path

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


class Listener:
    """Hears of trials as they run; override what matters. Set it as `tuner.listener`."""

    def trial_began(self, trial: kt.engine.trial.Trial) -> None:
        """A trial begins."""

    def epoch_ended(self, trial: kt.engine.trial.Trial, epoch: int) -> None:
        """An epoch of the trial ended; `epoch` counts from 0."""

    def trial_ended(self, trial: kt.engine.trial.Trial) -> None:
        """A trial ended: completed, failed, or sent for a retry."""


class MeasuredTuner(kt.Tuner):
    """Trains, converts and measures what an oracle proposes.

    With `executions_per_trial` above 1 the objective is the mean over the executions and
    the file that of the last one.

    Args:
        oracle: Proposes the architectures.
        hypermodel: A search space, or its :class:`SpaceHyperModel`.
        mode: Mode of the files that are measured; see :func:`tfnas.to_tflite`.
        target_latency_ms: Latency aimed at, in ms on this machine. It is turned into a
            ratio to the reference model once, and that ratio is kept with the search.
        target_latency_ratio: The same as a ratio to the reference model; instead of ms.
        latency_exponent: Exponent of MnasNet's reward, at most 0.
        threads: Threads of the latency measurement.
        rounds: Interleaved rounds of the latency measurement.
        **kwargs: keras_tuner's further arguments of a Tuner.

    Raises:
        ValueError: An argument is outside its rule; the message names it.
    """

    def __init__(
        self,
        oracle: SpaceOracle,
        hypermodel: SearchSpace | SpaceHyperModel,
        *,
        mode: str | QuantSpec = "int8",
        target_latency_ms: float | None = None,
        target_latency_ratio: float | None = None,
        latency_exponent: float = -0.07,
        threads: int = 1,
        rounds: int = DEFAULT_ROUNDS,
        **kwargs: Any,
    ):
        _check_target(target_latency_ms, target_latency_ratio)
        mnasnet_reward(1.0, 1.0, 1.0, latency_exponent)  # its own rule, before any work
        check_rounds(rounds)
        if not isinstance(threads, int) or threads < 1:
            raise ValueError(f"threads must be a whole number >= 1, got {threads!r}")
        self.spec = QuantSpec.of(mode)
        self.target_latency_ms = target_latency_ms
        self.target_ratio = target_latency_ratio
        self.latency_exponent = latency_exponent
        self.threads = threads
        self.rounds = rounds
        self.listener: Listener = Listener()
        self._execution = 0
        super().__init__(oracle, as_hypermodel(hypermodel), **kwargs)

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Runs the trials.

        Args:
            *fit_args: As for `keras.Model.fit`: x, y; or a data set.
            **fit_kwargs: As for `keras.Model.fit`. `validation_data` must be there:
                the files' accuracy is measured on it.

        Raises:
            ValueError: `validation_data` is missing.
        """
        if fit_kwargs.get("validation_data") is None:
            raise ValueError(
                "validation_data must be given, got None: the files are measured on it"
            )
        if hasattr(fit_args[0] if fit_args else fit_kwargs.get("x"), "as_numpy_iterator"):
            fit_kwargs.setdefault("shuffle", False)  # a tf.data.Dataset shuffles itself
        if self.target_ratio is None and self.target_latency_ms is not None:
            [latency] = benchmark(reference_artifact(), threads=self.threads)
            self.target_ratio = self.target_latency_ms / latency.reference_ms
            self.save()
        super().search(*fit_args, **fit_kwargs)

    def on_trial_begin(self, trial: kt.engine.trial.Trial) -> None:
        """keras_tuner's hook."""
        super().on_trial_begin(trial)
        self.listener.trial_began(trial)

    def on_epoch_end(
        self, trial: kt.engine.trial.Trial, model: Any, epoch: int, logs: Any = None
    ) -> None:
        """keras_tuner's hook."""
        super().on_epoch_end(trial, model, epoch, logs)
        self.listener.epoch_ended(trial, epoch)

    def on_trial_end(self, trial: kt.engine.trial.Trial) -> None:
        """keras_tuner's hook."""
        try:
            super().on_trial_end(trial)
        finally:  # also when this failure is the one that ends the search
            self.listener.trial_ended(self.oracle.get_trial(trial.trial_id))

    def candidates(self) -> list[Candidate]:
        """Returns the trials that ended well, in the order of their end."""
        return [self.candidate(trial) for trial in self.oracle.completed()]

    def pareto_front(self) -> list[Candidate]:
        """Returns the candidates that no other beats in accuracy, latency and size at once.

        They are sorted by latency, fastest first.
        """
        candidates = self.candidates()
        rows = [candidate.objectives() for candidate in candidates]
        front = [candidates[i] for i in pareto_front(rows, DIRECTIONS)]
        return sorted(front, key=lambda candidate: candidate.objectives()[1])

    def candidate(self, trial: kt.engine.trial.Trial) -> Candidate:
        """Returns what was measured in a completed trial."""
        folder = pathlib.Path(self.get_trial_dir(trial.trial_id))
        text = (folder / "measurement.json").read_text()
        return Candidate(
            trial.trial_id,
            self.oracle.architecture(trial),
            Measurement.from_json(text),
            trial.score,
            folder / "model.tflite",
        )

    def run_trial(self, trial: kt.engine.trial.Trial, *args: Any, **kwargs: Any) -> Any:
        """Trains and measures; keras_tuner's own `run_trial` around it."""
        self._execution = 0
        trial.metrics.metrics.clear()  # keras_tuner would take an earlier attempt's for this one's
        return super().run_trial(trial, *args, **kwargs)

    def _build_and_fit_model(
        self, trial: kt.engine.trial.Trial, *args: Any, **kwargs: Any
    ) -> dict[str, float]:
        """keras_tuner's hook for one execution of a trial."""
        retry = self.oracle.retries(trial.trial_id)
        entropy = [self.oracle.seed, int(trial.trial_id), self._execution, retry]
        keras.utils.set_random_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        self._execution += 1
        model = self._try_build(trial.hyperparameters)
        history = self.hypermodel.fit(trial.hyperparameters, model, *args, **kwargs)
        logs = self._logs_of_measured_epoch(trial, model, history.history)
        x = args[0] if args else kwargs["x"]
        try:
            measured = self._measure(trial, model, x, kwargs["validation_data"])
        except ConversionError as error:  # the same again every time: no retry
            raise kt.errors.FailedTrialError(str(error)) from error
        return {**logs, **measured}

    def _logs_of_measured_epoch(
        self, trial: kt.engine.trial.Trial, model: keras.Model, history: dict[str, list[float]]
    ) -> dict[str, float]:
        """The logs of the epoch whose weights are measured.

        It is the last one, or, where the objective is in the logs, the best one: the one
        that keras_tuner checkpoints.
        """
        epoch = -1
        values = history.get(self.oracle.objective.name)
        if values and self.executions_per_trial == 1:
            best = np.argmax if self.oracle.objective.direction == "max" else np.argmin
            epoch = int(best(values))
            model.load_weights(self._get_checkpoint_fname(trial.trial_id))
        return {name: float(values[epoch]) for name, values in history.items()}

    def _measure(
        self, trial: kt.engine.trial.Trial, model: keras.Model, x: Any, validation_data: Any
    ) -> dict[str, float]:
        calibration = spread(x, _CALIBRATION, "x") if self.spec.needs_calibration else None
        artifact = to_tflite(model, self.spec, calibration)
        if not isinstance(validation_data, tuple | list):
            validation_data = arrays(validation_data, what="validation_data")
        score = evaluate(artifact, *validation_data[:2])
        [latency] = benchmark(artifact, threads=self.threads, rounds=self.rounds)
        cost = profile(model)
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
            "latency_ratio": latency.ratio,
            "latency_ms": latency.median_ms,
            "size_bytes": float(artifact.size),
            "gzip_bytes": float(artifact.gzip_size),
            "macs": float(cost.macs),
            "parameters": float(cost.parameters),
        }

    def load_model(self, trial: kt.engine.trial.Trial) -> keras.Model:
        """Builds the trial's model and loads its best weights; its optimizer starts anew."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
            return super().load_model(trial)

    def _populate_initial_space(self) -> None:
        """The space knows its decisions: no model is built to find them."""
        hp = self.oracle.get_space()
        self.hypermodel.declare_hyperparameters(hp)
        self.oracle.update_space(hp)

    def _override_compile_args(self, model: keras.Model) -> None:
        """`optimizer`, `loss` and `metrics` of the tuner rule over the hypermodel's."""
        given = {"optimizer": self.optimizer, "loss": self.loss, "metrics": self.metrics}
        given = {name: value for name, value in given.items() if value}
        if given and self.hypermodel.configure is None:
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
        return {**super().get_state(), "target_ratio": self.target_ratio, **self._measuring()}

    def _measuring(self) -> dict[str, Any]:
        """What must stay the same for rewards to compare."""
        return {
            "mode": self.spec.mode,
            "latency_exponent": self.latency_exponent,
            "threads": self.threads,
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
        for name, value in self._measuring().items():
            if state.get(name, value) != value:
                raise ValueError(
                    f"{name} of the search in {self.project_dir!r} is {state[name]!r}, "
                    f"got {value!r}: rewards would not compare"
                )
        self.target_ratio = kept

    def save(self) -> None:
        """Writes tuner and oracle, whole or not at all."""
        if not self._is_worker():
            self.oracle.save()
        write_atomically(os.fspath(self._get_tuner_fname()), json.dumps(self.get_state()))


def as_hypermodel(hypermodel: Any) -> SpaceHyperModel:
    """Returns a search space as the hypermodel that tuners run."""
    if isinstance(hypermodel, SpaceHyperModel):
        return hypermodel
    if isinstance(hypermodel, SearchSpace):
        return SpaceHyperModel(hypermodel)
    raise ValueError(
        f"hypermodel must be a search space such as tfnas.MobileNetV2Space, or its "
        f"hypermodel(), got {type(hypermodel).__name__}"
    )


def _check_target(milliseconds: float | None, ratio: float | None) -> None:
    if milliseconds is not None and ratio is not None:
        raise ValueError(
            f"target_latency_ms and target_latency_ratio must not both be given, "
            f"got {milliseconds!r} and {ratio!r}"
        )
    for name, value in (("target_latency_ms", milliseconds), ("target_latency_ratio", ratio)):
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be above 0, got {value!r}")
