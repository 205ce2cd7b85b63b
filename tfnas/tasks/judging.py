"""Judges a model or a file by the metrics of a task, a batch of examples at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from tfnas.data.examples import ExampleSet, Nested, leaves
from tfnas.tasks.assessment import Assessment, Metric, NotFinite, checked_values, rows_of, shapes


class JudgingTask(Protocol):
    """The part of a :class:`tfnas.Task` that judges predictions."""

    metric: Metric
    more_metrics: Mapping[str, Metric]

    def example_values(self, y: Nested, predictions: Nested) -> np.ndarray:
        """Returns the metric's value for each example."""

    def postprocess(self, outputs: Nested) -> Nested:
        """Turns a model's outputs into predictions."""


def judged(
    task: JudgingTask,
    predict: Callable[[Nested], Nested],
    examples: ExampleSet,
    metrics: Mapping[str, Metric],
) -> dict[str, Assessment]:
    """Returns the quality of a model or a file by several metrics, in one pass.

    Args:
        task: The task.
        predict: Returns the outputs for inputs.
        examples: The examples.
        metrics: The task's metric by the name "", some of its `more_metrics` by theirs.

    Raises:
        ValueError: A metric does not return one value for each example.
        NotFinite: An output is not finite.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in metrics}
    for batch in examples.batches():
        outputs = predict(batch.x)
        for name, found in parts.items():
            found.append(judged_values(task, batch.y, outputs, name))
    return {name: Assessment(metrics[name], rows_of(found)) for name, found in parts.items()}


def judged_values(task: JudgingTask, y: Nested, outputs: Nested, name: str = "") -> np.ndarray:
    """Returns the values, or rows, of one of a task's metrics.

    Args:
        task: The task.
        y: Targets, examples first.
        outputs: A model's outputs.
        name: Name of one of `more_metrics`; empty: the task's metric.

    Raises:
        ValueError: There is not one value for each example.
        NotFinite: An output is NaN, or a value is not finite.
    """
    arrays = [np.asarray(leaf) for leaf in leaves(outputs)]
    if any(np.isnan(array).any() for array in arrays if array.dtype.kind == "f"):
        raise NotFinite(f"outputs must be numbers, got NaN in outputs of {shapes(outputs)}")
    if not name:
        values = task.example_values(y, task.postprocess(outputs))
        source = f"{type(task).__name__}.example_values"
        return checked_values(np.asarray(values), task.metric, y, outputs, source)
    metric, source = task.more_metrics[name], f"values of metric {name!r}"
    if metric.values is None:
        raise ValueError(f"more_metrics must have values, got None for {name!r}")
    values = metric.values(y, task.postprocess(outputs))
    return checked_values(np.asarray(values), metric, y, outputs, source)
