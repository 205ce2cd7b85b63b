"""Which task a job has: the user's own, that of image classifiers, or one by loss and metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tfnas.jobs.inputs import check_task
from tfnas.tasks.compiled_task import CompiledTask
from tfnas.tasks.image_classes import ImageClasses
from tfnas.tasks.task import Task

if TYPE_CHECKING:
    import keras

    from tfnas.data.examples import Data
    from tfnas.tasks.compiled_task import Fit
    from tfnas.tasks.metrics import MetricLike


def task_of(
    model: keras.Model,
    data: Data,
    task: Task | None,
    *,
    loss: Any = None,
    metric: MetricLike | Mapping[str, MetricLike] | None = None,
    fit: Fit | None = None,
) -> Task:
    """Returns the task of a job.

    Args:
        model: The model.
        data: Its data.
        task: The argument `task`: it goes alone. None: images with one label each are classified
            where nothing else is given; else the task follows from the other arguments and from
            what the model was compiled with.
        loss: The argument `loss`.
        metric: The argument `metric`.
        fit: The argument `fit`.

    Raises:
        ValueError: `task` comes with another argument, or the model was not compiled and no loss
            is given.
    """
    check_task(task)
    given = [name for name, value in (("loss", loss), ("metric", metric), ("fit", fit)) if value]
    if task is not None:
        if given:
            raise ValueError(f"{given[0]} must be left out where task is given, got both")
        return task
    if not given and hasattr(data, "class_names"):
        return ImageClasses()
    return CompiledTask.of(model, loss, metric, fit)
