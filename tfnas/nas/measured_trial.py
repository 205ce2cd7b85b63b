"""The record of a trial that was trained, converted and measured."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping

from tfnas.measure.measurement import Latency, Measurement
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
        """Returns (accuracy, latency ratio, bytes), whose directions are :data:`DIRECTIONS`."""
        score, latency = self.measurement.score, self.measurement.latency
        if score is None or latency is None:
            raise ValueError(f"trial {self.trial_id} must have a score and a latency")
        return score.value, latency.ratio, self.measurement.size_bytes


DIRECTIONS = ("max", "min", "min")


def latency_metrics(latency: Latency) -> dict[str, float]:
    """Returns the metrics of a latency: "latency_ratio" and "latency_ms"."""
    return {"latency_ratio": latency.ratio, "latency_ms": latency.median_ms}
