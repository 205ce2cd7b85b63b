"""The record of a trial that was trained, converted and measured."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import keras_tuner as kt

from tfnas.measure.measurement import Latency, Measurement, pareto_front
from tfnas.nas.objectives import Objectives, metric_text, target_standing
from tfnas.runtime.store import damage_named, read_json_object
from tfnas.search_space.architecture import Architecture
from tfnas.tflite.artifact import Artifact


@dataclasses.dataclass(frozen=True)
class MeasuredTrial:
    """A trial that ended well, with the measurement of its file.

    Args:
        trial_id: keras_tuner's id of the trial.
        architecture: Its architecture.
        measurement: What was measured on its file; the score is on the validation data.
        objective: Value of the (first) objective.
        path: Path of the `.tflite` file.
        metrics: All metrics of the trial, by name.
    """

    trial_id: str
    architecture: Architecture
    measurement: Measurement
    objective: float
    path: pathlib.Path
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict, repr=False)

    def artifact(self) -> Artifact:
        """Loads the `.tflite` file."""
        return Artifact.load(self.path)

    def objectives(self) -> tuple[float, float, int]:
        """Returns (accuracy, latency ratio, bytes), whose directions are :attr:`directions`.

        The accuracy is the score of the file: of a model without classes another metric.
        """
        score, latency = self.measurement.score, self.measurement.latency
        if score is None or latency is None:
            raise ValueError(f"trial {self.trial_id} must have a score and a latency")
        return score.value, latency.ratio, self.measurement.size_bytes

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher score is better."""
        return not LOWER_IS_BETTER.items() <= self.measurement.provenance.items()

    @property
    def directions(self) -> tuple[str, str, str]:
        """The directions of :meth:`objectives`."""
        return ("max" if self.higher_is_better else "min", "min", "min")


LOWER_IS_BETTER = {"higher_is_better": False}  # in the provenance of an error's measurement
MODEL_FILE = "model.tflite"
MEASUREMENT = "measurement.json"
COMPRESSED_MODEL = "model.keras"  # names of files in the folder of a trial


def last_measured(
    candidates: Iterable[MeasuredTrial], front: Iterable[MeasuredTrial]
) -> list[MeasuredTrial]:
    """Returns trials in their order, those of a front as they were measured again.

    Args:
        candidates: All trials that ended well.
        front: Those on the Pareto front, with their last measurements.
    """
    again = {trial.trial_id: trial for trial in front}
    return [again.get(trial.trial_id, trial) for trial in candidates]


def measured_trial(
    trial: kt.engine.trial.Trial, architecture: Any, folder: pathlib.Path
) -> MeasuredTrial:
    """Returns a trial that ended well, with the measurement in its folder.

    Args:
        trial: The trial.
        architecture: Its architecture.
        folder: Its folder.

    Raises:
        ValueError: The file of the measurement was damaged.
    """
    path = folder / MEASUREMENT
    with damage_named(path, "measurement"):
        measurement = Measurement.from_dict(read_json_object(path, "measurement"))
    return MeasuredTrial(
        trial.trial_id,
        architecture,
        measurement,
        trial.score,
        folder / MODEL_FILE,
        {name: trial.metrics.get_best_value(name) for name in trial.metrics.metrics},
    )


def front_of_trials(trials: Iterable[MeasuredTrial], objectives: Objectives) -> list[MeasuredTrial]:
    """Returns the trials that no other one dominates.

    With several objectives the front is that of the objectives, sorted by the first one. With one
    objective it is that of accuracy, latency and size, sorted by latency.

    Args:
        trials: Trials that ended well.
        objectives: The objectives of the search.
    """
    members = list(trials)
    if len(objectives.names) > 1:
        rows: list[tuple[float, ...]] = [objectives.losses(trial.metrics) for trial in members]
        directions: tuple[str, ...] = ("min",) * len(objectives.names)
        sort_by = 0
    else:
        rows = [trial.objectives() for trial in members]
        directions, sort_by = members[0].directions if members else (), 1
    front = sorted(pareto_front(rows, directions), key=lambda i: rows[i][sort_by])
    return [members[i] for i in front]


def trial_text(
    trial: MeasuredTrial, objectives: Objectives, target_ratio: float | None = None
) -> str:
    """Returns a trial in one line: its objectives, costs, limits and the target latency.

    Args:
        trial: A trial that ended well.
        objectives: The objectives and limits of the search.
        target_ratio: The target latency as a ratio to the reference model's; None: no target.
    """
    accuracy, ratio, size = trial.objectives()
    epochs = trial.metrics.get("epochs")  # reported with halving only
    after = "" if epochs is None else f" after {epochs:.0f} epochs"
    of_files = {
        "file_accuracy": f"accuracy {accuracy:.4f}{after}",
        "latency_ratio": f"latency {ratio:.3f}x",
        "size_bytes": f"{size / 1024:.1f} KiB",
    }
    shown = [
        f"{name} {metric_text(trial.metrics[name])}"
        for name in objectives.names
        if name not in of_files
    ]
    line = ", ".join([*shown, *of_files.values()]) + _compressed(trial)
    judged = [*target_standing(ratio, target_ratio), *objectives.standing(trial.metrics)]
    return "; ".join([line, *judged])


def _compressed(trial: MeasuredTrial) -> str:
    """The compression of a trial, and its gzipped size."""
    compression = trial.architecture.compression
    if compression is None:
        return ""
    return f", {(trial.measurement.gzip_bytes or 0) / 1024:.1f} KiB gzipped ({compression})"


def latency_metrics(latency: Latency) -> dict[str, float]:
    """Returns the metrics of a latency: "latency_ratio" and "latency_ms"."""
    return {"latency_ratio": latency.ratio, "latency_ms": latency.median_ms}
