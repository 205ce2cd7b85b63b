"""The results of a tuner: its measured trials, their Pareto front, their models."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import keras_tuner as kt
import tensorflow as tf

from tfnas.drawing.pareto_figure import pareto_figure
from tfnas.loading import load_model
from tfnas.nas.keras_tuner_private import HookedTuner
from tfnas.nas.keras_warnings import without_optimizer_warnings
from tfnas.nas.latency_prediction import LatencyPredictor, PredictionErrors
from tfnas.nas.measured_trial import (
    COMPRESSED_MODEL,
    MeasuredTrial,
    front_of_trials,
    measured_trial,
)
from tfnas.nas.trial_plot import plot_of_trials
from tfnas.runtime.files import write_atomically


class TrialResults(HookedTuner):
    """The part of a tuner that reads the results of its trials."""

    latency_predictor: LatencyPredictor | None

    def folder(self, trial_id: str | None = None) -> pathlib.Path:
        """Returns the folder of a trial; None: of the search."""
        return pathlib.Path(self.project_dir if trial_id is None else self.get_trial_dir(trial_id))

    def candidates(self) -> list[MeasuredTrial]:
        """Returns the trials that ended well, in the order of their ends."""
        return [self.candidate(trial) for trial in self.oracle.completed()]

    def candidate(self, trial: kt.engine.trial.Trial) -> MeasuredTrial:
        """Returns a completed trial with its measurement."""
        return measured_trial(trial, self.oracle.architecture(trial), self.folder(trial.trial_id))

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
        return front_of_trials(candidates, self.oracle.objectives)

    def plot(self, over: Sequence[str] = ("latency",)) -> Any:
        """Draws the trials and their Pareto front: accuracy over time, or over size.

        A notebook shows the figure. In a script, save it.

        Example:
            >>> tuner.plot(over=["bytes"])  # doctest: +SKIP

        Args:
            over: "latency", "bytes" or both: a panel for each.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ValueError: `over` holds something else, or nothing; or a trial has no file that was
                measured.
            ImportError: matplotlib is not installed.
        """
        objectives = self.oracle.objectives.names
        return pareto_figure(
            plot_of_trials(self.candidates(), self.pareto_front(), over, objectives=objectives)
        )

    def prediction_errors(self) -> PredictionErrors | None:
        """Returns the errors of the predicted latencies; None: no latencies were predicted."""
        if self.latency_predictor is None or self.latency_predictor.model is None:
            return None
        measured = [(c.architecture, c.measurement.latency) for c in self.candidates()]
        return self.latency_predictor.errors(
            [(arch, latency.ratio) for arch, latency in measured if latency]
        )

    def load_model(self, trial: kt.engine.trial.Trial) -> keras.Model:
        """Returns the model of a trial with its best weights and an optimizer without state.

        For a trial with a compression it is the compressed model behind the file, not compiled.
        """
        path = self.folder(trial.trial_id) / COMPRESSED_MODEL
        return load_model(path) if path.exists() else self.network(trial)

    def network(self, trial: kt.engine.trial.Trial) -> keras.Model:
        """The network of a trial before its compression.

        Raises:
            ValueError: The trial has no weights, or the model's first batch built it and Keras
                can't describe its shapes.
        """
        if not pathlib.Path(self.checkpoint_path(trial.trial_id)).exists():
            raise ValueError(
                f"model of trial {trial.trial_id} must have weights, got a trial that is "
                f"{trial.status.lower()} without them"
            )
        with without_optimizer_warnings():
            try:
                return super().load_model(trial)
            except (FileNotFoundError, tf.errors.NotFoundError) as error:
                raise _no_shapes(trial.trial_id) from error

    def save_build_config(self, trial: kt.engine.trial.Trial, model: keras.Model) -> None:
        """Keeps the shapes that a model was built with by its first batch.

        Args:
            trial: The trial.
            model: Its trained model.
        """
        config = model.get_build_config()
        if config is not None:
            write_atomically(self.build_config_path(trial.trial_id), json.dumps(config))


def _no_shapes(trial_id: str) -> ValueError:
    return ValueError(
        f"model of trial {trial_id} must have a keras.Input or a method get_build_config, got "
        "one that its first batch built with shapes that Keras did not keep"
    )
